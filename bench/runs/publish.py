"""The copy of a results folder to commit: no paths of this machine; if asked the gallery, and numbers for names."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.console import without_folders
from bench.report.subgroups import RATED
from bench.runs import lacking, results
from bench.runs.results import CellResults
from uqseg.errors import UsageError
from uqseg.files import is_taken, write

KEPT = ("case", "patient", "split")  # columns of text that every copy has
ANONYMOUS = rf"read|marked|area_\d+|spacing_[yx]|{'|'.join(RATED)}"
"""Columns of numbers that are kept beside them of cases whose names are hidden: any other may say whose they are."""
A_PATH = r"(?:^|[\s:])(?:~|[A-Za-z]:)?[/\\]\w"


def publish(folder: Path, to: Path, anonymous: bool, gallery: bool = False) -> Iterator[str]:
    """Copy the results in `folder` to `to` without what may not be shown, and yield what is kept, a line each.

    anonymous: numbers for the names of cases, patients and readers. gallery: keep it, for its images may be shown.
    """
    if is_taken(to) and not (to / "run.json").exists():
        raise UsageError(f"--to: '{to}' is not empty and holds no published run; choose another folder.")
    if to.resolve() == folder.resolve():
        raise UsageError(f"--to: '{to}' is the run itself; choose another folder.")
    run = results.read_results(folder)
    pictures = run.gallery if gallery else None
    if gallery and pictures is None:
        raise UsageError(
            f"--gallery: '{folder}' has none; leave it out, or give the run's command again without --no-gallery."
        )
    for left in ("finished.json", "gallery.npz"):
        (to / left).unlink(missing_ok=True)  # what an earlier copy had, and this one may not have
    shutil.rmtree(to / "cells", ignore_errors=True)
    if run.missing:
        yield (
            f"NOT FINISHED: without scores so far are {'; '.join(run.missing)}; the copy says so at its head. Give the "
            "run's command again, and publish anew"
        )
    cases, patients = (_names(run.cases[column], anonymous) for column in ("case", "patient"))
    yield f"run.json: {_publish_record(run.run, to, anonymous)}"
    table = run.cases.assign(case=run.cases["case"].map(cases), patient=run.cases["patient"].map(patients))
    dropped = [c for c in table if c not in KEPT and not _may_be_shown(table[c], anonymous)]
    table = table.drop(columns=dropped)
    results.write_cases(to, table)
    yield f"cases.parquet: {len(table)} cases with {', '.join(map(str, table))}" + (
        f"; left out: {', '.join(map(str, dropped))}" if dropped else ""
    )
    if pictures is not None:
        rules = {rule: cases[case] for rule, case in pictures.rules.items()}
        renamed = replace(pictures, rules=rules, cases=tuple(cases[case] for case in pictures.cases))
        results.write_gallery(to / "gallery.npz", renamed)
        yield f"gallery.npz: images, masks and samples of {len(renamed.cases)} cases"
    folders = run.folders
    for cell in run.scored:
        path = folders[cell.label, cell.repetition]
        size = _publish_cell(cell, path, to / "cells" / path.name, cases, patients)
        statistics = cell.info["statistics"]
        yield f"cells/{path.name}: {size / 1e6:.2f} MB, {len(statistics)} statistics of each case"
    for file in sorted(folder.glob("cells/*/failure.json")):
        error = " ".join(map(without_folders, results.read_failure(file).split(" ")))
        error = error.partition(":")[0] if anonymous else error  # the rest may name a case
        kept = {"label": file.parent.name, "error": error, "traceback": []}
        results.write_json(to / file.relative_to(folder), kept)
        yield f"{file.parent.name}/failure.json: the error without its traceback"
    if run.finished is not None:
        results.write_json(to / "finished.json", run.finished)
        yield "finished.json: how long the run took"


def _names(names: pd.Series, anonymous: bool) -> dict[str, str]:
    """What each name is called in the copy: itself, or a number in an order that the names do not decide."""
    different = sorted(set(names))
    if not anonymous:
        return {name: name for name in different}
    order = np.random.default_rng().permutation(len(different))
    return {name: f"{number:0{len(str(len(different)))}d}" for name, number in zip(different, order, strict=True)}


def _publish_record(run: dict[str, Any], to: Path, anonymous: bool) -> str:
    spec = run["spec"]
    spec |= {
        "data": run["data"]["text"],
        "methods": [without_folders(label) for label in spec["methods"]],
        "settings": {without_folders(name): values for name, values in spec["settings"].items()},
        "plugins": [Path(plugin).name for plugin in spec["plugins"]],
    }
    for part in (run, *run.get("merged", [])):
        part["command"] = shlex.join(map(without_folders, shlex.split(part["command"])))
    if anonymous:
        data, left_out = run["data"], run.pop("left_out", {})
        remarks = [line for line in data.get("remarks", []) if not line.startswith(lacking.BEGINNING)]
        if left_out:
            remarks.append(lacking.sentence(data["splits"]["test"]["images"], left_out, names=False))
        data |= {"reader_names": [], "remarks": remarks}
    anonymous = anonymous or run.get("anonymized", False)
    results.write_json(to / "run.json", run | {"spec": spec, "anonymized": anonymous})
    named = f"run {run['name']}, data {run['data']['text']}"
    return f"command and data without their folders; what you named stays: {named}"


def _publish_cell(cell: CellResults, source: Path, to: Path, cases: dict[str, str], patients: dict[str, str]) -> int:
    """Write the cell with the new names and return its bytes."""
    renamed = {split: scores.renamed(cases, patients) for split, scores in cell.scores.items()}
    for name in ("cost.json", "history.jsonl"):
        if (source / name).exists():
            write(to / name, (source / name).read_bytes())
    results.write_cell(to, renamed, cell.info)
    return sum(file.stat().st_size for file in to.iterdir())


def _may_be_shown(column: pd.Series, anonymous: bool) -> bool:
    numeric = pd.api.types.is_numeric_dtype(column)
    if anonymous:
        return numeric and re.fullmatch(ANONYMOUS, str(column.name)) is not None
    return numeric or not _holds_paths(column)


def _holds_paths(column: pd.Series) -> bool:
    return any(re.search(A_PATH, str(value)) for value in column.unique())
