"""Pictures of figures: data in, a matplotlib figure saved as PNG. Readable in grey: markers and dashes differ too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.stats import Bootstrap, interval

# Okabe and Ito's colours, told apart by the colour-blind; the order also alternates dark and light.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999933")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES: tuple[str, ...] = ("-", "--", "-.", ":", "-", "--", "-.", ":")
DPI = 130


def styles(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and dash of each label."""
    cycle: list[dict[str, Any]] = [
        {"color": COLOURS[i % 8], "marker": MARKERS[i % 8], "linestyle": DASHES[i % 8]} for i in range(len(labels))
    ]
    return dict(zip(labels, cycle, strict=True))


def canvas(columns: int = 1, width: float = 7.0, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side."""
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


def save(figure: Figure, path: Path) -> None:
    """Write the PNG without metadata that changes between runs."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def reliability(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], path: Path) -> None:
    """Reader fraction against predicted probability, and pixels per bin below it in powers of ten.

    curves: per method the bins' mean probability, reader fraction, and pixels; empty bins hold NaN.
    """
    figure, (left, right) = canvas(2, 8.5, 4.0)
    style = styles(list(curves))
    left.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    for label, (prob, fraction, count) in curves.items():
        left.plot(prob, fraction, markersize=4, label=label, **style[label])
        right.plot(prob, np.where(count > 0, count, np.nan), markersize=4, label=label, **style[label])
    left.set(xlabel="predicted probability", ylabel="readers who marked (fraction)", xlim=(0, 1), ylim=(0, 1))
    right.set(xlabel="predicted probability", ylabel="pixels in bin", yscale="log", xlim=(0, 1))
    left.legend(frameon=False, fontsize=8)
    save(figure, path)


def ged_of_samples(boot: Bootstrap, labels: Sequence[str], counts: Sequence[int], path: Path) -> None:
    """Expected GED of k samples, with 95 % intervals as bands; methods with finite support are level lines."""
    figure, (axes,) = canvas(1, 7.0, 4.2)
    style = styles(labels)
    for label in labels:
        m = boot.labels.index(label)
        columns = [boot.column(f"ged@{k}") for k in counts]
        value = boot.point[m, columns]
        low, high = interval(boot.draws[m][:, columns])
        shown = np.isfinite(value)
        x = np.array(counts)[shown]
        axes.plot(x, value[shown], markersize=4, label=label, **style[label])
        axes.fill_between(x, low[shown], high[shown], color=style[label]["color"], alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(counts), [str(k) for k in counts])
    axes.set(xlabel="samples an image", ylabel="GED (lower is better)")
    axes.legend(frameon=False, fontsize=8, ncols=2)
    save(figure, path)


def quality_of_cost(table: pd.DataFrame, path: Path) -> None:
    """GED against training time and against the time of the samples of one image.

    table: method, ged, low, high, train_seconds, sample_ms.
    """
    figure, axes = canvas(2, 8.5, 3.8)
    style = styles(table["method"].tolist())
    for ax, column, title in zip(
        axes, ("train_seconds", "sample_ms"), ("training (s)", "sampling an image (ms)"), strict=True
    ):
        for row in table.to_dict("records"):
            label = str(row["method"])
            ax.errorbar(
                row[column],
                row["ged"],
                yerr=[[row["ged"] - row["low"]], [row["high"] - row["ged"]]],
                label=label,
                color=style[label]["color"],
                marker=style[label]["marker"],
                linestyle="none",
                capsize=3,
            )
        ax.set(xlabel=title, ylabel="GED (lower is better)", xscale="log")
    axes[0].legend(frameon=False, fontsize=8)
    save(figure, path)


def rank_plot(table: pd.DataFrame, title: str, path: Path) -> None:
    """Bootstrapped rank intervals: table has method, rank, low, high, first."""
    figure, (axes,) = canvas(1, 7.0, 0.9 + 0.4 * len(table))
    y = np.arange(len(table))[::-1]
    axes.hlines(y, table["low"], table["high"], color="0.3", linewidth=3)
    axes.plot(table["rank"], y, "o", color="black", markersize=7)
    axes.set_yticks(y, [f"{m} ({p:.0%} first)" for m, p in zip(table["method"], table["first"], strict=True)])
    axes.set(xlabel=f"rank by {title}, 1 is best", xlim=(0.7, len(table) + 0.3))
    save(figure, path)
