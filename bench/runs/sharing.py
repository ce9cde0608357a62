"""The cells of a run, shared out over all workers: each takes the next free one and waits behind no other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.launchers import Settings
from bench.runs import workers
from bench.runs.keys import key_of
from bench.runs.results import entries_of, read_failure, read_run
from bench.runs.store import named
from bench.runs.work import Job, attempt, help_to_score, is_done, read_job
from uqseg.errors import UsageError
from uqseg.locks import BusyError

POLL = 1.0  # seconds between two looks at cells that are all in other hands


def take(folder: Path, cells: Sequence[str], settings: Settings) -> dict[str, str]:
    """Work on those of `cells` that nobody else works on, until each is done or has failed; the failures.

    The cells that are left at the end are waited for, so that those of a worker that is killed go on here. A cell that
    fails is not tried again by any worker that began before. Raises UsageError for a cell that the run has not.
    """
    job = read_job(folder, settings.trust)
    if unknown := [cell for cell in cells if cell not in job.entries]:
        raise UsageError(
            f"cell: '{folder}' has no '{unknown[0]}'; give names of folders in its cells/, or none for all"
        )
    left, before, waiting = list(cells), {cell: failed_at(folder, cell) for cell in cells}, False
    while left:
        busy = [cell for cell in left if not _settled(job, cell, before[cell], settings)]
        if busy == left:
            if not waiting:
                few = ", ".join(busy[:5]) + (f" and {len(busy) - 5} more" if len(busy) > 5 else "")
                settings.log(f"waiting for what other processes work on: {few}")
            waiting = True
            for cell in busy:
                help_to_score(folder, cell, settings)
            time.sleep(POLL)
        left = busy
    failed = {cell: folder / "cells" / cell / "failure.json" for cell in cells}
    return {cell: read_failure(file) for cell, file in failed.items() if file.exists()}


def _settled(job: Job, cell: str, failed: int | None, settings: Settings) -> bool:
    """Work on a cell unless somebody else does, and whether it is done now, or has failed since it had at `failed`."""
    folder = job.folder
    try:
        with job.store.locked(lock_of(folder, cell), wait=False):
            if failed_at(folder, cell) == failed and not is_done(folder / "cells" / cell, job.entries[cell]):
                settings.log(f"[{list(job.entries).index(cell) + 1}/{len(job.entries)}] {cell}")
                with workers.shown(folder, cell):
                    error = attempt(folder, cell, replace(settings, wait=False))
                if error:
                    settings.log(f"  failed: {error}")
            return True
    except BusyError:
        return False


def undone_in(folder: Path) -> list[str]:
    """The cells and yardsticks of the run in `folder` whose results are not all there."""
    entries = entries_of(read_run(folder))
    return [cell for cell, entry in entries.items() if not is_done(folder / "cells" / cell, entry)]


def lock_of(folder: Path, cell: str) -> str:
    """The name of the lock that whoever works on a cell of the run in `folder` holds."""
    return named(key_of(folder.name, cell), cell)


def failed_at(folder: Path, cell: str) -> int | None:
    """When the cell failed last, as its file's time, or None."""
    try:
        return (folder / "cells" / cell / "failure.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None
