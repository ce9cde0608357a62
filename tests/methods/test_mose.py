"""Mixture of stochastic experts: transport against SciPy's linear programme, its cost, and both ways of sampling."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from tests.conftest import discs
from uqseg import predict
from uqseg.methods import build
from uqseg.methods.mose import MoSE, soft_distance, transport
from uqseg.seeds import generator


def cheapest(cost: np.ndarray, weights: np.ndarray, capacity: float) -> float:
    """Cost of the cheapest transport, a linear programme: plans ≥ 0, rows of sum `weights`, columns ≤ capacity."""
    R, S = cost.shape
    rows, columns = np.kron(np.eye(R), np.ones(S)), np.kron(np.ones(R), np.eye(S))
    return float(linprog(cost.ravel(), A_ub=columns, b_ub=np.full(S, capacity), A_eq=rows, b_eq=weights).fun)


@pytest.mark.parametrize("capacity", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("present", [[1, 1, 1, 1], [1, 0, 1, 0]])
def test_transport_is_the_cheapest_one(capacity: float, present: list[int]) -> None:
    rng, weights = np.random.default_rng(0), np.array(present) / sum(present)
    for _ in range(20):
        cost = rng.random((4, 6)) * rng.random(6)  # some samples are near all readers
        limit = max(capacity, weights.max())  # at least one reader each
        plan = transport(cost, weights, limit)
        assert np.allclose(plan.sum(1), weights)
        assert plan.sum(0).max() <= limit + 1e-9
        assert (plan * cost).sum() == pytest.approx(cheapest(cost, weights, limit), abs=1e-9)


def test_transport_serves_all_readers_even_of_few_samples() -> None:
    plan = transport(np.ones((4, 1)), np.full(4, 0.25), 0.5)
    assert plan.tolist() == [[0.25]] * 4


def test_soft_distance_against_its_formula() -> None:
    prob, masks = torch.rand(2, 3, 20, generator=generator("p")), torch.rand(2, 4, 20, generator=generator("m")) > 0.5
    distance = soft_distance(prob, masks.float())
    for b, r, s in np.ndindex(2, 4, 3):
        both = float((prob[b, s] * masks[b, r]).sum())
        either = float(prob[b, s].sum() + masks[b, r].sum()) - both
        assert distance[b, r, s].item() == pytest.approx(1 - (both + 1) / (either + 1), rel=1e-5)


def mose(**options: Any) -> Any:
    method: Any = build("mose", MoSE.small | options)
    with torch.no_grad():
        method.gate.layers[-1].bias.copy_(torch.tensor([2.0, 1.0, 0.0, -1.0]))
        method.log_deviation.fill_(-20.0)  # every draw of an expert is its mean
        method.head.of_latent.weight.mul_(50)
    return method


def test_compact_weights_are_the_gate_shared_by_each_experts_draws() -> None:
    data, method = discs(3), mose(sampling="compact")
    samples = predict(method, data, 6, precision="fp32")
    with torch.inference_mode():
        batch = method.pieces(data.batch(slice(0, 3)))[0][1]
        gate = method.gate(method.network.features(batch)[0]).softmax(1)
    assert samples.drawn == "stratified"
    assert torch.allclose(samples.weights, gate[:, [0, 1, 2, 3, 0, 1]] / torch.tensor([2, 2, 1, 1, 2, 2]), atol=1e-6)
    assert torch.allclose(samples.prob[:, 0], samples.prob[:, 4], atol=1e-5)


def test_fewer_compact_samples_than_experts_are_of_the_largest_shares() -> None:
    data, method = discs(3), mose(sampling="compact")
    few, each = predict(method, data, 2, precision="fp32"), predict(method, data, 4, precision="fp32")
    largest = each.weights.topk(2)
    assert torch.allclose(few.weights, largest.values / largest.values.sum(1, keepdim=True), atol=1e-6)
    chosen = torch.stack([prob[index] for prob, index in zip(each.prob, largest.indices, strict=True)])
    assert torch.allclose(few.prob, chosen, atol=1e-5)


def test_standard_draws_choose_experts_as_often_as_the_gate_says() -> None:
    data = discs(3)
    compact = predict(mose(sampling="compact"), data, 4, precision="fp32")
    drawn = predict(mose(), data, 2000, precision="fp32").prob
    gap = (drawn[:, :, None] - compact.prob[:, None]).abs().flatten(3).amax(3)
    shares = torch.nn.functional.one_hot(gap.argmin(2), 4).float().mean(1)
    assert gap.amin(2).max() < 1e-4
    assert torch.allclose(shares, compact.weights, atol=0.04)
