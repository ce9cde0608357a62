"""The report of a results folder: `write(folder)`. Needs no data, no method and no torch."""

from pathlib import Path
from typing import Literal


def write(folder: Path, *, pictures: Literal["png", "svg"] = "png") -> list[str]:
    """`page.write`, whose libraries for pictures take a second to import: a run that is all done does not."""
    from bench.report import page

    return page.write(folder, pictures=pictures)
