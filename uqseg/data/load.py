"""The registry of data sources, and `load`, the one call that ends in an AnnotatedSet."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache as once
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data import cache as caches
from uqseg.data.annotated import AnnotatedSet
from uqseg.data.cache import Content
from uqseg.data.names import plain, printable
from uqseg.data.split import SPLITS, evenly
from uqseg.errors import FileError, UsageError, unknown
from uqseg.outside import source_hash
from uqseg.seeds import digest_of

SIZES = (16, 1024)
# Imported before uqseg.data takes the function `sources` from here: a later import would put the package in its place.
PACKAGE = importlib.import_module("uqseg.data.sources")

Read = TypeVar("Read", bound=Callable[..., Content])


@dataclass(frozen=True)
class Request:
    """What `load` was asked for, checked: size in pixels, split, limit, seed of the draw, cache folder."""

    size: int
    split: str | None
    limit: int | None
    seed: int
    cache: Path
    progress: bool

    def rows(self, table: pd.DataFrame) -> NDArray[np.intp]:
        """Ascending index of the lines of `table` (patient, split) in the request's split and limit."""
        of_split = table["split"].to_numpy() == self.split if self.split is not None else np.ones(len(table), bool)
        rows = np.flatnonzero(of_split)
        return rows[evenly(table["patient"].iloc[rows].tolist(), self.limit, self.seed)]


@dataclass(frozen=True)
class Source:
    """A data source: a function that reads it, and what is declared of it.

    read:    (path, size) -> Content; where the source takes no path, path is None
    description: one line
    stamp:   path -> anything whose text changes when the files change; None: the source takes no path
    version: to be changed whenever a pixel or a column changes
    largest: greatest size in pixels;  even: whether sizes are even, so that a crop has a centre
    centred: whether an image of a smaller size is the centre of that of the largest
    window: the numbers that become 0 and 255, in HU for CT; None where images have 8 bits or the table has a window
    simulated: whether the images are: then they are recognised by version, size and names, and not by their pixels
    readers_are_persons: whether a reader is the same person in every case
    by_request: `read` gets the Request in place of the size, and may keep parts of its work in Request.cache
    partial: `read` returns only what the request asks for, because reading everything takes long
    origin: hash of the text of a source from outside this tree, whose version nobody need remember; set by `source`
    """

    name: str
    read: Callable[..., Content]
    description: str
    stamp: Callable[[Path], Iterable[object]] | None = None
    version: object = 1
    largest: int = SIZES[1]
    even: bool = False
    centred: bool = False
    window: tuple[float, float] | None = None
    simulated: bool = False
    readers_are_persons: bool = False
    by_request: bool = False
    partial: bool = False
    origin: str = ""

    @property
    def typed(self) -> str:
        """How the source is asked for."""
        return self.name if self.stamp is None else f"{self.name}:PATH"

    def load(self, path: Path | None, request: Request) -> AnnotatedSet:
        """The request's cases, from the cache where they lie there."""
        size = request.size
        if size > self.largest or (self.even and size % 2):
            raise UsageError(
                f"size: '{self.name}' has images of {'an even size' if self.even else 'any size'} up to "
                f"{self.largest} pixels, got {size}."
            )
        # Only the entry in the cache is found by path and times: the key of a set comes from its content.
        identity = (self.name, self.version, self.origin, size)
        entry: list[object] = [*identity]
        if self.partial:
            entry += [request.split, request.limit, request.limit and request.seed]
        if path is not None and self.stamp is not None:
            entry += [printable(str(path.resolve())), *self.stamp(path)]
        data = caches.open_or_build(
            request.cache,
            self.name,
            digest_of(*entry).hex(),
            lambda: self.read(path, request if self.by_request else size),
            identity=digest_of(*identity) if self.simulated else b"",
            progress=request.progress,
        )
        data = replace(
            data,
            simulated=self.simulated,
            readers_are_persons=self.readers_are_persons,
            folder="" if path is None else plain(Path(os.path.abspath(path)).name),
        )
        rows = request.rows(data.table)
        in_one_piece = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)
        return data.take(slice(int(rows[0]), int(rows[-1]) + 1) if in_one_piece else rows)


_sources: dict[str, Source] = {}


