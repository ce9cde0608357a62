"""Ten thousand images with random and degenerate samples and readers, against loops over pairs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from baselines.peers import plain
from uqseg.metrics import score
from uqseg.metrics.threshold import THRESHOLDS

pytestmark = pytest.mark.soak
IMAGES, AT_ONCE = 10_000, 20
Floats = NDArray[np.float64]


def drawn(rng: np.random.Generator, n: int, height: int, width: int) -> Floats:
    """n probability maps (n,H,W) of one image: smooth, in tenths, almost sure, empty, full, or the same again."""
    kind = rng.integers(6)
    maps = rng.random((n, height, width))
    if kind == 1:
        maps = maps.round(1)
    elif kind == 2:
        maps = (maps > 0.5) * 1.0
    elif kind == 3:
        maps = np.where(rng.random((n, 1, 1)) < 0.5, 0.0, maps)
    elif kind == 4:
        maps = np.full_like(maps, rng.choice([0.0, 0.5, 1.0]))
    elif kind == 5:
        maps = np.repeat(maps[:1], n, 0)
    return maps


def expected(maps: Floats, masks: NDArray[np.bool_], counts: NDArray[np.int64]) -> dict[str, float]:
    """By loops, each sample as often as its weight says: maps (S,H,W), masks (R,H,W) of those who read, counts (S,)."""
    several = np.repeat(maps.astype(np.float32).astype(float), counts, 0)
    hypotheses, mean = several >= 0.5, several.mean(0)
    at = {t: mean >= t for t in THRESHOLDS}
    apart = min(abs(mean - t).min() for t in THRESHOLDS)
    values = {
        "ged": plain.ged(hypotheses, masks),
        "hm_iou": plain.hm_iou(hypotheses, masks),
        "coverage": plain.coverage(hypotheses, masks),
        "presence": float(hypotheses.any((1, 2)).mean()),
        "brier": float(np.mean([np.square(mean - mask).mean() for mask in masks])),
    }
    if apart > 1e-6:  # where a mean lies on a threshold, rounding decides
        values |= {f"dice{t}": float(np.mean([plain.dice(cut, mask) for mask in masks])) for t, cut in at.items()}
    return values


def test_ten_thousand_images_equal_the_loops() -> None:
    rng = np.random.default_rng(16)
    compared = 0
    for _ in range(IMAGES // AT_ONCE):
        S, R, H, W = (int(rng.integers(1, most + 1)) for most in (6, 5, 9, 9))
        maps = np.stack([drawn(rng, S, H, W) for _ in range(AT_ONCE)])
        masks = np.stack([drawn(rng, R, H, W) for _ in range(AT_ONCE)]) >= 0.5
        read = rng.random((AT_ONCE, R)) < 0.8
        read[~read.any(1), 0] = True
        counts = rng.integers(0, 4, (AT_ONCE, S)) if rng.random() < 0.5 else np.ones((AT_ONCE, S), np.int64)
        counts[counts.sum(1) == 0, 0] = 1
        equal = bool((counts == 1).all())
        weights = None if equal else counts / counts.sum(1, keepdims=True)
        scores = score(maps, masks, read, weights=weights)
        columns = {
            name: scores.column(name) for name in ("ged", "hm_iou", "coverage", "presence", "brier", "dice_image")
        }
        columns |= {f"dice{t}": columns["dice_image"][:, k] for k, t in enumerate(THRESHOLDS)}
        for i in range(AT_ONCE):
            for name, value in expected(maps[i], masks[i][read[i]], counts[i]).items():
                tolerance = 1e-6 if name == "brier" else 1e-9
                assert columns[name][i] == pytest.approx(value, abs=tolerance), (name, maps[i], masks[i], counts[i])
                compared += 1
    assert compared > 8 * IMAGES
