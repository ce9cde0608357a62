"""A run beside the literature: published figures of as many samples that are not known to be of another definition,
with what is known of each. No claim across protocols: a published row is of another data set or split."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from baselines.published import published
from baselines.published.consistency import OUTSIDE, consistency
from bench import stats
from bench.report import tables
from bench.report.blocks import Block, Table, markdown
from bench.report.tables import escape
from bench.runs.results import Results, read_results
from uqseg.errors import UsageError
from uqseg.metrics import Figure, figure

METRICS = ("ged", "hm_iou", "soft_dice", "ece")
KNOWN = {"second-hand": "quoted by others", "readme": "its README alone", "report": "a student report"}
"""What the origin of a row says against it."""
NEVER_BESIDE = "MedicalMatting subset"
"""Of LIDC-IDRI, with almost no empty masks: the beginning of a protocol whose figures stand beside no other."""


def of_results(folder: Path) -> str:
    """The section of a results folder. Raises UsageError where no published row can stand beside its data."""
    results = read_results(folder)
    scores = {label: [cell.scores["test"] for cell in cells] for label, cells in results.cells.items()}
    boot = stats.bootstrap(scores, [figure(name) for name in METRICS]) if scores else None
    text = markdown(section(results, boot)) if boot else ""
    if not text:
        raise UsageError(
            f"literature: the published figures are of LIDC-IDRI's CT, which '{folder}' was not scored on."
        )
    return text


def section(results: Results, boot: stats.Bootstrap) -> list[Block]:
    """The run's methods, with their figures of METRICS in `boot`, beside published rows; nothing for other data than
    LIDC's."""
    if not on_lidc(results):
        return []
    chosen = [figure(name) for name in METRICS]
    rows = published()
    rows = rows[~rows["protocol"].str.startswith(NEVER_BESIDE)]
    against = _against(rows)
    blocks: list[Block] = [
        "## Beside the literature",
        "Published figures on LIDC-IDRI that are not known to be of another definition and, where that matters, of as "
        "many samples, with the protocol and what is known against each; those on the MedicalMatting subset, which has "
        "almost no empty masks, are left out. **They are of other splits, crops and trainings:** a row above or "
        "below another is no test. Of published samples the number is known; they are taken to be independent draws. "
        "Where a figure depends on the kind of samples, this run's methods with whole supports or stratified samples "
        "(level sets) stand in a table of their own, below and not comparable: no part of theirs is due to the finite "
        f"number of samples. Methods of this run are bold, with {tables.INTERVALS}.",
    ]
    for f in chosen:
        body = _rows(f, list(results.cells), boot, rows[rows["metric"] == f.name], against)
        if body:
            blocks += [f"### {f.title}{tables.ARROWS[f.direction]}", *body]
    return blocks


def student_report(results: Results) -> pd.DataFrame:
    """What the 2020 student report published of the run's methods: columns of `published`, its tables before its text.

    Empty for other data than LIDC's. Its protocol is always another: it tests on the first reader's masks alone.
    """
    rows = published()
    rows = rows[(rows["known"] == "report") & rows["method"].isin(list(results.cells)) & on_lidc(results)]
    return rows.sort_values("source").drop_duplicates(["method", "split", "threshold", "metric"])


def on_lidc(results: Results) -> bool:
    """Whether the run is on LIDC's CT itself, not on simulated images."""
    data = results.run["data"]
    return data["source"].startswith("lidc") and not data["simulated"]


def _rows(
    f: Figure, methods: list[str], boot: stats.Bootstrap, rows: pd.DataFrame, against: dict[int, list[str]]
) -> list[Block]:
    """One figure: rows by value; nothing where no published row is of as many samples and maybe the same definition.

    Where the figure depends on samples, methods whose samples are no independent draws stand apart.
    """
    counts = {count for drawn, count in (boot.kinds[label] for label in methods) if drawn == "independent"}
    alike = rows[[_same_definition(f, row) for row in rows.itertuples()]]
    fitting = alike[alike["samples"].isin(counts)] if f.depends_on_samples else alike
    if fitting.empty:
        return []
    lines: list[tuple[float, tuple[str, ...]]] = []
    apart: list[tuple[float, tuple[str, ...]]] = []
    for label in methods:
        drawn, count = boot.kinds[label]
        value = boot.estimate(label, f.name)
        alone = f.depends_on_samples and drawn != "independent"
        if pd.notna(value.value) and (alone or not f.depends_on_samples or count in set(fitting["samples"])):
            cells = (f"**{escape(label)}**", tables.with_interval(value), f"{count} {drawn}", "this run", "", "")
            (apart if alone else lines).append((value.value, cells))
    for place, r in fitting.to_dict("index").items():
        cells = (escape(r["method"]), _number(r["value"]), str(r["samples"]), escape(r["source"]),
                 escape(r["protocol"]), escape("; ".join(against.get(int(str(place)), []))))  # fmt: skip
        lines.append((float(r["value"]), cells))
    for part in (lines, apart):
        part.sort(key=lambda line: line[0], reverse=f.direction == "higher")
    columns = ["method", f.title, "samples", "source", "protocol", "against it"]
    table, other = (pd.DataFrame([cells for _, cells in part], columns=columns) for part in (lines, apart))
    left_out = len(rows) - len(fitting)
    note: list[Block] = (
        [f"{left_out} more are known to be of another definition, or are of another number of samples."]
        if left_out
        else []
    )
    if apart:
        note += [
            "**Not comparable with these**, for their samples are no independent draws:",
            Table(other[columns[:3]]),
        ]
    return [Table(table), *note]


def _number(value: float) -> str:
    """As published: three digits, or more where there are more."""
    return f"{value:.3f}" if round(value, 3) == value else f"{value:g}"


def _same_definition(f: Figure, row: object) -> bool:
    """Whether the source's own figure is not among those known to be defined otherwise."""
    names = (str(getattr(row, "method", "")), str(getattr(row, "source", "")))
    return not any(
        re.search(rf"(?<![\w-]){re.escape(name.split(' ')[0].rstrip(','))}(?![\w-])", f.unlike) for name in names
    )


def _against(rows: pd.DataFrame) -> dict[int, list[str]]:
    """What is known against published rows, by their index: origin, other values of the same protocol, impossible
    pairs."""
    against: dict[int, list[str]] = {int(str(i)): [KNOWN[k]] for i, k in rows["known"].items() if k in KNOWN}
    for _, part in rows.groupby(["data", "protocol", "method", "metric", "samples", "split", "threshold"]):
        if len(set(part["value"])) > 1:
            for i, row in part.iterrows():
                others = part[part["value"] != row["value"]]
                texts = [f"{o.value:g} ({o.source})" for o in others.itertuples()]
                against.setdefault(int(str(i)), []).append(f"elsewhere {', '.join(dict.fromkeys(texts))}")
    for pair in consistency(rows).query("verdict == @OUTSIDE", local_dict={"OUTSIDE": OUTSIDE}).itertuples():
        same = rows[(rows["metric"] == "ged") & (rows["method"] == pair.method) & (rows["source"] == pair.source)
                    & (rows["protocol"] == pair.protocol) & rows["samples"].isin([pair.fewer, pair.more])]  # fmt: skip
        text = f"GED at {pair.fewer} and {pair.more} samples cannot be of one model and definition"
        for i in same.index:
            against.setdefault(int(str(i)), []).append(text)
    return against
