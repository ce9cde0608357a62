"""Trained methods on disk: weights as safetensors beside a JSON that says what they belong to; never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor

from uqseg.errors import FileError
from uqseg.files import read_json, sha256, write
from uqseg.methods import Method, build

FORMAT = 2
WEIGHTS, MODEL = "weights.safetensors", "model.json"
UNREADABLE = (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError)


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _digest(tensors: Mapping[str, Tensor], meta: str) -> str:
    """SHA-256 of the bytes of tensors on the processor, their names and `meta`."""
    digest = hashlib.sha256(meta.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Tensors and a JSON-able `meta` as one safetensors file that holds its own checksum, atomically."""
    plain, text = _plain(tensors), json.dumps(meta)
    write(path, as_bytes(plain, {"json": text, "sha256": _digest(plain, text)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote. Raises FileError where the file is missing or corrupt, naming it."""
    try:
        with safe_open(path, "pt") as file:
            tensors, head = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        if _digest(tensors, head["json"]) != head["sha256"]:
            raise ValueError("its content does not match its checksum")
        return tensors, json.loads(head["json"])
    except UNREADABLE as error:
        raise FileError(f"cannot read {path}: {_line(error)}; delete it to train anew") from error


def save_method(method: Method[Any], folder: str | Path) -> None:
    """Write weights.safetensors and model.json into `folder`, weights first: model.json says that all is there."""
    folder = Path(folder)
    write(folder / WEIGHTS, as_bytes(_plain(method.state_dict())))
    model = {
        "format": FORMAT,
        "method": method.label(),
        "version": method.version,
        "options": method.options.model_dump(mode="json"),
        "channels": method.channels,
        "readers": method.readers,
        "input": method.input,
        "sha256": sha256(folder / WEIGHTS),
    }
    write(folder / MODEL, json.dumps(model, indent=1).encode())


def load_method(folder: str | Path, device: str | torch.device = "cpu") -> Method[Any]:
    """The method that `save_method` wrote into `folder`, on `device`, ready to sample; `input` has facts of its images.

    Raises FileError where a file is missing, corrupt, or does not fit the method's present code.
    """
    folder = Path(folder)
    if (folder / "method.json").exists() and not (folder / MODEL).exists():
        raise FileError(f"{folder} was written by uqseg 0.1, which this version does not read; train anew")
    model = read_json(folder / MODEL)
    try:
        if model["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {model['format']}")
        method = build(model["method"], model["options"], channels=model["channels"], readers=model["readers"])
    except (*UNREADABLE, AttributeError) as error:
        raise FileError(f"cannot use {folder / MODEL}: {_line(error)}") from error
    load_weights(method, folder)
    return method.to(device).eval()


def load_weights(method: Method[Any], folder: Path) -> None:
    """Load weights and input facts of `folder` into `method`, a new one of the same kind. Raises FileError as above."""
    path, model = folder / WEIGHTS, read_json(folder / MODEL)
    try:
        if sha256(path) != model["sha256"]:
            raise ValueError(f"its content does not match the checksum in {MODEL}")
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if name := not_finite(tensors):
            raise ValueError(f"'{name}' holds numbers that are not finite")
        method.load_state_dict(tensors)
        method.input = model["input"]
    except UNREADABLE as error:
        raise error if isinstance(error, FileError) else FileError(f"cannot use {path}: {_line(error)}") from error


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or an infinite number, or None."""
    return next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
