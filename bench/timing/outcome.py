"""What a section of the timing report is measured with, and what it gives: comparisons, shares, budgets, curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from bench.timing.measure import Clock, Limits, Ratio, Work, in_turns, ratio
from uqseg.device import uses_bf16


@dataclass(frozen=True)
class Setting:
    """Where and how long to measure."""

    device: torch.device
    limits: Limits
    quick: bool

    @property
    def rounds(self) -> int:
        """How often each of two ways is timed."""
        return 3 if self.quick else 7

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """What "auto" computes in."""
        return "bf16" if uses_bf16("auto", self.device) else "fp32"

    @property
    def clock(self) -> Clock:
        """Of this process alone where the processor computes, so that what else runs counts little."""
        return "wall" if self.device.type == "cuda" else "processor"


@dataclass(frozen=True)
class Compared:
    """One line of the report: what took how many times longer than the project's own way."""

    what: str
    other: str
    ours: str
    seconds_other: float
    seconds_ours: float
    ratio: Ratio
    goal: float | None = None
    clock: Clock = "wall"


@dataclass(frozen=True)
class Budget:
    """One line of the report: what something costs in `unit`, and what it may cost at most."""

    what: str
    cost: float
    at_most: float
    unit: str = "s"


@dataclass(frozen=True)
class Share:
    """One line of the report: how near a work comes to the machine's limit."""

    what: str
    seconds: float
    work: str
    limit: str
    share: float
    goal: float | None = None


@dataclass(frozen=True)
class Point:
    """Seconds and bytes of memory at one value of a curve; None where it took too long or failed."""

    value: int
    seconds: float | None
    memory: int | None


@dataclass(frozen=True)
class Curve:
    """How time and memory grow with one thing; the data grow with its `power`, and the time may with the `allowed`
    power of the data: 2 where pairs are compared."""

    what: str
    axis: str
    power: int
    allowed: int
    points: list[Point]

    def exponent(self, of: Literal["seconds", "memory"], least: float = 0.0) -> float | None:
        """Power of the data with which time or memory grows between the last two points that have it; None where one
        of them is missing or not above `least`."""
        known = [(p.value, v) for p in self.points if (v := getattr(p, of)) is not None]
        if len(known) < 2 or min(v for _, v in known[-2:]) <= least:
            return None
        (a, first), (b, last) = known[-2:]
        return float(np.log(last / first) / (self.power * np.log(b / a)))


@dataclass
class Measured:
    """What a section measured."""

    compared: list[Compared] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)
    profiles: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    def add(
        self,
        what: str,
        works: Mapping[str, Work],
        rounds: int,
        goals: Mapping[str, float] | None = None,
        clock: Clock = "wall",
        repeats: int = 1,
    ) -> dict[str, float]:
        """Measure `works` in turns; the first is what the others are compared with. Median seconds of each, for one of
        the `repeats` times that a work does the same thing."""
        seconds = {name: s / repeats for name, s in in_turns(works, rounds, clock).items()}
        middle = {name: float(np.median(s)) for name, s in seconds.items()}
        first, *others = works
        for name in others:
            goal = (goals or {}).get(name)
            faster = ratio(seconds[first], seconds[name])
            self.compared.append(Compared(what, first, name, middle[first], middle[name], faster, goal, clock))
        return middle

    def computed(
        self, what: str, seconds: float, flops: int, limit: str, at: Setting, goal: float | None = None
    ) -> None:
        """The share of the limit ("fp32" or "bf16") of `flops` operations in `seconds`."""
        rate = getattr(at.limits, limit)
        share = flops / seconds / rate
        self.shares.append(Share(what, seconds, f"{flops / 1e9:.1f} GFLOP", f"{limit} matrix product", share, goal))

    def moved(self, what: str, seconds: float, size: int, at: Setting) -> None:
        """The share of the memory bandwidth of reading `size` bytes once in `seconds`."""
        share = size / seconds / at.limits.bandwidth
        self.shares.append(Share(what, seconds, f"{size / 1e6:.0f} MB read once", "memory bandwidth", share))
