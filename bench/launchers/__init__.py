"""Launchers: one file each; each decides where the cells of a run are worked on."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.runs.results import entries_of
from uqseg.errors import UsageError, unknown


@dataclass(frozen=True)
class Settings:
    """How cells are worked on: device, progress bars, `log` for lines to show, and whether an error ends the run.

    trust: plugins and classes from outside this project that may be run; a launcher that starts processes passes each
    of them on as `--trust`. wait: whether to wait for a training or scoring that another process is at.
    curves: where to show the trainings' curves, see `bench.curves`; passed on as `--log`. jobs: processes to start;
    target: what the launcher was given besides, such as a file or an address. gallery, report, pictures: what is kept
    for the report, whether it is written, and how, for a launcher that has that done elsewhere.
    """

    device: str = "auto"
    progress: bool = False
    log: Callable[[str], None] = print
    debug: bool = False
    trust: tuple[str, ...] = ()
    wait: bool = True
    curves: str | None = None
    jobs: int = 1
    target: str = ""
    gallery: bool = True
    report: bool = True
    pictures: Literal["png", "svg"] = "png"


Launcher = Callable[[Path, Sequence[str], Settings], bool | None]
"""Returns True where it has only sent the work away, the end of the run included: `bench.runs.carry_out.finish`."""
_LAUNCHERS: dict[str, Launcher] = {}


def launcher(name: str) -> Callable[[Launcher], Launcher]:
    """Register a function of (results folder, cells, settings) that has `bench.runs.sharing.take` done for the cells.

    It may do so in any process on any machine that sees the folder, as `python -m bench work FOLDER CELL ...` does.
    """

    def register(function: Launcher) -> Launcher:
        _LAUNCHERS[name] = function
        return function

    return register


def need(module: str, extra: str) -> Any:
    """A package that only some launchers use; UsageError naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise UsageError(
            f"--{extra}: {module} is not installed; install it with: pip install 'uqseg[{extra}]'"
        ) from error


def groups(record: Mapping[str, Any], cells: Sequence[str], most: int) -> list[list[str]]:
    """The cells in at most `most` tasks that need not wait for each other: those of one training are in one, as are
    yardsticks, which take moments."""
    entries, by_fit = entries_of(record), dict[str, list[str]]()
    for cell in cells:
        by_fit.setdefault(entries[cell].get("fit", ""), []).append(cell)
    tasks = list(by_fit.values())
    return [[cell for task in tasks[start::most] for cell in task] for start in range(min(most, len(tasks)))]


def names() -> dict[str, str]:
    """Registered launchers, sorted, with a line of description each."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {name: (f.__doc__ or "").strip().partition("\n")[0] for name, f in sorted(_LAUNCHERS.items())}


def find(name: str) -> Launcher:
    """The launcher of a name. Raises UsageError where there is none."""
    if name not in names():
        raise unknown("launcher", name, _LAUNCHERS)
    return _LAUNCHERS[name]
