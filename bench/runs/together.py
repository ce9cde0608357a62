"""A run whose trainings are split over the processes that `torchrun` started: the first leads, the others follow."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from bench.launchers import Settings
from bench.runs.spec import Cell
from uqseg.device import pick_device
from uqseg.errors import DamagedError, UsageError
from uqseg.training import DivergenceError
from uqseg.training.parallel import Ranks

ALIKE = (UsageError, DivergenceError, DamagedError)  # errors of a training that all of its processes meet
PATIENCE = timedelta(days=7)  # of those who follow, while the first one scores


def size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def follows() -> bool:
    """Whether this process only helps the first one to train."""
    return size() > 1 and os.environ["RANK"] != "0"


def meet(device: str) -> None:
    """Join the group of processes, if there are several and that is not done."""
    if size() == 1 or dist.is_initialized():
        return
    on_gpu = pick_device(device).type == "cuda"
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)


def lead(device: str) -> None:
    """Have this process, when it ends, let the others go."""

    def let_go() -> None:
        meet(device)
        _send(None)
        dist.destroy_process_group()

    if size() > 1:
        atexit.register(let_go)


def announce(folder: Path, settings: Settings) -> None:
    """Have the others read the run in `folder`, whose cells are trained from now on."""
    if size() > 1:
        meet(settings.device)
        _send((folder.resolve(), settings.trust))


@contextmanager
def training(cell: Cell, folder: Path) -> Iterator[None]:
    """The first process trains `cell` into `folder`, and the others with it.

    An error that is not that of all of them ends the run, since they could not go on alike.
    """
    if Ranks.current().size == 1:
        yield
        return
    _send((cell, folder.resolve()))
    try:
        yield
    except ALIKE:
        raise
    except Exception as error:
        os.write(2, f"error: {' '.join(str(error).split())}; the same command goes on\n".encode())
        os._exit(1)  # torchrun then ends the others


def follow(device: str) -> None:
    """Train what the first process says, until it says that all is done."""
    from bench.runs.work import read_job, train_cell

    meet(device)
    job, settings = None, Settings(device, log=lambda line: None)
    while (task := _received()) is not None:
        if isinstance(task[0], Cell):
            assert job is not None
            torch.set_num_threads(job.record["threads"])
            with suppress(*ALIKE):
                train_cell(task[0], job.splits, task[1], settings)
        else:
            job = read_job(*task)
    dist.destroy_process_group()


def _send(task: Any) -> None:
    dist.broadcast_object_list([task], 0)


def _received() -> Any:
    task: list[Any] = [None]
    dist.broadcast_object_list(task, 0)
    return task[0]
