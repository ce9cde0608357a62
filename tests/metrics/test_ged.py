"""GED and its relatives: loops over pairs, the identity of its three parts, and what each kind of samples allows."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from uqseg.metrics import Scores, figure, figures, score
from uqseg.metrics.ranks import failure_areas
from uqseg.metrics.registry import Drawn
from uqseg.metrics.scored import _products
from uqseg.seeds import generator

B, S, R, SIDE = 12, 5, 4, 6


def sets() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples and readers of whom some draw nothing, weights, and who read."""
    noise = generator("ged")
    samples, masks = torch.rand(B, S, SIDE, SIDE, generator=noise), torch.rand(B, R, SIDE, SIDE, generator=noise) > 0.5
    samples[torch.rand(B, S, generator=noise) > 0.6] = 0
    masks[torch.rand(B, R, generator=noise) > 0.6] = False
    samples[0], masks[1], samples[2, 1:] = 0, False, 0
    weights = torch.rand(B, S, generator=noise, dtype=torch.float64)
    read = torch.rand(B, R, generator=noise) > 0.25
    read[:, 0] = True
    return samples, masks, weights / weights.sum(1, keepdim=True), read


def mean_distance(a: np.ndarray, v: np.ndarray, b: np.ndarray, w: np.ndarray) -> float:
    """Σ v_i w_j d(a_i,b_j), 0 without a pair."""
    total = 0.0
    for (x, s), (y, t) in itertools.product(zip(a, v, strict=True), zip(b, w, strict=True)):
        union = (x | y).sum()
        total += s * t * (1 - (x & y).sum() / union if union else 0.0)
    return total


@pytest.mark.parametrize("weighted", [False, True])
def test_the_three_parts_add_up_to_ged_and_equal_loops_over_pairs(weighted: bool) -> None:
    samples, masks, weights, read = sets()
    weights = weights if weighted else torch.full((B, S), 1 / S, dtype=torch.float64)
    scores = score(samples, masks, read, weights=weights, drawn="support")
    parts = [scores.column(f"ged_{part}") for part in ("presence", "place", "mixed")]
    assert np.abs(sum(parts) - scores.column("ged")).max() < 1e-12
    for b in range(B):
        h, y, w = samples[b].numpy() >= 0.5, masks[b][read[b]].numpy(), weights[b].numpy()
        v = np.full(len(y), 1 / len(y))
        p, f = w[h.any((1, 2))].sum(), v[y.any((1, 2))].sum()
        h_some, y_some = h[h.any((1, 2))], y[y.any((1, 2))]
        w_some, v_some = w[h.any((1, 2))] / (p or 1), v[y.any((1, 2))] / (f or 1)
        own, theirs = (mean_distance(x, u, x, u) for x, u in ((h_some, w_some), (y_some, v_some)))
        drawn = 2 * mean_distance(h_some, w_some, y_some, v_some) - own - theirs
        whole = 2 * mean_distance(h, w, y, v) - mean_distance(h, w, h, w) - mean_distance(y, v, y, v)
        assert 2 * (p - f) ** 2 + p * f * drawn - (p - f) * (p * own - f * theirs) == pytest.approx(whole, abs=1e-12)
        assert scores.column("ged")[b] == pytest.approx(whole, abs=1e-12)
        assert scores.column("ged_presence")[b] == pytest.approx(2 * (p - f) ** 2, abs=1e-12)
        assert scores.column("ged_drawn")[b] == pytest.approx(drawn if p * f else np.nan, abs=1e-12, nan_ok=True)
        assert scores.column("ged_mixed")[b] == pytest.approx(-(p - f) * (p * own - f * theirs), abs=1e-12)


def test_ged_drawn_of_independent_draws_needs_two_that_draw() -> None:
    samples, masks, _, read = sets()
    draws, support = (score(samples, masks, read, drawn=drawn) for drawn in ("independent", "support"))
    several = (samples >= 0.5).any(3).any(2).sum(1).numpy() >= 2
    assert not np.isfinite(draws.column("ged_drawn")[~several]).any()
    assert np.isfinite(support.column("ged_drawn")[2]) == bool(masks[2][read[2]].any())
    assert np.array_equal(draws.column("ged_drawn")[several], support.column("ged_drawn")[several], equal_nan=True)


def by_kind(S: int = S) -> dict[Drawn, Scores]:
    samples, masks, _, read = sets()
    return {kind: score(samples[:, :S], masks, read, drawn=kind) for kind in ("independent", "support", "stratified")}


