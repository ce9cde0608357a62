"""CCDM: the categorical posterior by enumeration, the schedule, and the loss at the first step."""

import itertools
from typing import Any

import pytest
import torch

from tests.methods.test_contract import arrays, noise
from uqseg.errors import UsageError
from uqseg.methods import build
from uqseg.methods.ccdm import CCDM, bernoulli_kl, cosine, posterior
from uqseg.methods.losses import cross_entropy


def test_schedule_begins_with_the_mask_and_ends_without_it() -> None:
    left = cosine(250)
    assert left[0] == 1
    assert (left.diff() < 0).all()
    assert left[-1] < 1e-3
    t, s = torch.tensor(100 / 250), 0.008
    level = [(x + s) / (1 + s) * torch.pi / 2 for x in (t, torch.tensor(0.0))]
    assert float(left[100]) == pytest.approx(float(level[0].cos() ** 2 / level[1].cos() ** 2), rel=1e-5)


def test_posterior_is_that_of_enumeration() -> None:
    """q(x_s | x_t, x_0) from the joint probabilities of the chain x_0 → x_s → x_t, and its mean over x_0."""
    kept, earlier = torch.tensor(0.7), torch.tensor(0.4)

    def move(now: int, before: int, share: torch.Tensor) -> torch.Tensor:
        return share * (now == before) + (1 - share) / 2

    def given(x: int, start: int) -> float:
        joint = [move(x, middle, kept) * move(middle, start, earlier) for middle in (0, 1)]
        return float(joint[1] / sum(joint))

    for x, start in itertools.product((0, 1), (0, 1)):
        value = posterior(torch.tensor(float(x)), torch.tensor(float(start)), kept, earlier)
        assert float(value) == pytest.approx(given(x, start), rel=1e-5)
    for x in (0, 1):
        value = posterior(torch.tensor(float(x)), torch.tensor(0.3), kept, earlier)
        assert float(value) == pytest.approx(0.3 * given(x, 1) + 0.7 * given(x, 0), rel=1e-5)


def test_the_forward_process_in_one_leap_or_in_steps_is_the_same() -> None:
    left = cosine(10)
    share = left[0]
    for t in range(1, 11):
        share = share * left[t] / left[t - 1]
        assert torch.allclose(share, left[t])


def test_divergence_is_that_of_bernoullis_and_cross_entropy_at_the_first_step() -> None:
    q, p = torch.tensor([0.2, 0.9]), torch.tensor([0.6, 0.9])
    expected = torch.distributions.kl_divergence(torch.distributions.Bernoulli(q), torch.distributions.Bernoulli(p))
    assert torch.allclose(bernoulli_kl(q, p), expected, atol=1e-6)
    method: Any = build("ccdm", CCDM.small | {"times": 2, "steps": 2}).eval()
    images, masks, _ = arrays()
    masks[:] = masks[:, :1]
    target, one = masks[:, 0], torch.ones(6, dtype=torch.long)
    x = torch.zeros_like(target).float()
    start = method.start(images, x, one)
    now = bernoulli_kl(target.float(), posterior(x, start, method.left[1], method.left[0]))
    assert torch.allclose(now, cross_entropy(start.logit(), target), atol=1e-4)


def test_fewer_steps_end_at_the_mask_too_and_more_than_there_are_is_refused() -> None:
    images = arrays()[0]
    for steps in (1, 3, 4):
        with torch.no_grad():
            samples = build("ccdm", CCDM.small | {"steps": steps}).eval().draw(images, 2, noise())
        assert samples.shape == (6, 2, 32, 32)
    with pytest.raises(UsageError, match="at most times=4"):
        build("ccdm", CCDM.small | {"steps": 5})
