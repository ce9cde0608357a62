"""Threshold figures: the mean probability cut at five thresholds, against each reader, the first, the majority."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from uqseg.metrics.registry import Columns, Drawn, Figure, Floats, declare, derived, ratio, statistic

if TYPE_CHECKING:
    from torch import Tensor

    from uqseg.metrics.scored import Scored

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
REFERENCES = {"each": "each reader in turn", "first": "reader 0", "majority": "[ȳ ≥ 0.5]"}
CELLS = ("tp", "fp", "fn", "tn")
MEASURES = {
    "accuracy": ("(TP+TN)/(TP+FP+FN+TN)", ("tp", "tn"), ("tp", "fp", "fn", "tn")),
    "sensitivity": ("TP/(TP+FN)", ("tp",), ("tp", "fn")),
    "specificity": ("TN/(TN+FP)", ("tn",), ("tn", "fp")),
    "precision": ("TP/(TP+FP)", ("tp",), ("tp", "fp")),
    "iou": ("TP/(TP+FP+FN)", ("tp",), ("tp", "fp", "fn")),
    "dice": ("2TP/(2TP+FP+FN)", ("tp", "tp"), ("tp", "tp", "fp", "fn")),
}
"""Formula, cells summed above and cells summed below the line."""
EMPTY = {"iou": 1.0, "dice": 1.0}
"""Value where the denominator is 0; undefined (NaN) for all others."""
DEGENERATE = {
    "accuracy": "always defined",
    "sensitivity": "undefined with no positive in the reference",
    "specificity": "undefined with no negative in the reference",
    "precision": "undefined with nothing predicted positive",
    "iou": "1 where prediction and reference are empty",
    "dice": "1 where prediction and reference are empty",
}
THRESHOLD_STATISTICS = ("overlaps", "areas_predicted", "areas_readers", "pixels")
"""What threshold figures need: train and validation cases are scored with these alone."""


@statistic("overlaps", shape=(len(THRESHOLDS), "R+1"))
def overlaps(scored: Scored) -> Tensor:
    """Pixels that [p̄ ≥ t] has in common with each reader, NaN for who did not read, and last with [ȳ ≥ 0.5]."""
    return scored.absent_as_nan(scored.overlaps)


@statistic("areas_predicted", shape=(len(THRESHOLDS),))
def areas_predicted(scored: Scored) -> Tensor:
    """Pixels of [p̄ ≥ t]."""
    return scored.cuts.sum(2)


@statistic("areas_readers", shape=("R+1",))
def areas_readers(scored: Scored) -> Tensor:
    """Pixels each reader marked, NaN for who did not read, and last those of [ȳ ≥ 0.5]."""
    return scored.absent_as_nan(scored.references.sum(2)[:, None])[:, 0]


@statistic("pixels")
def pixels(scored: Scored) -> Tensor:
    """Pixels of each image: (B,)."""
    return scored.weights.new_full((scored.B,), scored.pixels)


def mean_of_defined(values: Floats, axis: int) -> Floats:
    """Mean over one axis of what is not NaN, NaN where nothing is."""
    return ratio(np.nansum(values, axis), np.isfinite(values).sum(axis).astype(float))


def cells(columns: Columns, reference: str) -> Floats:
    """TP, FP, FN, TN of [p̄ ≥ t] against the Q masks of a reference: (N,T,Q,4), NaN for absent readers."""
    part = {"each": slice(None, -1), "first": slice(1), "majority": slice(-1, None)}[reference]
    tp = columns["overlaps"][:, :, part]
    fp = columns["areas_predicted"][:, :, None] - tp
    fn = columns["areas_readers"][:, None, part] - tp
    return np.stack([tp, fp, fn, columns["pixels"][:, None, None] - tp - fp - fn], -1)


def measure(name: str, counts: Floats) -> Floats:
    """One of MEASURES from TP, FP, FN, TN on the last axis; NaN or 1 where its denominator is 0 (EMPTY)."""
    _, above, below = MEASURES[name]
    top, bottom = (sum(counts[..., CELLS.index(c)] for c in side) for side in (above, below))
    return ratio(np.asarray(top), np.asarray(bottom), EMPTY.get(name, np.nan))


def _derive(reference: str, suffix: str) -> None:
    several = reference == "majority"

    @derived(f"cells{suffix}", THRESHOLD_STATISTICS, several_readers=several)
    def _mean_cells(columns: Columns, drawn: Drawn) -> Floats:
        return mean_of_defined(cells(columns, reference), 2)

    for name in MEASURES:

        @derived(f"{name}_image{suffix}", THRESHOLD_STATISTICS, several_readers=several)
        def _per_image(columns: Columns, drawn: Drawn, name: str = name) -> Floats:
            counts = cells(columns, reference)
            value = np.where(np.isfinite(counts[..., 0]), measure(name, counts), np.nan)
            return mean_of_defined(value, 2)


def _pooled(name: str, column: str, at: list[int]) -> Callable[[Columns, Columns], Floats]:
    def finish(sums: Columns, counts: Columns) -> Floats:
        some = np.asarray(counts[column])[..., at, 0] > 0
        value = np.where(some, measure(name, np.asarray(sums[column])[..., at, :]), np.nan)
        return np.asarray(value.mean(-1))

    return finish


def _per_image(column: str, at: list[int]) -> Callable[[Columns, Columns], Floats]:
    return lambda sums, counts: ratio(np.asarray(sums[column])[..., at], np.asarray(counts[column])[..., at]).mean(-1)


def _declare(name: str, reference: str, suffix: str, t: float | None) -> None:
    """The pooled and the per-image figure of a measure at one threshold, or averaged over the five."""
    at = list(range(len(THRESHOLDS))) if t is None else [THRESHOLDS.index(t)]
    end = "_mean" if t is None else f"@{t}"
    cut = "mean over the five thresholds" if t is None else f"[p̄ ≥ {t}]"
    formula = f"{MEASURES[name][0]}, {cut}, against {REFERENCES[reference]}"
    label = {"iou": "IoU"}.get(name, name.capitalize()) + ("" if reference == "each" else f", {reference}")
    title = f"{label}, mean of thresholds" if t is None else f"{label} at {t}"
    for kind, column, finish, how in (
        ("", f"cells{suffix}", _pooled(name, f"cells{suffix}", at), "counts summed over images first"),
        ("_image", f"{name}_image{suffix}", _per_image(f"{name}_image{suffix}", at), "per image, then the mean"),
    ):
        declare(
            Figure(
                f"{name}{kind}{suffix}{end}",
                f"{title}, per image" if kind else title,
                (column,),
                "higher",
                ("threshold", "summary") if f"{name}{kind}{suffix}{end}" == "dice@0.5" else ("threshold",),
                f"{formula}; {how}",
                "Taha and Hanbury 2015, doi:10.1186/s12880-015-0068-x",
                degenerate=DEGENERATE[name],
                family=name,
                from_sums=finish,
                reads=tuple(at),
            )
        )


for _reference in REFERENCES:
    _derive(_reference, "" if _reference == "each" else f"_{_reference}")
for _name in MEASURES:
    for _reference in REFERENCES:
        for _t in (*THRESHOLDS, None):
            _declare(_name, _reference, "" if _reference == "each" else f"_{_reference}", _t)
