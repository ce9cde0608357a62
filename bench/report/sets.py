"""Sets of pixels that are to hold what a reader would mark: what they miss, their size, how many lesions they cover."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.report import tables
from bench.report.blocks import Block, Table
from bench.report.tables import escape
from bench.runs.results import Results
from uqseg.metrics import Scores

Floats = NDArray[np.float64]
COLUMNS = {
    "risk": "share of a lesion missed ↓",
    "size": "pixels of the set ↓",
    "coverage": "lesions wholly inside ↑",
}


def table(results: Results) -> pd.DataFrame:
    """A row for each label and figure on the test cases: method, figure, value, low, high."""
    rows = []
    for label, cells in results.sets.items():
        each = [_of_patients(cell.scores["test"]) for cell in cells]
        patients = cells[0].scores["test"].patient_names.tolist()
        weights, _ = stats.patient_weights(patients, stats.RESAMPLES)
        weights = np.concatenate([np.ones((1, len(patients))), weights])  # the first row: every patient once
        shares = stats.repetition_weights(label, len(each), stats.RESAMPLES)
        shares = np.concatenate([np.full((1, len(each)), 1 / len(each)), shares])
        for name in COLUMNS:
            means = [_mean(patient[name].to_numpy(float), weights) for patient in each]
            drawn = (shares * np.stack(means, 1)).sum(1)
            fewest = min(patient[name].count() for patient in each)
            rows.append((label, name, *stats.estimate(float(drawn[0]), drawn[1:], fewest)))
    return pd.DataFrame(rows, columns=["method", "figure", "value", "low", "high"])


def section(results: Results, table: pd.DataFrame) -> list[Block]:
    """The table with its explanation; nothing where no method gives sets."""
    if table.empty:
        return []
    columns = {"method": [escape(label) for label in results.sets]}
    for name, title in COLUMNS.items():
        values = table.loc[table["figure"] == name, ["value", "low", "high"]].to_numpy()
        columns[title] = [tables.with_interval(stats.Estimate(*row)) for row in values]
    return [
        "## Sets that hold a lesion",
        Table(pd.DataFrame(columns)),
        "These answer with one set of pixels in place of samples, so they have neither GED nor rank. Each figure is "
        f"the mean over patients of the mean over their cases, with {tables.INTERVALS}. "
        "For a reader who drew nothing the share missed is 0. "
        "+conformal chooses the smallest set that keeps the first figure at its alpha (0.1 unless the label names "
        "another) on average over patients and calibrations: in one run it may lie above by chance.",
    ]


def _of_patients(scores: Scores) -> pd.DataFrame:
    """risk, size and coverage of each patient, sorted by name; coverage NaN where nothing was drawn."""
    names = ("set_missed", "set_size", "set_covered", "set_lesions")
    cases = pd.DataFrame({"patient": scores.patients} | {name: scores.column(name) for name in names})
    means, sums = cases.groupby("patient").mean(), cases.groupby("patient").sum()
    covered = sums["set_covered"] / sums["set_lesions"].where(sums["set_lesions"] > 0)
    return pd.DataFrame({"risk": means["set_missed"], "size": means["set_size"], "coverage": covered})


def _mean(values: Floats, weights: Floats) -> Floats:
    """Mean over the patients (P,) that have a value under each of the weightings (K,P)."""
    known = np.isfinite(values)
    total = weights[:, known].sum(1)
    return weights[:, known] @ values[known] / np.where(total > 0, total, np.nan)
