"""Which launcher the options of `uqseg run` ask for; what it cannot meet is refused before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.launchers import Launcher, find
from bench.runs import together
from uqseg.device import pick_device
from uqseg.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """A launcher and what it is given. jobs: cells at the same time, as far as it is known; threads: of each cell;
    device: for the trial that the plan is made from."""

    launch: Launcher
    device: str
    threads: int
    jobs: int = 1
    target: str = ""


def choose(device: str, jobs: int | None, slurm: Path | None, ray: str | None, launcher: str | None) -> Choice:
    """The launcher of these options, of which at most one may be given. UsageError where it cannot work."""
    options = {"--jobs": jobs, "--slurm": slurm, "--ray": ray, "--launcher": launcher}
    if len(given := [name for name, value in options.items() if value is not None]) > 1:
        raise UsageError(f"{' and '.join(given)}: each names a place for the cells; choose one.")
    if together.size() > 1 and given:
        raise UsageError(f"{given[0]}: torchrun splits each training over its processes; leave this out.")
    if slurm is not None:
        from bench.launchers.slurm import read_options

        return Choice(find("slurm"), "auto", read_options(slurm).cpus, target=str(slurm))
    if ray is not None:
        from bench.launchers.ray import connect

        connect(ray)
        return Choice(find("ray"), "auto", 1, target=ray)
    all_gpus = pick_device(device) == torch.device("cuda")
    alone = not all_gpus or launcher is not None or together.size() > 1
    count = jobs or (1 if alone else torch.cuda.device_count())
    if count > 1 and not all_gpus and device != "cpu" and pick_device(device).type == "cuda":
        raise UsageError(f"--jobs: '{device}' is one device; ask for --device cuda, of which each process gets one.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = max(1, cores // count) if count > 1 else torch.get_num_threads()
    return Choice(find(launcher or ("processes" if count > 1 else "here")), device, threads, count)
