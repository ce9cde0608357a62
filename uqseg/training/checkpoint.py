"""Trained methods on disk: weights as safetensors beside a JSON that says what they belong to; never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor

from uqseg.device import pick_device
from uqseg.errors import DamagedError, FileError, UsageError, message_of
from uqseg.files import read_json, sha256, unreadable, write
from uqseg.methods import Method, build, options
from uqseg.methods.method import size_of
from uqseg.outside import trusted

FORMAT = 2
WEIGHTS, MODEL, COST, HISTORY = "weights.safetensors", "model.json", "fit.json", "history.jsonl"
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
    """What `write_tensors` wrote. Raises DamagedError where the file is missing or corrupt, naming it."""
    try:
        with safe_open(path, "pt") as file:
            tensors, head = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        if _digest(tensors, head["json"]) != head["sha256"]:
            raise ValueError("its content does not match its checksum")
        numbers: dict[str, Any] = json.loads(head["json"])
        return tensors, numbers
    except UNREADABLE as error:
        raise unreadable(path, error, "delete it to train anew") from error


def save_method(
    method: Method[Any], folder: str | Path, *, half: bool = False, wrappers: Sequence[Mapping[str, Any]] = ()
) -> None:
    """Write weights.safetensors and model.json into `folder`, weights first: model.json says that all is there.

    half: what was trained as float16, other numbers as they are (SWAG's mean square less its squared mean would be lost
    by rounding); wrappers: name, options and state of each around it, the innermost first.
    Raises ValueError where a weight is too large for float16.
    """
    folder, tensors = Path(folder), _plain(method.state_dict())
    if half:
        trained = {name for name, _ in method.named_parameters()}
        tensors = {name: t.half() if name in trained else t for name, t in tensors.items()}
        if name := not_finite(tensors):
            raise ValueError(f"'{name}' holds numbers beyond the range of float16")
    write(folder / WEIGHTS, as_bytes(tensors))
    model = {
        "format": FORMAT,
        "method": method.label(),
        "version": method.version,
        "options": method.options.model_dump(mode="json"),
        "channels": method.channels,
        "readers": method.readers,
        "input": method.input,
        "wrappers": list(wrappers),
        "sha256": sha256(folder / WEIGHTS),
    }
    write(folder / MODEL, json.dumps(model, indent=1).encode())


def load_method(
    folder: str | Path, device: str | torch.device = "cpu", *, trust: str | Sequence[str] = ()
) -> Method[Any]:
    """The method that `save_method` wrote into `folder`, on `device`, ready to sample; `input` has facts of its images.

    trust: the classes from outside this project ("package.module:Class", "path/to/file.py:Class") whose code may be
    run; a folder of weights that names another one is refused, and nothing is imported.
    Raises UsageError for a class that is not trusted, FileError where a file is missing, corrupt, or does not fit the
    method's present code.
    """
    if not isinstance(folder, str | Path):
        raise UsageError(f"folder: expected the folder of a trained method, got {folder!r}")
    if not isinstance(trust, str | list | tuple) or not all(isinstance(name, str) for name in trust):
        raise UsageError(f"trust: expected names of classes, got {trust!r}")
    folder, place = Path(folder), pick_device(str(device))
    if (folder / "method.json").exists() and not (folder / MODEL).exists():
        raise FileError(f"{folder} was written by uqseg 0.1, which this version does not read; train anew")
    model = read_json(folder / MODEL)
    names = ("format", "method", "options", "channels", "readers")
    written, label, values, channels, readers = (entry(model, name, folder / MODEL) for name in names)
    try:
        if written != FORMAT:
            raise ValueError(f"expected format {FORMAT}, got {written}")
        label, values, images = str(label), dict(values), {"channels": channels, "readers": readers}
    except UNREADABLE as error:
        raise FileError(f"cannot use {folder / MODEL}: {message_of(error)[:300]}") from error
    label = trusted(label, trust, f"the weights in '{folder}'")
    try:
        _check_size(label, values, images, folder)
        method = build(label, values, **images)
    except (*UNREADABLE, AttributeError) as error:
        raise FileError(f"cannot use {folder / MODEL}: {message_of(error)[:300]}") from error
    load_weights(method, folder)
    return method.to(place).eval()


def _check_size(label: str, values: Mapping[str, Any], images: Mapping[str, int], folder: Path) -> None:
    """Raise ValueError where a method of this project would be far larger than its file of weights: damaged or hostile
    options would otherwise take all memory before anything is compared."""
    if ":" in label:
        return
    planned = size_of(label, options(label, **values), **images)
    size = (folder / WEIGHTS).stat().st_size
    if planned > max(2 * size, 2**24):
        raise ValueError(f"its options ask for weights of {planned} bytes, and {WEIGHTS} has {size}")


def load_weights(method: Method[Any], folder: Path) -> None:
    """Load weights and input facts of `folder` into `method`, a new one of the same kind.

    Raises DamagedError where a file is not as it was written, FileError where it does not fit the method.
    """
    path, model = folder / WEIGHTS, read_json(folder / MODEL)
    if sha256(path) != entry(model, "sha256", folder / MODEL):
        raise DamagedError(f"cannot use {path}: its content does not match the checksum in {MODEL}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if name := not_finite(tensors):
            raise ValueError(f"'{name}' holds numbers that are not finite")
        for name, own in method.state_dict().items():  # whole numbers would be taken for others without a word
            if name in tensors and tensors[name].is_floating_point() != own.is_floating_point():
                raise ValueError(f"'{name}': expected {own.dtype}, got {tensors[name].dtype}")
        method.load_state_dict(tensors)
        method.input = model["input"]
    except UNREADABLE as error:
        raise FileError(f"cannot use {path}: {message_of(error)[:300]}") from error


def check_fit(folder: Path) -> None:
    """Raise DamagedError where a file of a finished training, which `fit` wrote into `folder`, is not as written."""
    digests = {WEIGHTS: entry(read_json(folder / MODEL), "sha256", folder / MODEL)}
    digests |= entry(read_json(folder / COST), "sha256", folder / COST)
    for name, digest in digests.items():
        if sha256(folder / name) != digest:
            raise DamagedError(f"{folder / name} is not what was written (its SHA-256 differs)")


def entry(record: Any, name: str, path: Path) -> Any:
    """What the record read from `path` says of `name`. Raises DamagedError where it says nothing."""
    try:
        return record[name]
    except (KeyError, TypeError) as error:
        raise DamagedError(f"cannot use {path}: it holds no '{name}'") from error


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or an infinite number, or None."""
    return next((name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())), None)
