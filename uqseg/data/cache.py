"""Converted data sets on disk: written row by row into a temporary folder, renamed into place, read memory-mapped."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from uqseg import files, locks
from uqseg.data.annotated import AnnotatedSet, Readings, Stored, case_digests, checksum
from uqseg.data.copies import Copies
from uqseg.data.names import printable
from uqseg.data.split import SPLITS
from uqseg.errors import DamagedError, FileError, message_of

_log = logging.getLogger("uqseg")
FORMAT = 2
MAPPED = ("images", "masks")  # checked case by case when they are first read
SMALL = ("read", "spacing", "digests", "checksums")
CHECKED = ("table.parquet", *(f"{array}.npy" for array in SMALL))  # checked whenever the set is opened
DAMAGED = "damaged"  # a file in the folder of a set in which a changed case was read: it is built anew
REMEDY = "free the disk or name another folder for the data cache in $UQSEG_CACHE"
QUOTED = 5  # problems quoted where nothing at all could be used


class Row(NamedTuple):
    """One case: image uint8 (C,H,W), masks bool (R,H,W), read bool (R,), spacing float32 (2,) in mm (NaN unknown)."""

    image: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    read: NDArray[np.bool_]
    spacing: NDArray[np.float32]


@dataclass
class Lost:
    """How many readings have a file that cannot be used: of cases that are kept, and with cases that are left out."""

    kept: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Content:
    """What a source reads: the table (patient, case, split, ...), one Row for each of its lines in the same order, or
    None where a case turns out to be unusable and is left out, the problems seen, the readers' names if known, and the
    readings lost. `problems`, `lost` and all columns but split are read after the last row: a source may add to them
    while it reads."""

    table: pd.DataFrame
    rows: Iterable[Row | None]
    problems: list[str] = field(default_factory=list)
    reader_names: Sequence[str] = ()
    lost: Lost = field(default_factory=Lost)


def open_or_build(
    cache: Path, name: str, entry: str, read: Callable[[], Content], *, identity: bytes = b"", progress: bool = False
) -> AnnotatedSet:
    """The data set `name` from its `entry` in `cache`; where it is not there yet, `read()` is called and written first.

    identity: what stands for the pixels of a simulated set in its digests: they may be rounded differently elsewhere
    Rows are stored by split (train, val, test), otherwise in the source's order: a split is a slice.
    A folder that is corrupt is built anew; what another process builds is waited for. Raises FileError where it cannot
    be written, naming the folder.
    """
    folder = cache / f"{name}-{entry[:12]}"
    if folder.exists():
        try:
            return open_entry(folder, entry)
        except DamagedError as error:
            _log.warning("%s; building it anew", error)
    with _alone_at(folder):
        with suppress(DamagedError):
            return open_entry(folder, entry)  # another process has built it in the meantime
        _build(folder, read(), name, entry, identity, progress)
    return open_entry(folder, entry)


@contextmanager
def _alone_at(folder: Path) -> Iterator[None]:
    """Be the one process that builds `folder`; where another is at it, wait until it has ended."""
    file = folder.with_name(f".{folder.name}.lock")
    with writing(folder):
        files.make_folder(folder.parent)
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.locked(file, wait=False, remedy=REMEDY))
        except locks.BusyError:
            _log.warning("waiting for another process, which prepares the data cache %s", folder)
            stack.enter_context(locks.locked(file, remedy=REMEDY))
        try:
            yield
        finally:
            with suppress(OSError):  # whoever waits for it then looks whether the folder is there
                file.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """FileError for whatever the disk refuses, naming `path` in the cache and how to have another cache."""
    try:
        yield
    except OSError as error:
        raise files.unwritable(path, error, REMEDY) from error


def _build(folder: Path, content: Content, name: str, entry: str, identity: bytes, progress: bool) -> None:
    """Write `content` beside `folder` and rename it into place; nothing is left behind by an error."""

    def opens(final: Path) -> bool:
        try:
            open_entry(final, entry)
        except DamagedError:
            return False
        return True

    with writing(folder):
        partial = files.beside(folder)
        partial.mkdir()
    try:
        _write(partial, content, name, entry, identity, progress)
        files.mend(partial, folder, opens, REMEDY)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(folder: Path, content: Content, name: str, entry: str, identity: bytes, progress: bool) -> None:
    rank = content.table["split"].map(SPLITS.index).to_numpy()
    order = np.argsort(rank, kind="stable")
    writer, kept = _write_rows(folder, content, order, name, progress)
    table = content.table.iloc[order[kept]].reset_index(drop=True)
    contents = [identity] * len(table) if identity else map(bytes, writer.small["checksums"])
    writer.small["digests"] = case_digests(contents, writer.small["read"], writer.small["spacing"], table)
    with writing(folder.parent):
        for array in SMALL:
            np.save(folder / f"{array}.npy", writer.small[array])
        table.to_parquet(folder / "table.parquet", index=False)
        meta = {
            "format": FORMAT,
            "name": name,
            "entry": entry,
            "problems": [*map(printable, content.problems), *writer.copies.problems(content.reader_names)],
            "reader_names": list(content.reader_names),
            "readings": _count(writer.small["read"], content.lost),
            "bytes": {f.name: f.stat().st_size for f in sorted(folder.iterdir())},
            "sha256": {file: files.sha256(folder / file) for file in CHECKED},
        }
        (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _count(read: NDArray[np.bool_], lost: Lost) -> Readings:
    kept = int(read.sum())
    return Readings(kept, lost.kept + lost.left_out, read.size - kept - lost.kept)


def _write_rows(
    folder: Path, content: Content, order: NDArray[np.intp], name: str, progress: bool
) -> tuple[_Writer, NDArray[np.bool_]]:
    """Write line `order[i]` of the table as row i; bool (N,), which rows hold a case. The others are closed up."""
    place = np.empty(len(order), np.intp)
    place[order] = np.arange(len(order))
    kept = np.zeros(len(order), bool)
    rows = track(
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
        for row in rows:
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
        quoted = "".join(f"\n  {printable(problem)}" for problem in content.problems[:QUOTED])
        raise FileError(f"{name}: no usable image found; check that the path holds what the source reads{quoted}")
    return writer, kept


class _Writer:
    """The large .npy files of a folder, filled by plain writes at any row: memory stays flat however many rows.

    small: the arrays that are a few bytes per row, in memory
    """

    def __init__(self, folder: Path, first: Row, n: int) -> None:
        self.shapes = [np.shape(part) for part in first]
        self.dtypes = [np.dtype(t) for t in (np.uint8, np.bool_, np.bool_, np.float32)]
        need = n * (first.image.nbytes + first.masks.nbytes)
        if need > (free := shutil.disk_usage(folder).free):
            raise FileError(
                f"cannot write the data cache {folder.parent}: it needs {need / 1e9:.2f} GB and "
                f"{free / 1e9:.2f} GB are free; {REMEDY}"
            )
        self.small = {
            "read": np.zeros((n, *self.shapes[2]), np.bool_),
            "spacing": np.zeros((n, 2), np.float32),
            "checksums": np.zeros((n, hashlib.sha256().digest_size), np.uint8),
        }
        self.copies = Copies(self.shapes[2][0])
        self.cache = folder.parent
        self.files: list[BinaryIO] = []
        self.starts = []
        with writing(self.cache):
            for name, shape, dtype in zip(MAPPED, self.shapes, self.dtypes, strict=False):
                self.files.append((folder / f"{name}.npy").open("w+b"))
                self.starts.append(_write_header(self.files[-1], dtype, (n, *shape)))

    def put(self, row: Row, place: int) -> None:
        """Write `row` as number `place`."""
        parts: tuple[NDArray[Any], ...] = row
        for name, part, shape, dtype in zip(Row._fields, parts, self.shapes, self.dtypes, strict=True):
            if part.shape != shape or part.dtype != dtype:
                raise ValueError(f"{name}: expected {dtype} {shape} in every row, got {part.dtype} {part.shape}")
        self.copies.look(row.masks, row.read)
        with writing(self.cache):
            for part, file, start in zip(parts, self.files, self.starts, strict=False):
                file.seek(start + place * part.nbytes)
                file.write(np.ascontiguousarray(part).tobytes())
        self.small["read"][place], self.small["spacing"][place] = row.read, row.spacing
        self.small["checksums"][place] = np.frombuffer(checksum(row.image, row.masks), np.uint8)

    def keep(self, places: NDArray[np.intp]) -> None:
        """Close the rows at the ascending `places` up to the front, one at a time, and cut off the rest."""
        self.small = {name: array[places] for name, array in self.small.items()}
        with writing(self.cache):
            for file, start, shape, dtype in zip(self.files, self.starts, self.shapes, self.dtypes, strict=False):
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

    def close(self) -> None:
        """Close the files. Raises FileError where the disk refuses."""
        with writing(self.cache):
            for file in self.files:
                file.close()


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Write the .npy header at the front of `file`; where the rows start."""
    file.seek(0)
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return file.tell()


