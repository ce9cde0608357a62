"""Where a method fails: figures by how many readers marked, size, texture and subtlety of the lesion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.report import plots, tables, webpage
from bench.report.blocks import Block, Fold, Live, Table
from bench.report.context import Report
from bench.report.sections import RANKED
from bench.report.tables import escape
from bench.runs.store import slug
from uqseg.metrics import Figure, Scores, figure, figures

FEW_READERS = 6  # up to here each number of readers is a group of its own
RATED = {
    "texture": ((1, 2.5, "ground glass"), (2.5, 4, "part-solid"), (4, 6, "solid")),
    "subtlety": ((1, 3, "subtle"), (3, 4.5, "in between"), (4.5, 6, "obvious")),
}
"""LIDC's ratings, means over readers: from, below, in words."""
IN_ONE_PLOT = 8  # methods with all their subgroups; of more each trait has a plot, and its names above it
Levels = dict[str, NDArray[np.bool_]]


def groups_of(cases: pd.DataFrame) -> dict[str, Levels]:
    """Per trait of the case its levels, each with the cases (N,) that have it; traits that are unknown are absent.

    cases: read and marked (numbers of readers), area_0, area_1, … (pixels), spacing_y, spacing_x, ratings if known.
    """
    traits = {"readers who marked": _marked(cases), "lesion size": _sizes(cases)}
    for column, levels in RATED.items():
        if column in cases:
            traits[column] = _rated(cases[column], levels)
    kept = {trait: {k: rows for k, rows in levels.items() if rows.any()} for trait, levels in traits.items()}
    return {trait: levels for trait, levels in kept.items() if len(levels) > 1}


def _rated(ratings: pd.Series, levels: Sequence[tuple[float, float, str]]) -> Levels:
    """Ratings in the words of `levels`; ratings that are words already are groups of their own."""
    if not pd.api.types.is_numeric_dtype(ratings):
        words = ratings.fillna("").astype(str)
        return {word: (words == word).to_numpy() for word in sorted(set(words) - {""})}
    values = ratings.to_numpy(float)
    return {text: (values >= low) & (values < high) for low, high, text in levels}


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


def in_no_group(cases: pd.DataFrame) -> dict[str, int]:
    """Per trait of `groups_of` how many cases are in none of its groups, if any are."""
    counts = {trait: int((~np.any([*levels.values()], axis=0)).sum()) for trait, levels in groups_of(cases).items()}
    return {trait: count for trait, count in counts.items() if count}


@dataclass(frozen=True)
class Group:
    """The cases of one level of a trait, and the figures over them."""

    trait: str
    level: str
    boot: stats.Bootstrap


def groups(scores: Mapping[str, Sequence[Scores]], figures: Sequence[Figure], cases: pd.DataFrame) -> list[Group]:
    """Figures in every group of the cases; of one in which nobody marked anything without those of thresholds.

    There overlap, pooled over the images, is 1 or 0 by whether one pixel anywhere was marked.
    scores: per label those of each repetition. cases: of the same cases in the same order, see `groups_of`.
    """
    marked = cases["marked"].to_numpy() > 0
    return [
        Group(trait, level, stats.bootstrap(
            {label: [s.take(rows) for s in repetitions] for label, repetitions in scores.items()},
            [f for f in figures if "threshold" not in f.tables or marked[rows].any()],
        ))
        for trait, levels in groups_of(cases).items() for level, rows in levels.items()
    ]  # fmt: skip


def table(groups: Sequence[Group]) -> pd.DataFrame:
    """A row for each group, method and figure: trait, level, images, patients, method, figure, value, low, high."""
    rows = [
        (g.trait, g.level, g.boot.images, g.boot.patients, label, f.name, *g.boot.estimate(label, f.name))
        for g in groups
        for label in g.boot.labels
        for f in g.boot.figures
    ]
    columns = ["trait", "level", "images", "patients", "method", "figure", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def _test_cases(report: Report) -> pd.DataFrame:
    """The test cases, in the order of the scores."""
    test = report.results.cases[report.results.cases["split"] == "test"]
    cases: pd.DataFrame = test.set_index("case").loc[report.scores(report.methods[0])[0].cases.tolist()]
    return cases


def any_in(report: Report) -> bool:
    """Whether `section` has anything to show."""
    return bool(groups_of(_test_cases(report)))


def section(report: Report) -> list[Block]:
    """Figures in subgroups of the test cases: a plot, a table for each trait, and all of a group to choose."""
    scores = {label: report.scores(label) for label in (*report.methods, *report.yardsticks)}
    wanted = [f for f in figures(table="summary") if report.has(f)]
    cases = _test_cases(report)
    each = groups(scores, wanted, cases)
    if not each:
        return []
    every = table(each)
    first, *_ = ranked = [figure(name) for name in RANKED]
    titles = {f.name: f.title + plots.BETTER[f.direction] for f in ranked}
    of_methods = every[every["method"].isin(report.methods)]
    drawn = of_methods[of_methods["figure"].isin(RANKED)]
    by_trait = {"subgroups": drawn}
    if len(report.methods) > IN_ONE_PLOT:
        by_trait = {slug("subgroups", trait): part for trait, part in drawn.groupby("trait", sort=False)}
    outside = {trait: f"{count} of {report.boot.images} images" for trait, count in in_no_group(cases).items()}
    listed = "; ".join(f"{escape(trait)} {count}" for trait, count in outside.items())
    absent = f" In no group, since the trait is not known or nothing was drawn: {listed}." * bool(listed)
    nobody = (
        " Where no reader marked anything there is nothing to overlap with, and Dice is left out."
        if any(len(g.boot.figures) < len(wanted) for g in each)
        else ""
    )
    text: list[Block] = [
        "## Where does it fail?",
        *(
            report.picture(plots.subgroups(part, titles, report.styles), name, "Figures by subgroup")
            for name, part in by_trait.items()
        ),
        f"Groups of test cases with {tables.INTERVALS}. Sizes are the "
        f"diameter of a disc with the mean area of the masks drawn.{absent}{nobody} All in "
        f"{report.csv(every, 'subgroups')}.",
        Live(webpage.choice("Figures of the test cases with", {
            f"{g.trait}: {g.level} ({g.boot.images} images, {g.boot.patients} patients)":
                tables.of_figures(g.boot, g.boot.figures, report.methods, report.yardsticks) for g in each
        })),
    ]  # fmt: skip
    for trait, part in of_methods[of_methods["figure"] == first.name].groupby("trait", sort=False):
        columns: dict[str, list[str]] = {"method": [escape(label) for label in report.methods]}
        for level, rows in part.groupby("level", sort=False):
            head = f"{escape(level)} ({rows['images'].iloc[0]} images, {rows['patients'].iloc[0]} patients)"
            columns[head] = [
                tables.with_interval(stats.Estimate(*v)) for v in rows[["value", "low", "high"]].to_numpy()
            ]
        title = f"{first.title}{tables.ARROWS[first.direction]} by {escape(trait)}"
        note = [f"In no group: {outside[str(trait)]}."] if trait in outside else []
        text.append(Fold(title, [Table(pd.DataFrame(columns)), *note]))
    return text
