"""What every registered method promises; a weighted method stands for those from outside."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import discs
from uqseg import load_model, predict
from uqseg.errors import UsageError
from uqseg.methods import Method, Options, build, find, names, options
from uqseg.methods.ensemble import Ensemble
from uqseg.methods.mcdropout import dropout
from uqseg.methods.method import normalise
from uqseg.methods.unet import SingleUNet
from uqseg.noise import Noise
from uqseg.samples import Samples
from uqseg.training import Training, fit, save_method
from uqseg.training.loop import validate

ROUNDING = 1e-6
"""Of the largest gradient: what is smaller may be rounding of a gradient that is 0."""
WEIGHTED = "tests.methods.test_contract:Weighted"
every_method = pytest.mark.parametrize("name", [*names(), WEIGHTED])
Arrays = tuple[Tensor, Tensor, Tensor]


class Weighted(Method[Options]):
    """Two samples, all and nothing, of weights .9 and .1."""

    small = {}  # noqa: RUF012
    varies = "both"

    def __init__(self, options: Options, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.logit = torch.nn.Parameter(torch.randn(()))

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        marked = (masks & read[..., None, None]).sum((1, 2, 3)) / read.sum(1)
        return (self.logit - marked).square()

    def draw(self, images: Tensor, n: int, noise: Noise) -> Samples:
        halves = images.new_zeros(len(images), 2, *images.shape[2:])
        halves[:, 0] = 1
        return Samples(halves, torch.tensor([0.9, 0.1]).expand(len(images), 2), "stratified")


def without_gradient(method: Method[Any]) -> list[str]:
    """The parameters whose gradient is missing, not finite, or 0 everywhere up to rounding."""
    gradients = {name: p.grad for name, p in method.named_parameters()}
    largest = max((float(g.abs().max()) for g in gradients.values() if g is not None), default=0.0)
    return [
        name
        for name, g in gradients.items()
        if g is None or not g.isfinite().all() or not g.abs().max() > ROUNDING * largest
    ]


def small(name: str, **keywords: Any) -> Method[Any]:
    return build(name, **find(name).small, **keywords)


def arrays(readers: int = 4, channels: int = 1) -> Arrays:
    data = discs(6, readers, 32, channels)
    return normalise(torch.from_numpy(data.images)), torch.from_numpy(data.masks), torch.from_numpy(data.read)


def noise(cases: int = 6) -> Noise:
    return Noise.for_step(cases, "l")


@every_method
@pytest.mark.parametrize(("readers", "channels"), [(4, 1), (2, 3), (7, 1)])
def test_samples_are_probabilities_of_the_promised_shape(name: str, readers: int, channels: int) -> None:
    data = discs(6, readers, 32, channels)
    method = small(name, channels=channels, readers=readers)
    samples = predict(method, data.images, 5, precision="fp32")
    if name != WEIGHTED:
        assert samples.prob.shape == (6, method.support or 5, 32, 32)
        assert samples.drawn == ("support" if method.support else "independent")
    assert samples.prob.dtype == torch.float32
    assert 0 <= samples.prob.min() <= samples.prob.max() <= 1
    if samples.weights is not None:
        assert samples.weights.shape == samples.prob.shape[:2]
        assert torch.allclose(samples.weights.sum(1), torch.ones(6))
    assert method.describes == (name, type(method).varies, method.support)


@every_method
def test_samples_depend_neither_on_the_batch_nor_on_its_order(name: str) -> None:
    data = discs(6)
    method, keys = small(name), data.table["case"].tolist()
    together = predict(method, data.images, 5, batch=6, keys=keys).prob
    assert torch.allclose(together, predict(method, data.images, 5, batch=1, keys=keys).prob, atol=1e-6)
    reversed_ = predict(method, data.images[::-1].copy(), 5, batch=4, keys=keys[::-1]).prob
    assert torch.allclose(together, reversed_.flip(0), atol=1e-6)
    assert torch.allclose(together, predict(method, data, 5).prob, atol=1e-6)


@every_method
def test_a_trained_method_answers_another_seed_with_other_samples(name: str) -> None:
    recipe = Training(steps=4, batch=3, ema=0.5, augment=False)
    method = fit(small(name), discs(6), recipe=recipe, progress=False, device="cpu")
    images = discs(1).images
    one, again, other = (predict(method, images, 5, seed=seed, precision="fp32") for seed in (0, 0, 1))
    assert torch.equal(one.prob, again.prob)
    assert one.drawn != "independent" or not torch.allclose(one.prob, other.prob)


@every_method
def test_every_weight_learns_and_the_noise_alone_decides_the_loss(name: str) -> None:
    batch = arrays()
    method = small(name)
    state = torch.random.get_rng_state()
    loss = method.loss(*batch, noise())
    assert loss.shape == (6,)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, method.loss(*batch, noise()))
    for step in range(4):  # methods that train a part of themselves at each step
        method.loss(*batch, noise()).mean().backward()
        method.after_step(step + 1, 4)
    assert without_gradient(method) == []
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_gradient_that_is_missing_zero_or_not_finite_is_found() -> None:
    method = small("unet")
    method.loss(*arrays(), noise()).mean().backward()
    assert without_gradient(method) == []
    for value in (0.0, 1e-12, torch.nan):
        method.head.bias.grad.fill_(value)
        assert without_gradient(method) == ["head.bias"]
    method.head.bias.grad = None
    assert without_gradient(method) == ["head.bias"]


@every_method
def test_the_loss_of_a_case_does_not_depend_on_the_other_cases(name: str) -> None:
    images, masks, read = arrays()
    method = small(name).eval()
    if method.couples_cases:
        return
    loss = method.loss(images, masks, read, noise())
    for part in (slice(0, 2), slice(2, 6)):
        rows = Noise.for_step(6, "l", rows=part)
        assert torch.allclose(method.loss(images[part], masks[part], read[part], rows), loss[part], rtol=1e-4)


@every_method
def test_an_absent_reader_teaches_nothing(name: str) -> None:
    images, masks, read = arrays()
    read[:, 2] = False
    other = masks.clone()
    other[:, 2] = ~other[:, 2]
    method = small(name)
    assert torch.equal(method.loss(images, masks, read, noise()), method.loss(images, other, read, noise()))


@pytest.mark.parametrize("name", names())
def test_a_size_that_cannot_be_halved_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="divisible by"):
        predict(small(name), np.zeros((1, 1, 30, 30), np.uint8), 1)


@every_method
def test_other_channels_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="images: expected 1 channels, got 3"):
        predict(small(name), np.zeros((1, 3, 32, 32), np.uint8), 1)


@every_method
def test_saving_and_loading_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    data = discs(3)
    method = small(name, seed=3)
    method.input = {"size": [32, 32]}
    save_method(method, tmp_path)
    loaded = load_model(tmp_path, trust=name)
    first, second = predict(method, data.images, 4), predict(loaded, data.images, 4)
    assert torch.equal(first.prob, second.prob)
    assert first.drawn == second.drawn
    assert (first.weights is None) == (second.weights is None)
    assert loaded.input == {"size": [32, 32]}


@every_method
def test_building_depends_on_the_seed_alone(name: str) -> None:
    torch.rand(3)
    first, again, other = (small(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_weights_of_samples_are_kept_and_count_in_every_mean(tmp_path: Path) -> None:
    """On maps {1,0} of weights .9/.1 the mean is .9; where nobody marked anything its cross-entropy is −ln .1."""
    data = discs()
    empty = replace(data, masks=np.zeros_like(data.masks))
    recipe = Training(steps=2, batch=4, validate_every=1)
    method = fit(build(WEIGHTED), empty, val=empty, recipe=recipe, out=tmp_path, progress=False)
    assert validate(method, empty, recipe) == pytest.approx(-np.log(0.1), rel=1e-6)
    assert '"val": 2.3025' in (tmp_path / "history.jsonl").read_text()
    for sampler in (method, load_model(tmp_path, trust=WEIGHTED)):
        samples = predict(sampler, empty, 16, batch=5)
        assert samples.weights is not None
        assert samples.drawn == "stratified"
        assert torch.allclose(samples.mean(), torch.tensor(0.9, dtype=torch.float64))
        assert torch.allclose(samples.std(), torch.tensor(0.3))


def test_a_promise_that_draw_or_loss_breaks_is_named_in_one_line() -> None:
    def answering(result: Tensor) -> Method[Any]:
        method = build(WEIGHTED)
        method.draw = lambda images, n, noise: result[: len(images)]  # type: ignore[method-assign]
        return method

    images = np.zeros((2, 1, 64, 64), np.uint8)
    with pytest.raises(ValueError, match=r"^draw: expected \(2,4,64,64\) in \[0,1\], got \(2,64,64\)$"):
        predict(answering(torch.zeros(2, 64, 64)), images, 4)
    with pytest.raises(ValueError, match=r"^draw: expected \(2,4,64,64\) in \[0,1\], got numbers from 0 to 1\.5$"):
        predict(answering(torch.linspace(0, 1.5, 2 * 4 * 64 * 64).view(2, 4, 64, 64)), images, 4)
    with pytest.raises(ValueError, match="got numbers from nan"):
        predict(answering(torch.full((2, 4, 64, 64), torch.nan)), images, 4)
    method = build(WEIGHTED)
    method.loss = lambda images, masks, read, noise: images.mean() * method.logit  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"loss: expected float \(2,\), one for each image, got torch.float32 \(\)"):
        fit(method, discs(4), recipe=Training(steps=1, batch=2), progress=False)


class Lossless(Method[Options]):
    """Forgot its loss."""

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        return images


def test_a_missing_loss_or_draw_is_an_error_at_construction() -> None:
    with pytest.raises(UsageError, match="Lossless does not define loss"):
        build("tests.methods.test_contract:Lossless")
    with pytest.raises(TypeError, match="loss"):
        Lossless(Options(), channels=1, readers=1)  # type: ignore[abstract]


def test_unknown_names_and_options_say_what_exists() -> None:
    with pytest.raises(UsageError, match="Did you mean 'unet'"):
        find("unte")
    with pytest.raises(UsageError, match=r"width.*Allowed: width, depth"):
        options("unet", width="wide")
    with pytest.raises(UsageError, match=r"widht.*Allowed: width"):
        options("unet", widht=3)
    with pytest.raises(UsageError, match="importable"):
        find("no.such:Class")
    with pytest.raises(UsageError, match=r"subclass of uqseg\.methods\.Method"):
        find("tests.conftest:discs")


def test_fixed_reader_trains_on_that_slot_alone() -> None:
    images, masks, read = arrays()
    read[3, 1] = False
    method = build("unet", reader=1, **SingleUNet.small)
    others = masks.clone()
    others[:, [0, 2, 3]] = True
    loss = method.loss(images, masks, read, noise())
    assert torch.equal(loss, method.loss(images, others, read, noise()))
    assert (loss > 0).tolist() == [True, True, True, False, True, True]
    assert method.declines(discs(readers=1)) is not None
    assert method.declines(discs(readers=2)) is None


def test_positive_weight_multiplies_the_foreground_term() -> None:
    images, masks, read = arrays()
    masks[:] = True
    plain, heavy = (build("unet", seed=1, pos_weight=w, **SingleUNet.small) for w in (1.0, 99.0))
    ratio = heavy.loss(images, masks, read, noise()) / plain.loss(images, masks, read, noise())
    assert torch.allclose(ratio, torch.tensor(99.0), rtol=1e-4)


def test_mc_dropout_keeps_the_mean_of_its_input() -> None:
    dropped = dropout(torch.ones(4, 8, 64, 64), 0.3, noise(4))
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)


def test_one_network_has_one_sample() -> None:
    assert isinstance(build("unet"), SingleUNet)
    assert predict(small("unet"), np.zeros((2, 1, 32, 32), np.uint8), 9).prob.shape == (2, 1, 32, 32)


def test_ensemble_declines_a_reader_without_training_images() -> None:
    data = discs(4, readers=3)
    data.read[:, 1] = False
    assert "no training image was read by" in str(build("ensemble", readers=3, **Ensemble.small).declines(data))
