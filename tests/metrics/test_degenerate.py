"""Degenerate inputs: every statistic, stored or derived, worked out by hand, and every figure finished from them."""

import itertools
from math import log, nan

import numpy as np
import pytest
import torch

from uqseg.metrics import Scores, figures, score, statistics
from uqseg.metrics.distances import CURVE
from uqseg.metrics.registry import derivations
from uqseg.metrics.threshold import CELLS, MEASURES, THRESHOLDS

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
COUNTED = {
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
COUNTED_BY_MAJORITY_OF_TORN = {  # the majority is everything
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
    "ged_presence": (0, 0, 0, 0, 0, 2, 2, 0),
    "ged_place": (0, 0, 0, 0, 2, 0, 0, 0),
    "ged_mixed": (0, 0, 0, 0, 0, 0, 0, 0),
    "ged_drawn": (nan, 0, 0, 0, 2, nan, nan, 0),
    "ged_cross": (0, 0, 0, 0, 2, 2, 2, 1),
    "ged_samples": (0, 0, 0, 0, 0, 0, 0, 0.5),
    "ged_readers": (0, 0, 0, 0, 0, 0, 0, 0.5),
    "hm_iou": (1, 1, 1, 1, 0, 0, 0, 1),
    "coverage": (1, 1, 1, 1, 0, 0, 0, 1),
    "validity": (1, 1, 1, 1, 0, 0, 0, 1),
    "dice_max": (1, 1, 1, 1, 0, 0, 0, 1),
    "soft_dice": (1, 1, 1, 1, 0, 0, 0, 1),
    "diversity": (0, 0, 0, 0, 0, 0, 0, 0.5),
    "dice_match": (1, 1, 1, 1, 0, 0, 0, 1),
    "area_error": (0, 0, 0, 0, 0, 1, 1, 0),
    "area_spread": (0, 0, 0, 0, 0, 0, 0, 0),
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


SINGLE = ("ged_drawn", "ged_presence_debiased", "ged_limit", "ged_limit_misfit", "ged_limit_spread", "ged_debiased",
          "ged_unbiased", "diversity_unbiased", "area_crps", "area_crps_mm2")  # fmt: skip
"""Undefined for a single independent draw."""


def by_hand(case: str, S: int, R: int, absent: bool) -> dict[str, np.ndarray]:
    """Every statistic of a case with S samples and R readers, reader 0 absent or not."""
    at, torn, n = list(CASES).index(case), case == "torn", R - absent
    values: dict[str, object] = {name: row[at] for name, row in PLAIN.items()}

    def counted(name: str, reference: str) -> list[float]:
        value = COUNTED_BY_MAJORITY_OF_TORN[name] if torn and reference == "majority" else COUNTED[name][at]
        return [value[t > 0.5] if isinstance(value, tuple) else value for t in THRESHOLDS]

    cells = {r: np.array([counted(c, r) for c in CELLS]).T for r in ("each", "majority")}
    cells["first"] = cells["each"] * (nan if absent else 1)
    for reference, (tp, fp, fn, tn) in ((r, x.T) for r, x in cells.items()):
        suffix = "" if reference == "each" else f"_{reference}"
        values[f"cells{suffix}"] = np.stack([tp, fp, fn, tn], 1)
        for name in MEASURES:
            value = np.array(counted(f"{name}_image", reference))
            values[f"{name}_image{suffix}"] = value * (nan if absent and reference == "first" else 1)
    readers = [cells["first"], *[cells["each"]] * (R - 1), cells["majority"]]
    values["overlaps"] = np.stack([x[:, 0] for x in readers], 1)
    values["areas_predicted"] = cells["each"][:, 0] + cells["each"][:, 1]
    values["areas_readers"] = [x[0, 0] + x[0, 2] for x in readers]
    for name, bins in (("reliability", 15), ("reliability_fine", 60)):
        values[name] = np.zeros((3, bins))
        for k, part in enumerate("npy"):
            values[name][k, [0, bins // 2, bins - 1]] = BINS[part][at]
    values["reliability_first_active"] = [0, 0, 0]
    between = 0.5 * S / (S - 1) if torn else 0  # mean distance of two different samples
    cross, theirs = values["ged_cross"], values["ged_readers"]
    values["reader_diversity"] = nan if n == 1 else theirs * n / (n - 1)
    values["diversity_unbiased"] = between
    values["diversities"] = [nan, nan] if S == 1 or n == 1 else [between, values["reader_diversity"]]
    values["ged_limit"] = values["ged_debiased"] = cross - between - theirs
    values["ged_limit_misfit"], values["ged_limit_spread"] = cross - 2 * between, between - theirs
    values["ged_unbiased"] = cross - between - values["reader_diversity"]
    left = [0 if k == 1 else nan if S == 1 else between * (1 - 1 / k) for k in CURVE]
    values["ged_by_draws"] = cross - np.array(left) - theirs
    values["ged_presence_debiased"] = values["ged_presence"]
    values["ged_presence_excess"] = nan if n == 1 or S == 1 else values["ged_presence"]
    values["dice_match"] = nan if n > S else values["dice_match"]
    values["samples_drawing"] = S * values["presence"]
    values["member_hits"] = S * values["hit_share"]
    values |= {"weights_squared": 1 / S, "readers_present": n, "pixels": 64, "pixel_mm2": 0.25}
    values |= dict.fromkeys(SINGLE, nan) if S == 1 else {}
    return {name: np.array(value, float) for name, value in values.items()}


def scores_of(case: str, S: int, R: int, absent: bool) -> Scores:
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
def test_every_statistic_of_degenerate_inputs_has_the_value_worked_out_by_hand(
    case: str, S: int, R: int, absent: bool
) -> None:
    scores, hand = scores_of(case, S, R, absent), by_hand(case, S, R, absent)
    assert {*statistics(), *derivations()} == set(hand), "a statistic without a row in these tables"
    for name, value in hand.items():
        tolerance = 1e-4 if name.startswith("nll") else 1e-9
        assert scores.column(name)[0] == pytest.approx(value, abs=tolerance, rel=1e-6, nan_ok=True), name


def test_figures_of_degenerate_images_stay_in_their_ranges() -> None:
    every = [scores_of(*layout) for layout in LAYOUTS]
    together = [Scores.concatenate([x for x in every if len(x.values["overlaps"][0, 0]) == R + 1 and x.samples == S])
                for S in (1, 4, 16) for R in (1, 4)]  # fmt: skip
    for scores, f in itertools.product([*together, *every[::7]], figures()):
        value, (low, high) = f.value(scores), f.range
        assert np.isnan(value) or low - 1e-9 <= value <= high + 1e-9, f.name
