"""Two runs side by side: what differs between them, and B − A of the methods they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import stats
from bench.report import tables
from bench.report.tables import code, escape
from bench.runs.results import Results, read_results
from uqseg.errors import UsageError
from uqseg.files import write as write_file
from uqseg.metrics import Figure, Scores, figure


def write(a: Path, b: Path, wanted: Sequence[str], to: Path) -> str:
    """Write comparison.md and comparison.csv of two results folders into `to`; the text of the comparison.

    Paired over the test cases where these are known to be the same in both runs; otherwise the values of the two runs,
    each with its own interval, and no test. Methods whose scores are the same numbers in both runs are named, not
    compared.
    """
    chosen = [figure(name) for name in wanted]
    first, second = read_results(a), read_results(b)
    labels = [label for label in first.cells if label in second.cells]
    if not labels:
        raise UsageError(f"compare: '{a}' and '{b}' have no method in common; give two runs that share one.")
    same = [label for label in labels if _equal(first, second, label)]
    labels = [label for label in labels if label not in same]
    apart = _apart(first, second)
    cases = [] if apart else sorted(_tested(first).cases)
    heads = [f"- {letter}: {escape(r.run['name'])}, {code(r.run['command'])}, commit {escape(r.run['commit'])}"
             for letter, r in (("A", first), ("B", second))]  # fmt: skip
    text = ["# Comparison", "\n".join(heads), _differing(first.run, second.run)]
    if same:
        text.append(f"The same numbers in both runs: {', '.join(map(escape, same))}.")
    if labels:
        table = _unpaired(first, second, labels, chosen) if apart else _paired(first, second, labels, cases, chosen)
        alike = _alike(first, second, labels, cases, chosen)
        equal = [(escape(label), f.title + tables.ARROWS[f.direction]) for label, f in alike]
        table = table[[pair not in equal for pair in zip(table["method"], table["figure"], strict=True)]]
        names = {label: ", ".join(f.title for other, f in alike if other == label) for label, _ in alike}
        text += [f"Equal in every case: {figures} of {escape(label)}." for label, figures in names.items()]
        text += [tables.markdown(table, 2)] if len(table) else []
        text += [_explained(apart, cases), *_of_other_samples(first, second, labels, chosen)]
        write_file(to / "comparison.csv", table.to_csv(index=False).encode())
    page = "\n\n".join(text)
    write_file(to / "comparison.md", f"{page}\n".encode())
    return page


def _differing(a: dict[str, Any], b: dict[str, Any]) -> str:
    """What the specifications of two runs set differently, and their data."""
    left, right = (dict(_leaves({**run["spec"], "data": run["data"]})) for run in (a, b))
    changes = [
        f"- {escape(name)} {escape(left.get(name, 'not set'))} → {escape(right.get(name, 'not set'))}"
        for name in dict.fromkeys([*left, *right])
        if left.get(name) != right.get(name)
    ]
    return "What differs:\n\n" + "\n".join(changes) if changes else "The two runs were specified alike."


def _leaves(tree: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The values of nested dicts with their dotted names; lists of dicts that have a label are named by it."""
    if isinstance(tree, list) and tree and all(isinstance(item, dict) and "label" in item for item in tree):
        tree = {item["label"]: {k: v for k, v in item.items() if k != "label"} for item in tree}
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{name}.{key}" if name else str(key))
    else:
        yield name, ", ".join(map(str, tree)) if isinstance(tree, list) else str(tree)


def _tested(results: Results) -> Scores:
    return next(iter(results.cells.values()))[0].scores["test"]


def _apart(first: Results, second: Results) -> str:
    """Why the test cases of two runs are not paired; "" where they are the same, for which equal names are not enough:
    folders of files share names, and those of an anonymous copy are numbers of its own."""
    if first.run["data"]["splits"]["test"]["key"] != second.run["data"]["splits"]["test"]["key"]:
        return "The test images of the two runs are not the same"
    copies = [letter for letter, run in (("A", first), ("B", second)) if run.run.get("anonymized")]
    if copies:
        return (
            f"The names of cases in {' and '.join(copies)} are numbers of an anonymous copy, which no other run shares"
        )
    a, b = _tested(first), _tested(second)
    if set(a.cases) != set(b.cases):
        return "The test cases of the two runs have other names"
    a, b = (_on(sorted(a.cases), scores) for scores in (a, b))
    areas = [scores.column("areas_readers") for scores in (a, b) if scores.has("areas_readers")]
    if not np.array_equal(a.patients, b.patients) or not np.array_equal(areas[0], areas[-1], equal_nan=True):
        return "Cases of the same name have other patients or masks in the two runs"
    return ""


