"""What lies below the folder of runs: its state, what no run needs any more, and what is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from bench.runs import results
from bench.runs.plan import steps_done
from bench.runs.record import STORE
from bench.runs.store import Store
from uqseg.data import cache
from uqseg.data.load import default_cache
from uqseg.errors import FileError, UsageError
from uqseg.files import read_json, sha256

OLD = ("fits", "partial", "scores", "failures", "locks", "reports")  # folders that uqseg 0.1 left in --out


def runs(out: Path) -> list[Path]:
    """The folders below `out` that hold a run, readable or not."""
    return sorted(file.parent for file in out.glob("*/run.json"))


def state(out: Path) -> Iterator[str]:
    """Lines about every run, every training and what uqseg 0.1 left; a damaged file is one of them."""
    store = Store(out / STORE)
    for folder in runs(out):
        yield from _state_of_run(folder)
    for fit in sorted(store.fit("").glob("[!.]*")):
        try:
            cost = read_json(fit / "fit.json")
            yield f"trained     {fit.name}  {cost['steps']} steps, {cost['train_seconds']:.0f} s"
        except (FileError, KeyError, TypeError) as error:
            yield f"damaged     {fit.name}  {_one_line(error)}"
    for partial in sorted(store.partial("").glob("[!.]*")):
        try:
            yield f"unfinished  {partial.name}  {steps_done(store, partial.name)} steps"
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield f"damaged     {partial.name}  {_one_line(error)}"
    for scores in sorted(store.scores("").glob("[!.]*")):
        yield f"scored      {scores.name}"
    for name in OLD:
        if (out / name).is_dir():
            yield f"version 0.1 {out / name}: written by uqseg 0.1, not read any more; delete it when it is not needed"


def _state_of_run(folder: Path) -> Iterator[str]:
    try:
        run = results.read_run(folder)
        entries = [*run["yardsticks"], *run["cells"]]
        cells = [folder / "cells" / entry["folder"] for entry in entries]
    except (FileError, UsageError, KeyError, TypeError) as error:
        yield f"damaged     {folder.name}  {_one_line(error)}"
        return
    done = sum((cell / "cell.json").exists() for cell in cells)
    word = "finished" if (folder / "finished.json").exists() else "unfinished"
    yield f"{word:<11} {folder.name}  {done} of {len(cells)} cells"
    for cell in cells:
        if (cell / "failure.json").exists():
            try:
                yield f"failed      {folder.name}/{cell.name}  {read_json(cell / 'failure.json')['error']}"
            except (FileError, KeyError, TypeError) as error:
                yield f"damaged     {folder.name}/{cell.name}  {_one_line(error)}"


def unneeded(out: Path) -> list[Path]:
    """Folders and files of the store that no run below `out` names. Raises FileError where a run cannot be read."""
    needed: set[str] = set()
    for folder in runs(out):
        run = results.read_run(folder)
        for entry in (*run["cells"], *run["yardsticks"]):
            needed |= {entry.get("fit", ""), *entry["scores"].values()}
    return [path for path in sorted((out / STORE).glob("*/*")) if path.name not in needed]


def size(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def free(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def damaged(out: Path) -> Iterator[str]:
    """One line for each file of the store, of the results folders and of the cache of data that is not as written."""
    store = Store(out / STORE)
    for fit in sorted(store.fit("").glob("[!.]*")):
        try:
            if sha256(fit / "weights.safetensors") != read_json(fit / "model.json")["sha256"]:
                yield f"{fit / 'weights.safetensors'} is not what was written (its SHA-256 differs)"
        except (FileError, KeyError, TypeError) as error:
            yield _one_line(error)
    for cell in sorted([*store.scores("").glob("[!.]*"), *out.glob("*/cells/*")]):
        if not (cell / "cell.json").exists():
            continue
        try:
            for name, digest in read_json(cell / "cell.json")["sha256"].items():
                if sha256(cell / name) != digest:
                    yield f"{cell / name} is not what was written (its SHA-256 differs)"
        except (FileError, KeyError, TypeError, AttributeError) as error:
            yield _one_line(error)
    for folder in runs(out):
        try:
            results.read_run(folder)
            results.read_cases(folder)
        except (FileError, UsageError) as error:
            yield _one_line(error)
    for meta in sorted(default_cache().glob("*/meta.json")):
        try:
            cache.open_entry(meta.parent).verify()
        except FileError as error:
            yield _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
