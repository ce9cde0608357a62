"""Where a method fails: figures by how many readers marked, size, texture and subtlety of the lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from uqseg.data import AnnotatedSet
from uqseg.metrics import figures

FIGURES = ("ged", "dice@0.5")
FEW_READERS = 6  # up to here each number of readers is a group of its own
RATED = {
    "texture": ((1, 2.5, "ground glass"), (2.5, 4, "part-solid"), (4, 6, "solid")),
    "subtlety": ((1, 3, "subtle"), (3, 4.5, "in between"), (4.5, 6, "obvious")),
}
"""LIDC's ratings, means over readers: from, below, in words."""


def groups_of(data: AnnotatedSet) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Per trait of the case its levels, each with the cases (N,) that have it; traits that are unknown are absent."""
    areas = np.array([np.count_nonzero(m, axis=(1, 2)) for m in data.masks], float)
    marked, read = (areas > 0).sum(1), data.read.sum(1)
    found = {"readers who marked": _marked(marked, read), "lesion size": _sizes(areas, marked, data.spacing)}
    for column, levels in RATED.items():
        if column in data.table:
            rating = data.table[column].to_numpy(float)
            found[column] = {f"{text}": (rating >= low) & (rating < high) for low, high, text in levels}
    kept = {trait: {k: rows for k, rows in levels.items() if rows.any()} for trait, levels in found.items()}
    return {trait: levels for trait, levels in kept.items() if len(levels) > 1}


def _marked(marked: NDArray[np.intp], read: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
    most = int(read.max())
    if (read == most).all() and most <= FEW_READERS:
        return {f"{k} of {most}": marked == k for k in range(most + 1)}
    share = marked / read
    return {
        "none": share == 0,
        "fewer than half": (share > 0) & (share < 0.5),
        "half or more": (share >= 0.5) & (share < 1),
        "all": share == 1,
    }


def _sizes(
    areas: NDArray[np.float64], marked: NDArray[np.intp], spacing: NDArray[np.float32]
) -> dict[str, NDArray[np.bool_]]:
    """Thirds by the diameter of the disc that has the mean area of the masks drawn; mm where spacing is known."""
    seen = marked > 0
    pixel = spacing.astype(float).prod(1)
    in_mm = bool(np.isfinite(pixel[seen]).mean() > 0.5)
    area = np.where(seen, areas.sum(1) / np.maximum(marked, 1), np.nan) * (pixel if in_mm else 1.0)
    diameter, unit = 2 * np.sqrt(area / np.pi), "mm" if in_mm else "pixels"
    known = np.isfinite(diameter)
    if not known.any():
        return {}
    low, high = np.quantile(diameter[known], [1 / 3, 2 / 3])
    return {
        f"below {low:.1f} {unit}": known & (diameter < low),
        f"{low:.1f} to {high:.1f} {unit}": known & (diameter >= low) & (diameter < high),
        f"above {high:.1f} {unit}": known & (diameter >= high),
    }


def table(
    images: Mapping[str, Sequence[pd.DataFrame]], labels: Sequence[str], data: AnnotatedSet, resamples: int
) -> pd.DataFrame:
    """One row a trait, level, method and figure: trait, level, images, patients, method, figure, value, low, high.

    images: per label one table of per-image test scores a repetition, in the order of `data`.
    """
    chosen = [f for f in figures() if f.name in FIGURES]
    parts = []
    for trait, levels in groups_of(data).items():
        for level, rows in levels.items():
            some = {label: [t[rows].reset_index(drop=True) for t in images[label]] for label in labels}
            boot = stats.bootstrap(some, chosen, resamples=resamples)
            part = stats.summary(boot).assign(trait=trait, level=level, images=boot.images, patients=boot.patients)
            parts.append(part)
    first = ["trait", "level", "images", "patients"]
    if not parts:
        return pd.DataFrame(columns=[*first, "method", "figure", "value", "low", "high"])
    whole = pd.concat(parts, ignore_index=True)
    return whole[[*first, *(c for c in whole if c not in first)]]
