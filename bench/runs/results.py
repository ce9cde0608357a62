"""The results folder of a run: all that a report needs, written by the run and read with NumPy and pandas alone.

NAME/run.json                 written first: command, spec, versions, machine, facts about the data, cells
NAME/cases.parquet            the scored cases: patient, split, readers, areas, and whatever the source knows
NAME/cells/CELL/              cell.json, scores.parquet (per case), sums.parquet (per patient), cost.json,
                              history.jsonl; failure.json where it failed; yardsticks lie there too
NAME/gallery.npz              cases chosen by rule: images, masks and samples; absent where they may not be shown
NAME/finished.json            written last
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.errors import FileError, UsageError
from uqseg.files import read_json, sha256, write
from uqseg.metrics import Scores, read_scores, write_scores

FORMAT = 2
SPLITS = ("train", "val", "test")
SCORES = ("scores.parquet", "sums.parquet")
Read = TypeVar("Read")

RULES = {
    "easiest": "all readers marked it (or as many as marked any), and the methods' mean Dice is the highest",
    "hardest": "all readers marked it (or as many as marked any), and the methods' mean Dice is the lowest",
    "most disputed": "all readers marked it (or as many as marked any), and their outlines differ most",
    "some readers only": "about half of the readers marked it, and the methods' mean presence is nearest to one half",
}
"""How the cases of the gallery are chosen."""


@dataclass(frozen=True)
class Gallery:
    """Some cases in pictures. rules: rule -> case; images uint8 (K,C,H,W), masks bool (K,R,H,W), read bool (K,R).

    samples: label -> uint8 (K,S,H,W), 255 for probability 1; weights: label -> (K,S), only where they are not equal.
    """

    rules: dict[str, str]
    cases: tuple[str, ...]
    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    read: NDArray[np.bool_]
    samples: dict[str, NDArray[np.uint8]]
    weights: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class CellResults:
    """One label × repetition, or a yardstick. info: cell.json; cost and history only where something was trained."""

    label: str
    repetition: int
    info: dict[str, Any]
    scores: dict[str, Scores]
    cost: dict[str, Any] | None
    history: list[dict[str, Any]]


@dataclass(frozen=True)
class Results:
    """A results folder. cells: label -> repetitions, in the run's order; failed: "label, repetition" -> error."""

    folder: Path
    run: dict[str, Any]
    cases: pd.DataFrame
    cells: dict[str, list[CellResults]]
    yardsticks: dict[str, CellResults]
    failed: dict[str, str]
    gallery: Gallery | None
    finished: dict[str, Any] | None

    @property
    def statistics(self) -> dict[str, set[int]]:
        """The versions in which each statistic is stored: more than one where cells were scored by different code."""
        versions: dict[str, set[int]] = {}
        for cell in (*(c for cells in self.cells.values() for c in cells), *self.yardsticks.values()):
            for name, version in cell.info["statistics"].items():
                versions.setdefault(name, set()).add(version)
        return versions


def read_results(folder: Path) -> Results:
    """The results in `folder`. Raises UsageError where it holds none, FileError naming a file that is damaged."""
    run = read_run(folder)
    cases = read_cases(folder)
    cells: dict[str, list[CellResults]] = {}
    failed: dict[str, str] = {}
    for entry in run["cells"]:
        path = folder / "cells" / entry["folder"]
        if (path / "cell.json").exists():
            cells.setdefault(entry["label"], []).append(read_cell(path))
        elif (path / "failure.json").exists():
            failed[f"{entry['label']}, repetition {entry['repetition']}"] = read_json(path / "failure.json")["error"]
    paths = {entry["label"]: folder / "cells" / entry["folder"] for entry in run["yardsticks"]}
    yardsticks = {label: read_cell(path) for label, path in paths.items() if (path / "cell.json").exists()}
    gallery = read_gallery(folder / "gallery.npz") if (folder / "gallery.npz").exists() else None
    finished = read_json(folder / "finished.json") if (folder / "finished.json").exists() else None
    return Results(folder, run, cases, cells, yardsticks, failed, gallery, finished)