def _scores(results: Results, label: str) -> list[Scores]:
    return [cell.scores["test"] for cell in results.cells[label]]


def _of_other_samples(
    first: Results, second: Results, labels: Sequence[str], wanted: Sequence[Figure]
) -> Iterator[str]:
    """A warning for each method whose samples are of another kind or number, if any figure depends on that."""
    names = ", ".join(f.title for f in wanted if f.depends_on_samples)
    for label in labels if names else []:
        a, b = (f"{s.samples} {s.drawn}" for s in (_scores(first, label)[0], _scores(second, label)[0]))
        if a != b:
            samples = f"{a} in A and {b} in B"
            yield f"{names} of {escape(label)} depend on number and kind of samples, {samples}: see ged_limit."


def _equal(first: Results, second: Results, label: str) -> bool:
    """Whether a method has the same repetitions with the same scores in both runs: there is nothing to compare."""
    a, b = _scores(first, label), _scores(second, label)
    return len(a) == len(b) and all(x.equals(y) for x, y in zip(a, b, strict=True))


def _alike(
    first: Results, second: Results, labels: Sequence[str], cases: Sequence[str], wanted: Sequence[Figure]
) -> list[tuple[str, Figure]]:
    """Methods and figures that both runs have from the same numbers, case by case: their difference is no result."""
    alike = []
    for label in labels if cases else []:
        a, b = ([_on(cases, scores) for scores in _scores(run, label)] for run in (first, second))
        for f in wanted:
            pairs = [(x.column(n), y.column(n)) for x, y in zip(a, b, strict=False) if x.has(*f.of) and y.has(*f.of)
                     for n in f.of if n not in x.patient_sums]  # fmt: skip
            if len(a) == len(b) and pairs and all(np.array_equal(x, y, equal_nan=True) for x, y in pairs):
                alike.append((label, f))
    return alike


def _on(cases: Sequence[str], scores: Scores) -> Scores:
    place = {case: i for i, case in enumerate(scores.cases)}
    return scores.take(np.array([place[case] for case in cases]))


def _paired(
    first: Results, second: Results, labels: Sequence[str], cases: Sequence[str], wanted: Sequence[Figure]
) -> pd.DataFrame:
    runs = {"A": first, "B": second}
    both = {
        f"{letter} {label}": [_on(cases, scores) for scores in _scores(run, label)]
        for letter, run in runs.items()
        for label in labels
    }
    boot = stats.bootstrap(both, wanted)
    rows = []
    for f in wanted:
        table = boot.paired(f.name, {label: (f"B {label}", f"A {label}") for label in labels})
        for row in table.to_dict("records"):
            label = str(row["method"])
            a, b = (tables.digits(*boot.estimate(f"{letter} {label}", f.name)) for letter in runs)
            difference = stats.Estimate(row["difference"], row["low"], row["high"])
            p = tables.p_value(row["p_holm"], row["bound"])
            rows.append(
                (escape(label), f.title + tables.ARROWS[f.direction], a, b, tables.with_interval(difference), p,
                 row["verdict"] or "–")
            )  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "figure", "A", "B", "B − A", "p, Holm", "B is"]).sort_values(
        "method", kind="stable", key=lambda names: names.map({escape(label): i for i, label in enumerate(labels)})
    )


def _unpaired(first: Results, second: Results, labels: Sequence[str], wanted: Sequence[Figure]) -> pd.DataFrame:
    boots = [stats.bootstrap({label: _scores(run, label) for label in labels}, wanted) for run in (first, second)]
    rows = [
        (escape(label), f.title + tables.ARROWS[f.direction],
         *(tables.with_interval(boot.estimate(label, f.name)) for boot in boots))
        for label in labels for f in wanted
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "figure", "A", "B"])


def _explained(apart: str, cases: Sequence[str]) -> str:
    if apart:
        return f"{apart}: values of each run, not paired, no test, with {tables.INTERVALS}."
    return f"Paired over the {len(cases)} test cases; {tables.INTERVALS}."
