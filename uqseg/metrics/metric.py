"""The registry of metrics: columns for each image, and the figures that are finished from them over a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from uqseg.errors import unknown
from uqseg.metrics.scored import Array, Scored

Floats = NDArray[np.float64]
Sums = Mapping[str, Floats]
Direction = Literal["lower", "higher", "none"]
Finish = Callable[[Sums, Sums], Floats]
Across = Callable[[Sums, Floats], Floats]
Measure = TypeVar("Measure", bound=Callable[[Scored], Tensor | Mapping[str, Tensor]])
GROUPS = ("threshold", "calibration", "ambiguity", "failure")


def ratio(top: Floats, bottom: Floats, empty: float = np.nan) -> Floats:
    """top / bottom, `empty` where bottom is 0."""
    defined = bottom != 0
    return np.where(defined, top / np.where(defined, bottom, 1), empty)


@dataclass(frozen=True)
class Figure:
    """One number about a data set, finished from per-image columns.

    kind "mean": weighted mean of one column over the images where it is defined; "pooled": from the columns' weighted
    sums; "across": from the columns of all images at once (ranks, areas under curves).
    """

    name: str
    group: str
    direction: Direction
    range: tuple[float, float]
    formula: str
    reference: str
    columns: tuple[str, ...]
    kind: Literal["mean", "pooled", "across"] = "mean"
    degenerate: str = ""
    finish: Finish | None = field(default=None, repr=False, compare=False)
    over: Across | None = field(default=None, repr=False, compare=False)

    def value(self, sums: Sums, counts: Sums) -> Floats:
        """Value from sums[c] = Σ w x_c (undefined as 0) and counts[c] = Σ w [x_c defined], both of any one shape."""
        if self.kind == "across":
            raise TypeError(f"figure '{self.name}' is not finished from sums: call across(values, weights)")
        if self.finish is not None:
            return self.finish(sums, counts)
        return ratio(np.asarray(sums[self.columns[0]], float), np.asarray(counts[self.columns[0]], float))

    def across(self, values: Sums, weights: Floats) -> Floats:
        """Values (K,) from columns (N,) and image weights (K,N), one row a resample; images with a NaN are left out."""
        if self.over is None:
            raise TypeError(f"figure '{self.name}' is finished from sums: call value(sums, counts)")
        table = {c: np.asarray(values[c], float) for c in self.columns}
        keep = np.all([np.isfinite(x) for x in table.values()], axis=0)
        table = {c: x[keep] for c, x in table.items()}
        kept = np.atleast_2d(np.asarray(weights, float))
        kept = kept if keep.all() else kept[:, keep]
        step = 64  # rows whose intermediate results stay in a core's cache
        parts = [self.over(table, kept[start : start + step]) for start in range(0, len(kept), step)]
        return np.concatenate(parts) if parts else np.empty(0)

    def of(self, table: pd.DataFrame, weights: Floats | None = None) -> float:
        """Value over the images of a table that `score` gave, equal weights by default."""
        w = np.ones(len(table)) if weights is None else np.asarray(weights, float)
        columns = {c: table[c].to_numpy(float) for c in self.columns}
        if self.kind == "across":
            return float(self.across(columns, w[None])[0])
        sums = {c: np.asarray(w @ np.nan_to_num(x)) for c, x in columns.items()}
        counts = {c: np.asarray(w @ np.isfinite(x)) for c, x in columns.items()}
        return float(self.value(sums, counts))


@dataclass(frozen=True)
class Metric:
    """One registered function: what it computes for each image, and the figures finished from it."""

    name: str
    group: str
    direction: Direction
    range: tuple[float, float]
    formula: str
    reference: str
    degenerate: str
    columns: Callable[[Scored], Mapping[str, Tensor]] = field(repr=False)
    figures: tuple[Figure, ...] = field(repr=False)


_METRICS: dict[str, Metric] = {}


def metric(
    name: str,
    *,
    group: str,
    direction: Direction,
    range: tuple[float, float],
    formula: str,
    reference: str,
    degenerate: str = "",
    figures: Sequence[Figure] | None = None,
) -> Callable[[Measure], Measure]:
    """Register a function of Scored that gives one column (B,), named like the metric, or a mapping of columns.

    Without `figures` its one figure is the mean of the column `name`.
    """
    mean = Figure(name, group, direction, range, formula, reference, (name,), degenerate=degenerate)

    def register(function: Measure) -> Measure:
        def columns(scored: Scored) -> Mapping[str, Tensor]:
            found = function(scored)
            return {name: found} if isinstance(found, Tensor) else found

        made = tuple(figures) if figures is not None else (mean,)
        _METRICS[name] = Metric(name, group, direction, range, formula, reference, degenerate, columns, made)
        return function

    return register


def _chosen(group: str | None) -> list[Metric]:
    if group is not None and group not in GROUPS:
        raise unknown("metric group", group, GROUPS)
    order = [m for g in GROUPS for m in _METRICS.values() if m.group == g]
    return [m for m in order if group in (None, m.group)]


def names(group: str | None = None) -> list[str]:
    """Names of the registered metrics, of one group or all, in the order of the report."""
    return [m.name for m in _chosen(group)]


def find(name: str) -> Metric:
    """The metric registered as `name`."""
    if name not in _METRICS:
        raise unknown("metric", name, _METRICS)
    return _METRICS[name]


def figures(group: str | None = None) -> list[Figure]:
    """All figures of one group or all."""
    return [figure for m in _chosen(group) for figure in m.figures]


def score(
    samples: Array,
    masks: Array,
    read: Array | None = None,
    weights: Array | None = None,
    groups: Sequence[str] | None = None,
    exact: bool = False,
    spacing: Array | None = None,
) -> pd.DataFrame:
    """Per-image columns of every metric in `groups` (default all): B rows, float64 or int64, NaN where undefined.

    Arguments as in Scored. Images are scored in parts of bounded memory; no column depends on the other images.
    """
    metrics = [m for g in (groups if groups is not None else GROUPS) for m in _chosen(g)]
    whole = Scored(samples, masks, read, weights, exact=exact, spacing=spacing)  # checks everything before any work
    step = max(1, 2**24 // (whole.S * whole.pixels))
    parts: list[dict[str, NDArray[np.generic]]] = []
    with torch.inference_mode():
        for start in range(0, whole.B, step):
            at = slice(start, start + step)
            part = Scored(
                whole.samples[at],
                whole.masks[at],
                whole.read[at],
                None if whole.equal else whole.weights[at],
                exact=exact,
                spacing=whole.spacing[at],
            )
            columns = {name: column for m in metrics for name, column in m.columns(part).items()}
            parts.append({name: column.cpu().numpy() for name, column in columns.items()})
    return pd.DataFrame({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def markdown() -> str:
    """The page of all figures from the registry: formula, direction, range, degenerate rule, source, by group.

    A row a figure, except for the thresholds, where a row stands for a measure's figures at all t.
    """
    better = {"lower": "lower", "higher": "higher", "none": "neither"}
    lines = ["# Metrics", "", NOTATION, ""]
    for group in GROUPS:
        lines += [f"## {group}", "", "| name | formula | better | range | degenerate inputs | source |"]
        lines += ["|---|---|---|---|---|---|"]
        rows = [(f, m) for m in _chosen(group) for f in ((m,) if group == "threshold" else m.figures)]
        for f, m in rows:
            low, high = (f"{v:.4g}".replace("inf", "∞") for v in f.range)
            rule = f.degenerate or m.degenerate or "always defined"
            cells = [f"`{f.name}`", f.formula, better[f.direction], f"{low} to {high}", rule, f.reference]
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        lines.append("")
    return "\n".join(lines)


NOTATION = (
    "Samples p_s with weights w_s (sum 1), hypotheses h_s = [p_s ≥ 0.5], readers y_r with weights v_r (equal over the "
    "readers who read the image), p̄ = Σ w_s p_s, ȳ = Σ v_r y_r. Set distance d(A,B) = 1 − |A∩B|/|A∪B|, d(∅,∅) = 0. "
    "Undefined values are left out of a mean and counted."
)
