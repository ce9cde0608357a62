"""What lies below the folder of runs: its state, what no run needs any more, and what is damaged."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.console import in_words
from bench.runs import results, watch, workers
from bench.runs.store import STORE, Store
from uqseg.errors import FileError, UsageError, message_of
from uqseg.files import read_json

QUOTED = 5  # cells of a kind
OLD = ("fits", "partial", "scores", "failures", "locks", "reports")  # folders that uqseg 0.1 left in --out


def runs(out: Path) -> list[Path]:
    """The folders below `out` that hold a run, readable or not."""
    return sorted(file.parent for file in out.glob("*/run.json"))


def state(out: Path, every: bool = False) -> Iterator[str]:
    """Lines about each run, what is unfinished or damaged, and what uqseg 0.1 left; `every`: all that is stored."""
    store = Store(out / STORE)
    for folder in runs(out):
        yield from _described(folder, lambda folder: _state_of_run(folder, every))
    fits, partial, scores = (sorted(place("").glob("[!.]*")) for place in (store.fit, store.partial, store.scores))
    for fit in fits:
        yield from (line for line in _described(fit, _state_of_fit) if every or not line.startswith("trained"))
    for folder in partial:
        yield from _described(folder, _state_of_training)
    if every:
        yield from (f"scored      {folder.name}" for folder in scores)
    else:
        yield f"store       {len(fits)} trainings and {len(scores)} scores are kept: --all lists them"
    for name in OLD:
        if (out / name).is_dir():
            yield f"version 0.1 {out / name}: written by uqseg 0.1, not read any more; delete it when it is not needed"


def _described(folder: Path, describe: Callable[[Path], Iterator[str]]) -> Iterator[str]:
    """The lines of `describe`, or, whatever a damaged file makes it raise, one that says so."""
    try:
        yield from describe(folder)
    except Exception as error:
        yield f"damaged     {folder.name}  {message_of(error)}"


def _state_of_fit(fit: Path) -> Iterator[str]:
    cost = read_json(fit / "fit.json")
    yield f"trained     {fit.name}  {cost['steps']} steps, {cost['train_seconds']:.0f} s"


def _state_of_training(partial: Path) -> Iterator[str]:
    history = partial / "history.jsonl"
    lines = results.read_history(history) if history.exists() else []
    yield f"unfinished  {partial.name}  {lines[-1]['step'] if lines else 0} steps"


def state_of_run(folder: Path, every: bool = False) -> Iterator[str]:
    """A screen about a run: what is done, under way and failed, and what comes next; `every`: a line for each cell."""
    run, at_work = results.read_run(folder), workers.at_work(folder)
    entries = results.entries_of(run)
    done = {name for name in entries if (folder / "cells" / name / "cell.json").exists()}
    yield from _state_of_run(folder, every)
    if every:
        yield from (f"done        {name}" for name in entries if name in done)
    else:
        labels = {name: entry["label"] if "repetition" in entry else "yardsticks" for name, entry in entries.items()}
        total, finished = Counter(labels.values()), Counter(labels[name] for name in done)
        yield "done        " + ", ".join(f"{label} {finished[label]} of {count}" for label, count in total.items())
    for worker in at_work:
        doing = "not heard of any more" if worker.silent else watch.doing(folder, run, entries.get(worker.cell, {}))
        yield f"running     {worker.cell}  {doing}, for {in_words(worker.seconds)}, {worker.name}"
    failed = {name for name in entries if (folder / "cells" / name / "failure.json").exists()}
    left = [name for name in entries if name not in done | failed | {worker.cell for worker in at_work}]
    quoted = left if every else left[:QUOTED]
    if left:
        more = f" and {len(left) - len(quoted)} more" * (len(left) > len(quoted))
        yield f"to do       {len(left)}: {', '.join(quoted)}{more}"
    if not left and not failed and not at_work:
        yield f"next        uqseg view {folder}"
    elif any(not worker.silent for worker in at_work):
        yield f"next        uqseg status --watch --out {folder.parent}"
    else:
        yield f"next        {'mend what failed, and give' if failed else 'give'} the same command: {run['command']}"


def _state_of_run(folder: Path, every: bool) -> Iterator[str]:
    run = results.read_run(folder)
    cells = [folder / "cells" / name for name in results.entries_of(run)]
    done = sum((cell / "cell.json").exists() for cell in cells)
    word = "finished" if (folder / "finished.json").exists() else "unfinished"
    yield f"{word:<11} {folder.name}  {done} of {len(cells)} cells"
    failed = [cell for cell in cells if (cell / "failure.json").exists()]
    for cell in failed if every else failed[:QUOTED]:
        yield f"failed      {folder.name}/{cell.name}  {results.read_failure(cell / 'failure.json')}"
    if len(failed) > QUOTED and not every:
        yield f"failed      {len(failed) - QUOTED} more cells of {folder.name}: --all lists them"
    if left := watch.left_by_slurm(folder):
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
    """Remove a file or a folder of the store."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def damaged(out: Path) -> Iterator[str]:
    """One line for each file of the store, of the results folders and of the cache of data that is not as written."""
    from uqseg.data import cache
    from uqseg.data.load import default_cache
    from uqseg.training.checkpoint import check_fit

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
        yield message_of(error)
