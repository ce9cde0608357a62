"""Presence, area, likelihood, correlation, uncertainty and rank figures against their formulas written as loops."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from uqseg.metrics import figures, score
from uqseg.metrics.ranks import weighted_augrc
from uqseg.seeds import generator

B, S, R, SIDE = 5, 6, 3, 12


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float("nan") if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def by_formula(p: np.ndarray, w: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The columns of one image: samples p (S,H,W), weights w (S,), masks y (R,H,W) of the readers who read it."""
    h, fraction, mean = p >= 0.5, y.mean(0), np.einsum("s,shw->hw", w, p)
    area, drawn, clipped = h.sum((1, 2)), y.sum((1, 2)), np.clip(p, 1e-6, 1 - 1e-6)
    present = float(w @ (area > 0))
    own = sum(w[j] * w[k] * abs(area[j] - area[k]) for j in range(len(p)) for k in range(len(p)))
    likelihood = [sum(v * np.prod(np.where(r, q, 1 - q)) for v, q in zip(w, clipped, strict=True)) for r in y]

    def cross(q: np.ndarray) -> np.ndarray:
        return sum(v * -(q * np.log(c) + (1 - q) * np.log(1 - c)) for v, c in zip(w, clipped, strict=True))

    expected = float(w @ entropy(p).mean((1, 2)))
    majority = fraction >= 0.5
    return {
        "area_crps": np.mean([w @ abs(area - a) for a in drawn]) - own / 2,
        "nll_joint": -np.mean(np.log(likelihood)),
        "presence": present,
        "presence_brier": np.mean((present - (drawn > 0)) ** 2),
        "ncc_samples": np.mean([correlation(cross(mean), cross(r)) for r in y]),
        "ncc_variance": correlation(entropy(mean), fraction * (1 - fraction)),
        "entropy": entropy(mean).mean(),
        "expected_entropy": expected,
        "mutual_information": entropy(mean).mean() - expected,
        "uncertainty_patch": max(entropy(mean)[a : a + 10, b : b + 10].mean() for a in range(3) for b in range(3)),
        "hit_share": w @ (h & majority).any((1, 2)) if majority.any() else float("nan"),
    }


def test_columns_equal_their_formulas_with_weights_an_absent_and_an_empty_reader() -> None:
    noise = generator("references")
    samples = torch.rand(B, S, SIDE, SIDE, generator=noise) * 0.8
    samples[0, :2] = 0.1
    masks = torch.rand(B, R, SIDE, SIDE, generator=noise) > 0.5
    masks[0] = False
    masks[1, 0] = False
    read = torch.ones(B, R, dtype=torch.bool)
    read[2, 1] = False
    weights = torch.rand(B, S, generator=noise, dtype=torch.float64)
    weights /= weights.sum(1, keepdim=True)
    table = score(samples, masks, read, weights)
    for b in range(B):
        present = read[b].numpy()
        slow = by_formula(samples[b].double().numpy(), weights[b].numpy(), masks[b].numpy()[present])
        for name, value in slow.items():
            assert table[name][b] == pytest.approx(value, rel=1e-5, abs=1e-7, nan_ok=True), name


def test_image_level_rank_correlations_equal_scipy() -> None:
    noise = generator("ranks")
    table = score(torch.rand(40, 4, 8, 8, generator=noise), torch.rand(40, 4, 8, 8, generator=noise) > 0.7)
    by_name = {f.name: f for f in figures()}
    for name in ("spearman_std", "spearman_diversity"):
        x, y = by_name[name].columns
        assert by_name[name].of(table) == pytest.approx(spearmanr(table[x], table[y]).statistic)


def test_dispute_auroc_equals_scikit_learn_when_images_are_drawn_again() -> None:
    figure = next(f for f in figures() if f.name == "presence_auroc")
    noise = generator("dispute")
    samples = torch.rand(60, 4, 4, 4, generator=noise) * torch.rand(60, 4, 1, 1, generator=noise)
    masks = (torch.rand(60, 4, 4, 4, generator=noise) > 0.5) & (torch.rand(60, 4, 1, 1, generator=noise) > 0.3)
    table = score(samples, masks, groups=["calibration"])
    times = np.random.default_rng(0).integers(0, 3, 60)
    p = (samples >= 0.5).any(3).any(2).double().mean(1)
    seen = masks.any(3).any(2).double().mean(1)
    disputed = ((seen > 0) & (seen < 1)).numpy()
    assert figure.of(table, times) == pytest.approx(roc_auc_score(disputed, (p * (1 - p)).numpy(), sample_weight=times))


def test_augrc_equals_the_area_under_the_generalised_risk() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"risk": rng.random(50), "score": rng.random(50)}).sort_values("score")
    generalised = np.concatenate([[0], np.cumsum(table["risk"]) / 50])
    found = weighted_augrc(table["score"].to_numpy(), table["risk"].to_numpy(), np.ones((1, 50)))[0]
    assert found == pytest.approx(np.trapezoid(generalised, dx=1 / 50))
