"""PHiSeg: its ELBO's terms, the order in which latents are drawn, and what each level's logits can say."""

from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.methods.test_contract import arrays, noise
from uqseg.errors import UsageError
from uqseg.methods import build
from uqseg.methods.phiseg import PHiSeg
from uqseg.nets.hierarchy import GaussianMap


def small(**options: Any) -> Any:
    return build("phiseg", PHiSeg.small | options)


def test_the_loss_is_the_sum_of_the_watched_terms() -> None:
    images, masks, read = arrays()
    method = small(beta=2.0)
    loss = method.loss(images, masks, read, noise()).mean().item()
    terms = method.watch()
    assert set(terms) == {"kl_0", "kl_1", "cross_entropy_0", "cross_entropy_1"}
    assert all(term > 0 for term in terms.values())
    expected = terms["cross_entropy_0"] + terms["cross_entropy_1"] + 2 * (terms["kl_0"] + 4 * terms["kl_1"])
    assert loss == pytest.approx(expected, rel=1e-5)


def test_divergence_of_each_level_is_that_of_torch() -> None:
    images, masks, read = arrays()
    masks[:] = masks[:, :1]  # whichever reader is drawn
    method = small().eval()
    method.loss(images, masks, read, noise())
    watched, numbers = method.watch(), noise()
    numbers.of_cases((), "uniform")  # the reader

    def draw(level: int, q: GaussianMap) -> torch.Tensor:
        return q.mean + numbers.of_cases(tuple(q.mean.shape[1:])) * (0.5 * q.log_variance).exp()

    posterior = method.posterior
    maps, latents = posterior(posterior.encode(torch.cat([images, masks[:, :1].float() - 0.5], 1)), draw)
    prior, _ = method.prior(method.prior.encode(images), lambda level, _: latents[level])
    for level, (q, p) in enumerate(zip(maps, prior, strict=True)):
        pair = (Normal(g.mean, (0.5 * g.log_variance).exp()) for g in (q, p))
        expected = kl_divergence(*pair).sum((1, 2, 3)).mean()
        assert watched[f"kl_{level}"] == pytest.approx(expected.item(), rel=1e-4)


def test_latents_are_drawn_from_coarse_to_fine_each_given_the_coarser_ones() -> None:
    images, _, _ = arrays()
    prior, order = small().eval().prior, []

    def shifted(shift: float) -> list[GaussianMap]:
        def choose(level: int, p: GaussianMap) -> torch.Tensor:
            order.append((level, p.mean.shape[-1]))
            return p.mean + shift

        return prior(prior.encode(images), choose)[0]

    (fine, coarse), (other_fine, other_coarse) = shifted(0.0), shifted(1.0)
    assert order[:2] == [(1, 4), (0, 8)]
    assert torch.equal(coarse.mean, other_coarse.mean)
    assert not torch.allclose(fine.mean, other_fine.mean)


def test_logits_are_sums_over_levels_and_coarse_ones_say_the_same_for_a_block_of_pixels() -> None:
    coarse, fine = small().eval().likelihood([torch.randn(2, 2, 8, 8), torch.randn(2, 2, 4, 4)])
    assert coarse.shape == fine.shape == (2, 1, 32, 32)
    assert torch.equal(coarse[..., ::2, ::2], coarse[..., 1::2, 1::2])
    assert not torch.equal(fine[..., ::2, ::2], fine[..., 1::2, 1::2])
    with pytest.raises(UsageError, match="two levels more than latents"):
        small(latents=3)