def read_run(folder: Path) -> dict[str, Any]:
    """The record of a run. Raises UsageError where the folder holds none or one of another format."""
    file = folder / "run.json"
    if not file.exists():
        raise UsageError(f"there is no run.json in '{folder}'; give the results folder of a run, such as runs/NAME.")
    run = read_object(file)
    if "format" not in run and {"run", "command"} <= set(run):
        raise UsageError(
            f"'{folder}' is a report of uqseg 0.1, which keeps no scores of its own; run the command in its run.json "
            "again, or read it with version 0.1."
        )
    if run.get("format") != FORMAT:
        raise FileError(f"{file}: expected format {FORMAT}, got {run.get('format')!r}; use the version that wrote it")
    missing = {"name", "spec", "data", "cells", "yardsticks"} - set(run)
    if missing:
        raise FileError(f"{file}: {', '.join(sorted(missing))} missing; give the results folder of a run")
    return run


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; FileError where it holds anything else."""
    value = read_json(file)
    if not isinstance(value, dict):
        raise FileError(f"cannot read {file}: expected a JSON object, got {type(value).__name__}")
    return value


def read_cases(folder: Path) -> pd.DataFrame:
    """One row per scored case of all splits."""
    return _readable(pd.read_parquet, folder / "cases.parquet")


def write_cases(folder: Path, cases: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    cases.to_parquet(buffer, index=False, compression="zstd")
    write(folder / "cases.parquet", buffer.getvalue())


def read_cell(path: Path) -> CellResults:
    """The cell in the folder `path`, its scores checked against their SHA-256."""
    info = read_object(path / "cell.json")
    for file, digest in info["sha256"].items():
        if sha256(path / file) != digest:
            raise FileError(f"{path / file} is not what was written (its SHA-256 differs); delete its folder")
    cost = read_json(path / "cost.json") if (path / "cost.json").exists() else None
    history = _readable(read_history, path / "history.jsonl") if (path / "history.jsonl").exists() else []
    return CellResults(info["label"], info["repetition"], info, read_scores(path), cost, history)


def read_history(file: Path) -> list[dict[str, Any]]:
    """The lines of a history; half a line at the end, which a full disk leaves, is passed over."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def write_cell(path: Path, scores: Mapping[str, Scores], info: Mapping[str, Any]) -> None:
    """Scores of the splits as scores.parquet and sums.parquet, then cell.json, which says that all is there."""
    path.mkdir(parents=True, exist_ok=True)
    write_scores(path, scores)
    write_json(path / "cell.json", {**info, "sha256": {file: sha256(path / file) for file in SCORES}})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write(path, json.dumps(value, indent=1).encode())


def read_gallery(file: Path) -> Gallery:
    """What `write_gallery` wrote."""
    with _readable(np.load, file) as arrays:
        index = json.loads(str(arrays["index"]))
        labels = index["labels"]
        samples = {label: arrays[f"samples_{i}"] for i, label in enumerate(labels)}
        weights = {label: arrays[f"weights_{i}"] for i, label in enumerate(labels) if f"weights_{i}" in arrays}
        images, masks, read = (arrays[name] for name in ("images", "masks", "read"))
        return Gallery(index["rules"], tuple(index["cases"]), images, masks, read, samples, weights)


def write_gallery(file: Path, gallery: Gallery) -> None:
    index = {"rules": gallery.rules, "cases": gallery.cases, "labels": list(gallery.samples)}
    arrays: dict[str, Any] = {name: getattr(gallery, name) for name in ("images", "masks", "read")}
    for i, (label, samples) in enumerate(gallery.samples.items()):
        arrays[f"samples_{i}"] = samples
        if label in gallery.weights:
            arrays[f"weights_{i}"] = gallery.weights[label]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, index=np.array(json.dumps(index)), **arrays)
    write(file, buffer.getvalue())


def _readable(read: Callable[[Path], Read], file: Path) -> Read:
    try:
        return read(file)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {file}: {' '.join(str(error).split())[:200]}") from error
