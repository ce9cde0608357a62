"""Threshold: the single-mask figures of the mean probability at five thresholds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from uqseg.metrics.metric import Array, Figure, Sums, pooled
from uqseg.metrics.scored import Scored

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
REFERENCES = ("each", "first", "majority")
COUNTS = ("tp", "fp", "fn", "tn")
Ratio = Callable[[Array, Array, Array, Array], Array]


def confusion(prob: Tensor, masks: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Pixels int64 (B,R,T,4) in the order TP, FP, FN, TN of [prob ≥ t] against masks.

    prob: float (B,H,W); masks: bool (B,R,H,W); thresholds: T numbers.
    """
    if prob.ndim != 3 or masks.shape[::2] != (len(prob), prob.shape[1]) or masks.shape[3:] != prob.shape[2:]:
        raise ValueError(f"masks: expected (B,R,H,W) that fits prob {tuple(prob.shape)}, got {tuple(masks.shape)}")
    predicted = torch.stack([prob >= t for t in thresholds], 1)
    p, y = predicted.sum((2, 3))[:, None], masks.sum((2, 3))[:, :, None]
    pairs = torch.stack([(masks & predicted[:, k, None]).sum((2, 3)) for k in range(len(thresholds))], 2)
    fp, fn = p - pairs, y - pairs
    return torch.stack([pairs, fp, fn, prob[0].numel() - pairs - fp - fn], -1)


def _perfect_if_empty(top: Array, bottom: Array) -> Array:
    """top / bottom, and 1 where both prediction and reference are empty (bottom 0)."""
    return np.where(bottom == 0, 1.0, top / np.where(bottom == 0, 1, bottom))


RATIOS: dict[str, tuple[Ratio, str]] = {
    "accuracy": (lambda tp, fp, fn, tn: (tp + tn) / (tp + fp + fn + tn), "(TP+TN)/all"),
    "sensitivity": (lambda tp, fp, fn, tn: tp / (tp + fn), "TP/(TP+FN)"),
    "specificity": (lambda tp, fp, fn, tn: tn / (tn + fp), "TN/(TN+FP)"),
    "precision": (lambda tp, fp, fn, tn: tp / (tp + fp), "TP/(TP+FP)"),
    "iou": (lambda tp, fp, fn, tn: _perfect_if_empty(tp, tp + fp + fn), "TP/(TP+FP+FN)"),
    "dice": (lambda tp, fp, fn, tn: _perfect_if_empty(2 * tp, 2 * tp + fp + fn), "2TP/(2TP+FP+FN)"),
}


def column(count: str, reference: str, t: float) -> str:
    """Name of a column of counts, for example tp_each@0.5."""
    return f"{count}_{reference}@{t}"


def _at(ratio: Ratio, reference: str, thresholds: Sequence[float], sums: Sums, counts: Sums) -> Array:
    """The ratio of pooled counts, averaged over thresholds."""
    return np.mean([ratio(*(sums[column(c, reference, t)] for c in COUNTS)) for t in thresholds], axis=0)


def _figures() -> list[Figure]:
    found = []
    for reference in REFERENCES:
        suffix = "" if reference == "each" else f"_{reference}"
        for name, (ratio, formula) in RATIOS.items():
            for label, thresholds in [*((f"@{t}", (t,)) for t in THRESHOLDS), ("_mean", THRESHOLDS)]:
                columns = tuple(column(c, reference, t) for t in thresholds for c in COUNTS)
                finish = partial(_at, ratio, reference, thresholds)
                found.append(
                    Figure(
                        f"{name}{suffix}{label}",
                        "threshold",
                        "higher",
                        (0, 1),
                        f"{formula} of counts summed over images",
                        f"reference: {reference}",
                        columns,
                        "pooled",
                        finish,
                    )
                )
    return found


@pooled("confusion", group="threshold", figures=_figures())
def confusion_counts(scored: Scored) -> dict[str, Tensor]:
    """Counts of [p̄ ≥ t] against each reader (summed), the first reader, and the readers' majority."""
    majority = (scored.fraction >= 0.5)[:, None]
    counts = confusion(scored.mean, torch.cat([scored.masks, majority], 1), THRESHOLDS)
    read = scored.read[:, :, None, None]
    each = (counts[:, :-1] * read).sum(1)
    first = torch.where(read[:, 0], counts[:, 0], 0)
    of = {"each": each, "first": first, "majority": counts[:, -1]}
    return {
        column(c, reference, t): of[reference][:, k, j]
        for reference in REFERENCES
        for k, t in enumerate(THRESHOLDS)
        for j, c in enumerate(COUNTS)
    }


def _per_image(name: str) -> list[Figure]:
    return [
        Figure(
            f"{name}_image@{t}",
            "threshold",
            "higher",
            (0, 1),
            f"{RATIOS[name][1]} an image and reader, then the mean",
            "per image, reference: each",
            (f"{name}_image@{t}",),
            "mean",
            lambda sums, counts, c=f"{name}_image@{t}": sums[c] / counts[c],
        )  # type: ignore[misc]
        for t in THRESHOLDS
    ]


@pooled(
    "per_image", group="threshold", figures=[f for name in ("sensitivity", "iou", "dice") for f in _per_image(name)]
)
def per_image(scored: Scored) -> dict[str, Tensor]:
    """Sensitivity, IoU and Dice an image, averaged over its readers; sensitivity NaN where no reader marked."""
    counts = confusion(scored.mean, scored.masks, THRESHOLDS).double().cpu().numpy()
    read = scored.read.cpu().numpy()[:, :, None]
    found = {}
    for name in ("sensitivity", "iou", "dice"):
        with np.errstate(invalid="ignore"):
            values = RATIOS[name][0](*np.moveaxis(counts, -1, 0))
        defined = read & ~np.isnan(values)
        n = defined.sum(1)
        mean = np.where(n == 0, np.nan, np.where(defined, values, 0).sum(1) / np.where(n == 0, 1, n))
        found |= {f"{name}_image@{t}": torch.from_numpy(mean[:, k].copy()) for k, t in enumerate(THRESHOLDS)}
    return found
