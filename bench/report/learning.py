"""Whether a longer training would have helped: the validation score in the course of each training."""

from __future__ import annotations

import pandas as pd

from bench.report import plots
from bench.report.blocks import Block
from bench.report.context import Report


def learning(report: Report, costs: pd.DataFrame) -> list[Block]:
    """The validation score of each training against its cost so far, where any was validated more than once.

    costs: method, cpu_seconds, train_seconds and device of each method.
    """
    table = learning_table(report, costs)
    if table.empty:
        return []
    _, name = plots.training_cost(costs)
    return [
        report.picture(plots.learning(table, name, report.styles), "learning", "Validation score during training"),
        "Cross-entropy of the mean map with the readers' masks on validation images, in nats for each pixel, during "
        "each training: mean over repetitions. Time is that of the whole training times the share of the steps that "
        "are done. A line that still falls at its end is of a training that was too short; but where the learning rate "
        "falls to nothing or little at the end, as in every schedule but `constant`, the line is flat there, and a "
        "longer training another line, not this one continued. Methods that share a training have one line, and one "
        f"that was validated once has none ({report.csv(table, 'learning')}).",
    ]


def learning_table(report: Report, costs: pd.DataFrame) -> pd.DataFrame:
    """method, step, seconds of training until then, and val: mean, least and greatest over repetitions."""
    seconds = costs.set_index("method")[plots.training_cost(costs)[0]]
    rows, known = [], []
    for label, cells in report.results.cells.items():
        curves = [{line["step"]: line["val"] for line in cell.history if "val" in line} for cell in cells]
        if all(curve in known or len(curve) < 2 for curve in curves):
            continue
        known += curves
        vals = pd.DataFrame(curves)
        rows += [
            {
                "method": label,
                "step": step,
                "seconds": seconds[label] * step / max(vals.columns),
                "val": val.mean(),
                "val_min": val.min(),
                "val_max": val.max(),
                "repetitions": val.count(),
            }
            for step, val in vals.sort_index(axis=1).items()
        ]
    return pd.DataFrame(rows)