def test_which_figures_each_kind_of_samples_has() -> None:
    kinds = by_kind()
    value = {kind: {f.name: f.value(x) for f in figures()} for kind, x in kinds.items()}
    draws, support, stratified = value.values()
    assert draws["ged_limit"] == draws["ged_debiased"] > draws["ged"] - 1
    assert draws["ged_limit"] == pytest.approx(
        draws["ged_cross"] - draws["ged_samples"] * S / (S - 1) - draws["ged_readers"]
    )
    assert support["ged_limit"] == support["ged_debiased"] == support["ged"] == stratified["ged_limit"]
    for of in value.values():
        assert of["ged_limit_misfit"] + of["ged_limit_spread"] == pytest.approx(of["ged_limit"], abs=1e-12)
        assert of["ged_cross"] == draws["ged_cross"]
    assert draws["diversity_unbiased"] == pytest.approx(draws["diversity"] * S / (S - 1))
    assert support["diversity_unbiased"] == support["diversity"]
    for name in ("ged_debiased", "ged_unbiased", "diversity_unbiased", "diversity_ratio", "ged@4"):
        assert np.isnan(stratified[name]), name
    assert np.isnan(support["ged_unbiased"])
    for name in ("diversity_unbiased", "ged_limit", "ged_unbiased", "area_crps"):
        assert np.isnan(figure(name).value(by_kind(1)["independent"])), name
    assert np.isnan(figure("diversity_unbiased").value(by_kind(1)["support"]))
    assert np.isfinite(figure("area_crps").value(by_kind(1)["support"]))
    assert draws["area_crps"] < support["area_crps"] == stratified["area_crps"]


def test_unbiased_distances_leave_out_pairs_of_a_set_with_itself() -> None:
    samples, masks, _, read = sets()
    scores = by_kind()["independent"]
    both = []
    for b in range(B):
        h, y = samples[b].numpy() >= 0.5, masks[b][read[b]].numpy()
        own = mean_distance(h, np.ones(S), h, np.ones(S)) / (S * (S - 1))
        n = len(y)
        theirs = mean_distance(y, np.ones(n), y, np.ones(n)) / (n * (n - 1)) if n > 1 else np.nan
        cross = mean_distance(h, np.ones(S), y, np.ones(n)) / (S * n)
        assert scores.column("ged_unbiased")[b] == pytest.approx(2 * cross - own - theirs, nan_ok=True)
        assert scores.column("reader_diversity")[b] == pytest.approx(theirs, nan_ok=True)
        both.append((own, theirs))
    own, theirs = np.array(both)[np.isfinite(both).all(1)].mean(0)
    assert figure("diversity_ratio").value(scores) == pytest.approx(own / theirs)


def test_a_perfect_sampler_has_no_excess_of_presence() -> None:
    """Samples and readers that draw with the same chance: the plain part has what few of both add, 2pq(1/S + 1/R)."""
    noise, images = generator("presence"), 20000
    chance = torch.rand(images, 1, generator=noise)
    samples, masks = (torch.rand(images, n, generator=noise) < chance for n in (S, R))
    needed = ["presence", "areas_readers", "weights_squared"]
    scores = score(samples[..., None, None].float(), masks[..., None, None], statistics=needed)
    assert figure("ged_presence").value(scores) == pytest.approx(2 / 6 * (1 / S + 1 / R), rel=0.05)
    assert figure("ged_presence_debiased").value(scores) == pytest.approx(2 / 6 / R, rel=0.05)
    assert figure("ged_presence_excess").value(scores) == pytest.approx(0, abs=0.005)


def test_of_stratified_samples_the_limit_is_near_and_above() -> None:
    """16 and 256 level sets of one map, readers that are its level sets too: the difference is about 5 %."""
    y, x = np.mgrid[:48, :48]
    noise = np.random.default_rng(0)
    centre, size = noise.uniform(18, 30, (30, 2, 1, 1)), noise.uniform(4, 10, (30, 1, 1))
    p = 1 / (1 + np.exp((np.hypot(y - centre[:, 0], x - centre[:, 1]) - size) / 2))
    masks = torch.from_numpy(p[:, None] >= noise.random((30, R, 1, 1)))
    limits = []
    for n in (16, 256):
        levels = 1 - (np.arange(1, n + 1) - 0.5) / n
        samples = torch.from_numpy(p[:, None] >= levels[:, None, None])
        limits.append(figure("ged_limit").value(score(samples, masks, drawn="stratified", statistics=GED)))
    assert limits[0] / limits[1] == pytest.approx(1.055, abs=0.02)


