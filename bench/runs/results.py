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
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.errors import DamagedError, FileError, UsageError
from uqseg.files import make_folder, read_json, sha256, unreadable, write
from uqseg.metrics import Scores, read_scores, write_scores

FORMAT = 2
SPLITS = ("train", "val", "test")
SCORES = ("scores.parquet", "sums.parquet")
CHECKED = (*SCORES, "cost.json", "history.jsonl")  # files of a cell whose checksums are in its cell.json
NAME = re.compile(r"[A-Za-z0-9=_-][A-Za-z0-9.=_-]*")  # of a folder in a record, which may come from anybody
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

    cases: those of the rules first, then others at equal steps of the readers' disagreement.
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
    """A results folder. cells: label -> repetitions, in the run's order; failed: "label, repetition" -> error.

    sets: the same of those whose answer is one set of pixels, which is scored by itself.
    """

    folder: Path
    run: dict[str, Any]
    cases: pd.DataFrame
    cells: dict[str, list[CellResults]]
    sets: dict[str, list[CellResults]]
    yardsticks: dict[str, CellResults]
    failed: dict[str, str]
    gallery: Gallery | None
    finished: dict[str, Any] | None

    @property
    def repetitions(self) -> dict[str, list[CellResults]]:
        """The cells that samples were scored in, of methods and then of yardsticks, by label."""
        return {**self.cells, **{label: [cell] for label, cell in self.yardsticks.items()}}

    @property
    def tested(self) -> dict[str, list[Scores]]:
        """The scores on test of each repetition, of methods and then of yardsticks, by label."""
        return {label: [cell.scores["test"] for cell in cells] for label, cells in self.repetitions.items()}

    @property
    def folders(self) -> dict[tuple[str, int], Path]:
        """The folder of each cell and yardstick, by label and repetition (0 of a yardstick)."""
        entries = entries_of(self.run)
        return {(e["label"], e.get("repetition", 0)): self.folder / "cells" / name for name, e in entries.items()}

    @property
    def scored(self) -> list[CellResults]:
        """All cells that have scores."""
        of_methods = [cell for cells in (*self.cells.values(), *self.sets.values()) for cell in cells]
        return [*of_methods, *self.yardsticks.values()]

    @property
    def missing(self) -> list[str]:
        """The cells, as "label, repetition", that have neither scores nor failed so far."""
        scored = {(cell.label, cell.repetition) for cell in self.scored}
        cells = [(entry["label"], entry["repetition"]) for entry in self.run["cells"]]
        names = [f"{label}, repetition {number}" for label, number in cells if (label, number) not in scored]
        return [name for name in names if name not in self.failed]

    @property
    def statistics(self) -> dict[str, set[int]]:
        """The versions in which each statistic is stored: more than one where cells were scored by different code."""
        versions: dict[str, set[int]] = {}
        for cell in self.scored:
            for name, version in cell.info["statistics"].items():
                versions.setdefault(name, set()).add(version)
        return versions


def read_results(folder: Path) -> Results:
    """The results in `folder`. Raises UsageError where it holds none, FileError naming a file that is damaged.

    A cell with a damaged file is one of those that failed, and costs no other.
    """
    run = read_run(folder)
    cases = read_cases(folder)
    cells: dict[str, list[CellResults]] = {}
    sets: dict[str, list[CellResults]] = {}
    failed: dict[str, str] = {}
    yardsticks: dict[str, CellResults] = {}
    for entry in (*run["cells"], *run["yardsticks"]):
        path, label = folder / "cells" / entry["folder"], entry["label"]
        title = f"{label}, repetition {entry['repetition']}" if "repetition" in entry else label
        try:
            if not (path / "cell.json").exists():
                if (path / "failure.json").exists():
                    failed[title] = read_failure(path / "failure.json")
            elif "repetition" in entry:
                cell = read_cell(path)
                (sets if cell.info.get("gives") == "set" else cells).setdefault(label, []).append(cell)
            else:
                yardsticks[label] = read_cell(path)
        except DamagedError as error:
            failed[title] = str(error)
    gallery = read_gallery(folder / "gallery.npz") if (folder / "gallery.npz").exists() else None
    finished = read_json(folder / "finished.json") if (folder / "finished.json").exists() else None
    return Results(folder, run, cases, cells, sets, yardsticks, failed, gallery, finished)


