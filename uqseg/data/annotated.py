"""AnnotatedSet: images, the masks of every reader, and what is known about each case."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.errors import FileError

if TYPE_CHECKING:
    from uqseg.samples import Batch

Index = NDArray[np.intp] | slice
AT_ONCE = 64  # cases verified at once


@dataclass(frozen=True)
class Stored:
    """What a cache has kept to recognise and to check the N cases whose arrays it holds.

    folder:    where the arrays lie
    digests:   uint8 (N,32), see `AnnotatedSet.digests`;  checksums: uint8 (N,32), see `checksum`
    rows:      intp (N,), the cases' rows in `intact`
    intact:    bool, which rows have been read and agree with their checksums; shared by all subsets
    parts:     the arrays and the table that all this is about
    """

    folder: Path
    digests: NDArray[np.uint8]
    checksums: NDArray[np.uint8]
    rows: NDArray[np.intp]
    intact: NDArray[np.bool_]
    parts: tuple[object, ...]


class Readings(NamedTuple):
    """How many readings a source has: those that are there, those whose file cannot be used, those without a file."""

    kept: int
    lost: int
    absent: int


@dataclass(frozen=True)
class AnnotatedSet:
    """N images with the masks of R readers; arrays may be memory-mapped and are never written to.

    images:  uint8 (N,C,H,W)
    masks:   bool (N,R,H,W), all False where a reader drew nothing or did not read
    read:    bool (N,R), who read this image; an empty mask of a reader who read it is an answer
    table:   N rows: patient, case (unique), split ("train"/"val"/"test"), and whatever the source knows
    spacing: float32 (N,2), mm per pixel (rows, columns), NaN where unknown
    name:    the source's name;  folder: the data folder's own name, "" for data that needs none
    simulated: whether the images are simulated, which is stated wherever they are shown
    problems: what the source found wrong, one line each, never silently fixed
    readers_are_persons: whether a reader is the same person in every case; otherwise readers are slots
    reader_names: R names; empty: "slot 0", "slot 1", ...
    readings: how many readings the source has in all its splits; None where that was not counted
    stored:  what the cache knows of the arrays; None for a set made in memory
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    read: NDArray[np.bool_]
    table: pd.DataFrame
    spacing: NDArray[np.float32]
    name: str
    simulated: bool = False
    problems: tuple[str, ...] = ()
    readers_are_persons: bool = False
    reader_names: tuple[str, ...] = ()
    folder: str = ""
    readings: Readings | None = None
    stored: Stored | None = None

    def __post_init__(self) -> None:
        n, _, height, width = self.images.shape
        expected = {
            "images": (self.images, np.uint8, self.images.shape),
            "masks": (self.masks, np.bool_, (n, self.masks.shape[1], height, width)),
            "read": (self.read, np.bool_, (n, self.masks.shape[1])),
            "spacing": (self.spacing, np.float32, (n, 2)),
        }
        for name, (array, dtype, shape) in expected.items():
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name}: expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")
        if len(self.table) != n or not {"patient", "case", "split"} <= set(self.table.columns):
            raise ValueError(
                f"table: expected {n} rows with patient, case and split, got {len(self.table)} rows "
                f"with {list(self.table.columns)}"
            )
        names = self.reader_names or tuple(f"slot {r}" for r in range(self.readers))
        if len(names) != self.readers:
            raise ValueError(f"reader_names: expected {self.readers}, got {len(names)}")
        object.__setattr__(self, "reader_names", names)
        if self.stored is not None and any(a is not b for a, b in zip(self.parts, self.stored.parts, strict=True)):
            object.__setattr__(self, "stored", None)  # some part has been replaced: it has a key of its own

    def __len__(self) -> int:
        return len(self.table)

    @property
    def readers(self) -> int:
        """How many slots of readers there are (R); an image need not have been read by all."""
        return int(self.masks.shape[1])

    @cached_property
    def cases(self) -> NDArray[np.object_]:
        """The names of the cases, (N,)."""
        return self.table["case"].to_numpy(object)

    @property
    def parts(self) -> tuple[object, ...]:
        """What the digests are made of."""
        return self.images, self.masks, self.read, self.spacing, self.table

    @cached_property
    def digests(self) -> NDArray[np.uint8]:
        """One SHA-256 per case, uint8 (N,32): of all that training and scoring use of it, or, where it is simulated,
        of what it is simulated from."""
        if self.stored is not None:
            return self.stored.digests
        return case_digests(map(checksum, self.images, self.masks), self.read, self.spacing, self.table)

    @cached_property
    def key(self) -> str:
        """The identity of the cases, whatever their order and wherever they lie: part of every fit and score key."""
        return hashlib.sha256(b"".join(sorted(map(bytes, self.digests)))).hexdigest()

    def take(self, index: Index) -> AnnotatedSet:
        """The cases at `index`, in that order; a slice copies no image."""
        taken = replace(
            self,
            images=self.images[index],
            masks=self.masks[index],
            read=self.read[index],
            table=self.table.iloc[index].reset_index(drop=True),
            spacing=self.spacing[index],
        )
        if (old := self.stored) is None:
            return taken
        of_cases = (old.digests[index], old.checksums[index], old.rows[index])
        return replace(taken, stored=Stored(old.folder, *of_cases, old.intact, taken.parts))

    def batch(self, index: Index) -> Batch:
        """Copies of the cases at `index` as tensors.

        Arrays from a cache are checked when a case is read for the first time; FileError where they have changed.
        """
        import torch

        from uqseg.samples import Batch

        # In one order, for convolutions round differently in another.
        images, masks = np.array(self.images[index], order="C"), np.array(self.masks[index], order="C")
        self._check(index, images, masks)
        return Batch(
            torch.from_numpy(images),
            self.cases[index].tolist(),
            torch.from_numpy(masks),
            torch.from_numpy(np.array(self.read[index])),
            torch.from_numpy(np.array(self.spacing[index])),
        )

    def verify(self) -> None:
        """Read all arrays and check them; FileError naming the cache where one has changed."""
        if self.stored is not None:
            self.stored.intact[self.stored.rows] = False
            for start in range(0, len(self), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                self._check(part, self.images[part], self.masks[part])

    def _check(self, index: Index, images: NDArray[np.uint8], masks: NDArray[np.bool_]) -> None:
        """FileError where a case at `index` that has not been checked yet differs from what was written."""
        if self.stored is None:
            return
        rows, checksums = self.stored.rows[index], self.stored.checksums[index]
        for i in np.flatnonzero(~self.stored.intact[rows]).tolist():
            if checksum(images[i], masks[i]) != checksums[i].tobytes():
                case = self.cases[index][i]
                with suppress(OSError):  # a cache that cannot be written to is named all the same
                    (self.stored.folder / "damaged").touch()
                raise FileError(
                    f"the data cache {self.stored.folder} is corrupt (the pixels of case '{case}' have changed since "
                    f"they were written); the same command builds it anew, if not, delete this folder"
                )
            self.stored.intact[rows[i]] = True


def checksum(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> bytes:
    """SHA-256 of one case's image (C,H,W) and masks (R,H,W), with their types and shapes."""
    return sha256_of(image, masks)


def case_digests(
    contents: Iterable[bytes], read: NDArray[np.bool_], spacing: NDArray[np.float32], table: pd.DataFrame
) -> NDArray[np.uint8]:
    """`AnnotatedSet.digests`, uint8 (N,32); contents: what stands for each case's arrays, mostly their checksum."""
    known = np.where(np.isnan(spacing), np.float32(np.nan), spacing)  # NaN has many bit patterns
    names = zip(table["case"], table["patient"], table["split"], strict=True)
    digests = [
        sha256_of(content, read_, spacing_, "\x1f".join(map(str, names_)).encode())
        for content, read_, spacing_, names_ in zip(contents, read, known, names, strict=True)
    ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, hashlib.sha256().digest_size)


def sha256_of(*parts: NDArray[Any] | bytes) -> bytes:
    """SHA-256 of arrays, with their types and shapes, and bytes."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"{part.dtype.str}{part.shape}".encode())
            total.update(np.ascontiguousarray(part).tobytes())
        else:
            total.update(part)
    return total.digest()
