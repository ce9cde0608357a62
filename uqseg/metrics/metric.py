"""The registry of metrics: per-image columns, and the figures that are finished after summing them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache as once
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from uqseg.errors import unknown
from uqseg.metrics.scored import Scored

VERSION = 1
"""Raise it when a figure's meaning changes: stored scores of another version are computed anew."""

Array = NDArray[Any]
Sums = Mapping[str, Array]
Columns = Callable[[Scored], Mapping[str, Tensor]]
Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True)
class Figure:
    """A number of a table. `finish(sums, counts)` makes it from sums over images of its columns and the number of
    images where each is defined, with any leading shape: so every figure can be resampled over patients."""

    name: str
    group: str
    direction: Direction
    range: tuple[float, float]
    formula: str
    reference: str
    columns: tuple[str, ...]
    kind: Literal["pooled", "mean"]
    finish: Callable[[Sums, Sums], Array]

    def value(self, sums: Sums, counts: Sums) -> Array:
        """The figure; NaN where no image defines it."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.finish(sums, counts), dtype=np.float64)


@dataclass(frozen=True)
class Metric:
    name: str
    group: str
    columns: Columns
    figures: tuple[Figure, ...]


_METRICS: dict[str, Metric] = {}


def mean_of(column: str) -> Callable[[Sums, Sums], Array]:
    """Mean of a column over the images where it is defined."""
    return lambda sums, counts: sums[column] / counts[column]


def metric(
    name: str,
    *,
    group: str,
    direction: Direction,
    range: tuple[float, float],
    formula: str,
    reference: str,
) -> Callable[[Callable[[Scored], Tensor]], Callable[[Scored], Tensor]]:
    """Register a function Scored -> (B,) as a metric of that name whose figure is the mean over images."""

    def register(function: Callable[[Scored], Tensor]) -> Callable[[Scored], Tensor]:
        figure = Figure(name, group, direction, range, formula, reference, (name,), "mean", mean_of(name))
        _METRICS[name] = Metric(name, group, lambda scored: {name: function(scored)}, (figure,))
        return function

    return register


def pooled(name: str, *, group: str, figures: Iterable[Figure]) -> Callable[[Columns], Columns]:
    """Register a function Scored -> {column: (B,)} of sufficient statistics and the figures finished from them."""

    def register(function: Columns) -> Columns:
        _METRICS[name] = Metric(name, group, function, tuple(figures))
        return function

    return register


@once
def _discover() -> None:
    package = importlib.import_module("uqseg.metrics")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"uqseg.metrics.{module.name}")


def groups() -> list[str]:
    """Names of the groups of metrics."""
    _discover()
    return sorted({m.group for m in _METRICS.values()})


def _in(group: str | None) -> list[Metric]:
    _discover()
    if group is not None and group not in groups():
        raise unknown("group of metrics", group, groups())
    return [m for _, m in sorted(_METRICS.items()) if group in (None, m.group)]


def names(group: str | None = None) -> list[str]:
    """Names of the registered metrics, of one group or of all, sorted."""
    return [m.name for m in _in(group)]


def figures(group: str | None = None) -> list[Figure]:
    """The figures of the registered metrics, of one group or of all."""
    return [figure for m in _in(group) for figure in m.figures]


def score(
    samples: Tensor,
    masks: Tensor,
    read: Tensor | None = None,
    weights: Tensor | None = None,
    groups: Iterable[str] | None = None,
    *,
    exact: bool = False,
) -> pd.DataFrame:
    """Per-image columns of every metric (of the named groups): a DataFrame of B rows, NaN where undefined.

    samples: float (B,S,H,W) probabilities; masks: bool (B,R,H,W); read: bool (B,R), default all;
    weights: (B,S) summing to 1 an image, default equal; exact: the samples are the method's whole finite support, not
    draws. Raises ValueError naming the argument for anything else.
    """
    scored = Scored(samples, masks, read, weights, exact=exact)
    chosen = _in(None) if groups is None else [m for group in groups for m in _in(group)]
    columns = {name: column for m in chosen for name, column in m.columns(scored).items()}
    return pd.DataFrame({name: column.detach().cpu().numpy() for name, column in columns.items()})


def summed(table: pd.DataFrame, figure: Figure) -> float:
    """The figure over all rows of a table of per-image columns."""
    values = {c: table[c].to_numpy(dtype=np.float64) for c in figure.columns}
    sums = {c: np.nansum(v) for c, v in values.items()}
    counts = {c: np.sum(~np.isnan(v)) for c, v in values.items()}
    return float(figure.value(sums, counts))


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator in float64, NaN where the denominator is 0: undefined, never an epsilon."""
    undefined = torch.full((), torch.nan, dtype=torch.float64, device=denominator.device)
    return torch.where(denominator == 0, undefined, numerator.double() / denominator.double())
