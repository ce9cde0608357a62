"""Values of every method and wrapper, stored with its version: changed values need a raised version.

`python -m tests.methods.test_versions` stores those of new versions.
"""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import discs
from uqseg import methods, predict, wrappers
from uqseg.methods.method import normalise
from uqseg.noise import Noise
from uqseg.samples import Sampler
from uqseg.seeds import seed_of
from uqseg.training import TRAINING_VERSION, Training, fit
from uqseg.training.augment import augment
from uqseg.training.recipe import rate

STORED = Path(__file__).with_name("versions.json")
Values = dict[str, Any]


def filled(name: str) -> methods.Method[Any]:
    """A small method whose weights come from NumPy, not from torch's initialisers, which may change; its batch
    normalisation has seen the images, so that their differences reach the output."""
    method = methods.build(name, **methods.find(name).small)
    rng = np.random.default_rng(seed_of("versions", name))
    with torch.no_grad():
        for key, tensor in method.named_parameters():
            numbers = torch.from_numpy(rng.normal(size=tuple(tensor.shape)).astype(np.float32))
            if tensor.ndim > 1:
                tensor.copy_(numbers * (2 / tensor[0].numel()) ** 0.5)
            else:
                tensor.copy_(0.2 * numbers + key.endswith("weight"))
        for module in method.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the running statistics become those of the one batch
        loss_of(method)
    return method.eval()


def loss_of(method: methods.Method[Any]) -> Tensor:
    data = discs(2)
    batch = normalise(torch.from_numpy(data.images)), torch.from_numpy(data.masks), torch.from_numpy(data.read)
    return method.loss(*batch, Noise.for_step(2, "versions")).detach()


def of_sampler(sampler: Sampler) -> list[list[float]]:
    """Four pixels of each sample."""
    return _rounded(predict(sampler, discs(2), 3, precision="fp32").prob[:, :, 5::16, 9::16].flatten(1))


def _rounded(values: Tensor) -> Any:
    return np.round(values.double().tolist(), 6).tolist()


def of_method(name: str) -> Values:
    method = filled(name)
    return {"version": method.version, "loss": _rounded(loss_of(method)), "draw": of_sampler(method)}


def of_wrapper(name: str) -> Values:
    wrapper = wrappers.build(name, **wrappers.find(name).small)
    wrapper.fit(filled("unet"), discs(4, seed=1))
    return {"version": wrapper.version, "draw": of_sampler(wrapper)}


def of_training() -> Values:
    """Rates of each schedule, an augmented batch, and samples after a few steps whose weights are averaged."""
    schedules = get_args(Training.model_fields["schedule"].annotation)
    rates = {s: [rate(Training(steps=20, lr=1, schedule=s), step, 20) for step in range(20)] for s in schedules}
    data, method = discs(4, seed=1), filled("unet")
    images, masks = normalise(torch.from_numpy(data.images)), torch.from_numpy(data.masks)
    moved, outlines = (x[..., 5::16, 9::16].flatten(1) for x in augment(images, masks, Noise.for_step(4, "versions")))
    fit(method, data, recipe=Training(steps=3, batch=2, ema=0.5, precision="fp32"), device="cpu", progress=False)
    return {
        "version": TRAINING_VERSION,
        "rates": [rates[s] for s in schedules],
        "images": _rounded(moved),
        "masks": _rounded(outlines),
        "draw": of_sampler(method),
    }


def values() -> dict[str, Values]:
    return (
        {"training": of_training()}
        | {name: of_method(name) for name in methods.names()}
        | {f"+{name}": of_wrapper(name) for name in wrappers.names()}
    )


@pytest.mark.parametrize("name", ["training", *methods.names(), *(f"+{name}" for name in wrappers.names())])
def test_values_change_only_with_the_version(name: str) -> None:
    stored = json.loads(STORED.read_text()).get(name)
    values = of_training() if name == "training" else of_wrapper(name[1:]) if name[0] == "+" else of_method(name)
    command = "run python -m tests.methods.test_versions"
    assert stored is not None, f"{name} has no stored values: {command}"
    assert values["version"] == stored["version"], f"the version of {name} was raised: {command}"
    for key, expected in stored.items():
        assert np.allclose(values[key], expected, rtol=1e-4, atol=1e-4), f"{key} of {name} changed: raise its version"


if __name__ == "__main__":
    torch.set_num_threads(1)
    known = json.loads(STORED.read_text()) if STORED.exists() else {}
    new = {name: v for name, v in values().items() if known.get(name, {}).get("version") != v["version"]}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in sorted((known | new).items())]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
