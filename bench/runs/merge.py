"""Results folders of the same data and protocol, made in several places, as one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.runs import results
from bench.runs.identity import differences
from bench.runs.results import CellResults, Gallery, Results
from uqseg.errors import UsageError
from uqseg.files import beside, is_taken, make_folder, publish, unwritable

OF_METHODS = ("training_of", "options")  # tables of a recipe that say what single methods do differently
WORDS = ("text", "folder", "description", "remarks", "problems")  # facts about data that decide no number
Record = dict[str, Any]
ROUNDING = 1e-5  # of sums and logarithms in float32; 1e-6 was seen between processors with and without AVX-512


def merge(folders: Sequence[Path], to: Path, command: str) -> Iterator[str]:
    """Write the cells of all folders as one results folder `to`, and yield what it holds, a line each.

    The runs may differ in their methods and repetitions. Raises UsageError, and writes nothing, where anything else
    that decides a number differs, or a cell that two of them have is not the same in both.
    """
    if len(folders) < 2:
        raise UsageError(f"merge: expected at least two results folders, got {len(folders)}.")
    if is_taken(to):
        raise UsageError(f"--to: '{to}' is not empty; choose another folder.")
    runs = [results.read_results(folder) for folder in folders]
    record = runs[0].run
    for run in runs[1:]:
        _refuse(runs[0], run)
        record = _joined(record, run.run, run.folder)
    cells = _cells(runs)
    record = _named(record, [run.run for run in runs], to.name, command)
    partial = beside(to)
    try:
        make_folder(to.parent)
        yield from _written(partial, record, runs, cells)
        if to.exists():
            to.rmdir()
        publish(partial, to)
    except OSError as error:
        raise unwritable(to, error, "choose another --to") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _refuse(first: Results, second: Results) -> None:
    """Raise UsageError naming what differs between two runs beyond methods and repetitions."""
    a, b = first.run, second.run
    pairs = [(_protocol(a), _protocol(b)), (_without(a["data"], WORDS), _without(b["data"], WORDS))]
    lines = [line for before, after in pairs for line in differences(before, after)]
    if not lines and not first.cases.equals(second.cases):
        lines = ["their cases.parquet"]
    versions = (first.statistics, second.statistics)
    lines += [
        f"version of statistic {name} {sorted(versions[0][name])} → {sorted(versions[1][name])}"
        for name in versions[0].keys() & versions[1].keys()
        if len(versions[0][name] | versions[1][name]) > 1
    ]
    if lines:
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise UsageError(
            f"merge: '{first.folder}' and '{second.folder}' are of different runs ({'; '.join(lines[:5])}{more}); only "
            "methods and repetitions may differ."
        )


def _protocol(run: Record) -> Record:
    """What a run's spec says for all methods alike."""
    spec = run["spec"]
    settings = {k: v for k, v in spec.get("settings", {}).items() if k == "training"}
    named = {k: spec[k] for k in ("recipe_name", "samples", "size", "limit") if k in spec}
    return named | {"recipe": _without(spec["recipe"], (*OF_METHODS, "description")), "settings": settings}


def _without(values: Mapping[str, Any], names: Sequence[str]) -> Record:
    return {name: value for name, value in values.items() if name not in names}


def _joined(a: Record, b: Record, folder: Path) -> Record:
    """The records of two runs as one. UsageError where a method or a cell is described differently in them."""
    in_a, in_b = ({entry["method"] for entry in run["cells"]} for run in (a, b))
    spec = dict(a["spec"])
    for name in ("methods", "seeds", "plugins"):
        spec[name] = list(dict.fromkeys([*a["spec"].get(name, ()), *b["spec"].get(name, ())]))
    spec["seeds"] = sorted(spec["seeds"])
    tables = [(a["spec"].get("settings", {}), b["spec"].get("settings", {}))]
    tables += [(a["spec"]["recipe"].get(name, {}), b["spec"]["recipe"].get(name, {})) for name in OF_METHODS]
    spec["settings"], *of_methods = [_of_methods(x, y, in_a, in_b, folder) for x, y in tables]
    spec["recipe"] = a["spec"]["recipe"] | dict(zip(OF_METHODS, of_methods, strict=True))
    return a | {
        "spec": spec,
        "cells": _entries(a["cells"], b["cells"], folder),
        "yardsticks": _entries(a["yardsticks"], b["yardsticks"], folder),
        "declined": a.get("declined", {}) | b.get("declined", {}),
    }


def _of_methods(a: Record, b: Record, in_a: set[str], in_b: set[str], folder: Path) -> Record:
    """What is said of single methods, each by a run that has it."""
    if changed := sorted(name for name in in_a & in_b if a.get(name) != b.get(name)):
        lines = "; ".join(differences({changed[0]: a.get(changed[0])}, {changed[0]: b.get(changed[0])}))
        raise UsageError(
            f"merge: '{folder}' sets {changed[0]} otherwise ({lines}); only methods and repetitions may differ."
        )
    return {k: v for k, v in b.items() if k not in in_a} | {k: v for k, v in a.items() if k in in_a or k not in in_b}


