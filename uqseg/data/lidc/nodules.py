"""Which annotations outline the same nodule: the rule of pylidc, since LIDC-IDRI does not record it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from uqseg.data.lidc.database import READERS, Contours

SHRINK = 0.9
LEAST_MM = 0.1  # below the finest pixel: only outlines with a point in common are left together


def group(scans: pd.DataFrame, annotations: pd.DataFrame, contours: Contours) -> pd.Series:
    """The nodule of every annotation, such as "LIDC-IDRI-0001/nodule-0", indexed by annotation id.

    Outlines closer than the pixel spacing are one nodule (single linkage on the smallest distance of two contour
    points in mm); where that joins more than four, which no four readers can have drawn, the tolerance shrinks by 0.9.
    Nodules are numbered per patient, in the order of the database.
    """
    table = annotations.merge(scans, on="scan").sort_values(["scan", "annotation"])
    points = _points(contours)
    table["label"] = 0
    for _, part in table.groupby("scan"):
        spacing = float(part["pixel_spacing"].iloc[0])
        inside = [points[int(i)] * (spacing, spacing, 1.0) for i in part["annotation"]]
        table.loc[part.index, "label"] = _group_scan(inside, spacing)
    names: dict[tuple[int, int], str] = {}
    count: dict[str, int] = {}
    keys = list(zip(table["scan"].tolist(), table["label"].tolist(), strict=True))
    for key, patient in zip(keys, table["patient"].tolist(), strict=True):
        if key not in names:
            number = count.get(patient, 0)
            count[patient] = number + 1
            names[key] = f"{patient}/nodule-{number}"
    return pd.Series([names[key] for key in keys], index=table["annotation"], name="nodule")


def _points(contours: Contours) -> dict[int, NDArray[np.float64]]:
    """Row, column (pixels) and z (mm) of all contour points of each annotation."""
    lengths = np.diff(contours.starts)
    owner = np.repeat(contours.table["annotation"].to_numpy(), lengths)
    z = np.repeat(contours.table["z"].to_numpy(float), lengths)
    points = np.column_stack([contours.points, z])
    order = np.argsort(owner, kind="stable")
    ids, first = np.unique(owner[order], return_index=True)
    return dict(zip(ids.tolist(), np.split(points[order], first[1:]), strict=True))


def _group_scan(points: list[NDArray[np.float64]], tolerance: float) -> NDArray[np.intp]:
    """A group number for each annotation of one scan from its points (P,3) in mm."""
    n = len(points)
    distance = _distances(points, tolerance)
    label = _linked(distance, tolerance)
    while tolerance > LEAST_MM and (np.bincount(label, minlength=1) > READERS).any():
        tolerance *= SHRINK
        label = _linked(distance, tolerance)
    for crowd in np.flatnonzero(np.bincount(label, minlength=1) > READERS):
        members = np.flatnonzero(label == crowd)
        label[members] = n * (crowd + 1) + _by_centre([points[i] for i in members])
    return label


def _linked(distance: NDArray[np.float64], tolerance: float) -> NDArray[np.intp]:
    near = coo_array((distance <= tolerance).astype(np.int8))
    return np.asarray(connected_components(near, directed=False)[1], np.intp)


def _distances(points: list[NDArray[np.float64]], tolerance: float) -> NDArray[np.float64]:
    """Smallest distance of two points, for each pair of annotations; infinite beyond `tolerance`."""
    from scipy.spatial import KDTree

    n = len(points)
    distance = np.full((n, n), np.inf)
    np.fill_diagonal(distance, 0.0)
    low, high = np.array([p.min(0) for p in points]), np.array([p.max(0) for p in points])
    gap = np.maximum(low[:, None] - high[None], low[None] - high[:, None]).clip(0)
    close = np.argwhere(np.triu((gap**2).sum(-1) <= tolerance**2, 1))
    trees = {int(i): KDTree(points[i]) for i in np.unique(close)}
    for i, j in close.tolist():
        nearest, _ = trees[i].query(points[j], distance_upper_bound=tolerance * 1.001)
        distance[i, j] = distance[j, i] = np.min(nearest)
    return distance


def _by_centre(points: list[NDArray[np.float64]]) -> NDArray[np.intp]:
    """Groups of at most four of annotations that all touch: by their centres, complete linkage, cut where it fits."""
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import, and needed to read LIDC's files alone
    from scipy.spatial.distance import squareform

    centres = np.array([p.mean(0) for p in points])
    difference = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    tree = linkage(squareform(difference, checks=False), "complete")
    for count in range(2, len(points) + 1):
        label = np.asarray(fcluster(tree, count, "maxclust"), np.intp)
        if np.bincount(label).max() <= READERS:
            return label
    return np.arange(len(points))
