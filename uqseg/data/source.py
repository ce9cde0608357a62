"""The registry of data sources, and `load`, the one call that ends in an AnnotatedSet."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache as once
from pathlib import Path

import numpy as np

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.split import SPLITS, evenly
from uqseg.errors import UsageError, unknown

SIZES = (16, 1024)


@dataclass(frozen=True)
class Request:
    """What `load` was asked for, checked: size in pixels, split, limit, seed of the draw, cache folder."""

    size: int
    split: str | None
    limit: int | None
    seed: int
    cache: Path
    progress: bool


Loader = Callable[[Path | None, Request], AnnotatedSet]


@dataclass(frozen=True)
class Source:
    name: str
    path: bool
    description: str
    loader: Loader


_sources: dict[str, Source] = {}


def source(name: str, *, path: bool, description: str) -> Callable[[Loader], Loader]:
    """Register a function (path, request) -> AnnotatedSet; `path` says whether the source is given as name:PATH."""

    def register(loader: Loader) -> Loader:
        if name in _sources:
            raise ValueError(f"source: '{name}' is registered twice; give one of them another name")
        _sources[name] = Source(name, path, description, loader)
        return loader

    return register


@once
def _discover() -> None:
    package = importlib.import_module("uqseg.data")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"uqseg.data.{module.name}")


def sources() -> dict[str, str]:
    """Every source as it is typed (lidc-sim, folder:PATH, ...) with one line of description."""
    _discover()
    return {f"{s.name}:PATH" if s.path else s.name: s.description for _, s in sorted(_sources.items())}


def default_cache() -> Path:
    """$UQSEG_CACHE, or the folder uqseg in the user's cache directory."""
    if named := os.environ.get("UQSEG_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uqseg"


def _find(text: str) -> tuple[Source, Path | None]:
    """The source and path that "name" or "name:PATH" stand for."""
    name, _, rest = text.partition(":")
    # Most sources live in the module of their name: then the libraries that only the others need are not imported.
    module = name.replace("-", "_")
    if module in (m.name for m in pkgutil.iter_modules(importlib.import_module("uqseg.data").__path__)):
        importlib.import_module(f"uqseg.data.{module}")
    if name not in _sources:
        _discover()
    if name not in _sources:
        raise unknown("data source", name, _sources)
    found = _sources[name]
    if not found.path:
        if rest:
            raise UsageError(f"source '{name}' takes no path, got '{rest}'; ask for '{name}'.")
        return found, None
    if not rest:
        raise UsageError(f"source '{name}' needs a path; ask for '{name}:PATH'.")
    path = Path(rest).expanduser()
    if not path.exists():
        raise UsageError(f"source '{name}': there is no file or folder '{path}'; give an existing path.")
    return found, path


def load(
    source: str,
    *,
    split: str | None = None,
    size: int = 128,
    limit: int | None = None,
    seed: int = 0,
    cache: str | Path | None = None,
    progress: bool = False,
) -> AnnotatedSet:
    """The images of a source with the masks of all readers, ready to train on or to score.

    source: a name from `sources()`, such as "lidc-sim" or "folder:PATH"
    split:  "train", "val", "test" or None for all; always by patient, the same whatever `limit`
    size:   images are size×size pixels
    limit:  at most this many images, drawn evenly over patients with `seed`
    cache:  folder of the converted data; None: $UQSEG_CACHE or the user's cache directory
    Raises UsageError for a request that cannot be met and FileError for files that cannot be used.
    """
    if split is not None and split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if not SIZES[0] <= size <= SIZES[1]:
        raise UsageError(f"size: expected a whole number from {SIZES[0]} to {SIZES[1]}, got {size}.")
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected at least 1 image or None for all, got {limit}.")
    found, path = _find(source)
    folder = Path(cache).expanduser() if cache is not None else default_cache()
    loaded = found.loader(path, Request(size, split, limit, seed, folder, progress))
    if not len(loaded):
        raise UsageError(f"source '{source}' has no image in split '{split or 'all'}'; choose another split.")
    return loaded


def key_of(*parts: object) -> str:
    """Hexadecimal SHA-256 of the parts' text: the key of a data set from its content and parameters."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def selected_key(key: str, request: Request) -> str:
    """The key of the cases that `request` selects from the whole set with `key`."""
    if request.split is None and request.limit is None:
        return key
    seed = request.seed if request.limit is not None else None
    return key_of(key, request.split, request.limit, seed)


def select(whole: AnnotatedSet, request: Request) -> AnnotatedSet:
    """The request's split and limit of a whole set; a split that lies in one piece is a view, copying nothing."""
    key = selected_key(whole.key, request)
    if request.split is not None:
        rows = np.flatnonzero(whole.table["split"].to_numpy() == request.split)
        in_one_piece = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
        whole = whole.take(slice(int(rows[0]), int(rows[-1]) + 1) if in_one_piece else rows)
    if request.limit is not None and request.limit < len(whole):
        whole = whole.take(evenly(whole.table["patient"].tolist(), request.limit, request.seed))
    return replace(whole, key=key)
