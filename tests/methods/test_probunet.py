"""The probabilistic U-Net: its folded first layer, its divergences, and its options."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from tests.conftest import discs
from tests.methods.test_contract import arrays, noise
from uqseg import predict
from uqseg.methods import Method, build
from uqseg.methods.losses import gaussian_kl
from uqseg.methods.probunet import ProbUNet
from uqseg.nets.conditioned import decode
from uqseg.nets.latent import Mixture
from uqseg.seeds import generator


def small(**options: Any) -> Any:
    method: Method[Any] = build("probunet", ProbUNet.small | options)
    return method


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator("normal", *shape))


def mixture(images: int, components: int, latent: int = 3) -> Mixture:
    weights = normal(images, components).log_softmax(1)
    return Mixture(normal(images, components, latent), 0.5 * normal(images, components, latent), weights)


def test_probunet_folds_its_first_layer_exactly() -> None:
    """The first 1×1 layer on [features; tiled z] equals the image term plus the latent term."""
    method: Any = small()
    features, z = torch.randn(2, 4, 8, 8, generator=generator("f")), torch.randn(2, 3, 6, generator=generator("z"))
    weight = torch.cat([method.of_features.weight[:, :, 0, 0], method.of_latent.weight], 1)
    tiled = torch.cat([features[:, None].expand(-1, 3, -1, -1, -1), z[..., None, None].expand(-1, -1, -1, 8, 8)], 2)
    x = torch.einsum("oc,bschw->bsohw", weight, tiled) + method.of_features.bias[:, None, None]
    for layer in method.head:
        x = layer(x.relu().flatten(0, 1)).unflatten(0, (2, 3))
    assert torch.allclose(
        x.squeeze(2), decode(method.of_features(features), method.of_latent(z), method.head), atol=1e-5
    )


def test_kl_of_gaussians_against_torch_and_quadrature() -> None:
    mean, log_variance, prior_mean, prior_log = normal(4, 5).unbind()
    kl = gaussian_kl(mean, log_variance, prior_mean, prior_log)
    q, p = Normal(mean, (0.5 * log_variance).exp()), Normal(prior_mean, (0.5 * prior_log).exp())
    assert torch.allclose(kl, kl_divergence(q, p), atol=1e-6)

    def integrand(z: float) -> float:
        log_q, log_p = (float(d.log_prob(torch.full((5,), z, dtype=torch.float64))[0]) for d in (q, p))
        return math.exp(log_q) * (log_q - log_p)

    assert quad(integrand, -15, 15, limit=200)[0] == pytest.approx(float(kl[0]), rel=1e-4)


def test_density_of_a_mixture_is_that_of_torch() -> None:
    prior, z = mixture(4, 3), normal(4, 3)
    parts = Independent(Normal(prior.mean, (0.5 * prior.log_variance).exp()), 1)
    expected = MixtureSameFamily(Categorical(logits=prior.log_weights), parts).log_prob(z)
    assert torch.allclose(prior.log_density(z), expected, atol=1e-5)


def test_divergence_from_a_mixture_estimates_the_integral() -> None:
    """In one dimension, mean over 100,000 draws of the posterior against quadrature."""
    method, prior, posterior = small(prior="mixture"), mixture(1, 4, 1), mixture(1, 1, 1)
    posterior = posterior._replace(log_weights=torch.zeros(1, 1))
    n = 100_000
    z = posterior.mean[0] + normal(n, 1) * (0.5 * posterior.log_variance[0]).exp()
    rows = torch.zeros(n, dtype=torch.long)
    estimate = method.divergence(posterior.rows(rows), prior.rows(rows), z).mean()

    def integrand(x: float) -> float:
        log_q, log_p = (float(d.log_density(torch.tensor([[x]]))) for d in (posterior, prior))
        return math.exp(log_q) * (log_q - log_p)

    assert quad(integrand, -12, 12, limit=200)[0] == pytest.approx(float(estimate), abs=0.02)


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_balance_keeps_the_divergence_and_shares_its_gradient(prior: str) -> None:
    components = 4 if prior == "mixture" else 1

    def gradients(**options: Any) -> tuple[Tensor, Tensor, Tensor]:
        q, p = mixture(3, 1), mixture(3, components)
        q, p = (m._replace(mean=m.mean.requires_grad_()) for m in (q._replace(log_weights=torch.zeros(3, 1)), p))
        z = q.mean[:, 0] + normal(3, 3) * (0.5 * q.log_variance[:, 0]).exp()
        divergence = small(prior=prior, **options).divergence(q, p, z).sum()
        return divergence.detach(), *torch.autograd.grad(divergence, [q.mean, p.mean])

    (plain, of_q, of_p), (balanced, less_q, less_p) = gradients(), gradients(balance=0.8)
    assert torch.allclose(plain, balanced)
    assert torch.allclose(less_q, 0.2 * of_q, atol=1e-6)
    assert torch.allclose(less_p, 0.8 * of_p, atol=1e-6)


def test_all_readers_give_the_mean_of_their_losses() -> None:
    """Without noise and KL the loss of all is the mean of the losses with each reader alone."""
    images, masks, read = arrays()
    read[1, 0] = False
    method = small(readers="all", beta=0.0).eval()
    with torch.no_grad():
        method.of_latent.weight.zero_()
        each = []
        for slot in range(4):
            alone = torch.zeros_like(read)
            alone[:, slot] = True
            each.append(method.loss(images, masks, alone, noise()))
        expected = (torch.stack(each, 1) * read).sum(1) / read.sum(1)
        assert torch.allclose(method.loss(images, masks, read, noise()), expected, rtol=1e-5)


@pytest.mark.parametrize("readers", ["one", "all"])
def test_hurdle_learns_presence_from_all_masks_and_outlines_from_marked_ones(readers: str) -> None:
    images, masks, read = arrays()
    masks[:3] = False
    method = small(hurdle=True, readers=readers).eval()
    loss = method.loss(images, masks, read, noise())
    with torch.no_grad():
        logits = method.presence(*method.network.features(images)).squeeze(1)
    assert torch.allclose(loss[:3], torch.nn.functional.softplus(logits[:3]), atol=1e-6)
    masks[3:, :, 10:12, 10:12] = True
    assert (method.loss(images, masks, read, noise())[3:] > 10).all()
    empty = method.loss(images, torch.zeros_like(masks), read, noise())
    assert torch.allclose(empty, torch.nn.functional.softplus(logits), atol=1e-6)


@pytest.mark.parametrize("marked", [0, 1, 2])
def test_hurdle_takes_the_same_way_however_few_masks_mark_anything(marked: int) -> None:
    """Processes that train together exchange sums inside each network; one value a channel has no deviation."""
    images, masks, read = arrays()
    images, masks = images[..., :8, :8], torch.zeros_like(masks[..., :8, :8])
    masks[:marked, :, 2:4, 2:4] = True
    method = small(hurdle=True, levels=(4, 4, 4, 4))
    method.loss(images, masks, read, noise()).mean().backward()
    gradient = method.posterior.head.weight.grad
    assert gradient.isfinite().all()
    assert bool(gradient.any()) == bool(marked)


def test_hurdle_draws_empty_masks_as_often_as_it_says_and_no_other_ones() -> None:
    data, method = discs(6), small(hurdle=True)
    with torch.no_grad():
        method.presence.layers[-1].bias.fill_(0.5)
    samples = predict(method, data, 2000, precision="fp32")
    marked = samples.hypotheses().flatten(2).any(2)
    assert torch.equal(marked, samples.prob.flatten(2).any(2))
    presence = method.predicted_presence(data.batch(slice(0, 6)))
    assert torch.allclose(marked.float().mean(1), presence, atol=0.04)
    assert np.ptp(presence.detach().numpy()) < 1
    assert small().predicted_presence(data.batch(slice(0, 6))) is None
