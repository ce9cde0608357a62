"""What every registered method promises."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import discs
from uqseg import checkpoint, predict
from uqseg.errors import FileError, UsageError
from uqseg.methods import Method, Options, build, find, names, options
from uqseg.methods.unet import SingleUNet
from uqseg.prediction import normalise
from uqseg.seeds import generator

NARROW = {
    "segnet": {"width": 4, "depth": 3},
    "unet": {"width": 4, "depth": 3},
    "ensemble": {"width": 4, "depth": 3},
    "mcdropout": {"width": 4, "depth": 3},
    "probunet": {"levels": (4, 8, 8)},
}
every_method = pytest.mark.parametrize("name", names())


def batch(readers: int = 4, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    data = discs(6, readers, 32, channels)
    return normalise(torch.from_numpy(data.images)), torch.from_numpy(data.masks), torch.from_numpy(data.read)


class Halves(Method):
    """Says one half everywhere; stands for a method from outside."""

    def __init__(self, options: Options, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.logit = torch.nn.Parameter(torch.zeros(()))

    def loss(self, images, masks, read, generator):
        return (self.logit - masks.float().mean()).square()

    def sample(self, images, n, generator=None):
        return self.logit.sigmoid().expand(len(images), n, *images.shape[2:])


@every_method
@pytest.mark.parametrize(("readers", "channels"), [(4, 1), (2, 3), (7, 1)])
def test_samples_are_probabilities_of_the_promised_shape(name: str, readers: int, channels: int) -> None:
    images, _, _ = batch(readers, channels)
    method = build(name, channels=channels, readers=readers, **NARROW[name]).eval()
    with torch.no_grad():
        samples = method.sample(images, 5, generator("s"))
    assert samples.shape == (6, method.support or 5, 32, 32)
    assert samples.dtype == torch.float32
    assert 0 <= samples.min() <= samples.max() <= 1


@every_method
def test_samples_do_not_depend_on_the_batch_or_its_order(name: str) -> None:
    data = discs(6)
    method = build(name, **NARROW[name])
    keys = data.table["case"].tolist()
    whole = predict(method, data.images, 5, batch=6, keys=keys)
    assert np.allclose(whole, predict(method, data.images, 5, batch=1, keys=keys), atol=1e-6)
    turned = predict(method, data.images[::-1].copy(), 5, batch=4, keys=keys[::-1])
    assert np.allclose(whole, turned[::-1], atol=1e-6)
    one, other = (predict(method, data.images[:1], 5, seed, precision="fp32") for seed in (0, 1))
    assert not np.allclose(one, other) or method.support


@every_method
def test_every_weight_learns_and_the_generator_alone_decides_the_loss(name: str) -> None:
    images, masks, read = batch()
    method = build(name, **NARROW[name])
    state = torch.random.get_rng_state()
    loss = method.loss(images, masks, read, generator("l"))
    assert loss.shape == ()
    assert torch.equal(loss, method.loss(images, masks, read, generator("l")))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert torch.equal(state, torch.random.get_rng_state())


@every_method
def test_an_absent_reader_teaches_nothing(name: str) -> None:
    images, masks, read = batch()
    read[:, 2] = False
    other = masks.clone()
    other[:, 2] = ~other[:, 2]
    method = build(name, **NARROW[name])
    assert torch.equal(
        method.loss(images, masks, read, generator("l")), method.loss(images, other, read, generator("l"))
    )


@every_method
def test_a_size_that_cannot_be_halved_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="divisible by"):
        build(name, **NARROW[name]).sample(torch.zeros(1, 1, 30, 30), 1, generator("s"))


@every_method
def test_saving_and_loading_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    data = discs(3)
    method = build(name, seed=3, **NARROW[name])
    checkpoint.save(method, tmp_path)
    assert np.array_equal(predict(method, data.images, 4), predict(checkpoint.load(tmp_path), data.images, 4))


@every_method
def test_building_depends_on_the_seed_alone(name: str) -> None:
    torch.rand(3)
    first, again, other = (build(name, seed=seed, **NARROW[name]).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_a_method_from_outside_is_built_by_its_path() -> None:
    method = build("tests.methods.test_contract:Halves")
    assert predict(method, discs(2).images, 3).shape == (2, 3, 32, 32)


def test_unknown_names_and_options_say_what_exists(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'unet'"):
        find("unte")
    with pytest.raises(UsageError, match=r"width.*Options: width, depth"):
        options("unet", width="wide")
    with pytest.raises(UsageError, match=r"widht.*Options: width"):
        options("unet", widht=3)
    with pytest.raises(UsageError, match="importable"):
        find("no.such:Class")
    (tmp_path / "weights.safetensors").write_bytes(b"broken")
    with pytest.raises(FileError, match=r"weights\.safetensors"):
        checkpoint.load(tmp_path)


def test_fixed_reader_trains_on_that_slot_alone() -> None:
    images, masks, read = batch()
    method = build("unet", reader=1, **NARROW["unet"])
    others = masks.clone()
    others[:, [0, 2, 3]] = True
    assert torch.equal(
        method.loss(images, masks, read, generator("l")), method.loss(images, others, read, generator("l"))
    )
    assert method.declines(channels=1, readers=1, size=(32, 32)) is not None


def test_positive_weight_multiplies_the_foreground_term() -> None:
    images, masks, read = batch()
    masks[:] = True
    plain, heavy = (build("unet", seed=1, pos_weight=w, **NARROW["unet"]) for w in (1.0, 99.0))
    ratio = heavy.loss(images, masks, read, generator("l")) / plain.loss(images, masks, read, generator("l"))
    assert ratio.item() == pytest.approx(99.0, rel=1e-4)


def test_probunet_folds_its_first_layer_exactly() -> None:
    """The first 1×1 layer on [features; tiled z] equals the image term plus the latent term."""
    method = build("probunet", **NARROW["probunet"])
    features, z = torch.randn(2, 4, 8, 8, generator=generator("f")), torch.randn(2, 3, 6, generator=generator("z"))
    weight = torch.cat([method.of_features.weight[:, :, 0, 0], method.of_latent.weight], 1)
    tiled = torch.cat([features[:, None].expand(-1, 3, -1, -1, -1), z[..., None, None].expand(-1, -1, -1, 8, 8)], 2)
    x = torch.einsum("oc,bschw->bsohw", weight, tiled) + method.of_features.bias[:, None, None]
    for layer in method.head:
        x = layer(x.relu().flatten(0, 1)).unflatten(0, (2, 3))
    assert torch.allclose(x.squeeze(2), method.decode(method.of_features(features), z), atol=1e-5)


def test_mc_dropout_keeps_the_mean_of_its_input() -> None:
    from uqseg.methods.mcdropout import dropout

    dropped = dropout(torch.ones(4, 8, 64, 64), 0.3, generator("d"))
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.01)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)


def test_one_network_has_one_sample() -> None:
    assert isinstance(build("unet"), SingleUNet)
    assert build("unet", **NARROW["unet"]).sample(torch.zeros(2, 1, 32, 32), 9).shape == (2, 1, 32, 32)