def open_entry(folder: Path, entry: str | None = None) -> AnnotatedSet:
    """The data set in a folder of the cache, its large arrays memory-mapped, read-only.

    Raises DamagedError where the folder is corrupt or holds another entry than `entry`.
    """
    try:
        if (folder / DAMAGED).exists():
            raise ValueError("the pixels of a case have changed since they were written")
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["format"] != FORMAT:
            raise FileError(f"the data cache {folder} was written by another version of uqseg; delete this folder")
        if meta["entry"] != (entry or meta["entry"]):
            raise ValueError("meta.json describes another data set")
        for file, size in meta["bytes"].items():
            if (actual := (folder / file).stat().st_size) != size:
                raise ValueError(f"{file} has {actual} bytes instead of {size}")
        for file in CHECKED:
            if hashlib.sha256((folder / file).read_bytes()).hexdigest() != meta["sha256"][file]:
                raise ValueError(f"{file} has changed since it was written")
        images, masks = (np.load(folder / f"{a}.npy", mmap_mode="r", allow_pickle=False) for a in MAPPED)
        read, spacing, digests, checksums = (np.load(folder / f"{a}.npy", allow_pickle=False) for a in SMALL)
        table = pd.read_parquet(folder / "table.parquet")
        unchecked = np.zeros(len(images), bool)
        return AnnotatedSet(
            images,
            masks,
            read,
            table,
            spacing,
            meta["name"],
            problems=tuple(meta["problems"]),
            reader_names=tuple(meta["reader_names"]),
            readings=Readings(*meta["readings"]) if "readings" in meta else None,
            stored=Stored(
                folder,
                digests,
                checksums,
                np.arange(len(images)),
                unchecked,
                (images, masks, read, spacing, table),
            ),
        )
    except PermissionError as error:
        raise FileError(f"cannot read the data cache {folder}: {error}; name another folder in $UQSEG_CACHE") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = message_of(error)
        raise DamagedError(f"the data cache {folder} is corrupt ({reason})") from error
