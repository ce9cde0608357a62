"""Failure figures: does the uncertainty find the errors? Uncertainty is the entropy of the mean, in nats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from uqseg.metrics.ranks import failure_areas
from uqseg.metrics.registry import Columns, Direction, Drawn, Figure, Floats, declare, derived, statistic
from uqseg.metrics.threshold import THRESHOLDS

if TYPE_CHECKING:
    from torch import Tensor

    from uqseg.metrics.scored import Scored

LN2 = float(np.log(2))
PATCH = 10
AGGREGATIONS = {
    "mean": "mean",
    "sum": "sum",
    "patch": "10×10 patch",
    "top": "foreground quantile",
}
_JAEGER = "Jaeger et al. 2023, arXiv:2211.15259"
_HOULSBY = "Houlsby et al. 2011, arXiv:1112.5745"


@statistic("entropy")
def _entropy(scored: Scored) -> Tensor:
    return scored.entropy.double().mean(1).clamp(0, LN2)


@statistic("mutual_information")
def _mutual_information(scored: Scored) -> Tensor:
    """Mean over pixels of H(p̄) − Σ w_s H(p_s), which is never negative but for rounding."""
    return scored.logs.information.clamp_min(0).double().mean(1).clamp(0, LN2)


@derived("expected_entropy", ("entropy", "mutual_information"))
def _expected_entropy(columns: Columns, drawn: Drawn) -> Floats:
    return (columns["entropy"] - columns["mutual_information"]).clip(0)


_nats = partial(Figure, direction="none", tables=("entropy",), range=(0, LN2), reference=_HOULSBY,
                degenerate="0 log 0 = 0")  # fmt: skip
declare(_nats("entropy", "total", ("entropy",), formula="mean over pixels of H(p̄), nats", depends_on_samples=True))
declare(_nats("expected_entropy", "within samples", ("expected_entropy",),
              formula="mean over pixels of Σ w_s H(p_s), nats"))  # fmt: skip
declare(_nats("mutual_information", "between samples", ("mutual_information",), depends_on_samples=True,
              formula="mean over pixels of H(p̄) − Σ w_s H(p_s), nats"))  # fmt: skip


@derived("risk", ("dice_image",))
def _risk(columns: Columns, drawn: Drawn) -> Floats:
    """1 − Dice([p̄ ≥ 0.5], y_r), mean over the readers."""
    return (1 - columns["dice_image"][:, THRESHOLDS.index(0.5)]).clip(0, 1)


@derived("uncertainty_mean", ("entropy",))
def _mean(columns: Columns, drawn: Drawn) -> Floats:
    return columns["entropy"]


@derived("uncertainty_sum", ("entropy", "pixels"))
def _sum(columns: Columns, drawn: Drawn) -> Floats:
    return columns["entropy"] * columns["pixels"]


@statistic("uncertainty_patch")
def _patch(scored: Scored) -> Tensor:
    """The largest mean of a 10×10 patch, or of the whole side where it is shorter."""
    sums = scored.entropy.double().view(-1, *scored.shape)
    sides = [min(PATCH, side) for side in scored.shape]
    for axis, side in enumerate(sides, 1):  # rows are added, then columns
        sums = _neighbours(sums, axis, side)
    return sums.amax((1, 2)) / prod(sides)


def _neighbours(x: Tensor, axis: int, side: int) -> Tensor:
    """Sums of `side` neighbours along an axis: those of 1, 2, 4, … are added to one another, 10 = 2 + 8."""
    parts, start, width, places = [], 0, 1, x.shape[axis] - side + 1
    while width <= side:
        if side & width:
            parts.append(x.narrow(axis, start, places))
            start += width
        if 2 * width <= side:
            x = x.narrow(axis, 0, x.shape[axis] - width) + x.narrow(axis, width, x.shape[axis] - width)
        width *= 2
    return sum(parts[1:], parts[0])


@statistic("uncertainty_top")
def _top(scored: Scored) -> Tensor:
    """The mean above the foreground quantile: of the K highest pixels, K the number of pixels with p̄ ≥ 0.5, or 1."""
    k = scored.above.sum(1).clamp_min(1)
    highest = scored.ascending[:, -int(k.max()) :].flip(1).double()
    return highest.cumsum(1).gather(1, k[:, None] - 1)[:, 0] / k


@statistic("error_auprc", several_readers=True)
def _error_auprc(scored: Scored) -> Tensor:
    from uqseg.metrics.maps import average_precision

    return average_precision(scored.entropy, scored.above != scored.majority, scored.ascending)


def _areas(column: str) -> Callable[[Columns, Floats], Floats]:
    return lambda values, weights: failure_areas(values[column], values["risk"], weights)


_BY = {how: _areas(f"uncertainty_{how}") for how in AGGREGATIONS}
_AREAS: dict[str, tuple[str, Direction, str, str, str, str]] = {
    "aurc": ("AURC", "lower", "mean over images of the mean risk of all at most as uncertain", _JAEGER,
             "the stated mean", "fd-shifts, ValUES (trapezoids: 0.004 apart above 40 cases)"),
    "eaurc": ("excess AURC", "lower", "aurc less that of taking the images one by one in the order of risk",
              "Geifman et al. 2019, arXiv:1805.08206", "", ""),
    "augrc": ("AUGRC", "lower", "area under accepted risk over all images against coverage, trapezoids",
              "Traub et al. 2024, arXiv:2407.01032", "fd-shifts, exactly, ties too",
              "torch-uncertainty (starts at coverage 1/N and ignores ties)"),
    "failure_auroc": ("AUROC of failure", "higher", "AUROC of the uncertainty for Dice < 0.5", _JAEGER, "", ""),
}  # fmt: skip
for _place, (_area, (_title, _direction, _formula, _source, _same, _unlike)) in enumerate(_AREAS.items()):
    for _how, _by in AGGREGATIONS.items():
        _tables = (("failure",) if _how == "mean" else ()) + (("aggregations",) if _area == "aurc" else ())
        declare(Figure(f"{_area}_{_how}", f"{_title}, {_by}" if _how != "mean" else _title,
                       (f"uncertainty_{_how}", "risk"), _direction, _tables or ("other_aggregations",),
                       f"{_formula}; risk 1 − Dice([p̄ ≥ 0.5], y_r), uncertainty by {_by}", _source,
                       degenerate="undefined where all or no images fail" if _area == "failure_auroc" else
                       "equal uncertainties are accepted together", same_as=_same,
                       unlike="; ".join(filter(None, (_unlike, "ValUES takes one threshold for the whole data set"
                                                      if _how == "top" else ""))),
                       from_cases=_BY[_how], place=_place))  # fmt: skip
declare(Figure("error_auprc", "AUPRC of wrong pixels", ("error_auprc",), "higher", ("failure",),
               "average precision over an image's pixels of the uncertainty for [p̄ ≥ 0.5] ≠ [ȳ ≥ 0.5]",
               "Davis and Goadrich 2006", degenerate="undefined where no pixel is wrong"))  # fmt: skip
