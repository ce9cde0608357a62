"""Two runs side by side: differences B − A of the methods they have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench import stats
from bench.report import tables
from uqseg import checkpoint
from uqseg.errors import FileError, UsageError, unknown
from uqseg.metrics import figures

TABLE = "images.parquet"


def keep(folder: Path, images: dict[str, list[pd.DataFrame]]) -> None:
    """Keep the per-image test scores of a report in one file, so that two reports can be compared case by case."""
    parts = [
        table.assign(method=label, repetition=number)
        for label, repetitions in images.items()
        for number, table in enumerate(repetitions)
    ]
    pd.concat(parts, ignore_index=True).to_parquet(folder / TABLE, index=False)


def _images(folder: Path) -> dict[str, list[pd.DataFrame]] | None:
    if not (folder / TABLE).exists():
        return None
    try:
        table = pd.read_parquet(folder / TABLE)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {folder / TABLE}: {str(error)[:200]}; write the report anew") from error
    return {
        str(label): [part.reset_index(drop=True) for _, part in group.groupby("repetition")]
        for label, group in table.groupby("method", sort=False)
    }


def _on(cases: list[str], parts: list[pd.DataFrame]) -> list[pd.DataFrame]:
    return [part.set_index("case").loc[cases].reset_index() for part in parts]


def write(a: Path, b: Path, wanted: Sequence[str], to: Path) -> str:
    """Write comparison.md and comparison.csv into `to` and return the table as Markdown.

    Paired by case and patient where both folders keep their per-image scores and share cases; otherwise the values of
    the two tables, each with its own interval, and no test.
    """
    known = {f.name: f for f in figures()}
    for name in wanted:
        if name not in known:
            raise unknown("figure", name, known)
    first, second = _images(a), _images(b)
    shared = _shared(first, second) if first and second else []
    if first and second and shared:
        table = _paired(first, second, shared, wanted)
        said = (
            f"Paired over the {len(shared)} test cases that both runs scored; B − A with 95 % intervals over patients."
        )
    else:
        table = _unpaired(a, b, wanted)
        said = "The runs share no per-image scores: values with their own intervals, not paired, no test."
    if table.empty:
        raise UsageError(f"compare: '{a}' and '{b}' have no method in common; give two runs that share one.")
    text = tables.markdown(table)
    heads = "\n".join(f"- {letter}: {_describe(folder)}" for letter, folder in (("A", a), ("B", b)))
    checkpoint.write(to / "comparison.md", f"# Comparison\n\n{heads}\n\n{text}\n\n{said}\n".encode())
    checkpoint.write(to / "comparison.csv", table.to_csv(index=False).encode())
    return text


def _describe(folder: Path) -> str:
    """What a report is of: its name and, where it is known, its recipe and code."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return folder.name
    return f"{folder.name}, recipe {record['run']['recipe_name']}, commit {record['commit']}"


def _shared(first: dict[str, list[pd.DataFrame]], second: dict[str, list[pd.DataFrame]]) -> list[str]:
    cases = set(next(iter(second.values()))[0]["case"])
    return sorted(cases & set(next(iter(first.values()))[0]["case"]))


def _paired(
    first: dict[str, list[pd.DataFrame]], second: dict[str, list[pd.DataFrame]], cases: list[str], wanted: Sequence[str]
) -> pd.DataFrame:
    chosen = [f for f in figures() if f.name in wanted]
    labels = [label for label in first if label in second]
    rows = []
    adjusted: dict[str, list[float]] = {}
    for label in labels:
        boot = stats.bootstrap({"A": _on(cases, first[label]), "B": _on(cases, second[label])}, chosen)
        for figure in wanted:
            row = stats.differences(boot, figure, "A").iloc[0]
            f = boot.column(figure)
            adjusted.setdefault(figure, []).append(float(row["p"]))
            rows.append((label, figure, *boot.point[:, f], row["difference"], row["low"], row["high"]))
    holm = {figure: dict(zip(labels, stats.holm(np.array(p)), strict=True)) for figure, p in adjusted.items()}
    out = []
    for label, figure, a, b, difference, low, high in rows:
        p = holm[figure][label]
        tie = not (p < 0.05 and (low > 0 or high < 0))
        better = (difference > 0) == (next(f for f in chosen if f.name == figure).direction == "higher")
        verdict = "tie" if tie else "better" if better else "worse"
        text = tables.with_interval(difference, low, high)
        out.append((label, figure, tables.digits(a, low, high), tables.digits(b, low, high), text, f"{p:.3f}", verdict))
    return pd.DataFrame(out, columns=["method", "figure", "A", "B", "B − A", "p, Holm", "B is"])


def _unpaired(a: Path, b: Path, wanted: Sequence[str]) -> pd.DataFrame:
    left, right = (pd.read_csv(folder / "figures.csv") for folder in (a, b))
    both = left.merge(right, on=["method", "figure"], suffixes=("_a", "_b"))
    both = both[both["figure"].isin(list(wanted))]
    rows = [
        (
            r["method"],
            r["figure"],
            tables.with_interval(r["value_a"], r["low_a"], r["high_a"]),
            tables.with_interval(r["value_b"], r["low_b"], r["high_b"]),
        )
        for r in both.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=["method", "figure", "A", "B"])
