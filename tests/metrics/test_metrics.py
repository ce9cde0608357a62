"""Metrics against independent references, bounds, invariances, and degenerate inputs worked out by hand."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score, jaccard_score, log_loss
from torchmetrics.functional.classification import binary_calibration_error

from uqseg.errors import UsageError
from uqseg.metrics import Figure, ambiguity, figures, names, score
from uqseg.metrics.calibration import reliability
from uqseg.metrics.threshold import THRESHOLDS, confusion
from uqseg.seeds import generator

SIDE = 8


def summed(table: pd.DataFrame, figure: Figure) -> float:
    return figure.of(table)


def random_batch(
    B: int = 5, S: int = 6, R: int = 4, side: int = SIDE, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    noise = generator("batch", seed)
    return torch.rand(B, S, side, side, generator=noise), torch.rand(B, R, side, side, generator=noise) > 0.6


def d(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return 0.0 if union == 0 else 1 - (a & b).sum() / union


def dice(a: np.ndarray, b: np.ndarray) -> float:
    total = a.sum() + b.sum()
    return 1.0 if total == 0 else 2 * (a & b).sum() / total


def slow_ged(h: np.ndarray, y: np.ndarray, w: np.ndarray, v: np.ndarray) -> float:
    cross = sum(
        ws * vr * d(a, b) for (ws, a), (vr, b) in itertools.product(zip(w, h, strict=True), zip(v, y, strict=True))
    )
    own = sum(wa * wb * d(a, b) for (wa, a), (wb, b) in itertools.product(zip(w, h, strict=True), repeat=2))
    theirs = sum(va * vb * d(a, b) for (va, a), (vb, b) in itertools.product(zip(v, y, strict=True), repeat=2))
    return 2 * cross - own - theirs


def test_pair_figures_equal_loops_over_pairs_with_weights_and_absent_readers() -> None:
    samples, masks = random_batch()
    weights = torch.rand(5, 6, generator=generator("w"))
    weights /= weights.sum(1, keepdim=True)
    read = torch.ones(5, 4, dtype=torch.bool)
    read[1, 2] = read[3, 0] = False
    table = score(samples, masks, read, weights, ["ambiguity"])
    for b in range(5):
        h, y = samples[b].numpy() >= 0.5, masks[b].numpy()
        w, v = weights[b].double().numpy(), read[b].numpy() / read[b].sum().item()
        assert table.ged[b] == pytest.approx(slow_ged(h, y, w, v), abs=1e-6)
        present = y[read[b].numpy()]
        assert table.coverage[b] == pytest.approx(np.mean([max(dice(a, r) for a in h) for r in present]), abs=1e-6)
        validity = sum(ws * max(dice(a, r) for r in present) for ws, a in zip(w, h, strict=True))
        assert table.validity[b] == pytest.approx(validity, abs=1e-6)


@pytest.mark.parametrize(("S", "R"), [(4, 4), (8, 4), (6, 4), (1, 4), (3, 2)])
def test_hm_iou_equals_the_assignment_of_repeated_sets(S: int, R: int) -> None:
    samples, masks = random_batch(3, S, R)
    found = ambiguity.hm_iou(samples >= 0.5, masks).numpy()
    for b in range(3):
        h, y = np.tile(samples[b].numpy() >= 0.5, (R, 1, 1)), np.tile(masks[b].numpy(), (S, 1, 1))
        iou = np.array([[1 - d(a, r) for r in y] for a in h])
        assert found[b] == pytest.approx(iou[linear_sum_assignment(-iou)].mean())


def test_hm_iou_with_weights_equals_repetition() -> None:
    """Weights 1/4, 3/4 stand for one sample and three copies of another."""
    samples, masks = random_batch(2, 2, 4)
    hypotheses = samples >= 0.5
    weighted = ambiguity.hm_iou(hypotheses, masks, sample_weights=torch.tensor([[0.25, 0.75]]).expand(2, 2))
    repeated = ambiguity.hm_iou(hypotheses[:, [0, 1, 1, 1]], masks)
    assert torch.allclose(weighted, repeated, atol=1e-9)


def test_threshold_figures_equal_scikit_learn() -> None:
    samples, masks = random_batch()
    p = samples.mean(1)
    counts = confusion(p, masks, THRESHOLDS)
    assert counts.shape == (5, 4, 5, 4)
    assert counts.dtype == torch.int64
    for b, r, k in itertools.product(range(5), range(4), range(5)):
        predicted = (p[b] >= THRESHOLDS[k]).flatten().numpy()
        (tn, fp), (fn, tp) = confusion_matrix(masks[b, r].flatten().numpy(), predicted, labels=[False, True])
        assert counts[b, r, k].tolist() == [tp, fp, fn, tn]
    table = score(samples, masks, groups=["threshold"])
    by_name = {f.name: f for f in figures("threshold")}
    truth = masks.flatten().numpy()
    predicted = (samples.double().mean(1) >= 0.5)[:, None].expand(-1, 4, -1, -1).flatten().numpy()
    assert summed(table, by_name["dice@0.5"]) == pytest.approx(f1_score(truth, predicted))
    assert summed(table, by_name["iou@0.5"]) == pytest.approx(jaccard_score(truth, predicted))
    at = [summed(table, by_name[f"dice@{t}"]) for t in THRESHOLDS]
    assert summed(table, by_name["dice_mean"]) == pytest.approx(np.mean(at))


def test_sensitivity_falls_and_specificity_rises_with_the_threshold() -> None:
    table = score(*random_batch(), groups=["threshold"])
    by_name = {f.name: f for f in figures("threshold")}
    for reference in ("", "_first", "_majority"):
        sensitivity, specificity = (
            [summed(table, by_name[f"{name}{reference}@{t}"]) for t in THRESHOLDS]
            for name in ("sensitivity", "specificity")
        )
        assert sensitivity == sorted(sensitivity, reverse=True)
        assert specificity == sorted(specificity)


def test_calibration_equals_independent_references() -> None:
    samples, masks = random_batch()
    table = score(samples, masks, groups=["calibration"])
    by_name = {f.name: f for f in figures("calibration")}
    p = samples.double().mean(1)[:, None].expand(-1, 4, -1, -1).flatten()
    y = masks.flatten()
    assert summed(table, by_name["brier"]) == pytest.approx(brier_score_loss(y.numpy(), p.numpy()))
    assert summed(table, by_name["nll"]) == pytest.approx(log_loss(y.numpy(), p.numpy()))
    ece, mce = (binary_calibration_error(p, y.long(), n_bins=15, norm=norm).item() for norm in ("l1", "max"))
    assert summed(table, by_name["ece"]) == pytest.approx(ece, abs=1e-6)
    assert summed(table, by_name["mce"]) == pytest.approx(mce, abs=1e-6)
    variance = (masks.double().mean(1) * (1 - masks.double().mean(1))).mean().item()
    excess = summed(table, by_name["brier_excess"])
    assert summed(table, by_name["brier"]) - excess == pytest.approx(variance)


def test_reliability_bins_hold_their_edges() -> None:
    prob = torch.tensor([[[0.0, 0.5, 1.0, 0.49]]], dtype=torch.float64)
    n, p, y = reliability(prob, torch.ones(1, 2, 1, 4, dtype=torch.bool), bins=2)
    assert n.tolist() == [[2, 2]]
    assert p[0].tolist() == pytest.approx([0.49, 1.5])
    assert y.tolist() == [[2, 2]]


def test_a_foreground_ece_blames_a_perfect_predictor() -> None:
    """Masks drawn from the predicted probabilities: calibrated on a region that the prediction chose, and badly
    miscalibrated, it seems, on the region that the readers marked."""
    noise = generator("perfect")
    p = torch.rand(40, 64, 64, generator=noise, dtype=torch.float64) ** 4
    masks = torch.rand(40, 4, 64, 64, generator=noise, dtype=torch.float64) < p[:, None]
    table = score(p[:, None], masks, groups=["calibration"])
    by_name = {f.name: f for f in figures("calibration")}
    assert summed(table, by_name["ece"]) < 0.005
    assert summed(table, by_name["ece_active"]) < 0.005
    everywhere = masks.movedim(1, 0)[:, masks.any(1)][None, :, None]
    n, sum_p, sum_y = reliability(p[masks.any(1)][None, None], everywhere)
    assert (sum_p - sum_y).abs().sum().item() / n.sum().item() > 10 * summed(table, by_name["ece_active"])


def test_ged_of_a_perfect_sampler_is_too_high_by_the_samples_own_distance_over_their_number() -> None:
    """Four disjoint modes: E d = 3/4, so 0.1875, 0.0469, 0.0075 at S = 4, 16, 100; the debiased figure is 0."""
    readers = torch.eye(16, dtype=torch.bool).reshape(16, 4, 4)[:4].expand(4000, 4, 4, 4)
    for S in (4, 16, 100):
        drawn = torch.randint(4, (4000, S), generator=generator("draw", S))
        samples = readers[0][drawn].float()
        table = score(samples, readers, groups=["ambiguity"])
        assert table.ged.mean() == pytest.approx(0.75 / S, rel=0.1, abs=1e-3)
        assert table.ged_debiased.mean() == pytest.approx(0, abs=5e-3)
        if f"ged@{S}" in table:
            assert np.allclose(table[f"ged@{S}"], table.ged)
        exact = score(readers.float(), readers, groups=["ambiguity"], exact=True)
        assert exact.ged_debiased.abs().max() < 1e-12
        assert exact["ged@1"].equals(exact.ged.rename("ged@1"))


SHAPES = ["empty", "full", "one", "disjoint"]


def shape(name: str) -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    if name == "full":
        mask[:] = True
    if name == "one":
        mask[0, 0] = True
    if name == "disjoint":
        mask[4:] = True
    return mask


@pytest.mark.parametrize(("said", "drawn"), list(itertools.product(SHAPES, SHAPES)))
@pytest.mark.parametrize("S", [1, 4, 16])
@pytest.mark.parametrize(("R", "absent"), [(1, False), (4, False), (4, True)])
def test_degenerate_inputs(said: str, drawn: str, S: int, R: int, absent: bool) -> None:
    """All samples say one shape and all readers drew one: every figure follows from that single pair."""
    samples = shape(said).float().expand(1, S, SIDE, SIDE)
    masks = shape(drawn).expand(1, R, SIDE, SIDE).clone()
    read = torch.ones(1, R, dtype=torch.bool)
    if absent:
        read[0, 1] = False
        masks[0, 1] = ~masks[0, 1]
    row = score(samples, masks, read).iloc[0]
    a, b = shape(said).numpy(), shape(drawn).numpy()
    assert row.ged == pytest.approx(2 * d(a, b))
    assert row.hm_iou == pytest.approx(1 - d(a, b))
    assert row.coverage == row.validity == row.soft_dice == pytest.approx(dice(a, b))
    assert row.diversity == row.ged_readers == 0
    assert np.isnan(row.diversity_ratio)
    assert np.isnan(row.ncc_variance)
    assert np.isnan(row.ged_debiased) == (S == 1)
    assert row.brier == row.brier_excess == pytest.approx((a != b).mean())
    assert row["dice_image@0.5"] == pytest.approx(dice(a, b))
    assert np.isnan(row["sensitivity_image@0.5"]) == (drawn == "empty")


def test_order_of_samples_and_readers_and_batches_change_nothing_and_inputs_stay() -> None:
    samples, masks = random_batch(7)
    before = samples.clone(), masks.clone()
    whole = score(samples, masks)
    parts = [score(samples[k : k + 1], masks[k : k + 1]) for k in range(7)]
    for k, part in enumerate(parts):
        assert np.allclose(part.iloc[0].astype(float), whole.iloc[k].astype(float), atol=1e-6, equal_nan=True)
    turned = score(samples.flip(1), masks.flip(1))
    orderly = [c for c in whole if "first" not in c and not c.startswith("ged@")]
    assert np.allclose(whole[orderly].astype(float), turned[orderly].astype(float), atol=1e-6, equal_nan=True)
    assert torch.equal(before[0], samples)
    assert torch.equal(before[1], masks)


def test_every_figure_is_described_and_stays_in_its_range() -> None:
    table = score(*random_batch(20))
    assert len(names()) == len(set(names()))
    for figure in figures():
        assert figure.formula
        assert figure.reference
        assert set(figure.columns) <= set(table.columns)
        value = summed(table, figure)
        low, high = figure.range
        assert np.isnan(value) or low - 1e-9 <= value <= high + 1e-9, figure.name


def test_figures_of_resampled_images_equal_figures_of_repeated_images() -> None:
    table = score(*random_batch(6))
    times = np.array([2, 0, 1, 1, 3, 1])
    repeated = table.iloc[np.repeat(np.arange(6), times)]
    for figure in figures():
        assert figure.of(table, times) == pytest.approx(figure.of(repeated), nan_ok=True), figure.name


def _nan(samples: torch.Tensor) -> torch.Tensor:
    samples[0, 0, 0, 0] = torch.nan
    return samples


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, m: (_nan(s), m, None, None), "samples: expected finite"),
        (lambda s, m: (s * 2, m, None, None), r"samples: expected finite probabilities in"),
        (lambda s, m: (s[0], m, None, None), r"samples: expected shape \(B,S,H,W\)"),
        (lambda s, m: (s, m[..., :4], None, None), "masks: expected shape"),
        (lambda s, m: (s, m.float(), None, None), "masks: expected bool"),
        (lambda s, m: (s, m, torch.zeros(5, 4, dtype=torch.bool), None), "at least one reader"),
        (lambda s, m: (s, m, torch.ones(5, 3, dtype=torch.bool), None), "read: expected"),
        (lambda s, m: (s, m, None, -torch.ones(5, 6)), "weights: expected"),
        (lambda s, m: (s, m, None, torch.ones(5, 2)), "weights: expected"),
        (lambda s, m: (s, m, None, torch.ones(5, 6) / 5), r"weights: expected rows that sum to 1, got 1.2 in image 0"),
    ],
)
def test_bad_input_is_named(change: Callable[..., tuple], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(*change(*random_batch()))
    with pytest.raises(UsageError, match="Did you mean 'ambiguity'"):
        score(*random_batch(), groups=["ambiguty"])


def test_columns_of_counts_add_up_to_all_pixels() -> None:
    table = score(*random_batch(), groups=["threshold"])
    for reference, t in itertools.product(("each", "first", "majority"), THRESHOLDS):
        total = sum(table[f"{c}_{reference}@{t}"] for c in ("tp", "fp", "fn", "tn"))
        assert np.allclose(total, SIDE * SIDE)
