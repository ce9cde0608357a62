"""How far a run is: the workers that are at it, wherever they run, in one table."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bench.console import in_words
from bench.runs import workers
from bench.runs.results import entries_of, read_run
from bench.runs.store import STORE, Store
from uqseg.files import read_json

EVERY = 2.0  # seconds between two looks


def table(folder: Path, record: Mapping[str, Any]) -> Table:
    """A line for each worker of the run in `folder`, whose run.json is `record`; the title counts the cells."""
    entries = entries_of(record)
    done, failed = (sum((folder / "cells" / cell / file).exists() for cell in entries)
                    for file in ("cell.json", "failure.json"))  # fmt: skip
    title = f"{done} of {len(entries)} cells done" + (f", {failed} failed" if failed else "")
    shown = Table("worker", "cell", "at", "since", title=title, title_justify="left", box=None)
    for worker in workers.at_work(folder):
        at = (
            "killed, or not heard of any more" if worker.silent else doing(folder, record, entries.get(worker.cell, {}))
        )
        shown.add_row(escape(worker.name), escape(worker.cell), at, in_words(worker.seconds))
    return shown


def doing(folder: Path, record: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What is being done of a cell: "step 40 of 300", or "scoring" once it is trained."""
    store = Store(folder.parent / STORE)
    if "fit" not in entry or store.fit(entry["fit"]).exists():
        return "scoring"
    from uqseg.training import Training

    total = Training(**entry["training"]).total_steps(record["data"]["splits"]["train"]["images"])
    return f"step {store.steps_done(entry['fit'])} of {total}"


def watch(out: Path) -> None:
    """Show the tables of the runs below `out` that are not finished, with Slurm's queue, until all are."""
    with Live(console=Console(), auto_refresh=False) as live:
        while tables := [_with_queue(folder) for folder in unfinished(out)]:
            live.update(Group(*tables), refresh=True)
            time.sleep(EVERY)
        live.update(f"No run below {escape(str(out))} is under way.", refresh=True)


def unfinished(out: Path) -> list[Path]:
    """The runs below `out` that are under way: not finished, with workers or jobs in Slurm's queue."""
    runs = [file.parent for file in sorted(out.glob("*/run.json")) if not (file.parent / "finished.json").exists()]
    return [folder for folder in runs if workers.at_work(folder) or queue(folder)]


def _with_queue(folder: Path) -> Table:
    """The table of a run with its name and what Slurm says of it."""
    lines, shown = queue(folder), table(folder, read_run(folder))
    shown.title = f"{escape(folder.name)}: {shown.title}" + (f"; Slurm: {', '.join(lines)}" if lines else "")
    return shown


def left_by_slurm(folder: Path) -> list[str]:
    """The cells that Slurm's jobs, which have all ended, left neither done nor failed."""
    if not (folder / "slurm" / "jobs.json").exists() or shutil.which("squeue") is None or queue(folder):
        return []
    cells = {cell: folder / "cells" / cell for cell in entries_of(read_run(folder))}
    return [
        cell for cell, path in cells.items() if not any((path / f"{end}.json").exists() for end in ("cell", "failure"))
    ]


def queue(folder: Path) -> list[str]:
    """How many tasks of the run are in each state of Slurm's queue, such as "12 PENDING"; empty where there is none."""
    file = folder / "slurm" / "jobs.json"
    if not file.exists() or shutil.which("squeue") is None:
        return []
    jobs = read_json(file)
    words = ["squeue", "--noheader", "--array", "--format=%T", f"--jobs={jobs['array']},{jobs['last']}"]
    states = subprocess.run(words, capture_output=True, text=True).stdout.split()
    return [f"{count} {state}" for state, count in Counter(states).most_common()]
