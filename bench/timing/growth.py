"""Curves of time and memory: how fast they grow, as tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.report import plots
from bench.report.tables import markdown
from bench.timing.outcome import Curve

LINEAR = 1.15
"""A measured power of the data above that is more than noise around 1."""
VISIBLE = 1e7
"""Bytes below which the growth of memory says nothing."""


def powers(curves: Sequence[Curve]) -> str:
    """A table of the powers with which time and memory grow; what grows faster than it may is flagged."""
    rows = []
    for c in curves:
        exponents = (c.exponent("seconds"), c.exponent("memory", VISIBLE))
        faster = any(e is not None and e > c.allowed - 1 + LINEAR for e in exponents)
        texts = ["–" if e is None else f"{e:.2f}" for e in exponents]
        axis = c.axis if c.power == 1 else f"({c.axis})^{c.power}"
        rows.append([c.what, axis, *texts, str(c.allowed), "**faster**" if faster else ""])
    table = markdown(pd.DataFrame(rows, columns=["what", "data", "time: power", "memory: power", "allowed", ""]))
    return (
        f"{table}\n\nThe power of the data with which each grows between its last two points: 1 is in proportion (up "
        f"to {LINEAR} is taken for it), 2 is allowed where all pairs of samples are compared. –: fewer than two points "
        f"or memory below {VISIBLE / 1e6:.0f} MB."
    )


def points(curves: Sequence[Curve]) -> str:
    """A table of all points."""
    rows = [
        [c.what, f"{p.value:,} {c.axis}", "–" if p.seconds is None else f"{p.seconds:.3g}",
         "–" if p.memory is None else f"{p.memory / 1e6:,.0f}"]
        for c in curves for p in c.points
    ]  # fmt: skip
    return markdown(pd.DataFrame(rows, columns=["what", "at", "seconds", "MB"]))


def plot(curves: Sequence[Curve], folder: Path, kind: str) -> list[str]:
    """Draw one picture per axis into `folder`, time beside memory; the files' names, which end in `kind`."""
    names = []
    for axis in dict.fromkeys(c.axis for c in curves):
        part = [c for c in curves if c.axis == axis]
        figure, axes = plots.canvas(2, 9.0, 3.6)
        style = plots.styles([c.what for c in part])
        for c in part:
            values, seconds, memory = np.array([(p.value, p.seconds, p.memory) for p in c.points], np.float64).T
            axes[0].plot(values, seconds, label=c.what, **style[c.what])
            axes[1].plot(values, memory / 1e6, **style[c.what])
        axes[0].set(xlabel=axis, ylabel="seconds", xscale="log", yscale="log")
        axes[1].set(xlabel=axis, ylabel="memory of its own at most, MB", xscale="log")
        axes[1].set_yscale("symlog", linthresh=1)  # memory may not grow at all
        axes[1].set_ylim(bottom=0)
        axes[0].legend(frameon=False, fontsize=8)
        names.append(f"scale-{axis.replace(' ', '-')}-{kind}.png")
        plots.save(figure, folder / names[-1])
    return names
