"""Where a method fails: figures by how many readers marked, size, texture and subtlety of the lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from uqseg.metrics import Figure, Scores

FEW_READERS = 6  # up to here each number of readers is a group of its own
RATED = {
    "texture": ((1, 2.5, "ground glass"), (2.5, 4, "part-solid"), (4, 6, "solid")),
    "subtlety": ((1, 3, "subtle"), (3, 4.5, "in between"), (4.5, 6, "obvious")),
}
"""LIDC's ratings, means over readers: from, below, in words."""
Levels = dict[str, NDArray[np.bool_]]


def groups_of(cases: pd.DataFrame) -> dict[str, Levels]:
    """Per trait of the case its levels, each with the cases (N,) that have it; traits that are unknown are absent.

    cases: read and marked (numbers of readers), area_0, area_1, … (pixels), spacing_y, spacing_x, ratings if known.
    """
    traits = {"readers who marked": _marked(cases), "lesion size": _sizes(cases)}
    for column, levels in RATED.items():
        if column in cases:
            rating = cases[column].to_numpy(float)
            traits[column] = {text: (rating >= low) & (rating < high) for low, high, text in levels}
    kept = {trait: {k: rows for k, rows in levels.items() if rows.any()} for trait, levels in traits.items()}
    return {trait: levels for trait, levels in kept.items() if len(levels) > 1}


def _marked(cases: pd.DataFrame) -> Levels:
    marked, read = cases["marked"].to_numpy(), cases["read"].to_numpy()
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


def _sizes(cases: pd.DataFrame) -> Levels:
    """Thirds by the diameter of the disc that has the mean area of the masks drawn; mm where spacing is known."""
    marked = cases["marked"].to_numpy(float)
    pixels = cases.filter(regex=r"^area_\d+$").sum(axis=1).to_numpy(float) / np.where(marked > 0, marked, np.nan)
    pixel = (cases["spacing_y"] * cases["spacing_x"]).to_numpy(float)
    in_mm = bool(np.isfinite(pixel[marked > 0]).mean() > 0.5) if (marked > 0).any() else False
    diameter = 2 * np.sqrt(pixels * (pixel if in_mm else 1.0) / np.pi)
    unit = "mm" if in_mm else "pixels"
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
    scores: Mapping[str, Sequence[Scores]], figures: Sequence[Figure], cases: pd.DataFrame, resamples: int
) -> pd.DataFrame:
    """A row for each trait, level, method and figure: trait, level, images, patients, method, figure, value, low, high.

    scores: per label those of each repetition. cases: of the same cases in the same order, see `groups_of`.
    """
    keys = ["trait", "level", "images", "patients"]
    parts = [pd.DataFrame(columns=[*keys, "method", "figure", "value", "low", "high"])]
    for trait, levels in groups_of(cases).items():
        for level, rows in levels.items():
            some = {label: [s.take(rows) for s in repetitions] for label, repetitions in scores.items()}
            boot = stats.bootstrap(some, figures, resamples=resamples)
            parts.append(boot.summary().assign(trait=trait, level=level, images=boot.images, patients=boot.patients))
    return pd.concat(parts[1:] or parts, ignore_index=True)[parts[0].columns.tolist()]
