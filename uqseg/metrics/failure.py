"""Failure metrics: does the uncertainty find the errors? Uncertainty is the entropy of the mean, in nats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from uqseg.metrics import maps
from uqseg.metrics.metric import Direction, Figure, Floats, Sums, metric
from uqseg.metrics.ranks import weighted_augrc, weighted_aurc, weighted_auroc
from uqseg.metrics.scored import Scored
from uqseg.metrics.threshold import CELLS, confusion, measure

LN2 = float(np.log(2))
PATCH = 10
AGGREGATIONS = ("mean", "sum", "patch", "top")
_JAEGER = "Jaeger et al. 2023, arXiv:2211.15259"
_HOULSBY = "Houlsby et al. 2011, arXiv:1112.5745"


def _entropy_figure(name: str, formula: str) -> Figure:
    return Figure(name, "failure", "none", (0, LN2), formula, _HOULSBY, (name,))


@metric(
    "uncertainty",
    group="failure",
    direction="none",
    range=(0, LN2),
    formula="means over pixels, nats: `entropy` of p̄ (total) = `expected_entropy` Σ w_s H(p_s) + `mutual_information`; "
    "what the last stands for (epistemic, aleatoric) is the method's to say",
    reference=_HOULSBY,
    degenerate="0 log 0 = 0",
    figures=(
        _entropy_figure("entropy", "mean over pixels of H(p̄), nats"),
        _entropy_figure("expected_entropy", "mean over pixels of Σ w_s H(p_s), nats"),
        _entropy_figure("mutual_information", "mean over pixels of H(p̄) − Σ w_s H(p_s), nats"),
    ),
)
def _uncertainty(scored: Scored) -> dict[str, Tensor]:
    expected = maps.expected_entropy(scored.samples, None if scored.equal else scored.weights)
    found = {"entropy": scored.entropy, "expected_entropy": expected}
    found["mutual_information"] = (scored.entropy - expected).clamp_min(0)
    return {name: x.mean((1, 2), dtype=torch.float64).clamp(0, LN2) for name, x in found.items()}


def aggregate(uncertainty: Tensor, prob: Tensor) -> dict[str, Tensor]:
    """Image scores float64 (B,) of an uncertainty map (B,H,W): mean, sum, patch (largest mean of a 10×10 patch, or of
    the whole side where it is shorter), top (mean above the foreground quantile: of the K highest pixels, K the number
    of pixels with prob ≥ 0.5 in that image, at least one)."""
    u = uncertainty.double()
    patch = avg_pool2d(u[:, None], [min(PATCH, side) for side in u.shape[1:]], stride=1).amax((1, 2, 3))
    k = (prob >= 0.5).sum((1, 2)).clamp_min(1)
    highest = u.flatten(1).sort(1, descending=True).values
    top = (highest * (torch.arange(highest.shape[1], device=u.device) < k[:, None])).sum(1) / k
    return {"mean": u.mean((1, 2)), "sum": u.sum((1, 2)), "patch": patch, "top": top}


def _across(function: Callable[[Floats, Floats, Floats], Floats], column: str) -> Callable[[Sums, Floats], Floats]:
    return lambda values, weights: function(values[column], values["risk"], weights)


def _excess(uncertainty: Floats, risk: Floats, weights: Floats) -> Floats:
    return weighted_aurc(uncertainty, risk, weights) - weighted_aurc(risk, risk, weights)


def _failed(uncertainty: Floats, risk: Floats, weights: Floats) -> Floats:
    return weighted_auroc(uncertainty, risk > 0.5, weights)


_AREAS: dict[str, tuple[Direction, str, str, Callable[[Floats, Floats, Floats], Floats]]] = {
    "aurc": ("lower", "mean over images of the mean risk of all at most as uncertain", _JAEGER, weighted_aurc),
    "eaurc": ("lower", "aurc less that of ordering by the risk itself", "Geifman et al. 2019, arXiv:1805.08206",
              _excess),
    "augrc": ("lower", "area under accepted risk over all images against coverage, trapezoids",
              "Traub et al. 2024, arXiv:2407.01032", weighted_augrc),
    "failure_auroc": ("higher", "AUROC of the uncertainty for Dice < 0.5", _JAEGER, _failed),
}  # fmt: skip


@metric(
    "selection",
    group="failure",
    direction="lower",
    range=(0, 1),
    formula="risk 1 − Dice([p̄ ≥ 0.5], y_r), mean over readers, against image uncertainty (`mean`, `sum`, `patch` the "
    "largest 10×10 mean, `top` the mean above the foreground quantile, that is of the highest pixels, as many as are "
    "predicted foreground): `aurc_*`, `eaurc_*`, `augrc_*`, `failure_auroc_*` (higher is better)",
    reference=f"{_JAEGER}; Kahl et al. 2024, arXiv:2401.08501",
    degenerate="equal uncertainties are accepted together; `failure_auroc_*` undefined where all or no images fail",
    figures=tuple(
        Figure(f"{area}_{how}", "failure", direction, (0, 1), f"{formula}; uncertainty by {how}", source,
               (f"uncertainty_{how}", "risk"), "across", over=_across(function, f"uncertainty_{how}"))
        for area, (direction, formula, source, function) in _AREAS.items() for how in AGGREGATIONS
    ),
)  # fmt: skip
def _selection(scored: Scored) -> dict[str, Tensor]:
    cells = confusion(scored.prob, scored.masks, (0.5,))[:, :, 0]
    dice = measure("dice", dict(zip(CELLS, cells.unbind(-1), strict=True)))
    risk = (1 - (scored.reader_weights * dice).sum(1)).clamp(0, 1)
    found = aggregate(scored.entropy, scored.prob)
    return {"risk": risk, **{f"uncertainty_{how}": value for how, value in found.items()}}


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Average precision float64 (B,) over the last axis, equal scores taken together; NaN without a positive."""
    values, order = scores.sort(-1, descending=True)
    hits = positive.gather(-1, order).double()
    n = values.shape[-1]
    place = torch.arange(n, device=values.device)
    last = torch.ones_like(values, dtype=torch.bool)
    last[:, :-1] = values[:, :-1] != values[:, 1:]
    end = torch.where(last, place, n).flip(-1).cummin(-1).values.flip(-1)  # where each score's tie ends
    precision = hits.cumsum(-1) / (place + 1)
    total = hits.sum(-1)
    return torch.where(total > 0, (hits * precision.gather(-1, end)).sum(-1) / total, torch.nan)


@metric(
    "error_auprc",
    group="failure",
    direction="higher",
    range=(0, 1),
    formula="average precision over an image's pixels of the uncertainty for [p̄ ≥ 0.5] ≠ [ȳ ≥ 0.5]",
    reference="Davis and Goadrich 2006",
    degenerate="undefined where no pixel is wrong",
)
def _error_auprc(scored: Scored) -> Tensor:
    wrong = (scored.prob >= 0.5) != scored.majority
    return average_precision(scored.entropy.flatten(1), wrong.flatten(1))
