"""Degenerate inputs: every column of every metric, worked out by hand, and every figure finished from them."""

import itertools
from math import log, nan

import numpy as np
import pandas as pd
import pytest
import torch

from uqseg.metrics import figures, score
from uqseg.metrics.ambiguity import CURVE
from uqseg.metrics.threshold import THRESHOLDS

SHAPES = {
    "empty": torch.zeros(8, 8, dtype=torch.bool),
    "full": torch.ones(8, 8, dtype=torch.bool),
    "one": torch.arange(64).view(8, 8) == 0,
    "top": torch.arange(64).view(8, 8) < 32,
    "bottom": torch.arange(64).view(8, 8) >= 32,
}
CASES = {
    # name: (what all samples say, what all readers drew); torn: samples and readers are top and bottom by turns
    "empty": ("empty", "empty"),
    "full": ("full", "full"),
    "one": ("one", "one"),
    "identical": ("top", "top"),
    "disjoint": ("top", "bottom"),
    "missed": ("empty", "one"),
    "invented": ("one", "empty"),
    "torn": (("top", "bottom"), ("top", "bottom")),
}
L, RIGHT, WRONG = log(2), -log(1 - 1e-6), -log(1e-6)
T, P = 63 / 64, 1 / 64
# One column a case, in their order. In torn p̄ = ȳ = 1/2 everywhere; pairs are the value at t ≤ 0.5 and above.
CELLS = {
    "tp": (0, 64, 1, 32, 0, 0, 0, (32, 0)),
    "fp": (0, 0, 0, 0, 32, 0, 1, (32, 0)),
    "fn": (0, 0, 0, 0, 32, 1, 0, (0, 32)),
    "tn": (64, 0, 63, 32, 0, 63, 63, (0, 32)),
    "accuracy_image": (1, 1, 1, 1, 0, T, T, (0.5, 0.5)),
    "sensitivity_image": (nan, 1, 1, 1, 0, 0, nan, (1, 0)),
    "specificity_image": (1, nan, 1, 1, 0, 1, T, (0, 1)),
    "precision_image": (nan, 1, 1, 1, 0, nan, 0, (0.5, nan)),
    "iou_image": (1, 1, 1, 1, 0, 0, 0, (0.5, 0)),
    "dice_image": (1, 1, 1, 1, 0, 0, 0, (2 / 3, 0)),
}
MAJORITY_TORN = {  # the majority is everything
    "tp": (64, 0),
    "fp": (0, 0),
    "fn": (0, 64),
    "tn": (0, 0),
    "accuracy_image": (1, 0),
    "sensitivity_image": (1, 0),
    "specificity_image": (nan, nan),
    "precision_image": (1, nan),
    "iou_image": (1, 0),
    "dice_image": (1, 0),
}
PLAIN = {
    "brier": (0, 0, 0, 0, 1, P, P, 0.25),
    "brier_excess": (0, 0, 0, 0, 1, P, P, 0),
    "nll": (RIGHT, RIGHT, RIGHT, RIGHT, WRONG, P * WRONG, P * WRONG, L),
    "nll_joint": (64 * RIGHT, 64 * RIGHT, 64 * RIGHT, 64 * RIGHT, 64 * WRONG, WRONG, WRONG, L),
    "presence": (0, 1, 1, 1, 1, 0, 1, 1),
    "presence_readers": (0, 1, 1, 1, 1, 1, 0, 1),
    "presence_brier": (0, 0, 0, 0, 0, 1, 1, 0),
    "area_crps": (0, 0, 0, 0, 0, 1, 1, 0),
    "area_crps_mm2": (0, 0, 0, 0, 0, 0.25, 0.25, 0),
    "ged": (0, 0, 0, 0, 2, 2, 2, 0),
    "ged_cross": (0, 0, 0, 0, 2, 2, 2, 1),
    "ged_samples": (0, 0, 0, 0, 0, 0, 0, 0.5),
    "ged_readers": (0, 0, 0, 0, 0, 0, 0, 0.5),
    "hm_iou": (1, 1, 1, 1, 0, 0, 0, 1),
    "coverage": (1, 1, 1, 1, 0, 0, 0, 1),
    "validity": (1, 1, 1, 1, 0, 0, 0, 1),
    "dice_max": (1, 1, 1, 1, 0, 0, 0, 1),
    "soft_dice": (1, 1, 1, 1, 0, 0, 0, 1),
    "diversity": (0, 0, 0, 0, 0, 0, 0, 0.5),
    "diversity_ratio": (nan, nan, nan, nan, nan, nan, nan, 1),
    "ncc_variance": (nan, nan, nan, nan, nan, nan, nan, nan),
    "ncc_std": (nan, nan, nan, nan, nan, nan, nan, nan),
    "ncc_samples": (nan, nan, nan, nan, nan, nan, nan, nan),
    "std_mean": (0, 0, 0, 0, 0, 0, 0, 0.5),
    "reader_std_mean": (0, 0, 0, 0, 0, 0, 0, 0.5),
    "hit_share": (nan, 1, 1, 1, 0, 0, nan, 1),
    "hit_three_quarters": (nan, 1, 1, 1, 0, 0, nan, 1),
    "entropy": (0, 0, 0, 0, 0, 0, 0, L),
    "expected_entropy": (0, 0, 0, 0, 0, 0, 0, 0),
    "mutual_information": (0, 0, 0, 0, 0, 0, 0, L),
    "risk": (0, 0, 0, 0, 1, 1, 1, 1 / 3),
    "uncertainty_mean": (0, 0, 0, 0, 0, 0, 0, L),
    "uncertainty_sum": (0, 0, 0, 0, 0, 0, 0, 64 * L),
    "uncertainty_patch": (0, 0, 0, 0, 0, 0, 0, L),
    "uncertainty_top": (0, 0, 0, 0, 0, 0, 0, L),
    "error_auprc": (nan, nan, nan, nan, 1, P, P, nan),
}
# Bins at p̄ = 0, 1/2 and 1: pixels, Σ p̄, Σ ȳ; all other bins are empty.
BINS = {
    "n": ((64, 0, 0), (0, 0, 64), (63, 0, 1), (32, 0, 32), (32, 0, 32), (64, 0, 0), (63, 0, 1), (0, 64, 0)),
    "p": ((0, 0, 0), (0, 0, 64), (0, 0, 1), (0, 0, 32), (0, 0, 32), (0, 0, 0), (0, 0, 1), (0, 32, 0)),
    "y": ((0, 0, 0), (0, 0, 64), (0, 0, 1), (0, 0, 32), (32, 0, 0), (1, 0, 0), (0, 0, 0), (0, 32, 0)),
}


