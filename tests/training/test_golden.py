"""Numbers of version 0.1, stored before the code was rebuilt: the same trainings, the same samples."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import GOLDEN, METHODS, golden_sets, golden_weights
from uqseg import predict
from uqseg.methods import Method, build
from uqseg.training import Training, fit, loop


@pytest.mark.parametrize("name", METHODS)
def test_the_stored_weights_give_the_stored_samples(name: str) -> None:
    method: Method[Any] = build(name, **METHODS[name])
    method.load_state_dict(golden_weights(name))
    samples = predict(method, golden_sets()[1], 8, precision="fp32")
    expected = np.load(GOLDEN / "statistics.npz")[f"mean_of_samples_{name}"]
    assert np.allclose(samples.prob.double().mean((2, 3)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "probunet"])
def test_the_first_steps_have_the_stored_losses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start, order, augmentation and loss. Not probunet's: its random readers are drawn from other numbers. Only four
    steps, since every processor rounds differently, which later steps magnify."""
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    recipe = Training(steps=4, batch=6, lr=1e-3, schedule="constant", precision="fp32")
    method = build(name, seed=3, **METHODS[name])
    fit(method, golden_sets()[0], recipe=recipe, out=tmp_path, progress=False, device="cpu", seed=7)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    expected = json.loads((GOLDEN / "figures.json").read_text())["losses"][name]
    assert losses == pytest.approx(expected, rel=1e-5)
