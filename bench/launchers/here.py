"""The launcher that needs nothing: the process of the command itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.launchers import Settings, launcher
from bench.runs.sharing import take


@launcher("here")
def run_in_process(folder: Path, cells: Sequence[str], settings: Settings) -> None:
    """One cell after another in this process."""
    take(folder, cells, settings)
