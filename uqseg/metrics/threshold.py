"""Threshold metrics: the mean probability cut at five thresholds, against each reader, the first, the majority."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from uqseg.metrics.metric import Direction, Figure, Finish, Floats, Sums, metric, ratio
from uqseg.metrics.scored import Scored

EXACT = 2**24
"""Counts up to here are exact in float32; larger images are counted in float64."""
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
REFERENCES = ("each", "first", "majority")
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


def confusion(prob: Tensor, masks: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> Tensor:
    """Pixels counted as TP, FP, FN, TN: int64 (B,R,T,4) of [prob (B,H,W) ≥ t] against masks bool (B,R,H,W)."""
    prob, masks = torch.as_tensor(prob), torch.as_tensor(masks)
    if prob.dim() != 3 or masks.dim() != 4 or masks.shape[0] != len(prob) or masks.shape[2:] != prob.shape[1:]:
        raise ValueError(
            f"prob, masks: expected shapes (B,H,W) and (B,R,H,W), got {tuple(prob.shape)} and {tuple(masks.shape)}"
        )
    pixels = prob[0].numel()
    kind = torch.float32 if pixels <= EXACT else torch.float64
    predicted = torch.stack([prob >= t for t in thresholds], 1).flatten(2).to(kind)
    readers = masks.flatten(2).to(kind)
    tp = torch.bmm(readers, predicted.transpose(1, 2)).long()
    fp = predicted.sum(2, dtype=torch.float64).long()[:, None] - tp
    fn = readers.sum(2, dtype=torch.float64).long()[:, :, None] - tp
    return torch.stack([tp, fp, fn, pixels - tp - fp - fn], -1)


def measure(name: str, cells: Mapping[str, Tensor]) -> Tensor:
    """One of MEASURES from its confusion cells, float64 of their shape; NaN or 1 where the denominator is 0 (EMPTY)."""
    _, above, below = MEASURES[name]
    top, bottom = (torch.stack([cells[c].double() for c in side]).sum(0) for side in (above, below))
    return torch.where(bottom > 0, top / bottom, EMPTY.get(name, torch.nan))


def _cells(scored: Scored) -> dict[str, tuple[Tensor, Tensor]]:
    """For each reference: counts (B,Q,T,4) float64 against its Q masks, and the weights (B,Q) of these masks."""
    counts = confusion(scored.prob, torch.cat([scored.masks, scored.majority[:, None]], 1)).double()
    one = torch.ones_like(scored.reader_weights[:, :1])
    first = torch.where(scored.read[:, :1], one, 0.0)
    return {
        "each": (counts[:, :-1], scored.reader_weights),
        "first": (counts[:, :1], first),
        "majority": (counts[:, -1:], one),
    }


def _suffix(reference: str) -> str:
    return "" if reference == "each" else f"_{reference}"


@metric(
    "confusion",
    group="threshold",
    direction="none",
    range=(0, np.inf),
    formula="pixels counted TP, FP, FN, TN with [p̄ ≥ t], t = 0.1, 0.3, 0.5, 0.7, 0.9; for `each`, their mean Σ v_r",
    reference="the counts behind the pooled threshold figures",
    degenerate="`first` is undefined where reader 0 is absent",
    figures=(),
)
def _confusion(scored: Scored) -> dict[str, Tensor]:
    columns: dict[str, Tensor] = {}
    for reference, (counts, weights) in _cells(scored).items():
        mean = torch.einsum("bq,bqtc->btc", weights, counts)
        mean = torch.where(weights.sum(1)[:, None, None] > 0, mean, torch.nan)
        for c, cell in enumerate(CELLS):
            columns |= {f"{cell}_{reference}@{t}": mean[:, i, c] for i, t in enumerate(THRESHOLDS)}
    return columns


def _image_columns(name: str, scored: Scored) -> dict[str, Tensor]:
    """One measure per image: its mean over the readers of the reference for whom it is defined."""
    columns: dict[str, Tensor] = {}
    for reference, (counts, weights) in _cells(scored).items():
        value = measure(name, dict(zip(CELLS, counts.unbind(-1), strict=True)))
        weight = weights[:, :, None] * ~value.isnan()
        total = weight.sum(1)
        mean = torch.where(total > 0, (weight * value.nan_to_num()).sum(1) / total, torch.nan)
        columns |= {f"{name}_image{_suffix(reference)}@{t}": mean[:, i] for i, t in enumerate(THRESHOLDS)}
    return columns


def _pooled(name: str, reference: str, thresholds: Sequence[float]) -> Finish:
    _, above, below = MEASURES[name]

    def at(sums: Sums, counts: Sums, t: float) -> Floats:
        top, bottom = (np.sum([sums[f"{c}_{reference}@{t}"] for c in side], axis=0) for side in (above, below))
        seen = np.asarray(counts[f"tp_{reference}@{t}"]) > 0
        return np.where(seen, ratio(top, bottom, EMPTY.get(name, np.nan)), np.nan)

    return lambda sums, counts: np.mean([at(sums, counts, t) for t in thresholds], axis=0)


def _mean_over(columns: Sequence[str]) -> Finish:
    return lambda sums, counts: np.mean([ratio(np.asarray(sums[c]), np.asarray(counts[c])) for c in columns], axis=0)


def _figures(name: str, direction: Direction) -> list[Figure]:
    """Pooled and per-image, against each reference, at each threshold and averaged over the five."""
    formula, above, below = MEASURES[name]
    made = []
    for reference in REFERENCES:
        s = _suffix(reference)
        against = {"each": "each reader in turn", "first": "reader 0", "majority": "[ȳ ≥ 0.5]"}[reference]
        for t in (*THRESHOLDS, None):
            ts = THRESHOLDS if t is None else (t,)
            end = "_mean" if t is None else f"@{t}"
            cells = tuple(f"{c}_{reference}@{u}" for u in ts for c in dict.fromkeys((*above, *below)))
            at = "mean over the five thresholds" if t is None else f"[p̄ ≥ {t}]"
            text = f"{formula}, {at}, against {against}"
            source, empty = "Taha and Hanbury 2015", _degenerate(name)
            images = tuple(f"{name}_image{s}@{u}" for u in ts)
            made += [
                Figure(
                    f"{name}{s}{end}", "threshold", direction, (0, 1), f"{text}; counts summed over images first",
                    columns=tuple(dict.fromkeys((*cells, *(f"tp_{reference}@{u}" for u in ts)))),
                    kind="pooled", finish=_pooled(name, reference, ts), reference=source, degenerate=empty,
                ),
                Figure(
                    f"{name}_image{s}{end}", "threshold", direction, (0, 1), f"{text}; per image, then the mean",
                    columns=images, kind="mean" if t is not None else "pooled", finish=_mean_over(images),
                    reference=source, degenerate=empty,
                ),
            ]  # fmt: skip
    return made


def _degenerate(name: str) -> str:
    if name in EMPTY:
        return "1 where prediction and reference are empty"
    missing = {"sensitivity": "no positive in the reference", "specificity": "no negative in the reference"}
    missing["precision"] = "nothing predicted positive"
    return f"undefined with {missing[name]}" if name in missing else "always defined"


def _register(name: str) -> None:
    @metric(
        name,
        group="threshold",
        direction="higher",
        range=(0, 1),
        formula=f"{MEASURES[name][0]} of [p̄ ≥ t]: `{name}@t` pooled, `{name}_image@t` per image, `_first`, `_majority` "
        "for the other references, `_mean` over the five t",
        reference="Taha and Hanbury 2015, doi:10.1186/s12880-015-0068-x",
        degenerate=_degenerate(name),
        figures=_figures(name, "higher"),
    )
    def _column(scored: Scored) -> dict[str, Tensor]:
        return _image_columns(name, scored)


for _name in MEASURES:
    _register(_name)
