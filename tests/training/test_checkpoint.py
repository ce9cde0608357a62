"""Trained methods on disk: what is stored, and that damage is found and named."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import discs
from uqseg import load_model
from uqseg.errors import FileError
from uqseg.files import sha256
from uqseg.methods import build
from uqseg.training import DivergenceError, Training, fit, save_method
from uqseg.training.checkpoint import read_tensors, write_tensors

NARROW = {"width": 4, "depth": 3}


def damage(path: Path) -> None:
    """Change one bit of the last tensor."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def test_a_fit_describes_its_method_and_images(tmp_path: Path) -> None:
    data = discs(6)
    data.spacing[1:] = 0.7
    data.spacing[5] = 3.0
    fit(build("unet", **NARROW), data, recipe=Training(steps=1, batch=2), out=tmp_path, progress=False)
    assert {p.name for p in tmp_path.iterdir()} == {"weights.safetensors", "model.json", "fit.json", "history.jsonl"}
    model = json.loads((tmp_path / "model.json").read_text())
    assert model["format"] == 2
    assert (model["method"], model["version"], model["options"]["width"]) == ("unet", 1, 4)
    assert model["sha256"] == sha256(tmp_path / "weights.safetensors")
    loaded = load_model(tmp_path)
    assert loaded.input == {
        "source": "discs",
        "key": data.key,
        "simulated": False,
        "channels": 1,
        "size": [32, 32],
        "spacing": pytest.approx([0.7, 0.7]),
        "fit": "crop",
        "window": None,
        "mean": [round(float(end(data.images.mean((1, 2, 3)))), 2) for end in (min, max)],
        "deviation": [round(float(end(data.images.std((1, 2, 3)))), 2) for end in (min, max)],
    }
    assert not loaded.training


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    recipe = Training(steps=1, batch=2)
    fit(build("unet", **NARROW), discs(4), recipe=recipe, out=tmp_path, progress=False)
    damage(tmp_path / "weights.safetensors")
    with pytest.raises(FileError, match=r"^cannot use .*weights\.safetensors: its content does not match") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(FileError, match=r"weights\.safetensors"):
        fit(build("unet", **NARROW), discs(4), recipe=recipe, out=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model.json", "{"),
        ("model.json", "{}"),
        ("model.json", '{"format": 1}'),
        ("model.json", "[1, 2]"),
        ("weights.safetensors", "broken"),
    ],
)
def test_broken_files_are_named(file: str, text: str, tmp_path: Path) -> None:
    save_method(build("unet", **NARROW), tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(FileError, match=file):
        load_model(tmp_path)


def test_a_missing_or_old_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"model\.json"):
        load_model(tmp_path)
    (tmp_path / "method.json").write_text("{}")
    with pytest.raises(FileError, match=r"written by uqseg 0\.1"):
        load_model(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_method(build("unet", **NARROW), tmp_path)
    model = json.loads((tmp_path / "model.json").read_text())
    model["options"]["width"] = 8
    (tmp_path / "model.json").write_text(json.dumps(model))
    with pytest.raises(FileError, match="size mismatch") as error:
        load_model(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_another_type_are_refused(tmp_path: Path) -> None:
    save_method(build("unet", **NARROW).half(), tmp_path)
    assert load_model(tmp_path)
    method = build("unet", **NARROW)
    method.head.bias = torch.nn.Parameter(torch.ones(1, dtype=torch.int32), requires_grad=False)  # type: ignore[union-attr]
    save_method(method, tmp_path)
    with pytest.raises(FileError, match=r"weights\.safetensors: '.*': expected torch.float32, got torch.int32"):
        load_model(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    method = build("unet", **NARROW)
    with torch.no_grad():
        method.head.bias.fill_(torch.nan)  # type: ignore[union-attr]
    save_method(method, tmp_path)
    with pytest.raises(FileError, match=r"head\.bias.*not finite"):
        load_model(tmp_path)
    method = build("unet", **NARROW)
    method.network.down[0][1].running_var.fill_(torch.inf)  # type: ignore[union-attr,index,operator]
    with pytest.raises(DivergenceError, match=r"running_var.*not finite"):
        fit(method, discs(4), recipe=Training(steps=1, batch=2), out=tmp_path / "new", progress=False)
    assert not (tmp_path / "new" / "model.json").exists()


def test_a_checkpoint_holds_its_own_checksum(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    tensors = {"a": torch.arange(4.0).view(2, 2).t(), "step": torch.tensor(3.0), "half": torch.ones(3).bfloat16()}
    write_tensors(path, tensors, {"step": 3})
    read, numbers = read_tensors(path)
    assert numbers == {"step": 3}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    damage(path)
    with pytest.raises(FileError, match=r"checkpoint\.safetensors: its content does not match its checksum"):
        read_tensors(path)


def test_a_damaged_checkpoint_stops_a_resumed_training(tmp_path: Path) -> None:
    write_tensors(tmp_path / "checkpoint.safetensors", {"a": torch.zeros(3)}, {})
    damage(tmp_path / "checkpoint.safetensors")
    with pytest.raises(FileError, match=r"checkpoint\.safetensors.*delete it to train anew"):
        fit(build("unet", **NARROW), discs(4), recipe=Training(steps=1, batch=2), out=tmp_path, progress=False)
