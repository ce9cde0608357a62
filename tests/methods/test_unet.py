"""One network: the fraction of all readers as target, and the number of readers who drew."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from tests.conftest import discs
from tests.methods.test_contract import arrays, noise
from uqseg import predict, wrappers
from uqseg.errors import UsageError
from uqseg.methods import build, find
from uqseg.methods.losses import count_entropy, cross_entropy, expected_share, reader_fraction, reader_weights
from uqseg.wrappers.levels import rescaled

each_network = pytest.mark.parametrize("name", ["unet", "segnet"])


def small(name: str, **options: Any) -> Any:
    return build(name, find(name).small | options)


@each_network
def test_fraction_is_the_mean_over_the_readers_who_read(name: str) -> None:
    images, masks, read = arrays()
    read[2, 1] = read[4, 0] = False
    method = small(name, target="fraction").eval()
    each = torch.stack(
        [cross_entropy(method.logits(images, noise()), masks[:, k]).sum((1, 2)) / 50 for k in range(4)], 1
    )
    assert torch.allclose(method.loss(images, masks, read, noise()), (each * read).sum(1) / read.sum(1), rtol=1e-5)
    with pytest.raises(ValueError, match="nobody read"):
        method.loss(images, masks, torch.zeros_like(read), noise())
    with pytest.raises(UsageError, match="set only one of both"):
        small(name, target="fraction", reader=1)


def test_the_fraction_of_three_readers_is_not_rounded() -> None:
    masks = torch.ones(1, 3, 2, 2, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        fraction = reader_fraction(masks, reader_weights(masks[:, :, 0, 0], noise(1)))
    assert torch.allclose(fraction, torch.ones(1, 2, 2))


def test_count_entropy_is_that_of_the_number_of_readers_who_drew() -> None:
    _, masks, read = arrays()
    logits = torch.linspace(-2, 2, 30).reshape(6, 5)
    drew = masks.flatten(2).any(2).sum(1)
    assert len(drew.unique()) > 1
    assert torch.allclose(count_entropy(logits, masks, read), F.cross_entropy(logits, drew, reduction="none"))
    masks[:] = torch.tensor([True, True, False, True])[:, None, None]
    read[:, 3] = False  # two of three who read it: 8/3 of four, shared by the classes 2 and 3
    log = logits.log_softmax(1)
    assert torch.allclose(count_entropy(logits, masks, read), -(log[:, 2] / 3 + 2 * log[:, 3] / 3))


def test_expected_share_is_the_mean_number_over_the_readers() -> None:
    logits = torch.tensor([[0.2, 0.1, 0.3, 0.0, 0.4]]).log()
    assert expected_share(logits).item() == pytest.approx((0.1 + 0.6 + 1.6) / 4)


@each_network
def test_presence_adds_its_entropy_and_predicts_a_share(name: str) -> None:
    images, masks, read = arrays()
    data, method = discs(6), small(name, target="fraction", presence=True).eval()
    deepest, features = method.network.features(images)
    counts = count_entropy(method.presence(deepest, features), masks, read)
    expected = method.entropy(method.head(features).squeeze(1), method.target(masks, read, noise())[0]) + 0.2 * counts
    assert torch.allclose(method.loss(images, masks, read, noise()), expected)
    presence = method.predicted_presence(data.batch(slice(0, 6)))
    assert torch.equal(presence, expected_share(method.presence(deepest, features)))
    assert small(name).predicted_presence(data.batch(slice(0, 6))) is None


def test_level_sets_mark_something_as_often_as_predicted() -> None:
    data, method = discs(6), small("unet", target="fraction", presence=True)
    levels = wrappers.build("levels")
    levels.fit(method, None)
    outer = wrappers.build("levels")
    outer.fit(levels, None)
    with torch.inference_mode():
        presence = method.predicted_presence(data.batch(slice(0, 6)))
        samples = predict(levels, data, 64, precision="fp32")
        assert torch.equal(outer.predicted_presence(data.batch(slice(0, 6))), presence)
    assert torch.allclose(samples.mean().amax((1, 2)).float(), presence, atol=1e-5)
    assert torch.allclose(samples.hypotheses().flatten(2).any(2).float().mean(1), presence, atol=1 / 128 + 1e-6)


def test_rescaling_keeps_an_empty_map_empty() -> None:
    mean = torch.stack([torch.zeros(2, 2), torch.tensor([[0.1, 0.2], [0.4, 0.0]])]).double()
    expected = torch.stack([torch.zeros(2, 2), torch.tensor([[0.2, 0.4], [0.8, 0.0]])]).double()
    assert torch.allclose(rescaled(mean, torch.tensor([0.7, 0.8])), expected)