GED = ("ged_cross", "ged_samples", "ged_readers", "weights_squared")


def test_matched_dice_equals_the_best_assignment_of_readers_to_different_samples() -> None:
    samples, masks, _, read = sets()
    scores = score(samples, masks, read)
    for b in range(B):
        h, y = samples[b].numpy() >= 0.5, masks[b][read[b]].numpy()
        dice = np.array([[2 * (i & j).sum() / (i.sum() + j.sum()) if (i | j).any() else 1.0 for i in h] for j in y])
        assert scores.column("dice_match")[b] == pytest.approx(dice[linear_sum_assignment(-dice)].mean())
    few = score(samples[:, :2], masks, read)
    assert np.array_equal(np.isnan(few.column("dice_match")), read.sum(1).numpy() > 2)
    nothing = torch.tensor([[0.5, 0.5, 0, 0, 0]]).double().expand(B, S)
    assert np.array_equal(
        score(samples, masks, read, weights=nothing).column("dice_match"), few.column("dice_match"), equal_nan=True
    )


levels = st.integers(0, 4)


@given(arrays(int, st.shared(st.integers(1, 12), key="n"), elements=levels),
       arrays(int, st.shared(st.integers(1, 12), key="n"), elements=levels))  # fmt: skip
def test_the_excess_is_never_negative_and_that_of_the_right_order_is_nothing(risk: np.ndarray, u: np.ndarray) -> None:
    risk, weights = risk / 4, np.ones((1, len(risk)))
    assert failure_areas(u, risk, weights)[0, 1] >= 0
    best = np.empty(len(risk))
    best[np.argsort(risk, kind="stable")] = np.arange(len(risk))
    assert failure_areas(best, risk, weights)[0, 1] == pytest.approx(0, abs=1e-12)
    orders = itertools.islice(itertools.permutations(range(len(risk))), 100)
    least = min(failure_areas(np.array(order), risk, weights)[0, 0] for order in orders)
    assert least >= failure_areas(best, risk, weights)[0, 0] - 1e-12


def test_the_optimum_does_not_group_equal_risks_and_takes_light_ones_first() -> None:
    risk, u = np.array([0.0, 1, 1]), np.array([0.0, 1, 2])
    weights = np.array([[1.0, 1, 1], [2, 1, 3], [2, 3, 1], [0, 0, 0]])
    assert failure_areas(u, risk, weights)[[0, 1], 1] == pytest.approx([0, 0], abs=1e-15)
    first_light = (1 * 1 / 3 + 3 * 4 / 6) / 6  # by hand: covers 2, 3, 6; risks 0, 1/3, 4/6
    assert failure_areas(u, risk, weights)[1, 0] == pytest.approx(first_light)
    assert failure_areas(u, risk, weights)[2, 1] == pytest.approx((3 * 3 / 5 + 1 * 4 / 6) / 6 - first_light)
    assert np.isnan(failure_areas(u, risk, weights)[3, 1])


def test_figures_that_a_wrong_answer_has_the_least_of_have_no_direction() -> None:
    readers = torch.zeros(1, 4, 2, 2, dtype=torch.bool)
    readers[:, 0] = True
    right, single, often = (torch.zeros(1, n, 2, 2) for n in (4, 1, 10))
    right[:, 0], often[:, :4] = 1, 1
    by_right, by_single = (score(samples, readers, drawn="support") for samples in (right, single))
    assert by_single.column("ged_cross") < by_right.column("ged_cross")
    assert by_single.column("ged") > by_right.column("ged") == 0
    assert score(often, readers[:, 1:], drawn="support").column("ged_limit_misfit") < 0  # nobody drew
    assert by_right.column("ged_limit_misfit") == 0
    assert by_right.column("ged_presence_excess") < 0  # the readers themselves
    for name in ("ged_cross", "ged_limit_misfit", "ged_presence_excess"):
        assert figure(name).direction == "none", name


@pytest.mark.parametrize("shape", [(1, 1), (9, 1), (9, 2), (1, 9), (5, 0), (5, 7), (21, 4096), (104, 999)])
def test_products_of_bytes_and_of_numbers_are_the_same(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    marked = torch.from_numpy(np.random.default_rng(0).random(shape) < 0.5).view(torch.uint8)
    fast = _products(marked)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert torch.equal(fast, _products(marked))
    assert torch.equal(fast, marked.double() @ marked.double().T)
