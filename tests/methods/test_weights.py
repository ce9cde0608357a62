"""The mathematics of methods whose weights vary, each against an independent reference."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tests.conftest import discs
from uqseg import load_model, predict
from uqseg.errors import UsageError
from uqseg.methods import build, find
from uqseg.methods.bcnn import FlipoutConv2d
from uqseg.methods.laplace import precision_of_prior
from uqseg.methods.masksembles import masks_of
from uqseg.methods.method import normalise
from uqseg.noise import Noise
from uqseg.seeds import generator, seeded
from uqseg.training import Training, fit, save_method


def small(name: str, **options: Any) -> Any:
    return build(name, **(dict(find(name).small) | options))


def flipout() -> FlipoutConv2d:
    with seeded(0):
        return FlipoutConv2d(nn.Conv2d(3, 2, 3, padding=1, bias=False), sigma=0.5, prior=1.0)


def test_flipout_has_the_mean_and_variance_of_direct_draws_and_hardly_couples_cases() -> None:
    """On the same image in two cases, output (2 channels): direct draws share the weights, so both cases vary alike."""
    layer = flipout()
    x = torch.randn(1, 3, 6, 6, generator=generator("x")).expand(2, -1, -1, -1)
    direct, turned = [], []
    for k in range(4000):
        layer.noise = Noise.for_step(2, "flipout", k)
        turned.append(layer(x))
        normal = torch.randn(layer.weight.shape, generator=generator("direct", k))
        direct.append(torch.nn.functional.conv2d(x, layer.weight + layer.deviations(normal), padding=1))
    layer.noise = None
    a, b = torch.stack(turned).detach(), torch.stack(direct).detach()
    assert torch.allclose(a.mean(0), layer(x), atol=0.1)
    assert torch.allclose(a.var(0), b.var(0), rtol=0.15)
    exact = torch.nn.functional.conv2d(x.square(), torch.nn.functional.softplus(layer.rho).square(), padding=1)
    assert torch.allclose(a.var(0), exact, rtol=0.15)

    def correlation(draws: Tensor) -> float:
        centred = draws - draws.mean(0)
        return float((centred[:, 0] * centred[:, 1]).mean() / centred.square().mean())

    assert correlation(b) == pytest.approx(1, abs=1e-5)
    assert abs(correlation(a)) < 0.02


def test_kl_of_gaussian_weights_is_that_of_quadrature() -> None:
    layer = flipout()
    layer.prior_mean = torch.full_like(layer.weight, 0.1)
    sigma, total = torch.nn.functional.softplus(layer.rho).detach().double(), 0.0
    for mean, deviation in zip(layer.weight.detach().double().flatten(), sigma.flatten(), strict=True):
        q = torch.distributions.Normal(mean, deviation)
        w = mean + deviation * torch.linspace(-10, 10, 4001, dtype=torch.float64)
        gap = q.log_prob(w) - torch.distributions.Normal(torch.tensor(0.1).double(), layer.prior).log_prob(w)
        total += float(torch.trapezoid(q.log_prob(w).exp() * gap, w))
    assert layer.kl().item() == pytest.approx(total, rel=1e-5)


def test_bcnn_adds_the_kl_per_training_image_with_its_warm_up() -> None:
    data = discs(4)
    batch = normalise(torch.from_numpy(data.images)), torch.from_numpy(data.masks), torch.from_numpy(data.read)
    method = small("bcnn", beta=2.0, warmup=0.5)
    method.before_steps(images=50, steps=8)
    losses = []
    for step in (0, 2, 4, 8):
        method.after_step(step, 8)
        losses.append(method.loss(*batch, Noise.for_step(4, "l")).mean().item())
    nats = sum(layer.kl().item() for layer in method.layers().values()) / 50
    assert method.watch() == {"kl": pytest.approx(nats)}
    assert losses[1] - losses[0] == pytest.approx(nats, rel=1e-3)
    assert losses[2] - losses[0] == pytest.approx(2 * nats, rel=1e-3)
    assert losses[3] == pytest.approx(losses[2])


def test_one_draw_of_bcnn_weights_serves_all_images() -> None:
    images = np.repeat(discs(1).images, 40, 0)
    samples = predict(small("bcnn"), images, 3, batch=20, precision="fp32").prob
    assert torch.allclose(samples, samples[:1].expand_as(samples), atol=1e-6)
    assert not torch.allclose(samples[:, 0], samples[:, 1])


def test_moped_starts_from_the_deterministic_network() -> None:
    data, method = discs(6), small("bcnn", moped=0.2, pretrain=0.5, sigma=1.0)
    seen = {}

    def note(step: int, total: int) -> None:
        type(method).after_step(method, step, total)
        alike = predict(method, data.images[:1], 2, precision="fp32").prob
        method.train()
        seen[step] = torch.equal(alike[:, 0], alike[:, 1])
        if step == 3:
            for layer in method.layers().values():
                assert torch.equal(layer.prior_mean, layer.weight)
                sigma = torch.nn.functional.softplus(layer.rho)
                assert torch.allclose(sigma, 0.2 * layer.weight.abs(), rtol=1e-3, atol=2e-6)

    method.after_step = note
    fit(method, data, recipe=Training(steps=6, batch=3), progress=False, device="cpu")
    assert seen == {step: step < 3 for step in range(1, 7)}


def test_members_of_a_deep_ensemble_take_turns_and_stand_apart() -> None:
    method = small("deepensemble")
    before = [member.head.weight.detach().clone() for member in method.members]
    assert not torch.equal(before[0], before[1])
    fit(method, discs(6), recipe=Training(steps=2, batch=3), progress=False, device="cpu")
    after = [member.head.weight for member in method.members]
    changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert changed == [True, True, False]
    data = discs(3)
    maps = [predict(member, data.images, 1, precision="fp32").prob for member in method.members]
    assert torch.allclose(predict(method, data.images, 9, precision="fp32").prob, torch.cat(maps, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "n", "scale"), [(16, 4, 2.0), (24, 4, 2.0), (256, 4, 2.0), (128, 8, 3.0), (64, 4, 1.5)]
)
def test_masks_are_as_published(channels: int, n: int, scale: float) -> None:
    with seeded(1):
        masks = masks_of(channels, n, scale)
    active = int(channels / (scale * (1 - (1 - 1 / scale) ** n)))
    assert masks.shape == (n, channels)
    assert masks.sum(1).tolist() == [active] * n
    assert masks.any(0).all()
    shared = [int((masks[i] & masks[j]).sum()) / active for i in range(n) for j in range(i)]
    assert np.mean(shared) == pytest.approx(1 / scale, abs=0.15)


def test_too_few_channels_for_masks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no 4 masks of scale 2\.0 for 4 channels"):
        masks_of(4, 4, 2.0)


def test_a_mask_switches_the_same_channels_in_training_and_in_sampling() -> None:
    method = small("masksembles").eval()
    images = normalise(torch.from_numpy(discs(5).images))
    noise = Noise.for_step(5, "m")
    index = (Noise.for_step(5, "m").of_cases((), "uniform") * 4).long()
    with torch.no_grad():
        sampled = method.draw(images, 4, noise)[torch.arange(5), index]
        assert torch.allclose(method.logits(images, noise).sigmoid(), sampled, atol=1e-5)


def test_swag_keeps_the_moments_of_its_iterates() -> None:
    """Mean, variance and deviations by the formulas of the paper; draws have their covariance."""
    method = small("swag", rank=3)
    path = []
    for step in range(5):
        with torch.no_grad():
            for p in method.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator("swag step", step)))
        method.collect()
        path.append(method.weights())
    iterates = torch.stack(path).double()
    means = iterates.cumsum(0) / torch.arange(1, 6)[:, None]
    assert torch.allclose(method.mean.double(), means[-1], atol=1e-6)
    deviations = (iterates - means)[2:]
    # Iterates 3 and 4 took the places of 0 and 1.
    assert torch.allclose(method.deviations.double(), deviations[[1, 2, 0]], rtol=0.01, atol=1e-3)
    variance = iterates.var(0, correction=0)
    few = slice(0, 6)
    draws = torch.stack(
        [
            method.draw_weights(
                torch.randn(len(method.mean), generator=generator("n", k)),
                torch.randn(3, generator=generator("l", k)),
            )[few]
            for k in range(6000)
        ]
    ).double()
    covariance = 0.5 * (torch.diag(variance[few]) + deviations[:, few].T @ deviations[:, few] / 2)
    assert torch.allclose(draws.T.cov(), covariance, atol=0.06 * float(covariance.diagonal().max()))
    assert torch.allclose(draws.mean(0), means[-1][few], atol=0.01)


def test_swag_declines_what_would_lose_its_iterates_or_asks_for_more_draws_than_there_are() -> None:
    data, recipe = discs(4), Training(steps=4, batch=2, keep="best", validate_every=2)
    with pytest.raises(UsageError, match="collects over the last steps; give keep=last"):
        fit(small("swag"), data, val=data, recipe=recipe)
    with pytest.raises(UsageError, match="validate_samples: method 'swag' has 4 at most, got 8"):
        fit(small("swag", draws=4), data, val=data, recipe=Training(steps=4))


def test_swag_in_half_precision_draws_the_same_networks(tmp_path: Path) -> None:
    method: Any = small("swag")
    with torch.no_grad():
        weights = method.weights()
        for _ in range(8):
            torch.nn.utils.vector_to_parameters(weights + 1e-3 * torch.randn(len(weights)), method.model().parameters())
            method.collect()
    save_method(method, tmp_path, half=True)
    loaded: Any = load_model(tmp_path)
    assert torch.equal(loaded.draw_weights(weights, torch.ones(3)), method.draw_weights(weights, torch.ones(3)))


def test_swag_fixes_its_draws_when_training_ends() -> None:
    data = discs(8)
    recipe = Training(steps=6, batch=8, lr=1e-2, augment=False, schedule="constant", precision="fp32")
    method = small("swag", draws=4, batches=1)
    fit(method, data, recipe=recipe, progress=False, device="cpu")
    samples = predict(method, data.images, 4, precision="fp32").prob
    with pytest.raises(UsageError, match="4 networks were drawn when training ended, got n=5"):
        predict(method, data.images, 5)
    other = predict(method, data.images, 4, seed=1, precision="fp32").prob
    assert torch.allclose(samples.mean(1), other.mean(1), atol=1e-6), "the same networks in another order"
    # With one batch of all images, a drawn network in evaluation is that network in training.
    model = method.model().train()
    images = normalise(torch.from_numpy(data.images))
    with torch.no_grad():
        expected = functional_call(model, method.drawn(0), (images,)).sigmoid().squeeze(1)
    gaps = (samples - expected[:, None]).abs().amax((0, 2, 3))
    assert float(gaps.min()) < 0.02  # the running variance divides by one less
    assert float(gaps.max()) > float(gaps.min())


@pytest.mark.parametrize("options", [{"reader": 0}, {"reader": 0, "pos_weight": 5.0}])
def test_laplace_curvature_is_the_hessian_of_the_loss(options: dict[str, Any]) -> None:
    data = discs(6)
    data.read[2, 0] = False
    method = small("laplace", pixels=2.0, **options).eval()
    method.before_steps(images=12, steps=1)
    batch = normalise(torch.from_numpy(data.images)), torch.from_numpy(data.masks), torch.from_numpy(data.read)
    features = method.network(batch[0]).detach().double()
    target, weight = batch[1][:, 0].double(), torch.tensor(method.options.pos_weight)

    def loss(head: Tensor) -> Tensor:
        logits = torch.einsum("c,bchw->bhw", head[:-1], features) + head[-1]
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
        return (each.sum((1, 2)) * batch[2][:, 0]).sum()

    head = torch.cat([method.head.weight.flatten(), method.head.bias]).detach().double()
    hessian = torch.autograd.functional.hessian(loss, head)
    # Twice as many training images as were looked at, two pixels to an observation.
    assert torch.allclose(method.curvature([batch]), hessian, rtol=1e-4, atol=1e-6)


def test_laplace_draws_have_the_covariance_of_the_posterior() -> None:
    method = small("laplace")
    fit(method, discs(6), recipe=Training(steps=3, batch=3, precision="fp32"), progress=False, device="cpu")
    data = discs(6)
    batch = normalise(torch.from_numpy(data.images)), torch.from_numpy(data.masks), torch.from_numpy(data.read)
    curvature = method.curvature([batch])
    assert method.factor.abs().sum() > 0
    covariance = (method.factor @ method.factor.T).double()
    prior = torch.linalg.inv(covariance) - curvature
    assert torch.allclose(prior, prior[0, 0] * torch.eye(5).double(), atol=0.02 * prior[0, 0].item())


def test_the_prior_precision_maximises_the_marginal_likelihood() -> None:
    curvatures, weights = torch.tensor([40.0, 3.0, 0.1]).double(), torch.tensor([1.0, -2.0, 0.5]).double()
    best = precision_of_prior(curvatures, weights)

    def evidence(precision: float) -> float:
        return float(
            0.5 * 3 * math.log(precision)
            - 0.5 * precision * weights.square().sum()
            - 0.5 * (curvatures + precision).log().sum()
        )

    assert all(evidence(best) >= evidence(best * factor) for factor in (0.9, 0.99, 1.01, 1.1))
