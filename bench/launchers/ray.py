"""Ray, on this machine or on a cluster: its tasks, its retries; results through the shared folder or as bytes."""

from __future__ import annotations

import logging
import re
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.launchers import Settings, groups, launcher, need
from bench.runs import bundle, workers
from bench.runs.results import read_run
from bench.runs.sharing import undone_in
from uqseg.errors import UsageError, message_of

RETRIES = 3  # of a task whose process or machine is gone
MOST = 10_000  # tasks that are sent at the same time
PATIENCE = 60.0  # seconds that stopped tasks have for a checkpoint
ANSWER = 10.0  # seconds that a cluster has to answer at its address: Ray itself would try for minutes


def connect(address: str) -> Any:
    """Ray, connected to the cluster at `address`, or to one of this machine alone ("local"), which ends with us.

    Raises UsageError where there is none, or Ray is not installed.
    """
    try:
        if place := re.fullmatch(r"(?:ray://)?(.+):(\d{1,5})", address):
            socket.create_connection((place[1].strip("[]"), int(place[2])), ANSWER).close()
        ray = need("ray", "ray")
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except UsageError:
        raise
    except Exception as error:  # whatever a wrong address makes of it
        reason = message_of(error)[:200]
        raise UsageError(
            f"--ray: cannot reach a Ray cluster at '{address}' ({reason}); start one with `ray start --head`, or leave "
            "the address out for this machine alone."
        ) from error
    return ray


@launcher("ray")
def run_on_ray(folder: Path, cells: Sequence[str], settings: Settings) -> None:
    """Tasks of a Ray cluster, at the address that --ray gives, or of this machine."""
    ray, folder, record = connect(settings.target or "local"), folder.resolve(), read_run(folder)
    gpus = int(settings.device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0)
    remote = ray.remote(num_cpus=record["threads"], num_gpus=gpus, max_retries=RETRIES)(_task)
    run, away = (folder / "run.json").read_bytes(), replace(settings, log=print, progress=False)
    tasks = {remote.remote(folder, run, task, away): task for task in groups(record, cells, MOST)}
    waiting = list(tasks)
    try:
        while waiting:
            (ready, *_), waiting = ray.wait(waiting, num_returns=1)
            names = ", ".join(tasks[ready])
            try:
                returned = ray.get(ready)
            except ray.exceptions.RayError as error:
                settings.log(f"lost: {names} ({' '.join(str(getattr(error, 'cause', error)).split())[:200]})")
                if not isinstance(error, ray.exceptions.RayTaskError):  # the task's process or machine is gone
                    for cell in {*tasks[ready]} & {*undone_in(folder)}:
                        workers.fail(folder, cell)
                continue
            if returned is not None:
                bundle.unpack(returned, folder)
            settings.log(f"[{len(tasks) - len(waiting)}/{len(tasks)}] {names}")
    finally:
        for task in waiting:
            ray.cancel(task)  # a Ctrl-C, at which a training leaves a checkpoint
        if waiting:
            ray.wait(waiting, num_returns=len(waiting), timeout=PATIENCE)
        ray.shutdown()


def _task(folder: Path, run: bytes, cells: list[str], settings: Settings) -> bytes | None:
    """Work on cells; where this machine does not see the run's folder, in one of its own, whose files it returns."""
    from bench.runs.sharing import take

    record = folder / "run.json"
    if record.is_file() and record.read_bytes() == run:
        take(folder, cells, settings)
        return None
    with tempfile.TemporaryDirectory() as own:
        copy = Path(own) / folder.name
        copy.mkdir()
        (copy / "run.json").write_bytes(run)
        take(copy, cells, settings)
        return bundle.pack(copy, cells)
