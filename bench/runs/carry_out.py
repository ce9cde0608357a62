"""A run from its record to its last file: the cells that are not done, the gallery, and that it is finished."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.launchers import Launcher, Settings
from bench.runs import gallery, record, together, workers
from bench.runs.results import drop_damaged, read_failure, write_json
from bench.runs.work import Job, is_done, title


def undone(job: Job) -> dict[str, dict[str, Any]]:
    """The cells and yardsticks whose results are not all there, undamaged and in the present versions."""
    return {cell: entry for cell, entry in job.entries.items() if not is_done(job.folder / "cells" / cell, entry)}


def carry_out(job: Job, launch: Launcher, settings: Settings) -> list[str] | None:
    """Do what is not done of a run; the cells that failed, each with its reason, in one line. None where the launcher
    has sent the work away, and the report with it."""
    started, folder, left = time.perf_counter(), job.folder, undone(job)
    for worker in workers.bury(folder):
        settings.log(f"{worker.cell} goes on from its last checkpoint, if it has one: the last time, {workers.KILLED}")
    drop_damaged(folder)
    if left or not _are_there(folder, "run.json", "cases.parquet"):
        job = replace(job, record=record.write(folder, job.record, job.splits))
    torch.set_num_threads(job.record["threads"])
    together.announce(folder, settings)
    if left and launch(folder, list(left), settings):
        return None
    return finish(job, settings, time.perf_counter() - started, anew=bool(left))


def finish(job: Job, settings: Settings, seconds: float, anew: bool) -> list[str]:
    """Write what a run ends with, where it is missing or `anew`: the gallery, and that all cells are done, if they are.

    seconds: that the run took. The cells that failed, each with its reason, in one line.
    """
    folder = job.folder
    if settings.gallery and (anew or not _are_there(folder, gallery.FILE)):
        with job.store.locked(f"{folder.name}-{gallery.FILE}"):
            gallery.write(folder, settings)
    failed = undone(job)
    for cell in {worker.cell for worker in workers.at_work(folder)} & failed.keys() - job.failures.keys():
        workers.fail(folder, cell)  # nobody is at it any more
    if not failed and (anew or not _are_there(folder, "finished.json")):
        write_json(folder / "finished.json", {"seconds": seconds})
    shutil.rmtree(folder / "workers", ignore_errors=True)  # killed ones could not say that they ended
    reasons = {cell: read_failure(file) for cell, file in job.failures.items()} if failed else {}
    return [f"{title(entry)}: {reasons.get(cell, 'not done')}" for cell, entry in failed.items()]


def _are_there(folder: Path, *names: str) -> bool:
    return all((folder / name).exists() for name in names)
