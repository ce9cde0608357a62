"""The fast ways against the plain ones: the same weights give the same numbers, and less time."""

import numpy as np
import pytest
import torch

from baselines.peers import plain
from tests.conftest import discs
from uqseg import predict
from uqseg.methods import Method, build
from uqseg.methods.losses import random_reader
from uqseg.methods.method import normalise
from uqseg.metrics import score
from uqseg.noise import Noise
from uqseg.seeds import generator

PLAIN = {
    "probunet": plain.probunet_samples,
    "mcdropout": plain.mcdropout_samples,
    "ensemble": plain.ensemble_samples,
}
CASES = [
    ("probunet", {"levels": (4, 8, 8)}),
    ("probunet", {"levels": (8, 8), "head": 4, "convolutions": 3}),
    ("mcdropout", {"width": 4, "depth": 4}),
    ("mcdropout", {"width": 4, "depth": 2}),
    ("mcdropout", {"width": 4, "depth": 3, "placement": "all"}),
    ("ensemble", {"width": 4, "depth": 3}),
]


def used(name: str, **options: object) -> Method:
    """A method whose normalisation and biases are no longer those of the start, so that its samples differ."""
    method = build(name, **options)
    noise = generator("used")
    with torch.no_grad():
        for key, value in method.state_dict().items():
            if key.endswith(("bias", "running_mean")):
                value.uniform_(-0.3, 0.3, generator=noise)
            elif key.endswith("running_var"):
                value.uniform_(0.1, 0.5, generator=noise)
    return method.eval()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_samples_equal_the_plain_ones(name: str, options: dict[str, object]) -> None:
    method, images = used(name, **options), discs(3).images
    noise = Noise.for_cases(range(3), "sample", 0)
    with torch.inference_mode():
        expected = PLAIN[name](method, normalise(torch.from_numpy(images)), 5, noise)
    samples = predict(method, images, 5, precision="fp32").prob
    assert expected.std() > 0.002
    assert torch.allclose(samples, expected, atol=2e-5)
    coarse = predict(method, images, 5, precision="bf16").prob
    assert (coarse - expected).abs().mean() < 0.01


def test_training_loss_and_gradient_equal_the_plain_ones() -> None:
    data = discs(6)
    images, masks, read = (torch.from_numpy(a) for a in (data.images, data.masks, data.read))
    method = used("probunet", levels=(4, 8)).train()
    loss = method.loss(normalise(images), masks, read, Noise.for_step(6, "l")).mean()
    loss.backward()
    gradient = [p.grad.clone() for p in method.parameters()]
    method.zero_grad()
    noise = Noise.for_step(6, "l")
    target = masks[torch.arange(6), random_reader(read, noise)].float()
    other = plain.probunet_loss(method, normalise(images), target, noise.of_cases((6,)))
    other.backward()
    assert torch.allclose(loss, other, rtol=1e-5)
    for a, p in zip(gradient, method.parameters(), strict=True):
        assert torch.allclose(a, p.grad, rtol=1e-3, atol=1e-3 * float(p.grad.abs().max()))


def test_an_ensemble_learns_the_sum_of_what_its_members_learn() -> None:
    data = discs(6)
    images, masks, read = (torch.from_numpy(a) for a in (data.images, data.masks, data.read))
    method = used("ensemble", width=4, depth=3)
    loss = method.loss(normalise(images), masks, read, Noise.for_step(6, "l")).mean()
    each = [plain.member_loss(method, r, normalise(images), masks[:, r].float()) for r in range(4)]
    assert torch.allclose(loss, torch.stack(each).sum(), rtol=1e-5)


def test_pairwise_metrics_equal_the_loops() -> None:
    rng = np.random.default_rng(0)
    samples, readers = rng.random((3, 6, 12, 12)) > 0.7, rng.random((3, 4, 12, 12)) > 0.7
    samples[0, :2], readers[0, 0] = False, False
    scores = score(torch.from_numpy(samples), torch.from_numpy(readers))
    for name, expected in plain.pairwise(samples, readers).items():
        assert np.allclose(scores.column(name), expected, atol=1e-12), name
