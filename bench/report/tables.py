"""Tables: bootstrapped figures in, Markdown out, with intervals, the best in bold and ties marked."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.stats import FEWEST, Bootstrap, Estimate
from uqseg.metrics import Figure

ARROWS = {"lower": " ↓", "higher": " ↑", "none": ""}
LEFT_OUT = "†k: undefined for k images (counted in every repetition), which are left out."
INTERVALS = f"95 % intervals over patients and repetitions, where {FEWEST} patients or more have a value"
GLUE = "\N{NO-BREAK SPACE}"  # a cell's text breaks before the bracket only
PAGE = 1012  # pixels: the width of a page on GitHub, into which a table must fit
LETTER, CELL = 7.5, 26  # pixels of a letter and of the space around a cell's text


def escape(text: object) -> str:
    """A name or text that came from outside, shown in Markdown and HTML as the letters it is made of, on one line."""
    special = r"([\\`*|$~]|\b_|_\b|\](?=[(\[:]))"
    return re.sub(special, r"\\\1", html.escape(one_line(text), quote=False))


def one_line(text: object) -> str:
    """The text without line breaks and control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def code(text: object) -> str:
    """The same as a span of code."""
    line = one_line(text).replace("|", "\\|")  # a table's cell ends at a bare one, in a span of code too
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    return f"{ticks} {line} {ticks}" if len(ticks) > 1 else f"`{line}`"


def digits(value: float, low: float = np.nan, high: float = np.nan) -> str:
    """A value with as many digits as its interval carries: 0.315, 0.00853, 12.4; a dash where undefined."""
    if not np.isfinite(value):
        return "–"
    width = high - low if np.isfinite(high - low) and high > low else abs(value)
    places = int(np.clip(1 - np.floor(np.log10(width / 2)), 1, 6)) if width > 1e-6 else 3
    return f"{value:z.{places}f}"


def with_interval(estimate: Estimate) -> str:
    """ "0.315 [0.301, 0.330]"; a line breaks before the bracket only."""
    text = digits(*estimate)
    if text == "–" or not np.isfinite(estimate.low):
        return text
    places = len(text.partition(".")[2])
    return f"{text} [{estimate.low:z.{places}f},{GLUE}{estimate.high:z.{places}f}]"


def p_value(p: float, bound: bool) -> str:
    """ "0.032"; "≤ 0.006" where no resample lay on the other side of 0; a dash where undefined."""
    return f"≤{GLUE}{p:.3f}" if bound else f"{p:.3f}" if np.isfinite(p) else "–"


def percent(share: Estimate) -> str:
    """ "12 % [10 %, 15 %]"; a dash where undefined."""
    if not np.isfinite(share.value):
        return "–"
    value, *ends = (f"{round(100 * x)}{GLUE}%" for x in share if np.isfinite(x))
    return f"{value} [{ends[0]},{GLUE}{ends[1]}]" if ends else value


def markdown(table: pd.DataFrame, keys: int = 1) -> str:
    """A table of Markdown texts; one too wide for the page in several, each with the first `keys` columns."""
    parts = [part.to_markdown(index=False, disable_numparse=True) for part in fitting(table, keys)]
    return "\n\n".join([*parts, *([LEFT_OUT] if any("†" in part for part in parts) else [])])


def fitting(table: pd.DataFrame, keys: int) -> list[pd.DataFrame]:
    """The table's columns in as few parts as fit into PAGE, of about equal numbers."""
    widths = [_width([str(name), *map(str, table.iloc[:, i])]) for i, name in enumerate(table.columns)]
    rest = len(widths) - keys
    for parts in range(1, rest + 1):
        chunks = np.array_split(np.arange(keys, len(widths)), parts)
        if all(sum(widths[:keys]) + sum(widths[i] for i in chunk) <= PAGE for chunk in chunks):
            break
    else:
        return [table]
    return [table.iloc[:, [*range(keys), *chunk]] for chunk in chunks]


def _width(texts: Sequence[str]) -> float:
    """Pixels of a column whose texts break at spaces; of a link its text is seen."""
    seen = (re.sub(r"\]\([^)]*\)|[*\\]", "", text) for text in texts)
    return CELL + LETTER * max(len(word) for text in seen for word in text.split(" "))


def fold(summary: str, body: str) -> str:
    """What most readers pass over, behind a line to click on."""
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def of_figures(
    boot: Bootstrap, figures: Sequence[Figure], methods: Sequence[str], yardsticks: Sequence[str] = ()
) -> pd.DataFrame:
    """A row for each method and a column for each figure with its interval; figures that nobody has are left out.

    The best method is bold; methods whose paired difference from it is a tie carry ≈. Yardsticks stand below, unmarked.
    † and a number: so many images are left out.
    """
    columns = {"method": [*map(escape, methods), *(f"*{escape(label)}*" for label in yardsticks)]}
    for figure in figures:
        marks = boot.marks(figure.name, methods)
        texts = [_marked(boot, label, figure.name, marks.get(label, "")) for label in (*methods, *yardsticks)]
        if set(texts) != {"–"}:
            columns[figure.title + ARROWS[figure.direction]] = texts
    return pd.DataFrame(columns)


def _marked(boot: Bootstrap, label: str, figure: str, mark: str) -> str:
    estimate = boot.estimate(label, figure)
    text = with_interval(estimate)
    text = {"best": f"**{text}**", "tie": f"{text} ≈"}.get(mark, text)
    missing = boot.left_out(label, figure)
    return f"{text} †{missing}" if missing and np.isfinite(estimate.value) else text
