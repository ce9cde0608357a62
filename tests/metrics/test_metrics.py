"""Metrics against independent references, bounds, invariances, and degenerate inputs worked out by hand."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score, jaccard_score, log_loss
from torchmetrics.functional.classification import binary_calibration_error

from uqseg.errors import UsageError
from uqseg.metrics import Scores, ambiguity, figure, figures, score, statistics, tables
from uqseg.metrics.calibration import reliability
from uqseg.metrics.distances import CURVE
from uqseg.metrics.threshold import THRESHOLDS, cells
from uqseg.seeds import generator

SIDE = 8


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
    scores = score(samples, masks, read, weights=weights)
    for b in range(5):
        h, y = samples[b].numpy() >= 0.5, masks[b].numpy()
        w, v = weights[b].double().numpy(), read[b].numpy() / read[b].sum().item()
        assert scores.column("ged")[b] == pytest.approx(slow_ged(h, y, w, v), abs=1e-6)
        present = y[read[b].numpy()]
        assert scores.column("coverage")[b] == pytest.approx(
            np.mean([max(dice(a, r) for a in h) for r in present]), abs=1e-6
        )
        validity = sum(ws * max(dice(a, r) for r in present) for ws, a in zip(w, h, strict=True))
        assert scores.column("validity")[b] == pytest.approx(validity, abs=1e-6)


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
    p, scores = samples.mean(1), score(samples, masks)
    counts = cells(scores.values, "each")
    assert counts.shape == (5, 5, 4, 4)
    for b, r, k in itertools.product(range(5), range(4), range(5)):
        predicted = (p[b] >= THRESHOLDS[k]).flatten().numpy()
        (tn, fp), (fn, tp) = confusion_matrix(masks[b, r].flatten().numpy(), predicted, labels=[False, True])
        assert counts[b, k, r].tolist() == [tp, fp, fn, tn]
    truth = masks.flatten().numpy()
    predicted = (samples.double().mean(1) >= 0.5)[:, None].expand(-1, 4, -1, -1).flatten().numpy()
    assert figure("dice@0.5").value(scores) == pytest.approx(f1_score(truth, predicted))
    assert figure("iou@0.5").value(scores) == pytest.approx(jaccard_score(truth, predicted))
    at = [figure(f"dice@{t}").value(scores) for t in THRESHOLDS]
    assert figure("dice_mean").value(scores) == pytest.approx(np.mean(at))


def test_sensitivity_falls_and_specificity_rises_with_the_threshold() -> None:
    scores = score(*random_batch())
    for reference in ("", "_first", "_majority"):
        sensitivity, specificity = (
            [figure(f"{name}{reference}@{t}").value(scores) for t in THRESHOLDS]
            for name in ("sensitivity", "specificity")
        )
        assert sensitivity == sorted(sensitivity, reverse=True)
        assert specificity == sorted(specificity)


def test_calibration_equals_independent_references() -> None:
    samples, masks = random_batch()
    scores = score(samples, masks)
    p = samples.double().mean(1)[:, None].expand(-1, 4, -1, -1).flatten()
    y = masks.flatten()
    assert figure("brier").value(scores) == pytest.approx(brier_score_loss(y.numpy(), p.numpy()))
    assert figure("nll").value(scores) == pytest.approx(log_loss(y.numpy(), p.numpy()))
    ece, mce = (binary_calibration_error(p, y.long(), n_bins=15, norm=norm).item() for norm in ("l1", "max"))
    assert figure("ece").value(scores) == pytest.approx(ece, abs=1e-6)
    assert figure("mce").value(scores) == pytest.approx(mce, abs=1e-6)
    variance = (masks.double().mean(1) * (1 - masks.double().mean(1))).mean().item()
    excess = figure("brier_excess").value(scores)
    assert figure("brier").value(scores) - excess == pytest.approx(variance)


def test_reliability_bins_hold_their_edges() -> None:
    prob = torch.tensor([[[0.0, 0.5, 1.0, 0.49]]], dtype=torch.float64)
    n, p, y = reliability(prob, torch.ones(1, 2, 1, 4, dtype=torch.bool), bins=2).unbind(1)
    assert n.tolist() == [[2, 2]]
    assert p[0].tolist() == pytest.approx([0.49, 1.5])
    assert y.tolist() == [[2, 2]]


def test_a_foreground_ece_blames_a_perfect_predictor() -> None:
    """Masks drawn from the predicted probabilities: calibrated on a region that the prediction chose, and badly
    miscalibrated, it seems, on the region that the readers marked."""
    noise = generator("perfect")
    p = torch.rand(40, 64, 64, generator=noise, dtype=torch.float64) ** 4
    masks = torch.rand(40, 4, 64, 64, generator=noise, dtype=torch.float64) < p[:, None]
    scores = score(p[:, None], masks)
    assert figure("ece").value(scores) < 0.005
    assert figure("ece_active").value(scores) < 0.005
    everywhere = masks.movedim(1, 0)[:, masks.any(1)][None, :, None]
    n, sum_p, sum_y = reliability(p[masks.any(1)][None, None], everywhere).unbind(1)
    assert (sum_p - sum_y).abs().sum().item() / n.sum().item() > 10 * figure("ece_active").value(scores)


def test_ged_of_a_perfect_sampler_is_too_high_by_the_samples_own_distance_over_their_number() -> None:
    """Four disjoint modes: E d = 3/4, so 0.1875, 0.0469, 0.0075 at S = 4, 16, 100; the debiased figure is 0."""
    readers = torch.eye(16, dtype=torch.bool).reshape(16, 4, 4)[:4].expand(4000, 4, 4, 4)
    for S in (4, 16, 100):
        drawn = torch.randint(4, (4000, S), generator=generator("draw", S))
        samples = readers[0][drawn].float()
        parts = ["ged_cross", "ged_samples", "ged_readers", "weights_squared"]
        scores = score(samples, readers, statistics=parts)
        assert figure("ged").value(scores) == pytest.approx(0.75 / S, rel=0.1, abs=1e-3)
        assert figure("ged_debiased").value(scores) == pytest.approx(0, abs=5e-3)
        if S in CURVE:
            assert np.allclose(scores.column("ged_by_draws")[:, CURVE.index(S)], scores.column("ged"))
        whole = score(readers.float(), readers, drawn="support", statistics=parts)
        assert np.abs(whole.column("ged_debiased")).max() < 1e-12
        assert np.array_equal(whole.column("ged_by_draws")[:, 0], whole.column("ged"))


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
    scores = score(samples, masks, read)
    row = {name: float(scores.column(name)[0]) for name in ROW}
    a, b = shape(said).numpy(), shape(drawn).numpy()
    assert row["ged"] == pytest.approx(2 * d(a, b))
    assert row["hm_iou"] == pytest.approx(1 - d(a, b))
    assert row["coverage"] == row["validity"] == row["soft_dice"] == pytest.approx(dice(a, b))
    assert row["dice_match"] == pytest.approx(dice(a, b) if R - absent <= S else np.nan, nan_ok=True)
    assert row["diversity"] == row["ged_readers"] == 0
    assert np.isnan(figure("diversity_ratio").value(scores))
    assert np.isnan(row["ncc_variance"])
    assert np.isnan(row["ged_debiased"]) == (S == 1)
    assert row["brier"] == row["brier_excess"] == pytest.approx((a != b).mean())
    assert figure("dice_image@0.5").value(scores) == pytest.approx(dice(a, b))
    assert np.isnan(figure("sensitivity_image@0.5").value(scores)) == (drawn == "empty")


ROW = ("ged", "hm_iou", "coverage", "validity", "soft_dice", "dice_match", "diversity", "ged_readers", "ncc_variance",
       "ged_debiased", "brier", "brier_excess")  # fmt: skip


def test_every_figure_is_described_and_stays_in_its_range() -> None:
    scores = score(*random_batch(20))
    for f in figures():
        assert f.title
        assert f.formula
        assert f.reference
        assert f.table in tables()
        assert f.statistics
        assert f.version == 1 + sum(statistics()[s].version - 1 for s in f.statistics)
        value, (low, high) = f.value(scores), f.range
        assert np.isnan(value) or low - 1e-9 <= value <= high + 1e-9, f.name


def test_figures_of_resampled_images_equal_figures_of_repeated_images() -> None:
    scores = score(*random_batch(6))
    times = np.array([2, 0, 1, 1, 3, 1])
    repeated = scores.take(np.repeat(np.arange(6), times))
    for f in figures():
        # The optimum takes repeated images one by one, an image that counts three times as one.
        if not f.name.startswith("eaurc"):
            assert f.value(scores, times) == pytest.approx(f.value(repeated), nan_ok=True), f.name


def _nan(samples: torch.Tensor) -> torch.Tensor:
    samples[0, 0, 0, 0] = torch.nan
    return samples


def given(**changed: object) -> dict[str, object]:
    samples, masks = random_batch()
    return {"samples": samples, "masks": masks} | changed


S5, M5 = random_batch()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (given(samples=_nan(S5.clone())), "samples: expected finite"),
        (given(samples=S5 * 2), r"samples: expected finite probabilities in"),
        (given(samples=S5[0]), r"samples: expected shape \(B,S,H,W\)"),
        (given(samples=(S5 > 0.5).long()), "samples: expected probabilities"),
        (given(masks=M5[..., :4]), "masks: expected shape"),
        (given(masks=M5.float()), "masks: expected bool"),
        (given(masks=M5.int()), "masks: expected bool"),
        (given(read=torch.zeros(5, 4, dtype=torch.bool)), "read: expected at least one reader"),
        (given(read=torch.ones(5, 3, dtype=torch.bool)), "read: expected"),
        (given(read=np.ones((5, 4))), "read: expected bool"),
        (given(weights=-torch.ones(5, 6)), "weights: expected"),
        (given(weights=torch.ones(5, 2)), "weights: expected"),
        (given(weights=torch.ones(5, 6) / 5), r"weights: expected rows that sum to 1, got 1.2 in image 0"),
        (given(weights=np.full((5, 6), 1e308)), "weights: expected rows of finite sum"),
        (given(spacing=np.full((5, 2), -1.0)), "spacing: expected mm above 0"),
        (given(cases=["a"]), "cases: expected one for each of 5 images, got 1"),
        (given(drawn="some"), "drawn: expected one of independent, support, stratified"),
        *(
            (given(**{name: array(kind)}), f"{name}: expected a tensor or a plain array")
            for name, array in {
                "samples": lambda kind: kind(S5.numpy()),
                "masks": lambda kind: kind(M5.numpy()),
                "weights": lambda kind: kind(np.full((5, 6), 1 / 6)),
                "spacing": lambda kind: kind(np.ones((5, 2))),
            }.items()
            for kind in (
                lambda x: x[::-1],
                lambda x: x.astype(">f4"),
                lambda x: x.astype(object),
                lambda x: x.astype(str),
                lambda x: "text",
            )
        ),
        (given(samples=None), "samples: expected a tensor or a plain array of real numbers, got NoneType"),
        (given(masks=None), "masks: expected a tensor or a plain array of real numbers, got NoneType"),
    ],
)
def test_bad_input_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score(**arguments)


def test_reader_weights_that_overflow_are_refused() -> None:
    with pytest.raises(ValueError, match="reader_weights: expected rows of finite sum, got values up to 1e\\+308"):
        ambiguity.ged(S5 > 0.5, M5, reader_weights=np.full((5, 4), 1e308))


def test_an_unknown_statistic_is_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'coverage'"):
        score(S5, M5, statistics=["coverag"])
    with pytest.raises(UsageError, match="Did you mean 'ged_limit'"):
        figure("ged_limits")
    with pytest.raises(UsageError, match="unknown table"):
        figures("ambiguty")


def test_columns_of_counts_add_up_to_all_pixels() -> None:
    scores = score(S5, M5)
    for name in ("cells", "cells_first", "cells_majority"):
        assert np.allclose(scores.column(name).sum(-1), SIDE * SIDE)


def test_no_statistic_depends_on_the_batch_to_the_last_bit() -> None:
    for side, weighted in ((16, False), (13, True)):
        samples, masks = random_batch(33, side=side)
        weights = torch.rand(33, 6, generator=generator("w")).double()
        w = weights / weights.sum(1, keepdim=True) if weighted else None
        together = score(samples, masks, weights=w).values
        each = [score(samples[[b]], masks[[b]], weights=None if w is None else w[[b]]).values for b in range(33)]
        for name, values in together.items():
            assert np.array_equal(values, np.concatenate([one[name] for one in each]), equal_nan=True), name


def test_soft_dice_does_not_depend_on_the_batch_to_the_last_bit() -> None:
    noise = generator("bits")
    samples, masks = torch.rand(33, 7, 13, 11, generator=noise), torch.rand(33, 3, 13, 11, generator=noise) > 0.6
    weights = torch.rand(33, 7, generator=noise, dtype=torch.float64)
    for w in (None, weights / weights.sum(1, keepdim=True)):
        whole = score(samples, masks, weights=w, statistics=["soft_dice"]).column("soft_dice")
        for step in (1, 2, 5, 32):
            parts = [slice(k, k + step) for k in range(0, 33, step)]
            each = [
                score(samples[p], masks[p], weights=None if w is None else w[p], statistics=["soft_dice"])
                for p in parts
            ]
            assert np.array_equal(whole, Scores.concatenate(each).column("soft_dice"))


def test_scores_equal_others_of_the_same_shape_and_values_alone() -> None:
    scores = score(*random_batch())
    rounded = replace(scores, values={n: x * (1 + 1e-7) for n, x in scores.values.items()})
    assert scores.equals(replace(scores))
    assert not scores.equals(rounded)
    assert scores.equals(rounded, within=1e-6)
    for other in ({"brier": scores.values["brier"][:, None]}, {"brier": np.full((5, 2), scores.values["brier"][0])}):
        assert not scores.equals(replace(scores, values=scores.values | other), within=1e-6)
    assert not scores.equals(replace(scores, drawn="stratified"))
