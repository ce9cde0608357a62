"""A measured section of the timing report, kept as JSON beside the page that is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from bench.timing.measure import Limits
from bench.timing.sections import Measured
from uqseg.errors import FileError
from uqseg.files import write


@dataclass(frozen=True)
class Record:
    """What a section measured, and under what conditions."""

    section: str
    when: str
    commit: str
    machine: dict[str, str | int]  # device, threads, python, torch, numpy
    cuda: bool
    load: float  # of one minute, when the section began
    processors: int
    limits: Limits
    quick: bool
    measured: Measured


JSON = TypeAdapter(Record)


def save(folder: Path, record: Record) -> None:
    """Write SECTION.json whole or not at all, in place of what was measured before."""
    write(folder / f"{record.section}.json", JSON.dump_json(record, indent=1) + b"\n")


def read(folder: Path, section: str) -> Record | None:
    """The section's record; None where it was never measured. Raises FileError where it cannot be read."""
    file = folder / f"{section}.json"
    try:
        return JSON.validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(
            f"cannot read {file}: {reason}; delete it and measure this section again, --only {section}"
        ) from error
