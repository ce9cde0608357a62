"""A measured section of the timing report, kept as JSON beside the page that is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from bench.runs.store import slug
from bench.timing.measure import Limits
from bench.timing.outcome import Measured
from uqseg.device import uses_bf16
from uqseg.errors import FileError, message_of
from uqseg.files import write


@dataclass(frozen=True)
class Record:
    """What a section measured, and under what conditions."""

    section: str
    kind: str  # of what computes, see kind_of
    imitated: bool  # whether the environment hides instructions that the processor has
    when: str
    commit: str
    machine: dict[str, str | int]  # device, threads, python, torch, numpy
    load: float  # of one minute, when the section began
    processors: int
    limits: Limits
    quick: bool
    measured: Measured


JSON = TypeAdapter(Record)


def kind_of(device: torch.device) -> str:
    """What computes, as part of a file's name: cuda-nvidia-h100, or by its instructions cpu-avx2 or cpu-avx512-bf16."""
    if device.type == "cuda":
        return slug("cuda", torch.cuda.get_device_name(device)).lower()
    bf16 = "-bf16" if uses_bf16("auto", device) else ""
    return f"cpu-{torch.backends.cpu.get_cpu_capability().lower()}{bf16}"


def save(folder: Path, record: Record) -> None:
    """Write SECTION-KIND.json whole or not at all, in place of what was measured before."""
    write(folder / f"{record.section}-{record.kind}.json", JSON.dump_json(record, indent=1) + b"\n")


def read_all(folder: Path) -> list[Record]:
    """All sections that were measured, by file name. Raises FileError where one cannot be read."""
    return [_read(file) for file in sorted(folder.glob("*.json"))]


def _read(file: Path) -> Record:
    try:
        return JSON.validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        reason = message_of(error)[:200]
        section = file.stem.partition("-")[0]
        raise FileError(
            f"cannot read {file}: {reason}; delete it and measure this section again, --only {section}"
        ) from error
