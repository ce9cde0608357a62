"""What lies below the folder of runs: its state, what no run needs any more, and what is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.runs import results
from bench.runs.record import STORE
from bench.runs.store import Store
from bench.runs.watch import left_by_slurm
from uqseg.data import cache
from uqseg.data.load import default_cache
from uqseg.errors import FileError, UsageError
from uqseg.files import read_json
from uqseg.training.checkpoint import check_fit

OLD = ("fits", "partial", "scores", "failures", "locks", "reports")  # folders that uqseg 0.1 left in --out


def runs(out: Path) -> list[Path]:
    """The folders below `out` that hold a run, readable or not."""
    return sorted(file.parent for file in out.glob("*/run.json"))


def state(out: Path) -> Iterator[str]:
    """Lines about every run, every training and what uqseg 0.1 left; a damaged file is one of them."""
    store = Store(out / STORE)
    for folder in runs(out):
        yield from _described(folder, _state_of_run)
    for fit in sorted(store.fit("").glob("[!.]*")):
        yield from _described(fit, _state_of_fit)
    for partial in sorted(store.partial("").glob("[!.]*")):
        yield from _described(partial, _state_of_training)
    for scores in sorted(store.scores("").glob("[!.]*")):
        yield f"scored      {scores.name}"
    for name in OLD:
        if (out / name).is_dir():
            yield f"version 0.1 {out / name}: written by uqseg 0.1, not read any more; delete it when it is not needed"


def _described(folder: Path, describe: Callable[[Path], Iterator[str]]) -> Iterator[str]:
    """The lines of `describe`, or, whatever a damaged file makes it raise, one that says so."""
    try:
        yield from describe(folder)
    except Exception as error:
        yield f"damaged     {folder.name}  {_one_line(error) or type(error).__name__}"


def _state_of_fit(fit: Path) -> Iterator[str]:
    cost = read_json(fit / "fit.json")
    yield f"trained     {fit.name}  {cost['steps']} steps, {cost['train_seconds']:.0f} s"


def _state_of_training(partial: Path) -> Iterator[str]:
    history = partial / "history.jsonl"
    lines = results.read_history(history) if history.exists() else []
    yield f"unfinished  {partial.name}  {lines[-1]['step'] if lines else 0} steps"


def _state_of_run(folder: Path) -> Iterator[str]:
    run = results.read_run(folder)
    cells = [folder / "cells" / name for name in results.entries_of(run)]
    done = sum((cell / "cell.json").exists() for cell in cells)
    word = "finished" if (folder / "finished.json").exists() else "unfinished"
    yield f"{word:<11} {folder.name}  {done} of {len(cells)} cells"
    for cell in cells:
        if (cell / "failure.json").exists():
            yield f"failed      {folder.name}/{cell.name}  {results.read_failure(cell / 'failure.json')}"
    if left := left_by_slurm(folder):
        yield (
            f"ended       {folder.name}  Slurm's jobs left {len(left)} cells undone, such as {left[0]}; see the logs "
            f"in {folder / 'slurm'}; if there are none, its machines do not see this folder: choose one that they do"
        )


def unneeded(out: Path) -> list[Path]:
    """Folders and files of the store that no run below `out` names. Raises FileError where a run cannot be read."""
    needed: set[str] = set()
    for folder in runs(out):
        for entry in results.entries_of(results.read_run(folder)).values():
            needed |= {entry.get("fit", ""), *entry["scores"].values()}
    kept = [path for path in sorted((out / STORE).glob("*/*")) if path.parent.name != "locks"]  # empty, and in use
    return [path for path in kept if path.name not in needed]


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
        yield from _raised(check_fit, fit)
    for scores in sorted(store.scores("").glob("[!.]*")):
        yield from _raised(results.read_cell, scores)
    for folder in runs(out):
        yield from _raised(results.read_run, folder)
        yield from _raised(results.read_cases, folder)
        yield from damaged_cells(folder)
        for file, read in (("gallery.npz", results.read_gallery), ("finished.json", read_json)):
            if (folder / file).exists():
                yield from _raised(read, folder / file)
    for meta in sorted(default_cache().glob("*/meta.json")):
        yield from _raised(lambda folder: cache.open_entry(folder).verify(), meta.parent)


def damaged_cells(folder: Path) -> Iterator[str]:
    """One line for each cell of a results folder that has a damaged file."""
    for cell in sorted(folder.glob("cells/*/cell.json")):
        yield from _raised(results.read_cell, cell.parent)
    for failure in sorted(folder.glob("cells/*/failure.json")):
        yield from _raised(results.read_object, failure)


def _raised(read: Callable[[Path], object], path: Path) -> Iterator[str]:
    try:
        read(path)
    except (FileError, UsageError) as error:
        yield _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
