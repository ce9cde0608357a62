"""A run from its record to its last file: the cells that are not done, the gallery, and that it is finished."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import baselines
import bench
import uqseg
from bench.launchers import Launcher, Settings
from bench.runs import gallery, record, together
from bench.runs.results import drop_damaged, read_failure, write_json
from bench.runs.work import Job, is_done, title

READ = (".json", ".jsonl", ".parquet", ".npz", ".py", ".toml", ".csv", ".css", ".js")  # files that a report depends on


def undone(job: Job) -> dict[str, dict[str, Any]]:
    """The cells and yardsticks whose results are not all there, undamaged and in the present versions."""
    return {cell: entry for cell, entry in job.entries.items() if not is_done(job.folder / "cells" / cell, entry)}


def carry_out(job: Job, launch: Launcher, settings: Settings) -> list[str] | None:
    """Do what is not done of a run; the cells that failed, each with its reason, in one line. None where the launcher
    has sent the work away, and the report with it."""
    started, folder, left = time.perf_counter(), job.folder, undone(job)
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
    if not failed and (anew or not _are_there(folder, "finished.json")):
        write_json(folder / "finished.json", {"seconds": seconds})
    if not failed:
        shutil.rmtree(folder / "workers", ignore_errors=True)  # killed ones could not say that they ended
    reasons = {cell: read_failure(file) for cell, file in job.failures.items()} if failed else {}
    return [f"{title(entry)}: {reasons.get(cell, 'not done')}" for cell, entry in failed.items()]


def report_is_up_to_date(folder: Path, pictures: str) -> bool:
    """Whether the report in `folder` has such pictures and is newer than the results and the code it comes from."""
    page = folder / "report.html"
    has_svg = any(folder.glob("pictures/*.svg"))
    if not _are_there(folder, "report.md", page.name, "tables") or has_svg != (pictures == "svg"):
        return False
    written = page.stat().st_mtime_ns
    results = [*(folder / name for name in ("run.json", "cases.parquet", gallery.FILE)), *folder.glob("cells/*/*")]
    code = [file for package in (baselines, bench, uqseg) for file in Path(package.__path__[0]).rglob("*")]
    newer = (file.stat().st_mtime_ns > written for file in (*results, *code) if file.suffix in READ and file.exists())
    return not any(newer)


def _are_there(folder: Path, *names: str) -> bool:
    return all((folder / name).exists() for name in names)
