"""How far a run is: the workers that are at it, wherever they run, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from bench.runs import workers
from bench.runs.record import STORE
from bench.runs.store import Store
from bench.runs.work import in_words, steps_done
from uqseg.training import Training


def table(folder: Path, record: Mapping[str, Any]) -> Table:
    """A line for each worker of the run in `folder`, whose run.json is `record`; the title counts the cells."""
    entries = {entry["folder"]: entry for entry in (*record["yardsticks"], *record["cells"])}
    done, failed = (sum((folder / "cells" / cell / file).exists() for cell in entries)
                    for file in ("cell.json", "failure.json"))  # fmt: skip
    title = f"{done} of {len(entries)} cells done" + (f", {failed} failed" if failed else "")
    shown = Table("worker", "cell", "at", "since", title=title, title_justify="left", box=None)
    for worker in workers.at_work(folder):
        at = "not heard of any more" if worker.silent else _state(folder, record, entries.get(worker.cell, {}))
        shown.add_row(escape(worker.name), escape(worker.cell), at, in_words(worker.seconds))
    return shown


def _state(folder: Path, record: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What is being done of a cell: "step 40 of 300", or "scoring" once it is trained."""
    store = Store(folder.parent / STORE)
    if "fit" not in entry or store.fit(entry["fit"]).exists():
        return "scoring"
    total = Training(**entry["training"]).total_steps(record["data"]["splits"]["train"]["images"])
    return f"step {steps_done(store, entry['fit'])} of {total}"
