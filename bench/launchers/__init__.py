"""Launchers: one file each; each decides where the cells of a run are worked on."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from uqseg.errors import unknown


@dataclass(frozen=True)
class Settings:
    """How cells are worked on: device, progress bars, `log` for lines to show, and whether an error ends the run.

    trust: plugins and classes from outside this project that may be run; a launcher that starts processes passes each
    of them on as `--trust`. curves: where to show the trainings' curves, see `bench.curves`; passed on as `--log`.
    """

    device: str = "auto"
    progress: bool = False
    log: Callable[[str], None] = print
    debug: bool = False
    trust: tuple[str, ...] = ()
    curves: str | None = None


Launcher = Callable[[Path, Sequence[str], Settings], None]
_LAUNCHERS: dict[str, Launcher] = {}


def launcher(name: str) -> Callable[[Launcher], Launcher]:
    """Register a function of (results folder, cells, settings) that has `bench.runs.work.attempt` done for each cell.

    It may do so in any process on any machine that sees the folder: `python -m bench work FOLDER CELL` does one.
    """

    def register(function: Launcher) -> Launcher:
        _LAUNCHERS[name] = function
        return function

    return register


def names() -> dict[str, str]:
    """Registered launchers, sorted, with a line of description each."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {name: (f.__doc__ or "").strip().partition("\n")[0] for name, f in sorted(_LAUNCHERS.items())}


def find(name: str) -> Launcher:
    if name not in names():
        raise unknown("launcher", name, _LAUNCHERS)
    return _LAUNCHERS[name]