def entries_of(run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a record says of each cell and yardstick, by its folder; yardsticks come first."""
    return {entry["folder"]: entry for entry in (*run["yardsticks"], *run["cells"])}


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
    try:
        for entry in (*run["cells"], *run["yardsticks"]):
            names = (entry["folder"], *([entry["fit"]] if "fit" in entry else ()), *entry.get("scores", {}).values())
            if wrong := [name for name in names if not NAME.fullmatch(name)]:
                raise FileError(f"{file}: expected names of folders, got {wrong[0]!r}; do not trust this record")
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"cannot read {file}: its cells are not those of a run ({error!r})") from error
    return run


def drop_damaged(folder: Path) -> None:
    """Remove the files of a run that are damaged and that the same run writes anew."""
    for name, read in (("run.json", read_object), ("cases.parquet", lambda file: read_cases(file.parent)),
                       ("gallery.npz", read_gallery), ("finished.json", read_object)):  # fmt: skip
        if (folder / name).exists() and not is_readable(read, folder / name):
            (folder / name).unlink()


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; DamagedError where it holds anything else."""
    value = read_json(file)
    if not isinstance(value, dict):
        raise DamagedError(f"cannot read {file}: expected a JSON object, got {type(value).__name__}")
    return value


def read_failure(file: Path) -> str:
    """Why a cell failed; where that cannot be read any more, this."""
    try:
        return str(read_object(file)["error"])
    except (FileError, KeyError) as error:
        return f"it failed, but {file} does not tell why ({error})"


def is_readable(read: Callable[[Path], object], file: Path) -> bool:
    """Whether `read` can make sense of a file."""
    try:
        read(file)
    except (FileError, UsageError):
        return False
    return True


def read_cases(folder: Path) -> pd.DataFrame:
    """One row per scored case of all splits, its pages checked against the checksums in the file."""
    return _readable(lambda file: pd.read_parquet(file, page_checksum_verification=True), folder / "cases.parquet")


def write_cases(folder: Path, cases: pd.DataFrame) -> None:
    """Write cases.parquet of a run's folder, for `read_cases`."""
    buffer = io.BytesIO()
    cases.to_parquet(buffer, index=False, compression="zstd", write_page_checksum=True)
    write(folder / "cases.parquet", buffer.getvalue())


def read_cell(path: Path) -> CellResults:
    """The cell in the folder `path`, its files checked against their SHA-256: DamagedError naming one that differs."""
    info = read_object(path / "cell.json")
    check_cell(path, info)
    cost = read_json(path / "cost.json") if (path / "cost.json").exists() else None
    history = read_history(path / "history.jsonl") if (path / "history.jsonl").exists() else []
    try:
        return CellResults(info["label"], info["repetition"], info, read_scores(path), cost, history)
    except (FileError, KeyError) as error:
        raise DamagedError(f"cannot use {path}: {error}; delete this folder") from error


def check_cell(path: Path, info: Mapping[str, Any]) -> None:
    """Raise DamagedError where a file of a cell is not what `info`, its cell.json, says was written."""
    digests = info.get("sha256")
    if not isinstance(digests, dict) or not set(SCORES) <= set(digests) <= set(CHECKED):
        raise DamagedError(f"cannot read {path / 'cell.json'}: it holds no checksums; delete its folder")
    for file, digest in digests.items():
        if sha256(path / file) != digest:
            raise DamagedError(f"{path / file} is not what was written (its SHA-256 differs); delete its folder")


def read_history(file: Path) -> list[dict[str, Any]]:
    """The lines of a history; half a line at the end, which a full disk leaves, is passed over. DamagedError for any
    other line that is not of a step."""

    def steps(file: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        if not all(isinstance(line["step"], int) for line in lines):
            raise ValueError("expected a number of steps in each line")
        return lines

    return _readable(steps, file)


def history_so_far(file: Path) -> list[dict[str, Any]]:
    """The same of a training that goes on; nothing where there is none that can be read."""
    try:
        return read_history(file)
    except FileError:
        return []


def write_cell(path: Path, scores: Mapping[str, Scores], info: Mapping[str, Any]) -> None:
    """Scores of the splits as scores.parquet and sums.parquet, then cell.json, which says that all is there: these two
    and, where they were written before, cost and history."""
    try:
        make_folder(path)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    write_scores(path, scores)
    digests = {file: sha256(path / file) for file in CHECKED if (path / file).exists()}
    write_json(path / "cell.json", dict(sorted({**info, "sha256": digests}.items())))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, as a whole or not at all."""
    write(path, json.dumps(value, indent=1).encode())


def read_gallery(file: Path) -> Gallery:
    """What `write_gallery` wrote."""
    return _readable(_read_gallery, file)


def _read_gallery(file: Path) -> Gallery:
    with np.load(file, allow_pickle=False) as arrays:
        index = json.loads(str(arrays["index"]))
        labels = index["labels"]
        samples = {label: arrays[f"samples_{i}"] for i, label in enumerate(labels)}
        weights = {label: arrays[f"weights_{i}"] for i, label in enumerate(labels) if f"weights_{i}" in arrays}
        images, masks, read = (arrays[name] for name in ("images", "masks", "read"))
        return Gallery(index["rules"], tuple(index["cases"]), images, masks, read, samples, weights)


def write_gallery(file: Path, gallery: Gallery) -> None:
    """Write a gallery for `read_gallery`."""
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
    except Exception as error:  # whatever a decoder raises for a damaged file
        raise unreadable(file, error) from error
