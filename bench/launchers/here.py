"""The launcher that needs nothing: the process of the command itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.launchers import Settings, launcher
from bench.runs.work import attempt


@launcher("here")
def run_in_process(folder: Path, cells: Sequence[str], settings: Settings) -> None:
    """One cell after another in this process."""
    for number, cell in enumerate(cells, 1):
        settings.log(f"[{number}/{len(cells)}] {cell}")
        if error := attempt(folder, cell, settings):
            settings.log(f"  failed: {error}")
