"""The report of a results folder: `write(folder)`. Needs no data, no method and no torch."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal


def write(folder: Path, *, pictures: Literal["png", "svg"] = "png") -> list[str]:
    """`page.write`, whose libraries for pictures take a second to import: a run that is all done does not."""
    from bench.report import page

    return page.write(folder, pictures=pictures)


def lines(folder: Path, pictures: Literal["png", "svg"] = "png") -> Iterator[str]:
    """Write the report in `folder`, and yield what a terminal shows of it: its summary table, and where it is."""
    yield ""
    yield from write(folder, pictures=pictures)
    yield f"Report: {folder / 'report.md'}, and for a browser {folder / 'report.html'}"
