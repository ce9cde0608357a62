"""Plots: data in, a matplotlib figure out. Readable in grey: markers and dashes differ too; yardsticks are grey."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from bench.stats import Estimate

Floats = NDArray[np.float64]
Styles = Mapping[str, Mapping[str, Any]]
# Okabe and Ito's colours, told apart by the colour-blind; the order also alternates dark and light.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#999933")
GREYS = ("0.35", "0.6", "0.5", "0.7", "0.45")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
DPI = 130
WIDTH = 1012 / DPI  # inches: that of a page, so that letters keep their size
FOLD = 26  # letters of a label's line
BETTER = {"lower": " (lower is better)", "higher": " (higher is better)", "none": ""}


def styles(methods: Sequence[str], yardsticks: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Colour, marker and dash of each label, no two alike for any number of them; yardsticks are grey."""
    looks = {}
    for labels, colours in ((methods, COLOURS), (yardsticks, GREYS)):
        for i, label in enumerate(labels):
            turn, colour = divmod(i, len(colours))
            marker = MARKERS[(i + turn) % 8] if turn < 8 else (turn - 3, 1, 0)  # then stars with ever more points
            looks[label] = {"color": colours[colour], "marker": marker, "linestyle": DASHES[(i + turn) % 4]}
    return looks


def canvas(columns: int = 1, width: float = 7.0, height: float = 4.0, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of width×height inches with axes side by side, row by row."""
    mpl.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    mpl.rcParams["svg.hashsalt"] = "uqseg"  # names inside an SVG do not change from run to run
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save(figure: Figure, path: Path) -> None:
    """Write the file that the path's ending names, without metadata that changes between runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}.get(path.suffix)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks shows as boxes
        figure.savefig(path, dpi=DPI, metadata=metadata)


def plain(text: str) -> str:
    """A name that came from outside, drawn as the letters it is made of: no formula, no line break, never hidden."""
    line = "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line


def folded(label: str) -> str:
    """A label in lines of at most FOLD letters, where its options and wrappers allow."""
    lines = [""]
    for part in re.split(r"(?=[\[+/])|(?<=,)", plain(label)):
        if lines[-1] and len(lines[-1]) + len(part) > FOLD:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def legend(figure: Figure, axes: Axes) -> None:
    """Name what is drawn in the axes, if anything is: a few short names beside a single column of axes, else above."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    longest, place = max(map(len, labels)), axes.get_subplotspec()
    if place is not None and place.get_gridspec().ncols == 1 and len(labels) <= 10 and longest <= FOLD:
        figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside right upper")
        return
    width = min(figure.get_figwidth(), WIDTH)
    columns = max(1, int(width / (0.6 + 0.065 * longest)))
    rows = -(-len(labels) // columns)
    figure.set_size_inches(width, figure.get_figheight() + 0.18 * rows)
    figure.legend(handles, labels, frameon=False, fontsize=8, loc="outside upper center", ncols=columns)


def error_bar(axes: Axes, x: float, estimate: Estimate, look: Mapping[str, Any], *, across: bool = False) -> None:
    """A point with its interval, if it has one: upright at x, or across at height x. The look may hold a label."""
    if not np.isfinite(estimate.value):
        return
    known = np.isfinite(estimate.low)
    ends = [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]] if known else None
    look = {"capsize": 2, "markersize": 4, **look, "linestyle": "none"}
    if across:
        axes.errorbar(estimate.value, x, xerr=ends, **look)
    else:
        axes.errorbar(x, estimate.value, yerr=ends, **look)


def log_axis(axes: Axes, which: str, title: str) -> None:
    """A logarithmic x or y axis that says so, with as many plain labels as there is room for."""
    axes.set(**{f"{which}scale": "log", f"{which}label": f"{title}, log scale"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    decades = np.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.2 else (1,), numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


Curve = tuple[Floats, Floats, Floats]
"""Of each bin its mean probability, the fraction of readers who marked, and how many things it holds."""


def reliability(panels: Mapping[str, Mapping[str, Curve]], predicted: str, counted: str, styles: Styles) -> Figure:
    """A column for each panel: reader fraction against what was predicted, and under it the counts.

    panels: title to {method: curve}; empty bins hold NaN. predicted, counted: what the axes hold. Points of a method
    that fills no more than two bins are not joined: nothing was predicted between them.
    """
    figure, axes = canvas(len(panels), min(WIDTH, 2.2 + 4.0 * len(panels)), 5.4, 2)
    columns = list(zip(axes[: len(panels)], axes[len(panels) :], strict=True))
    for (above, below), (title, curves) in zip(columns, panels.items(), strict=True):
        above.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        for label, curve in curves.items():
            prob, fraction, count = (x[curve[2] > 0] for x in curve)
            look = {**styles[label], **({"linestyle": "none"} if len(prob) <= 2 else {})}
            above.plot(prob, fraction, markersize=4, label=plain(label), **look)
            below.plot(prob, count, markersize=4, **look)
        above.set_title(title, fontsize=10)
        above.set(ylabel="readers who marked (fraction)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        below.set(xlabel=predicted, xlim=(-0.02, 1.02), ylabel=f"{counted} in bin")
        if any(count.any() for _, _, count in curves.values()):  # an empty axis has no logarithm
            log_axis(below, "y", f"{counted} in bin")
    legend(figure, axes[0])
    return figure


def risk_coverage(curves: Mapping[str, tuple[Floats, Floats]], styles: Styles) -> Figure:
    """A panel for each method: mean risk of the images kept, surest first, against their share.

    curves: method to its curve and that of a perfect ranking of the same risks, (N,) each. A ranking at random keeps
    the mean risk of all images throughout.
    """
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = canvas(columns, WIDTH * (columns + 0.25) / 3.25, 0.7 + 2.1 * rows, rows)
    top = 1.05 * max((float(risk.max()) for risk, _ in curves.values()), default=1.0)
    for ax, (label, (risk, ideal)) in zip(axes, curves.items(), strict=False):
        coverage, step = np.arange(1, len(risk) + 1) / len(risk), -(-len(risk) // 8)
        look = {**styles[label], "linestyle": "-"}
        ax.plot(coverage, risk, label="this method", markevery=(step - 1, step), markersize=4, **look)
        ax.plot(coverage, ideal, color="0.35", linestyle="--", linewidth=1, label="perfect ranking")
        ax.axhline(risk[-1], color="0.6", linestyle=":", linewidth=1.5, label="random ranking")
        ax.set(xlim=(0, 1), ylim=(0, top or 1), xticks=(0, 0.5, 1))
        ax.set_title(folded(label), fontsize=9)
    for ax in axes[len(curves) :]:
        ax.set_axis_off()
    handles = axes[0].get_lines()
    figure.legend(
        [*handles], ["the method", "perfect ranking", "random ranking"],
        frameon=False, fontsize=8, loc="outside upper center", ncols=3,
    )  # fmt: skip
    figure.supxlabel("share of images kept, surest first", fontsize=10)
    figure.supylabel("mean risk, 1 − Dice (lower is better)", fontsize=10)
    return figure


def subgroups(table: pd.DataFrame, axis_labels: Mapping[str, str], styles: Styles) -> Figure:
    """A column for each figure (name to axis label), a row for each level: the methods' values with their intervals.

    table: trait, level, images, method, figure, value, low, high; what it has no row of is left empty.
    """
    methods = list(dict.fromkeys(table["method"]))
    levels = table[["trait", "level", "images"]].drop_duplicates(ignore_index=True)
    step = max(0.42, 0.13 * len(methods))
    figure, axes = canvas(len(axis_labels), WIDTH, 1.0 + step * len(levels))
    for ax, (name, title) in zip(axes, axis_labels.items(), strict=True):
        for k, method in enumerate(methods):
            part = levels.merge(table[(table["method"] == method) & (table["figure"] == name)], how="left")
            offset = 0.38 - 0.76 * (k + 0.5) / len(methods)
            for row, values in enumerate(part[["value", "low", "high"]].to_numpy()):
                look = {**styles[method], "label": plain(method) if row == 0 else None}
                error_bar(ax, offset - row, Estimate(*values), look, across=True)
        for row in range(1, len(levels)):
            starts = levels["trait"][row] != levels["trait"][row - 1]
            ax.axhline(0.5 - row, color="0.3" if starts else "0.85", linewidth=0.8)
        ax.set(xlabel=title, ylim=(0.5 - len(levels), 0.5))
        ax.set_yticks(-np.arange(len(levels)), [""] * len(levels))
        ax.tick_params(axis="y", length=0, labelsize=8)
    names = [f"{plain(r['trait'])}:\n{plain(r['level'])}\n(n = {r['images']})" for r in levels.to_dict("records")]
    axes[0].set_yticklabels(names)
    legend(figure, axes[0])
    return figure


def ged_of_samples(curves: Mapping[str, Sequence[Estimate]], counts: Sequence[int], styles: Styles) -> Figure:
    """Expected GED of k samples, with intervals as bands; methods with finite support are level lines."""
    figure, (axes,) = canvas(1, WIDTH, 4.2)
    for label, estimates in curves.items():
        value, low, high = np.array(estimates).T
        known = np.isfinite(value)
        if not known.any():  # stratified samples stand for all draws at once
            continue
        x = np.array(counts)[known]
        axes.plot(x, value[known], markersize=4, label=plain(label), **styles[label])
        axes.fill_between(x, low[known], high[known], color=styles[label]["color"], alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(counts), [str(k) for k in counts])
    axes.minorticks_off()
    axes.set(xlabel="samples per image, log scale", ylabel="GED (lower is better)")
    legend(figure, axes)
    return figure


def stacked(table: pd.DataFrame, title: str) -> Figure:
    """Bars of parts that add up, a row for each method; negative parts go left of 0. The dot is the sum.

    table: index the methods, a column for each part.
    """
    figure, (axes,) = canvas(1, WIDTH, 1.2 + 0.32 * len(table))
    y = np.arange(len(table))[::-1]
    right, left = np.zeros(len(table)), np.zeros(len(table))
    for column, colour, hatch in zip(table, COLOURS, ("", "//", "..", "xx"), strict=False):
        part = table[column].to_numpy(float)
        start = np.where(part >= 0, right, left)
        axes.barh(y, part, 0.7, start, color=colour, alpha=0.75, hatch=hatch, edgecolor="white", label=column)
        right, left = right + np.maximum(part, 0), left + np.minimum(part, 0)
    axes.plot(table.sum(axis=1), y, "o", color="black", markersize=5, label="sum")
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(y, list(map(folded, table.index)), fontsize=8)
    axes.set(xlabel=title)
    legend(figure, axes)
    return figure


def pareto(cost: Floats, value: Floats, direction: str) -> NDArray[np.intp]:
    """The places of those (N,) that none is both as cheap and as good as, and better in one of the two; cheapest first.

    direction: of the value, lower or higher; costs are lower the better. What is undefined is on no front.
    """
    loss = value if direction == "lower" else -value
    order = [i for i in np.lexsort((loss, cost)) if np.isfinite(loss[i]) and np.isfinite(cost[i])]
    best = np.minimum.accumulate([np.inf, *loss[order]])
    return np.array([i for i, before in zip(order, best, strict=False) if loss[i] < before], np.intp)


def bars(parts: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """Bars with intervals beside each other, a group for each method and in it a bar for each part.

    parts: the part's title to {method: its value}.
    """
    methods = list(dict.fromkeys(label for part in parts.values() for label in part))
    figure, (axes,) = canvas(1, WIDTH, 1.0 + 0.17 * (len(parts) + 0.6) * len(methods))
    height = 0.8 / len(parts)
    for k, (title, part) in enumerate(parts.items()):
        y = -np.arange(len(methods)) + 0.4 - (k + 0.5) * height
        values = [part[label].value for label in methods]
        axes.barh(y, values, height * 0.92, color=COLOURS[k], alpha=0.75, hatch=("", "//", "..")[k], edgecolor="white",
                  label=title)  # fmt: skip
        for place, label in zip(y, methods, strict=True):
            error_bar(axes, place, part[label], {"color": "0.2", "marker": ""}, across=True)
    axes.axvline(0, color="0.3", linewidth=0.8)
    axes.set_yticks(-np.arange(len(methods)), list(map(folded, methods)), fontsize=8)
    axes.set(xlabel="lower is better", ylim=(0.6 - len(methods), 0.6))
    legend(figure, axes)
    return figure


def training_cost(table: pd.DataFrame) -> tuple[str, str]:
    """The column with the cost of a training, and its name. On a processor the seconds of all its threads, which other
    work on the machine hardly changes; where one was on a GPU those of the clock."""
    if (table["device"].str.lower() == "cpu").all():
        return "cpu_seconds", "training (CPU s)"
    return "train_seconds", "training (s by the clock)"


def costs(table: pd.DataFrame) -> dict[str, str]:
    """What the axes of cost show, by column."""
    column, name = training_cost(table)
    return {column: name, "sample_ms": "sampling an image (ms by the clock)"}


def quality_of_cost(table: pd.DataFrame, title: str, styles: Styles, direction: str = "lower") -> Figure:
    """A figure against training time and against the time of the samples of one image, each with its Pareto front.

    table: method, value, low, high, train_seconds, cpu_seconds, sample_ms, device. title, direction: the figure's.
    """
    figure, axes = canvas(2, WIDTH, 3.6)
    for ax, (column, name) in zip(axes, costs(table).items(), strict=True):
        front = table.iloc[pareto(table[column].to_numpy(float), table["value"].to_numpy(float), direction)]
        ends = front[column].iloc[:0].tolist() if front.empty else [table[column].max() * 1.6]
        ax.step([*front[column], *ends], [*front["value"], *front["value"].tail(1)], where="post", color="0.6",
                linewidth=1.2, zorder=0, label="Pareto front")  # fmt: skip
        ax.plot(front[column], front["value"], "o", markersize=13, markerfacecolor="none", markeredgecolor="0.6")
        for row in table.to_dict("records"):
            label = str(row["method"])
            look = {**styles[label], "capsize": 3, "markersize": 6, "label": plain(label)}
            error_bar(ax, row[column], Estimate(row["value"], row["low"], row["high"]), look)
        low, high = table[column].min(), table[column].max()
        ax.set_xlim(low / 1.6, high * 1.6)
        log_axis(ax, "x", name)
        ax.xaxis.label.set_fontsize(9)
    axes[0].set(ylabel=title)
    legend(figure, axes[0])
    return figure


def learning(table: pd.DataFrame, cost: str, styles: Styles) -> Figure:
    """Validation scores during training: a line for each method. table: method, seconds, val. cost: of the seconds."""
    figure, (axes,) = canvas(1, WIDTH, 4.2)
    for method, line in table.groupby("method", sort=False):
        look = {**styles[str(method)], "markersize": 4, "linewidth": 1.2, "label": plain(str(method))}
        axes.plot(line["seconds"], line["val"], **look)
    log_axis(axes, "x", cost)
    log_axis(axes, "y", "validation cross-entropy (nats a pixel)")
    axes.yaxis.set_major_locator(MaxNLocator(7))  # the lines may lie too near for powers of ten
    legend(figure, axes)
    return figure


def ranks(ranked: Mapping[str, pd.DataFrame], ties: Mapping[str, Sequence[str]]) -> Figure:
    """Bootstrapped rank intervals: a row for each method, best by the first figure on top, a column for each figure.

    ranked: for each figure a table of method, rank, low, high, first. ties: the methods that tie with its best, drawn
    hollow.
    """
    methods = list(dict.fromkeys(method for table in ranked.values() for method in table["method"]))
    names = list(map(folded, methods))
    height = 0.24 + 0.06 * max(name.count("\n") for name in names)
    figure, axes = canvas(len(ranked), WIDTH, 0.9 + height * len(methods))
    for ax, (title, table) in zip(axes, ranked.items(), strict=True):
        y = -table["method"].map(methods.index).to_numpy()
        tied = table["method"].isin(list(ties[title])).to_numpy()
        ax.hlines(y, table["low"], table["high"], color="0.4", linewidth=3)
        ax.scatter(table["rank"], y, s=36, color=np.where(tied, "white", "black"), edgecolor="black", zorder=3)
        for row, first in zip(y, table["first"], strict=True):
            ax.text(1.02, row, f"({round(100 * first)} %)", fontsize=8, va="center", transform=ax.get_yaxis_transform())
        ax.set(xlabel=f"rank by {title}\n(1 is best)", xlim=(0.4, len(methods) + 0.6), ylim=(0.5 - len(methods), 0.5))
        ax.set_xticks(range(1, len(methods) + 1, -(-len(methods) // 6)))
        ax.set_yticks(-np.arange(len(methods)), names if ax is axes[0] else [""] * len(methods), fontsize=8)
        ax.grid(axis="y", color="0.92")
    return figure


def rank_stability(table: pd.DataFrame, titles: Mapping[str, str], styles: Styles) -> Figure:
    """A panel for each figure: the rank of each method from report to report, with its interval; 1 is on top.

    table: figure, report, method, rank, low, high. titles: the figures and what the axes hold.
    """
    reports, methods = (list(dict.fromkeys(table[column])) for column in ("report", "method"))
    figure, axes = canvas(len(titles), WIDTH, 2.4 + 0.36 * len(methods))
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for k, method in enumerate(methods):
            part = table[(table["figure"] == name) & (table["method"] == method)]
            x = np.array([reports.index(r) for r in part["report"]]) + 0.3 * ((k + 0.5) / len(methods) - 0.5)
            ax.plot(x, part["rank"], markersize=6, alpha=0.9, label=plain(method), **styles[method])
            ax.vlines(x, part["low"], part["high"], color=styles[method]["color"], alpha=0.5, linewidth=1.5)
        ax.set_xticks(range(len(reports)), list(map(plain, reports)), fontsize=8, rotation=90)
        ax.set_title(title, fontsize=10)
        ax.set(xlim=(-0.4, len(reports) - 0.6), ylim=(len(methods) + 0.6, 0.4))
        ax.set_yticks(range(1, len(methods) + 1))
    legend(figure, axes[0])
    return figure


def bland_altman(areas: Mapping[str, tuple[Floats, Floats]], lines: pd.DataFrame, unit: str) -> Figure:
    """A panel for each reader: differences of areas against means, the mean difference and the limits of agreement.

    areas: reader to means and differences, (N,) each. lines: reader, bias, below, above.
    """
    known = lines.set_index("reader")
    columns = min(3, len(known))
    rows = -(-len(known) // columns)
    figure, axes = canvas(columns, 0.4 + 2.4 * columns, 0.8 + 2.2 * rows, rows)
    for ax, (reader, line) in zip(axes, known.iterrows(), strict=False):
        ax.scatter(*areas[str(reader)], s=9, color=COLOURS[0], alpha=0.4, linewidth=0)
        ax.axhline(0, color="0.75", linewidth=0.8)
        ax.axhline(line["bias"], color=COLOURS[4], linewidth=1.5)
        for end in ("below", "above"):
            ax.axhline(line[end], color=COLOURS[4], linewidth=1.2, linestyle="--")
        ax.set_title(plain(str(reader)), fontsize=9)
    for ax in axes[len(known) :]:
        ax.set_axis_off()
    figure.supxlabel(f"mean area of the reader and the others ({unit})", fontsize=10)
    figure.supylabel(f"reader less others ({unit})", fontsize=10)
    return figure
