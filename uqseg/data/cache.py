"""Converted data sets on disk: written row by row into a temporary folder, renamed into place, read memory-mapped."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.split import SPLITS
from uqseg.errors import FileError

FORMAT = 1
ARRAYS = ("images", "masks", "read", "spacing")
STALE_SECONDS = 3600.0
SHOWN = 5  # problems quoted where nothing at all could be used


class Row(NamedTuple):
    """One case: image uint8 (C,H,W), masks bool (R,H,W), read bool (R,), spacing float32 (2,) in mm (NaN unknown)."""

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    read: NDArray[np.bool_]
    spacing: NDArray[np.float32]


@dataclass(frozen=True)
class Content:
    """What a source found: the table (patient, case, split, ...), one Row for each of its lines in the same order, or
    None where a case turns out to be unusable and is left out, and the problems seen.
    `problems` and all columns but split are read after the last row: a source may add to them while it reads."""

    table: pd.DataFrame
    rows: Iterable[Row | None]
    problems: list[str] = field(default_factory=list)
    simulated: bool = False


def folder_of(cache: Path, name: str, key: str) -> Path:
    """Where the data set `name` with `key` lies."""
    return cache / f"{name}-{key[:12]}"


def open_or_build(
    cache: Path, name: str, key: str, find: Callable[[], Content], *, progress: bool = False
) -> AnnotatedSet:
    """The data set `name` with `key` from `cache`; where it is not there yet, `find()` is called and written first.

    Rows are stored by split (train, val, test), otherwise in the source's order: a split is a slice.
    Raises FileError where the folder cannot be written or is corrupt, naming the folder.
    """
    folder = folder_of(cache, name, key)
    if not folder.exists():
        _build(folder, find(), name, key, progress)
    return _open(folder, name, key)


def _build(folder: Path, content: Content, name: str, key: str, progress: bool) -> None:
    """Write `content` beside `folder` and rename it into place; nothing is left behind by an error."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        _remove_stale(folder)
        partial.mkdir(parents=True)
    except OSError as error:
        raise FileError(_cannot_write(folder, error)) from error
    try:
        _write(partial, content, name, key, progress)
        try:
            partial.rename(folder)
        except OSError as error:
            if not (folder / "meta.json").exists():  # otherwise another process was faster with the same content
                raise FileError(_cannot_write(folder, error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_stale(folder: Path) -> None:
    """Remove what builds of this folder left behind that were killed: nothing written to it for an hour."""
    for old in folder.parent.glob(f".{folder.name}.*"):
        touched = max((f.stat().st_mtime for f in (old, *old.iterdir())), default=0.0)
        if time.time() - touched > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)


def _cannot_write(folder: Path, error: OSError) -> str:
    return (
        f"cannot write the data cache {folder}: {error.strerror or error}; free the disk or name another folder "
        f"in $UQSEG_CACHE"
    )


def _write(folder: Path, content: Content, name: str, key: str, progress: bool) -> None:
    rank = content.table["split"].map(SPLITS.index).to_numpy()
    order = np.argsort(rank, kind="stable")
    kept = _write_rows(folder, content, order, name, progress)
    table = content.table.iloc[order[kept]].reset_index(drop=True)
    try:
        table.to_parquet(folder / "table.parquet", index=False)
        files = sorted(folder.iterdir())
        meta = {
            "format": FORMAT,
            "name": name,
            "key": key,
            "simulated": content.simulated,
            "problems": list(content.problems),
            "bytes": {f.name: f.stat().st_size for f in files},
        }
        (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    except OSError as error:
        raise FileError(_cannot_write(folder, error)) from error


def _write_rows(
    folder: Path, content: Content, order: NDArray[np.intp], name: str, progress: bool
) -> NDArray[np.bool_]:
    """Write line `order[i]` of the table as row i; bool (N,), which rows hold a case. The others are closed up."""
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    kept = np.zeros(len(order), bool)
    shown = track(
        content.rows,
        f"{name}: preparing",
        total=len(order),
        disable=not progress,
        console=Console(stderr=True),
        transient=True,
    )
    writer: _Writer | None = None
    count = 0
    try:
        for row in shown:
            if row is not None:
                writer = writer or _Writer(folder, row, len(order))
                writer.put(row, int(place[count]))
                kept[place[count]] = True
            count += 1
        if writer is not None and not kept.all():
            writer.keep(np.flatnonzero(kept))
    finally:
        if writer is not None:
            writer.close()
    if count != len(order):
        raise ValueError(f"rows: expected one for each of the table's {len(order)} lines, got {count}")
    if writer is None:
        seen = "".join(f"\n  {problem}" for problem in content.problems[:SHOWN])
        raise FileError(f"{name}: no usable image found; check that the path holds what the source reads{seen}")
    return kept


class _Writer:
    """The four .npy files of a folder, filled by plain writes at any row: memory stays flat however many rows."""

    def __init__(self, folder: Path, first: Row, n: int) -> None:
        self.folder = folder
        self.shapes = [np.shape(part) for part in first]
        self.dtypes = [np.dtype(t) for t in (np.uint8, np.bool_, np.bool_, np.float32)]
        need = n * sum(int(np.prod(s)) * d.itemsize for s, d in zip(self.shapes, self.dtypes, strict=True))
        free = shutil.disk_usage(folder).free
        if need > free:
            raise FileError(
                f"cannot write the data cache {folder.parent}: it needs {need / 1e9:.2f} GB and "
                f"{free / 1e9:.2f} GB are free; free the disk or name another folder in $UQSEG_CACHE"
            )
        self.files = []
        self.starts = []
        for name, shape, dtype in zip(ARRAYS, self.shapes, self.dtypes, strict=True):
            file = (folder / f"{name}.npy").open("w+b")
            self.files.append(file)
            self.starts.append(_write_header(file, dtype, (n, *shape)))

    def put(self, row: Row, place: int) -> None:
        """Write `row` as number `place`."""
        parts = zip(ARRAYS, row, self.files, self.starts, self.shapes, self.dtypes, strict=True)
        for name, part, file, start, shape, dtype in parts:
            if part.shape != shape or part.dtype != dtype:
                raise ValueError(f"{name}: expected {dtype} {shape} in every row, got {part.dtype} {part.shape}")
            try:
                file.seek(start + place * part.nbytes)
                file.write(np.ascontiguousarray(part).tobytes())
            except OSError as error:
                raise FileError(_cannot_write(self.folder.parent, error)) from error

    def keep(self, places: NDArray[np.intp]) -> None:
        """Close the rows at the ascending `places` up to the front, one at a time, and cut off the rest."""
        try:
            for file, start, shape, dtype in zip(self.files, self.starts, self.shapes, self.dtypes, strict=True):
                step = int(np.prod(shape)) * dtype.itemsize
                for to, place in enumerate(places.tolist()):
                    if to == place:
                        continue
                    file.seek(start + place * step)
                    row = file.read(step)
                    file.seek(start + to * step)
                    file.write(row)
                file.truncate(start + len(places) * step)
                # NumPy leaves room in the header for the number of rows: a smaller one fits in the same bytes.
                if _write_header(file, dtype, (len(places), *shape)) != start:
                    raise ValueError(f"{file.name}: the header for {len(places)} rows has another length")
        except OSError as error:
            raise FileError(_cannot_write(self.folder.parent, error)) from error

    def close(self) -> None:
        for file in self.files:
            try:
                file.close()
            except OSError as error:
                raise FileError(_cannot_write(self.folder.parent, error)) from error


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Write the .npy header at the front of `file`; where the rows start."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return file.tell()


def _open(folder: Path, name: str, key: str) -> AnnotatedSet:
    """The data set in `folder`, its large arrays memory-mapped, read-only."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if (meta["format"], meta["name"], meta["key"]) != (FORMAT, name, key):
            raise ValueError("meta.json speaks of another data set")
        for file, size in meta["bytes"].items():
            if (got := (folder / file).stat().st_size) != size:
                raise ValueError(f"{file} has {got} bytes instead of {size}")
        images, masks = (np.load(folder / f"{a}.npy", mmap_mode="r", allow_pickle=False) for a in ARRAYS[:2])
        read, spacing = (np.load(folder / f"{a}.npy", allow_pickle=False) for a in ARRAYS[2:])
        table = pd.read_parquet(folder / "table.parquet")
        return AnnotatedSet(
            images, masks, read, table, spacing, name, key, bool(meta["simulated"]), tuple(meta["problems"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise FileError(
            f"the data cache {folder} is corrupt ({reason}); delete this folder to build it anew"
        ) from error
