"""The page of a data set's readers: readers.html, pairs.csv, cases-by-dispute.csv and the pictures of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Plot
from numpy.typing import NDArray

from bench import stats
from bench.report import plots, tables, webpage
from bench.report.blocks import Block, Picture, Table
from bench.report.tables import escape
from bench.stats import Estimate
from uqseg.files import write as write_file

Floats = NDArray[np.float64]
FIGURES = {
    "dice": "Dice where both drew",
    "iou": "IoU where both drew",
    "kappa": "κ of pixels",
    "presence": "same answer to whether there is anything",
    "presence_kappa": "κ of whether there is anything",
}
LIMITS = 1.96  # standard deviations: between them lie 95 % of the differences, if these are normal
LISTED = 30  # cases on the page
PRINTED = 10  # pairs on the screen, those that agree least
SHORT = {"dice": "Dice", "iou": "IoU", "kappa": "κ", "presence": "same answer"}
EXPLAINED = (
    "Whether there is anything, and where: overlap (Dice, IoU) is the mean over the cases where both of a pair drew "
    "something; the same answer to whether there is anything is its share of the cases that both read. κ is Cohen's, "
    "agreement beyond chance: 1 is perfect, 0 is chance; that of pixels is over all pixels of the cases that both read."
)


@dataclass(frozen=True)
class Study:
    """What the masks say about R readers.

    names: the readers'. persons: whether a reader is the same person in every case; if not, `pairs` and `biases` are
    empty. readers: a row for each: reader, read, marked, area (mean of what they drew). overall: the FIGURES, mean over
    all pairs. pairs: of the readers' places, FIGURES and `cases` that both read. biases: reader, cases, bias, low,
    high, below, above (limits of agreement); areas: per reader the means and the differences behind them. cases: a row
    for each case, the most disputed first. unit: of areas.
    """

    names: Sequence[str]
    persons: bool
    readers: pd.DataFrame
    overall: dict[str, Estimate]
    pairs: dict[tuple[int, int], dict[str, Estimate]]
    biases: pd.DataFrame
    areas: dict[str, tuple[Floats, Floats]]
    cases: pd.DataFrame
    unit: str


def lines(study: Study) -> Iterator[tuple[str, str]]:
    """The study on a screen, lines of a title and a text: means over pairs, and each pair where readers are persons."""
    if len(study.names) < 2:
        return
    yield (
        "agreement",
        f"of two readers, mean over all pairs, with 95 % intervals over patients, from {stats.FEWEST} patients on",
    )
    for name, estimate in study.overall.items():
        yield "", f"  {FIGURES[name]}: {_plain(estimate)}"
    ordered = sorted(study.pairs, key=lambda pair: np.nan_to_num(study.pairs[pair]["dice"].value))
    for a, b in ordered[:PRINTED]:
        values = {title: _plain(study.pairs[a, b][name]) for name, title in SHORT.items()}
        text = ", ".join(f"{title} {value}" for title, value in values.items())
        yield "", f"  {study.names[a]} and {study.names[b]}: {text}"


def write(study: Study, summary: Sequence[tuple[str, str]], sheet: Path, disputed: Plot | None) -> Path:
    """Write the page and its files beside the contact sheet, which the page shows too; the page's path.

    summary: the lines of `uqseg data`. disputed: the most disputed cases, if any are.
    """
    folder = sheet.parent
    write_file(folder / "cases-by-dispute.csv", study.cases.to_csv(index=False, float_format="%.6g").encode())
    facts = "\n".join(f"| {escape(title)} | {escape(text)} |" for title, text in summary)
    blocks: list[Block] = [f"# Readers of {escape(summary[0][1])}", f"| | |\n|---|---|\n{facts}"]
    blocks += [*_agreement(study, folder), *_bias(study, folder), *_cases(study)]
    if disputed is not None:
        plots.save(disputed, folder / "most-disputed.png")
        blocks.append(Picture("most-disputed.png", "The most disputed cases with the outlines of all readers"))
    if sheet.suffix in webpage.TYPES:
        blocks += ["## Cases drawn evenly over patients", Picture(sheet.name, "Cases with the outlines of all readers")]
    page = folder / "readers.html"
    write_file(page, webpage.page(f"Readers of {summary[0][1]}", blocks, folder).encode())
    return page


def _agreement(study: Study, folder: Path) -> list[Block]:
    if len(study.names) < 2:
        return ["## How far do the readers agree?", "There is one reader, whom nobody can be compared with."]
    mean = {FIGURES[n]: [tables.with_interval(e)] for n, e in study.overall.items()}
    blocks: list[Block] = [
        "## How far do the readers agree?",
        Table(pd.DataFrame({"": ["mean over all pairs"]} | mean)),
        f"{EXPLAINED} 95 % intervals over patients, from {stats.FEWEST} patients on.",
    ]
    counts = study.readers.assign(area=study.readers["area"].map(tables.digits)).astype(str)
    counts = counts.assign(reader=study.readers["reader"].map(escape))
    area = f"mean area where drawn ({study.unit})"
    blocks.append(Table(counts.rename(columns={"read": "cases read", "marked": "cases marked", "area": area})))
    if not study.persons:
        blocks.append("A reader of this source is a slot, not the same person in every case: no pair is compared.")
        return blocks
    rows = [
        (study.names[a], study.names[b], name, *estimate)
        for (a, b), values in study.pairs.items()
        for name, estimate in values.items()
    ]
    table = pd.DataFrame(rows, columns=["a", "b", "figure", "value", "low", "high"])
    write_file(folder / "pairs.csv", table.to_csv(index=False, float_format="%.9g").encode())
    for name, title in FIGURES.items():
        blocks += [f"### {title}", Table(_matrix(study, name))]
    return [*blocks, "All pairs: [pairs.csv](pairs.csv)."]


def _matrix(study: Study, name: str) -> pd.DataFrame:
    """A figure of all pairs, a row and a column for each reader."""
    names = list(map(escape, study.names))
    cells = pd.DataFrame("–", index=range(len(names)), columns=range(len(names)))
    for (a, b), values in study.pairs.items():
        cells.iloc[a, b] = cells.iloc[b, a] = tables.with_interval(values[name])
    cells.columns = pd.Index(names)
    cells.insert(0, "reader", names, allow_duplicates=True)
    return cells


def _bias(study: Study, folder: Path) -> list[Block]:
    """Bland and Altman's picture of areas, and its lines as a table."""
    if study.biases.empty:
        return []
    plots.save(plots.bland_altman(study.areas, study.biases, study.unit), folder / "areas.png")
    rows = study.biases.to_dict("records")
    columns = {
        "reader": [escape(r["reader"]) for r in rows],
        "cases": [str(r["cases"]) for r in rows],
        f"mean difference ({study.unit})": [
            tables.with_interval(Estimate(r["bias"], r["low"], r["high"])) for r in rows
        ],
        "limits of agreement": [f"{tables.digits(r['below'])} to {tables.digits(r['above'])}" for r in rows],
    }
    return [
        "## Who draws larger, who smaller?",
        Picture("areas.png", "Differences of areas against their means"),
        Table(pd.DataFrame(columns)),
        "A reader's area less the mean of the others who drew anything in the same case. Line: the mean difference; "
        f"dashed: {LIMITS} standard deviations to both sides (Bland and Altman), between which most differences lie.",
    ]


def _cases(study: Study) -> list[Block]:
    first = study.cases.head(LISTED)
    columns = {
        "case": first["case"].map(escape),
        "patient": first["patient"].map(escape),
        "split": first["split"].map(escape),
        "marked by": [f"{m} of {r}" for m, r in zip(first["marked"], first["read"], strict=True)],
        "dispute": first["dispute"].map("{:.3f}".format),
        "Dice where both drew": first["dice"].map(lambda x: f"{x:.3f}" if np.isfinite(x) else "–"),
    }
    return [
        "## Which cases are disputed?",
        Table(pd.DataFrame(columns)),
        f"The first {len(first)} of {len(study.cases):,} cases ([all, with areas](cases-by-dispute.csv)). Dispute: the "
        "mean of 1 − IoU over the pairs of readers of the case; two readers who both mark nothing agree.",
    ]


def _plain(estimate: Estimate) -> str:
    return tables.with_interval(estimate).replace(tables.GLUE, " ")
