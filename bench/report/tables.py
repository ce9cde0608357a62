"""Tables: bootstrapped figures in, Markdown out, with intervals, the best in bold and ties marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.stats import Bootstrap, best_of, interval
from uqseg import checkpoint

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
ARROWS = {"lower": " ↓", "higher": " ↑", "none": ""}
LEFT_OUT = "†k: undefined for k images (counted in every repetition), which are left out."


def digits(value: float, low: float = np.nan, high: float = np.nan) -> str:
    """A value with as many digits as its interval carries: 0.315, 0.00853, 12.4; an em dash where undefined."""
    if not np.isfinite(value):
        return "–"
    width = high - low if np.isfinite(high - low) and high > low else abs(value)
    places = int(np.clip(1 - np.floor(np.log10(width / 2)), 1, 6)) if width > 0 else 3
    return f"{value:.{places}f}"


def with_interval(value: float, low: float, high: float) -> str:
    """ "0.315 [0.301, 0.330]"."""
    text = digits(value, low, high)
    if text == "–" or not np.isfinite(low):
        return text
    places = len(text.partition(".")[2])
    return f"{text} [{low:.{places}f}, {high:.{places}f}]"


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """The numbers behind a table or a picture, whole or not at all."""
    checkpoint.write(path, table.to_csv(index=False, float_format="%.9g").encode())


def markdown(table: pd.DataFrame) -> str:
    """A table of texts as Markdown, with a note on its daggers if it has any."""
    text = table.to_markdown(index=False, disable_numparse=True)
    return f"{text}\n\n{LEFT_OUT}" if "†" in text else text


def of_figures(
    boot: Bootstrap, figures: Mapping[str, str], methods: Sequence[str], yardsticks: Sequence[str]
) -> pd.DataFrame:
    """One row a method, one column a figure (name to title) with its interval.

    The best method is bold; methods whose paired difference from it is a tie carry ≈. Yardsticks stand below, unmarked.
    † and a number: so many images are left out.
    """
    rows = {label: [label if label in methods else f"*{label}*"] for label in [*methods, *yardsticks]}
    titles = ["method"]
    for name, title in figures.items():
        f = boot.column(name)
        best, ties = best_of(boot, name, methods) if len(methods) > 1 else (None, [])
        titles.append(title + ARROWS[boot.figures[f].direction])
        for label, row in rows.items():
            m = boot.labels.index(label)
            low, high = interval(boot.draws[m, :, f][:, None])
            text = with_interval(boot.point[m, f], float(low[0]), float(high[0]))
            text = f"**{text}**" if label == best else f"{text} ≈" if label in ties else text
            missing = boot.left_out[m, f] if np.isfinite(boot.point[m, f]) else 0
            row.append(f"{text} †{missing}" if missing else text)
    return pd.DataFrame(rows.values(), columns=titles)


def of_thresholds(tables: Mapping[str, Mapping[str, float]], reference: str) -> pd.DataFrame:
    """The five pooled threshold figures of one method: a row a split and threshold, and their average.

    tables: per split, {figure name: value}. reference: "" (each reader) or "_first".
    """
    rows = []
    names = ("accuracy", "sensitivity", "specificity", "iou", "dice")
    for split, values in tables.items():
        for t in (*THRESHOLDS, "mean"):
            ends = f"{reference}_mean" if t == "mean" else f"{reference}@{t}"
            rows.append([split, "average" if t == "mean" else str(t)] + [f"{values[n + ends]:.4f}" for n in names])
    return pd.DataFrame(rows, columns=["split", "threshold", "accuracy", "sensitivity", "specificity", "IoU", "Dice"])