def source(name: str, description: str, **declared: Any) -> Callable[[Read], Read]:
    """Register a function `read` as the source `name`; declared: what `Source` lists.

    Raises ValueError for a name that this tree uses.
    """

    def register(read: Read) -> Read:
        origin = source_hash(read)
        if (origin and _module(name) in _modules()) or (name in _sources and not _sources[name].origin):
            raise ValueError(f"source: '{name}' is registered twice; give one of them another name")
        _sources[name] = Source(name, read, description, origin=origin, **declared)
        return read

    return register


def _module(name: str) -> str:
    """The module of PACKAGE in which the source `name` would be."""
    return name.replace("-", "_")


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(PACKAGE.__path__)]


@once
def _discover() -> None:
    for module in _modules():
        importlib.import_module(f"{PACKAGE.__name__}.{module}")


def sources() -> dict[str, str]:
    """Every source as it is typed (lidc-sim, folder:PATH, ...) with one line of description."""
    _discover()
    return {s.typed: s.description for _, s in sorted(_sources.items())}


def description_of(name: str) -> str:
    """The line of description of the source `name` that was loaded before, "" where there is none of that name."""
    definition = _sources.get(name)
    return definition.description if definition is not None else ""


def original_side(name: str) -> int | None:
    """The side of the pictures of which the images of the source `name` are the centre; None where that is unknown."""
    definition = _sources.get(name)
    return definition.largest if definition is not None and definition.centred else None


def window_of(name: str) -> tuple[float, float] | None:
    """The numbers that the source `name` shows as 0 and 255, where it has such a window."""
    definition = _sources.get(name)
    return definition.window if definition is not None else None


def default_cache() -> Path:
    """$UQSEG_CACHE, or the folder uqseg in the user's cache directory. Raises FileError for a user without a home."""
    try:
        if named := os.environ.get("UQSEG_CACHE"):
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uqseg"
    except RuntimeError as error:
        raise FileError(f"no folder for the data cache: {error} Name one in $UQSEG_CACHE") from error


def _find(text: str) -> tuple[Source, Path | None]:
    """The source and path that "name" or "name:PATH" stand for."""
    name, _, rest = text.partition(":")
    # A source lives in the module of its name: the libraries that only the others need are not imported.
    if name not in _sources and _module(name) in _modules():
        importlib.import_module(f"{PACKAGE.__name__}.{_module(name)}")
    if name not in _sources:
        _discover()
    if name not in _sources:
        if os.path.isdir(text):
            raise UsageError(f"unknown data source '{text}'. Did you mean 'folder:{text}'?")
        raise unknown("data source", name, _sources)
    definition = _sources[name]
    if definition.stamp is None:
        if rest:
            raise UsageError(f"source '{name}' takes no path, got '{rest}'; ask for '{name}'.")
        return definition, None
    if not rest:
        raise UsageError(f"source '{name}' needs a path; ask for '{definition.typed}'.")
    path = Path(os.path.expanduser(rest))
    if not os.path.exists(path):
        raise UsageError(f"source '{name}': there is no file or folder '{path}'; give an existing path.")
    return definition, path


def load(
    source: str,
    *,
    split: str | None = None,
    size: int = 64,
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
    for name, value, kind, words in (
        ("source", source, str, "a name such as 'lidc-sim'"),
        ("size", size, Integral, "a whole number"),
        ("limit", limit, Integral | None, "a whole number or None"),
        ("seed", seed, Integral, "a whole number"),
        ("cache", cache, str | Path | None, "a folder or None"),
    ):
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UsageError(f"{name}: expected {words}, got {value!r}.")
    if split is not None and split not in SPLITS:
        raise unknown("split", str(split), SPLITS)
    if not SIZES[0] <= size <= SIZES[1]:
        raise UsageError(f"size: expected a whole number from {SIZES[0]} to {SIZES[1]}, got {size}.")
    if limit is not None and limit < 1:
        raise UsageError(f"limit: expected at least 1 image or None for all, got {limit}.")
    definition, path = _find(source)
    folder = Path(cache).expanduser() if cache is not None else default_cache()
    data = definition.load(path, Request(size, split, limit, seed, folder, progress))
    if not len(data):
        remedy = ", or write a cases.csv with other splits, as `uqseg data --write-cases` does" * (
            data.name == "folder"
        )
        raise UsageError(f"source '{source}' has no image in split '{split or 'all'}'; choose another split{remedy}.")
    return data
