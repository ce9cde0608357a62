"""What every wrapper promises, around a trained method and around another wrapper."""

from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import discs
from uqseg import methods, predict
from uqseg.errors import UsageError
from uqseg.noise import Noise
from uqseg.samples import Batch, Description, Sampler, Samples
from uqseg.wrappers import Wrapper, build, find, names
from uqseg.wrappers.levels import level_sets, weighted_level_sets

every_wrapper = pytest.mark.parametrize("name", names())
every_method = pytest.mark.parametrize("method", ["unet", "probunet", "ensemble"])


def wrapped(name: str, method: str) -> tuple[Sampler, Wrapper[Any]]:
    sampler = methods.build(method, seed=2, **methods.find(method).small)
    wrapper = build(name, **find(name).small)
    wrapper.fit(sampler, discs(8, seed=1))
    return sampler, wrapper


@every_wrapper
@every_method
def test_a_wrapped_method_is_a_sampler(name: str, method: str) -> None:
    data = discs(6)
    sampler, wrapper = wrapped(name, method)
    samples = predict(wrapper, data, 16, batch=6, precision="fp32")
    assert samples.prob.shape[0::2] == (6, 32)
    assert samples.prob.dtype == torch.float32
    assert 0 <= samples.prob.min() <= samples.prob.max() <= 1
    if samples.weights is not None:
        assert torch.allclose(samples.weights.sum(1), torch.ones(6))
    again = predict(wrapper, data.take(np.arange(6)[::-1]), 16, batch=4, precision="fp32")
    assert torch.allclose(samples.prob, again.prob.flip(0), atol=1e-6)
    assert wrapper.describes.name == f"{method}+{name}"
    assert wrapper.describes.varies == (type(wrapper).varies or sampler.describes.varies)
    assert wrapper.device == torch.device("cpu")


@every_wrapper
def test_wrappers_combine(name: str) -> None:
    _, inner = wrapped(name, "unet")
    outer = build("levels")
    outer.fit(inner, None)
    assert outer.describes.name == f"unet+{name}+levels"
    assert predict(outer, discs(2), 3).prob.shape == (2, 3, 32, 32)


def test_unknown_names_and_options_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown wrapper 'level'.*Did you mean 'levels'"):
        build("level")
    with pytest.raises(UsageError, match=r"wrapper 'levels': n.*Allowed: weighted"):
        build("levels", n=3)


class Reader:
    """A sampler that needs the readers and computes elsewhere."""

    describes, needs_readers, device = Description("reader", "both", None), True, torch.device("meta")

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        raise NotImplementedError


def test_what_a_sampler_needs_its_wrapper_needs() -> None:
    wrapper = build("levels")
    wrapper.fit(Reader(), None)
    assert wrapper.needs_readers
    assert wrapper.device == torch.device("meta")


@pytest.mark.parametrize("n", [1, 2, 5, 16])
def test_level_sets_have_exact_hypotheses_and_the_exact_mean(n: int) -> None:
    edges = np.arange(2 * n + 1) / (2 * n)  # the levels themselves, and half way between them
    near = np.concatenate([np.nextafter(edges, 2), np.nextafter(edges, -1), edges]).clip(0, 1)
    mean = torch.from_numpy(np.concatenate([near, np.linspace(0, 1, 997)])).view(1, 1, -1)
    prob = level_sets(mean, n)
    levels = torch.tensor([1 - (s - 0.5) / n for s in range(1, n + 1)], dtype=torch.float64)
    assert torch.equal(prob >= 0.5, mean[:, None] >= levels[:, None, None])
    assert torch.allclose(prob.double().mean(1), mean, rtol=0, atol=1e-7)
    assert 0 <= prob.min() <= prob.max() <= 1


def test_level_sets_by_hand() -> None:
    """n = 4 levels .875, .625, .375, .125; t = 4·mean: 2.8 with 3 levels, 2.2 with 2, 0 and 4."""
    prob = level_sets(torch.tensor([0.7, 0.55, 0.0, 1.0]).view(1, 1, 4), 4)
    expected = torch.tensor([[0, 2.8 / 3, 2.8 / 3, 2.8 / 3], [0.1, 0.1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert torch.allclose(prob[0, :, 0].t(), expected)


@pytest.mark.parametrize("n", [2, 5, 16])
def test_weighted_level_sets_keep_the_mean_and_spend_one_sample_on_nothing(n: int) -> None:
    mean = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(n)) * torch.tensor([1, 0.3, 0]).view(3, 1, 1)
    samples = weighted_level_sets(mean, n)
    assert samples.weights is not None
    maximum = mean.double().amax((1, 2))
    assert torch.allclose(samples.mean(), mean.double(), atol=1e-6)
    assert torch.allclose(samples.weights[:, 0].double(), 1 - maximum)
    assert torch.allclose(samples.weights[:, 1:].double(), (maximum / (n - 1))[:, None].expand(-1, n - 1))
    levels = 1 - (torch.arange(n - 1) + 0.5) / (n - 1)
    expected = mean[:2, None] >= (maximum[:2, None] * levels)[..., None, None]
    assert not samples.hypotheses()[:, 0].any()
    assert torch.equal(samples.hypotheses()[:2, 1:], expected)
    assert not samples.prob[2].any()


def test_levels_with_and_without_weights_have_one_mean() -> None:
    unet = methods.build("unet", seed=2, width=4, depth=3, presence=True)
    plain, weighted = build("levels"), build("levels", weighted=True)
    for wrapper in (plain, weighted):
        wrapper.fit(unet, None)
    data = discs(4)
    samples = predict(weighted, data, 5, precision="fp32")
    assert torch.allclose(samples.mean(), predict(plain, data, 5, precision="fp32").mean(), atol=1e-6)
    assert samples.weights is not None
    assert predict(weighted, data, 1, precision="fp32").weights is None


def test_levels_keep_the_weighted_mean() -> None:
    class Fixed:
        describes = Description("fixed", "outcome", 2)

        def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
            maps = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(len(batch), 2, 4, 4)
            return Samples(maps, torch.tensor([[0.9, 0.1]]).expand(len(batch), 2), "support")

    wrapper = build("levels")
    wrapper.fit(Fixed(), None)
    samples = predict(wrapper, np.zeros((2, 1, 4, 4), np.uint8), 8)
    assert samples.drawn == "stratified"
    assert torch.allclose(samples.mean(), torch.tensor(0.9, dtype=torch.float64), atol=1e-7)
    assert samples.hypotheses().sum(1).unique().tolist() == [7]