def _entries(a: Sequence[Record], b: Sequence[Record], folder: Path) -> list[Record]:
    """The cells of two records, by label in the order of the first, then by repetition."""
    known = {entry["folder"]: entry for entry in a}
    alike = {entry["label"]: {k: entry.get(k) for k in ("options", "training")} for entry in a}
    for entry in b:
        if entry["folder"] in known and entry.get("scores") != known[entry["folder"]].get("scores"):
            raise UsageError(
                f"merge: {entry['folder']} of '{folder}' was computed by other code or from other data; run it again."
            )
        other = alike.get(entry["label"], entry)
        if lines := differences({k: other.get(k) for k in ("options", "training")},
                                {k: entry.get(k) for k in ("options", "training")}):  # fmt: skip
            raise UsageError(f"merge: {entry['label']} of '{folder}' is another method ({'; '.join(lines[:5])}).")
    entries = [*known.values(), *(entry for entry in b if entry["folder"] not in known)]
    order = {label: place for place, label in enumerate(dict.fromkeys(entry["label"] for entry in entries))}
    return sorted(entries, key=lambda entry: (order[entry["label"]], entry.get("repetition", 0)))


def _cells(runs: Sequence[Results]) -> dict[tuple[str, int], Path]:
    """The folder of each cell that is done, of the first run that has it; UsageError where another's differs."""
    cells: dict[tuple[str, int], tuple[CellResults, Path]] = {}
    for run in runs:
        folders = run.folders
        for cell in run.scored:
            key = cell.label, cell.repetition
            path = folders[key]
            if key in cells and not _equal(cells[key][0], cell):
                raise UsageError(
                    f"merge: the scores in '{path}' differ from those in '{cells[key][1]}', which should be the same; "
                    "leave one of the two folders out, or give one run another name and repetition."
                )
            cells.setdefault(key, (cell, path))
    return {key: path for key, (_, path) in cells.items()}


def _equal(a: CellResults, b: CellResults) -> bool:
    """Whether two cells hold the same numbers: what was measured of time and memory may differ, and scores of a
    yardstick, in which nothing was trained, as far as processors round differently."""
    within = ROUNDING if a.info["yardstick"] else 0.0
    return set(a.scores) == set(b.scores) and all(a.scores[split].equals(b.scores[split], within) for split in a.scores)


def _named(record: Record, runs: Sequence[Record], name: str, command: str) -> Record:
    """The record of the joined run, which lists the runs that it was made of."""
    kept = ("name", "command", "commit", "version", "started", "machine", "threads")
    parts = [part for run in runs for part in run.get("merged", [{k: run[k] for k in kept if k in run}])]
    joined = {key: " and ".join(dict.fromkeys(str(part[key]) for part in parts)) for key in ("commit", "version")}
    machines = [part.get("machine", {}) for part in parts]
    names = dict.fromkeys(key for machine in machines for key in machine)
    machine = {key: " and ".join(dict.fromkeys(str(m[key]) for m in machines if key in m)) for key in names}
    started = min(str(part["started"]) for part in parts)
    return record | joined | {
        "name": name, "command": command, "started": started, "machine": machine, "merged": parts
    }  # fmt: skip


def _written(
    folder: Path, record: Record, runs: Sequence[Results], cells: Mapping[tuple[str, int], Path]
) -> Iterator[str]:
    """Write everything of the joined run into `folder`."""
    results.write_json(folder / "run.json", record)
    results.write_cases(folder, runs[0].cases)
    missing = []
    for entry in (*record["cells"], *record["yardsticks"]):
        source = cells.get((entry["label"], entry.get("repetition", 0)))
        failures = [run.folder / "cells" / entry["folder"] / "failure.json" for run in runs]
        if source is not None:
            others = shutil.ignore_patterns(".*", "failure.json")
            shutil.copytree(source, folder / "cells" / entry["folder"], ignore=others)
            continue
        missing.append(entry["folder"])
        for failure in [file for file in failures if file.exists()][:1]:
            (folder / "cells" / entry["folder"]).mkdir(parents=True)
            shutil.copy(failure, folder / "cells" / entry["folder"])
    counts: dict[str, int] = {}
    for label, _ in cells:
        counts[label] = counts.get(label, 0) + 1
    methods = [label for label in dict.fromkeys(entry["label"] for entry in record["cells"]) if label in counts]
    yield f"{len(runs)} runs as one: " + ", ".join(f"{label} {counts[label]}" for label in methods)
    if missing:
        yield f"without scores: {', '.join(missing)}"
    galleries = [(run.folder, run.gallery) for run in runs if run.gallery is not None]
    if galleries:
        yield from _gallery(folder, galleries)
    if not missing:
        seconds = sum(run.finished["seconds"] for run in runs if run.finished)
        results.write_json(folder / "finished.json", {"seconds": seconds})


def _gallery(folder: Path, galleries: Sequence[tuple[Path, Gallery]]) -> Iterator[str]:
    """Keep the first gallery, with the samples of those of the same cases."""
    (_, first), *others = galleries
    samples, weights = dict(first.samples), dict(first.weights)
    for path, gallery in others:
        if gallery.cases == first.cases and np.array_equal(gallery.images, first.images):
            samples, weights = gallery.samples | samples, gallery.weights | weights
        else:
            yield f"the gallery of {path} shows other cases and is left out"
    results.write_gallery(
        folder / "gallery.npz",
        Gallery(first.rules, first.cases, first.images, first.masks, first.read, samples, weights),
    )
