"""Trained models: a method with the wrappers around it, in anybody's folder or among those that come with uqseg."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from uqseg import wrappers
from uqseg.errors import FileError, UsageError, unknown
from uqseg.files import read_json
from uqseg.methods import Method
from uqseg.outside import trusted
from uqseg.samples import Sampler
from uqseg.training.checkpoint import MODEL, load_method, save_method
from uqseg.wrappers import Wrapper

CARD = "CARD.md"
SHIPPED = Path(str(files("uqseg"))) / "models"


def shipped() -> dict[str, str]:
    """The models that come with uqseg, by name (lidc64/unet), with the first line of their cards."""
    cards = {card.parent.relative_to(SHIPPED).as_posix(): card for card in sorted(SHIPPED.rglob(CARD))}
    return {name: card.read_text(encoding="utf-8").partition("\n")[0].strip("# ") for name, card in cards.items()}


def load_model(
    model: str | Path, device: str | torch.device = "cpu", *, trust: str | Sequence[str] = ()
) -> Method[Any] | Wrapper[Any]:
    """A trained model, ready to sample: one that comes with uqseg, by name, or the one in a folder.

    Its `input` has facts of the images that it was trained on, see `uqseg.training.facts`. device, trust: see
    `load_method`. Raises UsageError for an unknown name, for a method of a run, and for a class that is not trusted,
    FileError where a file is missing, corrupt, or does not fit the present code.
    """
    folder = find(str(model)) if isinstance(model, str | Path) else model
    method = load_method(folder, device, trust=trust)
    sampler: Method[Any] | Wrapper[Any] = method
    for entry in read_json(folder / MODEL).get("wrappers", []):
        try:
            label = trusted(entry["name"], trust, f"the wrappers in '{folder}'")
            outer = wrappers.build(label, **entry["options"])
            outer.load_state(sampler, entry["state"])
        except (KeyError, TypeError, AttributeError) as error:
            raise FileError(f"cannot use {folder / MODEL}: its wrappers are damaged ({error!r})") from error
        sampler = outer
    return sampler


def find(model: str) -> Path:
    """The folder of a model's name, or the folder that it is. Raises UsageError for neither, and within a run."""
    if (known := SHIPPED / model / MODEL).is_file():
        return known.parent
    folder = Path(model)
    if not (folder / MODEL).exists() and any((above / "run.json").exists() for above in (folder, *folder.parents)):
        raise UsageError(
            f"'{model}' is in the folder of a run, which names its weights but does not hold them; give `uqseg export "
            f"{model} --to FOLDER`, then load FOLDER."
        )
    if not folder.is_dir():
        raise unknown("model, or folder of one,", model, shipped())
    return folder


def save_model(sampler: Sampler, folder: Path, *, half: bool = False) -> None:
    """Write a method and the wrappers around it into `folder`; half: weights as float16, which halves the file."""
    chain: list[dict[str, Any]] = []
    while isinstance(sampler, Wrapper):
        options = sampler.options.model_dump(mode="json")
        chain.insert(0, {"name": sampler.label(), "options": options, "state": sampler.state()})
        sampler = sampler.sampler
    if not isinstance(sampler, Method):
        raise ValueError(f"sampler: expected a trained method or a wrapper around one, got {type(sampler).__name__}")
    save_method(sampler, folder, half=half, wrappers=chain)
