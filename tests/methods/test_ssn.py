"""Stochastic segmentation networks: covariance, likelihood, and the published problem whose optimum is known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.methods.test_contract import arrays, noise
from uqseg.methods import build
from uqseg.methods.losses import cross_entropy
from uqseg.methods.ssn import SSN, log_likelihood, low_rank_draws
from uqseg.seeds import generator


def normal(*shape: int, name: str = "ssn") -> Tensor:
    return torch.randn(shape, generator=generator(name, *shape))


def test_covariance_of_the_draws_is_low_rank_plus_diagonal() -> None:
    mean, factor, log_diagonal, n = normal(2, 6), normal(2, 3, 6), normal(2, 6), 200_000
    draws = low_rank_draws(mean, factor, log_diagonal, normal(2, n, 3), normal(2, n, 6))
    for b in range(2):
        expected = factor[b].t() @ factor[b] + log_diagonal[b].exp().diag()
        assert torch.allclose(draws[b].mean(0), mean[b], atol=0.03)
        assert torch.allclose(draws[b].t().cov(), expected, atol=0.1)


def test_likelihood_against_a_loop() -> None:
    logits, masks = 3 * normal(2, 5, 7), normal(2, 3, 7) > 0
    for b in range(2):
        for r in range(3):
            each = [
                math.exp(-float(F.binary_cross_entropy_with_logits(logits[b, m], masks[b, r].float(), reduction="sum")))
                for m in range(5)
            ]
            assert log_likelihood(logits, masks)[b, r].item() == pytest.approx(math.log(sum(each) / 5), rel=1e-4)


def test_pretraining_fits_the_mean_alone_and_then_ends() -> None:
    images, masks, read = arrays()
    method: Any = build("ssn", **(SSN.small | {"pretrain": 0.5})).eval()
    fraction = masks.float().mean(1)
    mean = method.gaussian(images)[0].view(6, 32, 32)
    expected = cross_entropy(mean, fraction).sum((1, 2))
    assert torch.allclose(method.loss(images, masks, read, noise()), expected)
    method.after_step(5, 10)
    assert not torch.allclose(method.loss(images, masks, read, noise()), expected)


def test_the_published_problem_reaches_its_optimum() -> None:
    """One third always 1, one third 0 or 1 together, one third always 0: the best likelihood of a target is one half.

    Independent pixels could not do better than ten halves.
    """
    P, rank, targets = 30, 2, torch.zeros(1, 2, 30, dtype=torch.bool)
    targets[:, :, :10], targets[:, 1, 10:20] = True, True
    mean, factor, log_diagonal = torch.zeros(1, P), 0.1 * normal(1, rank, P), torch.zeros(1, P)
    parameters = [mean.requires_grad_(), factor.requires_grad_(), log_diagonal.requires_grad_()]

    source = generator("on-off")

    def loss(draws: int) -> Tensor:
        numbers = [torch.randn(1, draws, k, generator=source) for k in (rank, P)]
        return -log_likelihood(low_rank_draws(*parameters, *numbers), targets).mean()

    optimizer = torch.optim.Adam(parameters, lr=2.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss(20).backward()
        optimizer.step()
    with torch.no_grad():
        reached = float(loss(20_000))
    assert math.log(2) - 0.02 < reached < math.log(2) + 0.1
