"""Reader slots: which of the four an annotation is kept in, and LIDC as 8-bit PNGs with one mask file per slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.annotated import sha256_of
from uqseg.data.cache import Row
from uqseg.data.images import Decoded, binary, crop_or_pad, read_pixels, stream
from uqseg.data.lidc.database import READERS
from uqseg.errors import FileError
from uqseg.seeds import digest_of


class Slots(NamedTuple):
    """One case: its name, its lesion, its image and the four mask files below the root, None where there is none."""

    case: str
    lesion: str
    image: str
    masks: Sequence[str | None]


def slots_of(lesion: str) -> NDArray[np.intp]:
    """The slot of each of a lesion's annotations, (4,): they are recorded from the first on, so as recorded, none is
    a reader."""
    return np.random.default_rng(int.from_bytes(digest_of("slots", lesion)[:8], "big")).permutation(READERS)


def slot_of(annotations: pd.DataFrame, order: Callable[[str], NDArray[np.intp]] = slots_of) -> dict[int, int]:
    """The slot of each annotation (id) of a table (annotation, nodule) in the order of the database."""
    slot: dict[int, int] = {}
    for nodule, part in annotations.groupby("nodule"):
        slot.update(zip(part["annotation"].tolist(), order(str(nodule)).tolist(), strict=False))
    return slot


def placed(
    lesion: str, masks: Sequence[NDArray[np.bool_] | None], size: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks bool (R,size,size) and read bool (R,) in the lesion's order of slots; None is a reader who is absent."""
    out = np.zeros((READERS, size, size), bool)
    read = np.zeros(READERS, bool)
    for mask, place in zip(masks, np.argsort(slots_of(lesion)), strict=True):
        if mask is not None:
            out[place], read[place] = crop_or_pad(mask, size), True
    return out, read


def decode(
    root: Path, case: Slots, pixels: int, size: int, spacing: float = np.nan
) -> tuple[Decoded, list[NDArray[np.bool_]]]:
    """A case cropped to its centre, and the uncut masks of the readers who read it. Raises FileError naming the file.

    pixels: every file is pixels×pixels; size: of the crop; spacing: mm, NaN where unknown
    """
    image = _grey(root / case.image, pixels)
    missing = [f"mask missing, reader taken as absent: {case.case}, slot {r}" for r in range(READERS)]
    missing = [text for text, mask in zip(missing, case.masks, strict=True) if mask is None]
    if len(missing) == READERS:
        raise FileError(f"{case.image}: no reader's mask beside it")
    uncut = [None if m is None else binary(_grey(root / m, pixels), str(root / m)) for m in case.masks]
    masks, read = placed(case.lesion, uncut, size)
    row = Row(crop_or_pad(image, size)[None], masks, read, np.full(2, spacing, np.float32))
    return Decoded(row, sha256_of(image), missing), [mask for mask in uncut if mask is not None]


def rows(
    root: Path, cases: Sequence[Slots], pixels: int, size: int, spacing: float, problems: list[str]
) -> Iterator[Row | None]:
    """The row of each case as `decode` gives it; a case with a file that cannot be used is None and in `problems`."""
    return stream(
        cases, lambda case: decode(root, case, pixels, size, spacing)[0], lambda case: case.case, root, problems
    )


def _grey(file: Path, pixels: int) -> NDArray[np.uint8]:
    """A grey 8-bit picture of pixels×pixels. Raises FileError naming the file for anything else."""
    array: NDArray[Any] = read_pixels(file).array
    if array.shape != (pixels, pixels) or array.dtype not in (np.uint8, np.bool_):
        raise FileError(f"{file}: expected grey 8 bit {pixels}×{pixels}, got {array.dtype} {array.shape}")
    return array.astype(np.uint8)
