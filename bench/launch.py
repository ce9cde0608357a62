"""Where cells run: here, one after another. A cell that fails is recorded and does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from baselines.reference import YARDSTICKS
from bench import store
from bench.runner import Data, declines, fit_name, frequency, run_cell, run_yardstick
from bench.spec import Cell
from bench.store import Store
from uqseg.errors import FileError


@dataclass(frozen=True)
class Outcome:
    """What became of the cells that gave no scores: label with repetition, and the reason."""

    declined: dict[str, str]
    failed: dict[str, str]


def here(
    cells: Sequence[Cell],
    data: Data,
    where: Store,
    *,
    samples: int,
    device: str,
    progress: bool,
    say: Callable[[str], None],
    debug: bool = False,
) -> Outcome:
    """Run all cells in this process. With `debug` the first failure is raised."""
    declined: dict[str, str] = {}
    failed: dict[str, str] = {}
    shared = frequency(data)
    for name in YARDSTICKS:
        run_yardstick(name, data, where, samples, shared, progress)
    for number, cell in enumerate(cells, 1):
        title = f"{cell.label}, repetition {cell.repetition}"
        say(f"[{number}/{len(cells)}] {title}")
        try:
            if reason := declines(cell, data):
                declined[cell.label] = reason
                say(f"  declined: {reason}")
                continue
            run_cell(cell, data, where, samples, device, progress)
        except Exception as error:
            if debug:
                raise
            failed[title] = store.one_line(error)
            say(f"  failed: {failed[title]}")
            with suppress(FileError):  # a full disk stops no other cell; the report and the last line tell it too
                store.record_failure(where.failure(fit_name(cell, data)), cell.label, error)
    return Outcome(declined, failed)
