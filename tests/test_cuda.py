"""On a CUDA device: the same loss, samples and figures as on the processor, given weights and noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.conftest import discs
from uqseg import predict
from uqseg.methods import build, find, names
from uqseg.methods.method import normalise
from uqseg.metrics import figures, score
from uqseg.noise import Distribution, Noise, Shape
from uqseg.samples import Samples
from uqseg.training import Training, fit

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DATA = discs(6, 4, 32)


class ProcessorNoise(Noise):
    """The numbers of the processor's generators, on another device: each device's generators draw others."""

    def __init__(self, device: str) -> None:
        base = Noise.for_cases([str(key) for key in DATA.table["case"]], "compared")
        super().__init__(lambda shape, kind: base.of_cases(shape, kind).to(device), (), torch.device(device))
        self.base = base

    def shared(self, sample: int, shape: Shape, distribution: Distribution = "normal") -> Tensor:
        return self.base.shared(sample, shape, distribution).to(self.device)


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


@pytest.mark.parametrize("name", names())
def test_loss_and_samples_are_those_of_the_processor(name: str) -> None:
    losses, samples = [], []
    for device in ("cpu", "cuda"):
        method = build(name, **find(name).small).to(device)
        images, masks, read = (torch.from_numpy(a).to(device) for a in (DATA.images, DATA.masks, DATA.read))
        losses.append(method.loss(normalise(images), masks, read, ProcessorNoise(device)).detach().cpu())
        with torch.inference_mode():
            drawn = method.eval().draw(normalise(images), 5, ProcessorNoise(device))
        samples.append((drawn.prob if isinstance(drawn, Samples) else drawn).float().cpu())
    assert torch.allclose(losses[0], losses[1], rtol=1e-3)
    assert torch.allclose(samples[0], samples[1], atol=1e-3)


def test_figures_are_those_of_the_processor() -> None:
    readers = torch.from_numpy(DATA.masks), torch.from_numpy(DATA.read)
    samples = predict(build("probunet", levels=(4, 8)), DATA, 8, precision="fp32")
    on_processor = score(samples, *readers, patients=DATA.table["patient"])
    on_device = score(samples.to("cuda"), *(t.cuda() for t in readers), patients=DATA.table["patient"])
    for figure in figures():
        expected = figure.value(on_processor)
        assert figure.value(on_device) == pytest.approx(expected, rel=1e-3, abs=1e-6, nan_ok=True), figure.name


@pytest.mark.parametrize("name", names())
def test_training_runs_and_its_weights_sample_on_the_processor(name: str, tmp_path: Path) -> None:
    recipe = Training(steps=20, batch=6, lr=1e-2)
    method = fit(build(name, **find(name).small), DATA, recipe=recipe, device="cuda", out=tmp_path, progress=False)
    tensors = method.state_dict().values()
    assert all(t.is_cuda for t in tensors)
    assert all(t.isfinite().all() for t in tensors)
    assert predict(method.cpu(), DATA, 3).prob.isfinite().all()
