"""Measuring: works in turns and their ratios, the machine's limits, operations, and profiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from uqseg.device import uses_bf16

Work = Callable[[], Any]
Seconds = dict[str, NDArray[np.float64]]
Clock = Literal["wall", "processor"]
CLOCKS: dict[Clock, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}
"""Seconds that pass; or that all threads of this process compute, so that what else runs counts little."""
SHORT = 0.05
"""Seconds that a work is measured for in each turn at least."""


def in_turns(works: Mapping[str, Work], rounds: int, clock: Clock = "wall") -> Seconds:
    """Seconds of each work in each round, after one unmeasured call of each: a, b, a, b, ... so that what else the
    machine does falls on all alike. A work that takes less than SHORT is called until that is full: its first call
    after a long other work finds the caches cold, which in use it does not."""
    now = CLOCKS[clock]
    for work in works.values():
        work()
    measured: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started, calls, took = now(), 0, 0.0
            while took < SHORT:
                work()
                _finish()
                calls, took = calls + 1, now() - started
            measured[name].append(took / calls)
    return {name: np.array(seconds) for name, seconds in measured.items()}


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Ratio:
    """How many times longer a work took than another: median over rounds, with the smallest and largest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3g}× [{self.low:.3g}, {self.high:.3g}]"


def ratio(slow: NDArray[np.float64], fast: NDArray[np.float64]) -> Ratio:
    """Of each round's `slow` over its `fast`."""
    each = slow / fast
    return Ratio(float(np.median(each)), float(each.min()), float(each.max()))


@dataclass(frozen=True)
class Limits:
    """What the machine can do, measured now: operations a second of large matrix products, bytes a second of a copy."""

    fp32: float
    bf16: float
    bandwidth: float


def limits(device: torch.device, side: int) -> Limits:
    """The best of seven products side×side, and of as many copies of 256 MB (read and written bytes count)."""
    works: dict[str, Work] = {}
    # A processor without instructions for bf16 would take minutes.
    sides = {torch.float32: side, torch.bfloat16: side if uses_bf16("auto", device) else side // 8}
    for dtype, length in sides.items():
        a = torch.rand(length, length, device=device).to(dtype)
        works[str(dtype)] = lambda a=a: a @ a  # type: ignore[misc]
    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    works["copy"] = lambda: target.copy_(source)
    best = {name: float(seconds.min()) for name, seconds in in_turns(works, 7).items()}
    fp32, bf16 = (2 * length**3 / best[str(dtype)] for dtype, length in sides.items())
    return Limits(fp32, bf16, 2 * source.nbytes / best["copy"])


def operations(work: Work) -> int:
    """Floating-point operations of the convolutions and matrix products of `work` (a multiply-add is two)."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def profile(work: Work) -> list[dict[str, Any]]:
    """The eight operators that took most time themselves, with calls, milliseconds and share: time of the CUDA device
    where the work used one."""
    work()
    with torch.profiler.profile() as profiler:
        work()
        _finish()
    # A kernel stands in the list too, beside the operator that called it and has its time.
    events = [e for e in profiler.key_averages() if e.device_type.name == "CPU"]
    device = "self_device_time_total" if any(e.self_device_time_total for e in events) else "self_cpu_time_total"
    events.sort(key=lambda e: -float(getattr(e, device)))
    total = sum(float(getattr(e, device)) for e in events)
    return [
        {"operator": e.key, "calls": e.count, "ms": getattr(e, device) / 1000, "share": getattr(e, device) / total}
        for e in events[:8]
    ]
