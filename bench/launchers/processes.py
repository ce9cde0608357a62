"""Several processes on this machine, each on a GPU of its own or with its share of the processor's cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.live import Live

from bench.launchers import Settings, launcher
from bench.runs import workers
from bench.runs.results import read_run
from bench.runs.sharing import failed_at
from bench.runs.watch import table
from uqseg.device import pick_device
from uqseg.errors import FileError

LOOK = 0.2  # seconds between two looks at the processes
KILLS = 3  # of a cell's process, after which the cell has failed


@dataclass(frozen=True)
class Worker:
    """A process that works until nothing is left or its standard input is closed."""

    number: int
    process: subprocess.Popen[str]

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended the process."""
        return self.process.returncode < 0


@launcher("processes")
def run_in_processes(folder: Path, cells: Sequence[str], settings: Settings) -> None:
    """As many processes on this machine as --jobs says; Ctrl-C stops all of them, and none outlives the command."""
    record, kills, failed = read_run(folder), Counter[str | None](), {cell: failed_at(folder, cell) for cell in cells}
    at_work = [_started(number, folder, cells, settings) for number in range(1, min(settings.jobs, len(cells)) + 1)]
    console = Console(stderr=True)
    live = Live(get_renderable=lambda: table(folder, record), console=console, refresh_per_second=1, transient=True)
    try:
        with live if settings.progress else nullcontext():
            while at_work:
                time.sleep(LOOK)
                for worker in [worker for worker in at_work if worker.process.poll() is not None]:
                    at_work.remove(worker)
                    if worker.was_killed:
                        _tell_of_kill(folder, worker, kills, settings)
                        left = [cell for cell in cells if failed_at(folder, cell) == failed[cell]]
                        at_work.append(_started(worker.number, folder, left, settings))
    finally:
        _stop(at_work)


def _tell_of_kill(folder: Path, worker: Worker, kills: Counter[str | None], settings: Settings) -> None:
    """Log what a killed worker had, whose cell goes on with another; one whose workers are killed again and again has
    failed. Raises FileError where that happens to workers before they have one."""
    cell = workers.cell_of(folder, worker.process.pid)
    settings.log(f"worker {worker.number} was killed" + (f"; {cell} goes on with another" if cell else ""))
    kills[cell] += 1
    if cell is None and kills[cell] >= KILLS:
        raise FileError(f"{KILLS} workers were killed before they had a cell: {workers.KILLED}")
    if cell is not None and kills[cell] >= KILLS:
        workers.fail(folder, cell)


def _started(number: int, folder: Path, cells: Sequence[str], settings: Settings) -> Worker:
    """Start worker `number`; its lines are logged with its number before them."""
    words = [sys.executable, "-m", "bench", "work", str(folder), "--attached", "--device", settings.device]
    words += [word for name in settings.trust for word in ("--trust", name)]
    words += ["--log", settings.curves] if settings.curves else []
    given = os.environ | {"PYTHONUNBUFFERED": "1"} | _own_device(number, settings.device)
    given |= {"UQSEG_DEBUG": "1"} if settings.debug else {}
    # In a session of its own, for a terminal sends Ctrl-C to all processes of one, and each is to get one alone.
    process = subprocess.Popen(words, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True)  # fmt: skip
    worker = Worker(number, process)

    def log() -> None:
        for line in process.stdout or ():
            settings.log(f"{number}: {line.rstrip()}")

    threading.Thread(target=log, daemon=True).start()
    assert process.stdin is not None
    process.stdin.write(json.dumps(list(cells)) + "\n")
    process.stdin.flush()
    return worker


def _own_device(number: int, device: str) -> dict[str, str]:
    """The setting that shows worker `number` one GPU alone, in turn."""
    if pick_device(device).type == "cpu":
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    return {"CUDA_VISIBLE_DEVICES": visible[(number - 1) % len(visible)]}


def _stop(at_work: Sequence[Worker]) -> None:
    """Have each end after the step that it is at, with a checkpoint; a second Ctrl-C ends all at once."""
    try:
        for worker in at_work:
            assert worker.process.stdin is not None
            worker.process.stdin.close()
        for worker in at_work:
            worker.process.wait()
    except BaseException:
        for worker in at_work:
            worker.process.kill()
        raise
