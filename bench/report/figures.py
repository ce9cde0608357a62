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
from matplotlib.ticker import ScalarFormatter

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


def canvas(columns: int = 1, width: float = 7.0, height: float = 4.0, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of width×height inches with axes side by side, row by row."""
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _legend(axes: Axes, columns: int = 1) -> None:
    """Name what is drawn, if anything is: of methods that all declined or failed there are no curves."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, ncols=columns)


def save(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write the PNG without metadata that changes between runs."""
    figure.savefig(path, dpi=dpi, metadata={"Software": None})


Curve = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of each bin its mean probability, the fraction of readers who marked, and how many things it holds."""


def reliability(panels: Mapping[str, Mapping[str, Curve]], predicted: str, counted: str, path: Path) -> None:
    """A column a panel: reader fraction against what was predicted, and under it the counts in powers of ten.

    panels: title to {method: curve}; empty bins hold NaN. predicted, counted: what the axes hold.
    """
    figure, _ = canvas(1, 1, 1)
    figure.clear()
    figure.set_size_inches(4.6 * len(panels), 5.4)
    axes = figure.subplots(2, len(panels), squeeze=False, sharex=True, height_ratios=[3, 1.4])
    for (above, below), (title, curves) in zip(axes.T, panels.items(), strict=True):
        style = styles(list(curves))
        above.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        for label, curve in curves.items():
            prob, fraction, count = (x[curve[2] > 0] for x in curve)
            above.plot(prob, fraction, markersize=4, label=label, **style[label])
            below.plot(prob, count, markersize=4, **style[label])
        above.set(title=title, ylabel="readers who marked (fraction)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        below.set(xlabel=predicted, ylabel=f"{counted} in bin")
        if any(count.any() for _, _, count in curves.values()):  # an empty axis has no logarithm
            below.set_yscale("log")
    _legend(axes[0, 0])
    save(figure, path)


def risk_coverage(curves: Mapping[str, np.ndarray], path: Path) -> None:
    """Mean risk of the k surest of N images against k/N; curves: method to (N,)."""
    figure, (axes,) = canvas(1, 7.0, 4.0)
    style = styles(list(curves))
    for label, risk in curves.items():
        coverage = np.arange(1, len(risk) + 1) / len(risk)
        axes.plot(coverage, risk, label=label, markevery=max(1, len(risk) // 8), markersize=5, **style[label])
    axes.set(xlabel="share of images kept, surest first", ylabel="mean risk, 1 − Dice", xlim=(0, 1), ylim=(0, None))
    _legend(axes, 2)
    save(figure, path)


def subgroups(table: pd.DataFrame, shown: Mapping[str, str], path: Path) -> None:
    """A column a figure (name to axis label), a row a level: the methods' values with their 95 % intervals.

    table: trait, level, images, method, figure, value, low, high.
    """
    methods = list(dict.fromkeys(table["method"]))
    levels = table[["trait", "level", "images"]].drop_duplicates(ignore_index=True)
    style = styles(methods)
    figure, axes = canvas(len(shown), 9.0, 1.0 + 0.42 * len(levels))
    for ax, (name, title) in zip(axes, shown.items(), strict=True):
        for k, method in enumerate(methods):
            part = table[(table["method"] == method) & (table["figure"] == name)]
            y = -np.arange(len(part)) - 0.7 * (k + 0.5) / len(methods) + 0.35
            error = [part["value"] - part["low"], part["high"] - part["value"]]
            look = {key: style[method][key] for key in ("color", "marker")}
            ax.errorbar(part["value"], y, xerr=error, linestyle="none", markersize=4, capsize=2, label=method, **look)
        for edge in np.flatnonzero(levels["trait"].ne(levels["trait"].shift()))[1:]:
            ax.axhline(-edge + 0.5, color="0.7", linewidth=0.8)
        ax.set(xlabel=title, ylim=(-len(levels) + 0.4, 0.6))
        ax.set_yticks(-np.arange(len(levels)))
        ax.tick_params(axis="y", length=0, labelsize=8)
        ax.set_yticklabels([])
    names = [f"{r['trait']}: {r['level']} (n = {r['images']})" for r in levels.to_dict("records")]
    axes[0].set_yticklabels(names)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside upper center", ncols=len(methods))
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
    _legend(axes, 2)
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
        for write_ticks in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
            write_ticks(ScalarFormatter())
        ax.tick_params(axis="x", which="both", labelsize=8, rotation=45)
    _legend(axes[0])
    save(figure, path)


def rank_plot(ranked: Mapping[str, pd.DataFrame], ties: Mapping[str, Sequence[str]], path: Path) -> None:
    """Bootstrapped rank intervals, a column a figure: its table has method, rank, low, high, first.

    ties: per figure the methods that tie with the best, drawn hollow.
    """
    most = max(map(len, ranked.values()))
    figure, axes = canvas(len(ranked), 3.3 * len(ranked), 1.0 + 0.4 * most)
    for ax, (title, table) in zip(axes, ranked.items(), strict=True):
        y = np.arange(len(table))[::-1]
        tied = table["method"].isin(list(ties[title])).to_numpy()
        ax.hlines(y, table["low"], table["high"], color="0.4", linewidth=3)
        ax.scatter(table["rank"], y, s=45, color=np.where(tied, "white", "black"), edgecolor="black", zorder=3)
        names = [f"{m} ({p:.0%})" for m, p in zip(table["method"], table["first"], strict=True)]
        ax.set_yticks(y, names, fontsize=8)
        ax.set(xlabel=f"rank by {title}", xlim=(0.6, most + 0.4), xticks=range(1, most + 1))
    save(figure, path)
