"""Launchers: one file each; each decides where the cells of a run are worked on."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from uqseg.device import pick_device
from uqseg.errors import unknown


@dataclass(frozen=True)
class Settings:
    """How cells are worked on: device, progress bars, `log` for lines to show, and whether an error ends the run.

    trust: plugins and classes from outside this project that may be run; a launcher that starts processes passes each
    of them on as `--trust`. wait: whether to wait for a training or scoring that another process is at.
    jobs: processes to start; target: what the launcher was given besides, such as a file or an address.
    """

    device: str = "auto"
    progress: bool = False
    log: Callable[[str], None] = print
    debug: bool = False
    trust: tuple[str, ...] = ()
    wait: bool = True
    jobs: int = 1
    target: str = ""


Launcher = Callable[[Path, Sequence[str], Settings], None]
_LAUNCHERS: dict[str, Launcher] = {}


def launcher(name: str) -> Callable[[Launcher], Launcher]:
    """Register a function of (results folder, cells, settings) that has `bench.runs.sharing.take` done for the cells.

    It may do so in any process on any machine that sees the folder, as `python -m bench work FOLDER CELL ...` does.
    """

    def register(function: Launcher) -> Launcher:
        _LAUNCHERS[name] = function
        return function

    return register


def jobs_for(device: str) -> int:
    """How many processes to start unless told: one for each GPU that may be used, else one."""
    return torch.cuda.device_count() if pick_device(device) == torch.device("cuda") else 1


def threads_for(jobs: int) -> int:
    """The threads of each of `jobs` cells that are worked on at the same time on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return torch.get_num_threads() if jobs == 1 else max(1, cores // jobs)


def names() -> dict[str, str]:
    """Registered launchers, sorted, with a line of description each."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {name: (f.__doc__ or "").strip().partition("\n")[0] for name, f in sorted(_LAUNCHERS.items())}


def find(name: str) -> Launcher:
    if name not in names():
        raise unknown("launcher", name, _LAUNCHERS)
    return _LAUNCHERS[name]
