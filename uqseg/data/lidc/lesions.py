"""The lesions of LIDC-IDRI slice by slice: which outlines belong together, and in which reader slot each is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from uqseg.data.lidc import database, nodules
from uqseg.data.lidc.database import READERS, Outline
from uqseg.data.lidc.slots import slot_of
from uqseg.data.split import split_of
from uqseg.errors import FileError


class Lesion(NamedTuple):
    """z in mm, centre (row, column) on the scan's grid, and the outlines in each reader slot."""

    z: float
    centre: tuple[float, float]
    outlines: list[list[Outline]]


def cases(file: Path, series: Collection[str], problems: list[str]) -> tuple[pd.DataFrame, list[Lesion]]:
    """Every lesion on every outlined slice of these series, by patient, scan, nodule and z; one Lesion a line.

    Columns: patient, case, split, nodule (to which most of the outlines belong), z in mm, n_marked (reader slots with
    an outline on this slice), nodule_readers (who outlined the nodule at all), series, slice_thickness and
    pixel_spacing of the scan in mm, contrast, and the nodule's mean ratings.
    Raises FileError where no reader outlined anything in these series.
    """
    scans, annotations = database.read_scans(file), database.read_annotations(file)
    present = scans["series"].isin(list(series))
    outlined = scans["scan"].isin(annotations["scan"])
    problems += [f"left out: {p}: no reader outlined a nodule" for p in scans.loc[present & ~outlined, "patient"]]
    if absent := int((outlined & ~present).sum()):
        problems.append(f"not there: {absent} of the {int(outlined.sum())} scans with outlines")
    if not (present & outlined).any():
        raise FileError("\n  ".join(["lidc-dicom: no CT series of LIDC-IDRI with readers' outlines found", *problems]))
    # Nodules are numbered per patient, so all scans of a patient are grouped, whether they are there or not.
    scans = scans[scans["patient"].isin(scans.loc[present, "patient"])]
    annotations = annotations[annotations["scan"].isin(scans["scan"])]
    contours = database.read_contours(file, annotations["annotation"].tolist())
    annotations = annotations.assign(nodule=annotations["annotation"].map(nodules.group(scans, annotations, contours)))
    lines, lesions = _lesions(annotations, contours, problems)
    rated = annotations.groupby("nodule", as_index=False).agg(
        nodule_readers=("annotation", "size"), **{rating: (rating, "mean") for rating in database.RATINGS}
    )
    scans = scans.assign(split=scans["patient"].map(split_of), contrast=scans["contrast_used"].astype(bool))
    table = pd.DataFrame(lines).merge(rated, on="nodule").merge(scans[scans["series"].isin(list(series))], on="scan")
    number = table["nodule"].str.rpartition("-")[2].astype(int)
    order = np.lexsort((table["z"], number, table["scan"], table["patient"].to_numpy(str)))
    first = ["patient", "case", "split", "nodule", "z", "n_marked", "nodule_readers", "series", "slice_thickness"]
    columns = [*first, "pixel_spacing", "contrast", *database.RATINGS]
    lesion = table["lesion"].to_numpy()[order].tolist()
    return table.iloc[order].reset_index(drop=True)[columns], [lesions[i] for i in lesion]


def _lesions(
    annotations: pd.DataFrame, contours: database.Contours, problems: list[str]
) -> tuple[list[dict[str, Any]], list[Lesion]]:
    """The lesions of all slices, and of each: scan, nodule, z, n_marked, case, and its number as lesion."""
    columns = (annotations[c].tolist() for c in ("annotation", "scan", "nodule"))
    owner = {annotation: (scan, nodule) for annotation, scan, nodule in zip(*columns, strict=True)}
    slot = slot_of(annotations)
    slices: dict[tuple[int, float], dict[int, list[Outline]]] = {}
    for (annotation, z), outlines in contours.outlines().items():
        slices.setdefault((owner[annotation][0], z), {})[annotation] = outlines
    lines: list[dict[str, Any]] = []
    lesions: list[Lesion] = []
    names: Counter[str] = Counter()
    shared = 0
    for (scan, z), on_slice in sorted(slices.items()):
        drawn = [a for a, outlines in on_slice.items() if any(includes for _, includes in outlines)]
        points = [np.concatenate([p for p, includes in on_slice[a] if includes]) for a in drawn]
        low, high = np.array([p.min(0) for p in points]), np.array([p.max(0) for p in points])
        label = together(low, high)
        for number in range(label.max() + 1):
            members = np.flatnonzero(label == number)
            ids = [drawn[i] for i in members]
            nodule, placed = seats([owner[a][1] for a in ids], [slot[a] for a in ids])
            by_slot: list[list[Outline]] = [[] for _ in range(READERS)]
            for a, reader in zip(ids, placed, strict=True):
                by_slot[reader] += on_slice[a]
            middle = (low[members].min(0) + high[members].max(0)) / 2
            name = f"{nodule}/z{z:+.2f}"
            names[name] += 1
            case = name if names[name] == 1 else f"{name}-{names[name]}"
            marked = len(set(placed))
            shared += len(ids) > marked
            lines.append({"scan": scan, "nodule": nodule, "z": z, "n_marked": marked, "case": case})
            lines[-1]["lesion"] = len(lesions)
            lesions.append(Lesion(z, (float(middle[0]), float(middle[1])), by_slot))
    if shared:
        problems.append(f"{shared} lesions with more outlines than readers: outlines share a reader's slot")
    return lines, lesions


def together(low: NDArray[np.integer], high: NDArray[np.integer]) -> NDArray[np.intp]:
    """A lesion number for each of A outlines: those whose bounding boxes overlap, also by way of others, share it.

    low, high: first and last row and column of the boxes, (A,2), both inclusive
    """
    meet = np.asarray(((low[:, None] <= high[None]) & (low[None] <= high[:, None])).all(-1), np.int8)
    return np.asarray(connected_components(coo_array(meet), directed=False)[1], np.intp)


def seats(nodules: Sequence[str], slots: Sequence[int]) -> tuple[str, list[int]]:
    """The nodule to which most outlines of a lesion belong (of equals, the first by name), and each outline's slot.

    nodules, slots: of each outline, its nodule and the slot it has there, which the main nodule's outlines keep
    An outline of another nodule may be one more reader's idea of the same lesion: it has a slot of its own as long as
    one is free, and shares the slot it has in its nodule where all readers are taken.
    """
    count = Counter(nodules)
    main = min(count, key=lambda name: (-count[name], name))
    taken = {slot for name, slot in zip(nodules, slots, strict=True) if name == main}
    placed = []
    for name, slot in zip(nodules, slots, strict=True):
        if name != main and slot in taken:
            slot = min(set(range(READERS)) - taken, default=slot)
        taken.add(slot)
        placed.append(slot)
    return main, placed
