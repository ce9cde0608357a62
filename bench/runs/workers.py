"""Who works on what: each worker keeps a small file in the results folder while it has a cell, for tables of progress.

NAME/workers/MACHINE-PROCESS.json: cell and since when; the file's time is renewed every few seconds.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.runs.results import write_json
from uqseg.files import is_running

KILLED = (
    "its process was killed, likely for want of memory; free some, ask for less (--jobs, size, training.batch) or have "
    "Slurm give more (memory_gb), and give the command again"
)
RENEW = 10.0  # seconds between two renewals
SILENT = 60.0  # seconds without one, after which the worker is taken to have ended


@dataclass(frozen=True)
class Worker:
    """A worker and its cell. seconds: how long it has been at it; silent: whether it has ended without a word: it is no
    process of this machine any more, or has not been heard of lately."""

    name: str
    cell: str
    seconds: float
    silent: bool


def name_of(process: int) -> str:
    """What a process of this machine is called."""
    return f"{platform.node()}-{process}"


@contextmanager
def shown(folder: Path, cell: str) -> Iterator[None]:
    """Have the file say that this process works on `cell`."""
    file, ended = folder / "workers" / f"{name_of(os.getpid())}.json", threading.Event()

    def renew() -> None:
        while not ended.wait(RENEW):
            with suppress(OSError):
                os.utime(file)

    with suppress(OSError):  # a disk that refuses this refuses what matters too, and is told of there
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"cell": cell, "since": time.time()}), encoding="utf-8")
    threading.Thread(target=renew, daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with suppress(OSError):
            file.unlink()


def at_work(folder: Path) -> list[Worker]:
    """The workers that have a cell of the run in `folder`, and those that ended without a word, by name."""
    workers = []
    for file in sorted(folder.glob("workers/*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):  # it may go or be half written at any moment
            known, now = json.loads(file.read_text(encoding="utf-8")), time.time()
            machine, _, process = file.stem.rpartition("-")
            gone = machine == platform.node() and not is_running(process)
            silent = gone or now - file.stat().st_mtime > SILENT
            workers.append(Worker(file.stem, str(known["cell"]), now - float(known["since"]), silent))
    return workers


def bury(folder: Path) -> list[Worker]:
    """The workers that ended without a word; their files are removed."""
    ended = [worker for worker in at_work(folder) if worker.silent]
    for worker in ended:
        (folder / "workers" / f"{worker.name}.json").unlink(missing_ok=True)
    return ended


def fail(folder: Path, cell: str) -> None:
    """Have the cell have failed because its process was killed."""
    write_json(folder / "cells" / cell / "failure.json", {"label": cell, "error": KILLED, "traceback": []})


def cell_of(folder: Path, process: int) -> str | None:
    """The cell that an ended process of this machine had, if it could not tell any more; its file is removed."""
    for worker in at_work(folder):
        if worker.name == name_of(process):
            (folder / "workers" / f"{worker.name}.json").unlink(missing_ok=True)
            return worker.cell
    return None
