"""Reader slots: which of the four an annotation is kept in, and LIDC as 8-bit pictures with one mask file per slot."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.annotated import sha256_of
from uqseg.data.cache import Lost, Row
from uqseg.data.images import Decoded, binary, crop_or_pad, read_picture, stream
from uqseg.data.lidc.database import READERS
from uqseg.errors import FileError
from uqseg.seeds import digest_of

K = TypeVar("K", bound=Hashable)
MOST = 2**20  # numbers that a file may hold: far more than it should, and few bytes


class Slots(NamedTuple):
    """One case: its name, its lesion, its image and the slots' mask files below the root, None where there is none."""

    case: str
    lesion: str
    image: str
    masks: Sequence[str | None]


def slots_of(lesion: str, readers: int = READERS) -> NDArray[np.intp]:
    """The slot of each of a lesion's annotations, (readers,): they are recorded from the first on, so as recorded, none
    is a reader."""
    return np.random.default_rng(int.from_bytes(digest_of("slots", lesion)[:8], "big")).permutation(readers)


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
    out = np.zeros((len(masks), size, size), bool)
    read = np.zeros(len(masks), bool)
    for mask, place in zip(masks, np.argsort(slots_of(lesion, len(masks))), strict=True):
        if mask is not None:
            out[place], read[place] = crop_or_pad(mask, size), True
    return out, read


def decode(
    root: Path, case: Slots, pixels: int, size: int, spacing: float = np.nan
) -> tuple[Decoded, list[NDArray[np.bool_]]]:
    """A case cropped to its centre, and the uncut masks of the readers who read it.

    A mask that cannot be used takes away that reading; an image that cannot, or no reading left, the case.
    pixels: every file is pixels×pixels; size: of the crop; spacing: mm, NaN where unknown
    """
    problems, lost = [], 0
    uncut: list[NDArray[np.bool_] | None] = []
    for slot, mask in enumerate(case.masks):
        uncut.append(None)
        if mask is None:
            if slot < READERS:  # a further one is an exception, and where it is missing is not worth a line
                problems.append(f"mask missing, reader taken as absent: {case.case}, slot {slot}")
            continue
        try:
            uncut[slot] = binary(_grey(root / mask, pixels), str(root / mask))
        except FileError as error:
            problems.append(f"reading lost: {case.case}, slot {slot}: {error}")
            lost += 1
    present = sum(mask is not None for mask in case.masks)
    try:
        image = _grey(root / case.image, pixels)
        if not present:
            raise FileError(f"{case.image}: no reader's mask beside it")
        if lost == present:
            raise FileError(f"{case.image}: no reading is left")
    except FileError as error:
        wrong = problems if lost == present > 0 else []
        return Decoded(case.case, None, problems=[*wrong, f"left out: {error}"], lost=present), []
    masks, read = placed(case.lesion, uncut, size)
    row = Row(crop_or_pad(image, size)[None], masks, read, np.full(2, spacing, np.float32))
    return Decoded(case.case, row, sha256_of(image), problems, lost), [mask for mask in uncut if mask is not None]


def rows(
    root: Path, cases: Sequence[Slots], pixels: int, size: int, spacing: float, problems: list[str], lost: Lost
) -> Iterator[Row | None]:
    """The row of each case as `decode` gives it, None for one that is left out; adds to `problems` and `lost`."""

    def decode_one(case: Slots) -> Sequence[Decoded]:
        return [decode(root, case, pixels, size, spacing)[0]]

    return stream(cases, decode_one, root, problems, lost, lambda case: weight(case, pixels))


def weight(case: Slots, pixels: int) -> int:
    """The bytes that a case takes while it is decoded: one file as it is stored, and what comes of all of them."""
    return 8 * MOST + pixels**2 * (1 + 2 * len(case.masks))


def first_of_each(names: Iterable[tuple[K, str]], problems: list[str]) -> dict[K, str]:
    """The file of each key; where there are several, which differ in their ending, the first, and that is listed."""
    files: dict[K, str] = {}
    for key, name in names:
        if files.setdefault(key, name) != name:
            problems.append(f"several files for one picture, the first is used: {files[key]} and {name}")
    return files


def _grey(file: Path, pixels: int) -> NDArray[np.uint8]:
    """A grey 8-bit picture of pixels×pixels. Raises FileError naming the file for anything else."""
    array = read_picture(file, most=MOST)
    if array.ndim == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    if array.shape != (pixels, pixels) or array.dtype not in (np.uint8, np.bool_):
        raise FileError(f"{file}: expected grey 8 bit {pixels}×{pixels}, got {array.dtype} {array.shape}")
    return array.astype(np.uint8)
