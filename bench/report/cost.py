"""What training and sampling cost, and quality against it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.report import plots
from bench.report.blocks import Block, Table
from bench.report.context import Report
from bench.report.learning import learning
from bench.report.sections import RANKED
from bench.report.tables import escape
from uqseg.metrics import figure

TIMES = ("train_seconds", "cpu_seconds", "images_per_second", "sample_ms")


def section(report: Report) -> list[Block]:
    """What training and sampling took, and GED against it; nothing where nothing was trained."""
    table = costs_of(report)
    if table.empty:
        return []
    quality = figure(RANKED[0])
    columns = {
        "method": map(escape, table["method"]),
        "parameters": [f"{p:,}" for p in table["parameters"]],
        "training (s)": _with_range(table, "train_seconds"),
        "training (CPU s)": _with_range(table, "cpu_seconds"),
        "training (images/s)": _with_range(table, "images_per_second"),
        "sampling (ms/image)": _with_range(table, "sample_ms", 1),
        "samples": [str(s) for s in table["samples"]],
        "peak memory (MB)": [f"{m:.0f}" for m in table["peak_memory_mb"]],
    }
    title = quality.title + plots.BETTER[quality.direction]
    fronts = [
        f"by {name.partition(' (')[0]}: {', '.join(map(escape, table['method'].iloc[front]))}"
        for column, name in plots.costs(table).items()
        if len(front := plots.pareto(table[column].to_numpy(), table["value"].to_numpy(), quality.direction))
    ]
    text: list[Block] = [
        "## What does it cost?",
        Table(pd.DataFrame(columns)),
        "Mean over repetitions, in brackets their range where there are several; peak memory is the largest of them, "
        "that of the process up to the end of the training, which on a CPU includes the methods trained before it. "
        "Other work on the machine makes times longer, CPU seconds less so: they count what all threads of the "
        f"training computed.{_elsewhere(report)} All in {report.csv(table, 'cost')}.",
    ]
    if fronts:
        plot = plots.quality_of_cost(table, title, report.styles, quality.direction)
        text += [
            report.picture(plot, "cost", "Quality against cost"),
            f"Ringed: the Pareto front, what no other method beats in both cost and {quality.title}; "
            f"{'; '.join(fronts)}.{_noise(table)}",
        ]
    return [*text, *learning(report, table)]


def costs_of(report: Report) -> pd.DataFrame:
    """A row for each trained method: parameters, times, memory, and the first ranked figure with its interval.

    NAME_min and NAME_max: the range of a time over the repetitions.
    """
    rows = []
    for label, cells in report.results.cells.items():
        costs = [cell.cost for cell in cells if cell.cost]
        if not costs:
            continue
        row = {"method": label, "parameters": costs[0]["parameters"]}
        row |= {k: float(np.mean([c[k] for c in costs])) for k in TIMES}
        row |= {"samples": cells[0].info["samples"], "device": costs[0]["device"]}
        row |= {"peak_memory_mb": max(c["peak_memory_bytes"] for c in costs) / 2**20}
        row |= report.boot.estimate(label, RANKED[0])._asdict()
        row |= {f"{k}_{end.__name__}": float(end(c[k] for c in costs)) for k in TIMES for end in (min, max)}
        rows.append(row | {"repetitions": len(costs)})
    return pd.DataFrame(rows)


def _with_range(costs: pd.DataFrame, name: str, places: int = 0) -> list[str]:
    """One of TIMES of each row of `costs_of`: "295 (249–451)", the mean and range of several repetitions."""
    return [
        f"{row[name]:.{places}f}"
        + f" ({row[f'{name}_min']:.{places}f}–{row[f'{name}_max']:.{places}f})" * (row["repetitions"] > 1)
        for row in costs.to_dict("records")
    ]


def _elsewhere(report: Report) -> str:
    """Which trainings were on another machine than most: their times cannot stand beside the others."""
    trained: dict[str, list[str]] = {}
    for cell in (cell for cells in report.results.cells.values() for cell in cells if cell.cost):
        device = cell.info.get("machine", {}).get("device", "an unknown machine")
        trained.setdefault(device, []).append(f"{escape(cell.label)} {cell.repetition}")
    _, *others = sorted(trained, key=lambda device: -len(trained[device]))
    on = "; ".join(f"on {escape(device)}: {', '.join(trained[device])}" for device in others)
    return f" **Some repetitions are of another machine**, whose times are not those of the rest, {on}." if on else ""


def _noise(costs: pd.DataFrame) -> str:
    """How far costs differ between repetitions of one method, within which no order of methods can be seen."""
    if not (costs["repetitions"] > 1).any():
        return ""
    spread = {name: (costs[f"{name}_max"] / costs[f"{name}_min"]).max() for name in plots.costs(costs)}
    training, sampling = (f"{ratio:.1f}-fold" for ratio in spread.values())
    return (
        f" Between repetitions of one method the cost of training differs up to {training}, that of sampling up to "
        f"{sampling}: a front among methods that lie nearer than that is noise."
    )