def by_hand(case: str, S: int, present: int, first: bool) -> dict[str, float]:
    """Every column of a case with S samples and `present` readers, with or without reader 0."""
    at, torn = list(CASES).index(case), case == "torn"
    found: dict[str, float] = {name: row[at] for name, row in PLAIN.items()}
    for (name, row), reference, t in itertools.product(CELLS.items(), ("each", "first", "majority"), THRESHOLDS):
        value = MAJORITY_TORN[name] if torn and reference == "majority" else row[at]
        value = value[t > 0.5] if isinstance(value, tuple) else value
        end = "" if name.endswith("image") and reference == "each" else f"_{reference}"
        found[f"{name}{end}@{t}"] = value if first or reference != "first" else nan
    for (prefix, bins, middle), (part, row) in itertools.product(
        (("rel", 15, 7), ("act", 15, 7), ("fine", 60, 30)), BINS.items()
    ):
        found |= {f"{prefix}_{part}_{b:02d}": 0 for b in range(bins)}
        places = dict(zip((0, middle, bins - 1), row[at], strict=True))
        found |= {f"{prefix}_{part}_{b:02d}": v for b, v in places.items() if (prefix, b) != ("act", 0)}
    between = 0.5 * S / (S - 1) if torn else 0  # mean distance of two different samples
    found["ged_debiased"] = nan if S == 1 else found["ged_cross"] - between - found["ged_readers"]
    for k in CURVE:
        spread = 0 if k == 1 else nan if S == 1 else between * (1 - 1 / k)
        found[f"ged@{k}"] = found["ged_cross"] - spread - found["ged_readers"]
    found["reader_disagreement"] = nan if present == 1 else 2 / 3 if torn else 0
    found["member_hits"] = S * found["hit_share"]
    return found


def table_of(case: str, S: int, R: int, absent: bool) -> pd.DataFrame:
    said, drawn = ((s,) if isinstance(s, str) else s for s in CASES[case])
    samples = torch.stack([SHAPES[said[s % len(said)]] for s in range(S)])[None].float()
    masks = torch.stack([SHAPES[drawn[r % len(drawn)]] for r in range(R)])[None]
    read = torch.ones(1, R, dtype=torch.bool)
    if absent:
        read[0, 0], masks[0, 0] = False, ~masks[0, 0]
    return score(samples, masks, read, spacing=torch.full((1, 2), 0.5))


LAYOUTS = [
    (case, S, R, absent) for case in CASES for S in (1, 4, 16) for R, absent in ((1, False), (4, False), (4, True))
]


@pytest.mark.parametrize(
    ("case", "S", "R", "absent"),
    [x for x in LAYOUTS if x[0] != "torn" or x in (("torn", 4, 4, False), ("torn", 16, 4, False))],
)
def test_every_column_of_degenerate_inputs_has_the_value_worked_out_by_hand(
    case: str, S: int, R: int, absent: bool
) -> None:
    row = table_of(case, S, R, absent).iloc[0]
    hand = by_hand(case, S, R - absent, not absent)
    assert set(row.index) == set(hand), "a metric without a row in these tables"
    for name, value in hand.items():
        assert row[name] == pytest.approx(value, abs=1e-4 if name.startswith("nll") else 1e-9, rel=1e-6, nan_ok=True), (
            name
        )


def test_figures_of_degenerate_images_stay_in_their_ranges() -> None:
    table = pd.concat([table_of(*layout) for layout in LAYOUTS], ignore_index=True)
    for rows, figure in itertools.product([table, *(table.iloc[[k]] for k in range(0, len(table), 7))], figures()):
        value, (low, high) = figure.of(rows), figure.range
        assert np.isnan(value) or low - 1e-9 <= value <= high + 1e-9, figure.name
