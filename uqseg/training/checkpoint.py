"""Trained methods on disk: weights as safetensors beside a JSON that says what they belong to; never pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor

from uqseg.errors import FileError
from uqseg.methods import Method, build

FORMAT = 1


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises FileError where the disk refuses."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FileError(
            f"cannot write {path}: {error.strerror or error}; free the disk or choose another folder"
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Tensors and a JSON-able `meta` as one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write(path, as_bytes(plain, {"json": json.dumps(meta)}))


def read_tensors(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote. Raises FileError where the file is missing or corrupt, naming it."""
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["json"])  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"cannot read {path}: {' '.join(str(error).split())}; delete it to train anew") from error


def save(method: Method, folder: Path) -> None:
    """Write method.json and weights.safetensors into `folder`, weights first: method.json says that all is there."""
    described = {
        "format": FORMAT,
        "method": method.name or f"{type(method).__module__}:{type(method).__qualname__}",
        "options": method.options.model_dump(mode="json"),
        "channels": method.channels,
        "readers": method.readers,
    }
    write_tensors(folder / "weights.safetensors", method.state_dict(), described)
    write(folder / "method.json", json.dumps(described, indent=1).encode())


def load(folder: Path, device: str | torch.device = "cpu") -> Method:
    """The method that `save` wrote into `folder`, on `device`, ready to sample.

    Raises FileError where a file is missing, corrupt, or does not fit the method's present code.
    """
    folder = Path(folder)
    tensors, described = read_tensors(folder / "weights.safetensors", device)
    try:
        if described["format"] != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {described['format']}")
        method = build(
            described["method"], channels=described["channels"], readers=described["readers"], **described["options"]
        )
        method.load_state_dict(tensors)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FileError(f"cannot load the method in {folder}: {reason}; delete the folder to train anew") from error
    return method.to(device).eval()
