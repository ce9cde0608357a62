"""Ambiguity: do the samples disagree as the readers do?"""

from __future__ import annotations

from math import lcm

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

from uqseg.metrics.metric import metric, ratio
from uqseg.metrics.scored import Scored, dice_of, overlaps
from uqseg.metrics.threshold import THRESHOLDS

CURVE = (1, 2, 4, 8, 16, 32, 64, 100)


def _scored(samples: Tensor, readers: Tensor, sample_weights: Tensor | None, reader_weights: Tensor | None) -> Scored:
    """Scored of boolean hypotheses; weights (B,S) and (B,R) sum to 1 an image, default equal."""
    if samples.dtype != torch.bool:
        raise ValueError(f"samples: expected bool hypotheses (B,S,H,W), got {samples.dtype}; threshold them at 0.5")
    scored = Scored(samples.float(), readers, None if reader_weights is None else reader_weights > 0, sample_weights)
    if reader_weights is not None:
        total = reader_weights.double().sum(1)
        if reader_weights.shape != readers.shape[:2] or bool((reader_weights < 0).any()):
            raise ValueError(f"reader_weights: expected non-negative (B,R), got {tuple(reader_weights.shape)}")
        if not torch.allclose(total, torch.ones_like(total)):
            raise ValueError(f"reader_weights: expected a sum of 1 for every image, got {total.tolist()[:3]}")
        scored.v = reader_weights.double()
    return scored


def ged(
    samples: Tensor, readers: Tensor, *, sample_weights: Tensor | None = None, reader_weights: Tensor | None = None
) -> Tensor:
    """GED² (B,) = 2 E d(h,y) − E d(h,h') − E d(y,y') with d = 1 − IoU and d(∅,∅) = 0; the V-statistic of Kohl 2018.

    samples: bool (B,S,H,W) hypotheses; readers: bool (B,R,H,W). In [0,2]; 0 where the distributions agree.
    """
    return ged_of(_scored(samples, readers, sample_weights, reader_weights))


def hm_iou(
    samples: Tensor, readers: Tensor, *, sample_weights: Tensor | None = None, reader_weights: Tensor | None = None
) -> Tensor:
    """Hungarian-matched IoU (B,): the mean IoU of the best assignment of samples to readers; 1 where all agree.

    Equal weights: both repeated to lcm(S,R) and matched; otherwise the exact optimal transport.
    """
    return hm_iou_of(_scored(samples, readers, sample_weights, reader_weights))


def diversity(
    samples: Tensor, readers: Tensor, *, sample_weights: Tensor | None = None, reader_weights: Tensor | None = None
) -> Tensor:
    """E d(h,h') (B,), diagonal terms included; 0 where all samples agree."""
    return diversity_of(_scored(samples, readers, sample_weights, reader_weights))


def coverage(
    samples: Tensor, readers: Tensor, *, sample_weights: Tensor | None = None, reader_weights: Tensor | None = None
) -> Tensor:
    """Mean over readers of the best Dice among samples (B,)."""
    return coverage_of(_scored(samples, readers, sample_weights, reader_weights))


def validity(
    samples: Tensor, readers: Tensor, *, sample_weights: Tensor | None = None, reader_weights: Tensor | None = None
) -> Tensor:
    """Mean over samples of the best Dice among readers (B,)."""
    return validity_of(_scored(samples, readers, sample_weights, reader_weights))


def soft_dice(
    samples: Tensor, readers: Tensor, *, sample_weights: Tensor | None = None, reader_weights: Tensor | None = None
) -> Tensor:
    """Mean over five thresholds of Dice([p̄ ≥ t], [ȳ ≥ t]) (B,)."""
    return soft_dice_of(_scored(samples, readers, sample_weights, reader_weights))


@metric(
    "ged",
    group="ambiguity",
    direction="lower",
    range=(0, 2),
    reference="Kohl 2018",
    formula="2 E d(h,y) − E d(h,h') − E d(y,y'), d = 1 − IoU, d(∅,∅) = 0",
)
def ged_of(scored: Scored) -> Tensor:
    cross, samples, readers = scored.expected_distance()
    return 2 * cross - samples - readers


@metric("ged_cross", group="ambiguity", direction="lower", range=(0, 1), reference="Kohl 2018", formula="E d(h,y)")
def ged_cross(scored: Scored) -> Tensor:
    return scored.expected_distance()[0]


@metric(
    "diversity",
    group="ambiguity",
    direction="none",
    range=(0, 1),
    reference="Kohl 2018",
    formula="E d(h,h'), the sample–sample part of GED",
)
def diversity_of(scored: Scored) -> Tensor:
    return scored.expected_distance()[1]


@metric(
    "reader_diversity",
    group="ambiguity",
    direction="none",
    range=(0, 1),
    reference="Kohl 2018",
    formula="E d(y,y'), the reader–reader part of GED",
)
def reader_diversity(scored: Scored) -> Tensor:
    return scored.expected_distance()[2]


@metric(
    "diversity_ratio",
    group="ambiguity",
    direction="none",
    range=(0, float("inf")),
    reference="Kohl 2018",
    formula="E d(h,h') / E d(y,y'); undefined where readers agree exactly",
)
def diversity_ratio(scored: Scored) -> Tensor:
    _, samples, readers = scored.expected_distance()
    return ratio(samples, readers)


@metric(
    "ged_debiased",
    group="ambiguity",
    direction="lower",
    range=(-1, 2),
    reference="Székely & Rizzo 2013",
    formula="GED with E d(h,h') times S/(S−1) for independent draws; a finite support is taken as it is; S = 1: undefined",
)
def ged_debiased(scored: Scored) -> Tensor:
    cross, samples, readers = scored.expected_distance()
    if scored.exact:
        return 2 * cross - samples - readers
    # With weights, S is the effective number of draws 1/Σw²; the factor is 1/(1 − Σw²).
    return 2 * cross - ratio(samples, 1 - scored.w.square().sum(1)) - readers


def _curve(k: int):  # type: ignore[no-untyped-def]
    def at_k(scored: Scored) -> Tensor:
        cross, _, readers = scored.expected_distance()
        S = scored.samples.shape[1]
        if scored.exact:
            return ged_of(scored)
        if k > S:
            return torch.full_like(cross, torch.nan)
        hy, hh, _ = (1 - iou for iou in scored.iou)
        w = ratio(scored.w[:, :k], scored.w[:, :k].sum(1, keepdim=True))
        first = torch.einsum("bs,br,bsr->b", w, scored.v, hy[:, :k])
        return 2 * first - torch.einsum("bs,bt,bst->b", w, w, hh[:, :k, :k]) - readers

    return at_k


for _k in CURVE:
    metric(
        f"ged@{_k}",
        group="ambiguity",
        direction="lower",
        range=(0, 2),
        reference="Kohl 2018",
        formula=f"GED of the first {_k} samples; undefined where fewer were drawn",
    )(_curve(_k))


@metric(
    "hm_iou",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    reference="Kohl 2019 (HPU-Net)",
    formula="mean IoU of the optimal assignment of samples to readers, both repeated to lcm(S,R); IoU(∅,∅) = 1",
)
def hm_iou_of(scored: Scored) -> Tensor:
    iou = scored.iou[0].cpu().numpy()
    w, v = scored.w.cpu().numpy(), scored.v.cpu().numpy()
    return torch.tensor([_matched(*image) for image in zip(iou, w, v, strict=True)], dtype=torch.float64).to(
        scored.w.device
    )


def _matched(iou: NDArray[np.float64], w: NDArray[np.float64], v: NDArray[np.float64]) -> float:
    """Optimal mean IoU of samples with weights w and readers with weights v, from iou (S,R)."""
    iou, w, v = iou[np.ix_(w > 0, v > 0)], w[w > 0], v[v > 0]
    S, R = iou.shape
    if np.allclose(w, 1 / S, atol=1e-12) and np.allclose(v, 1 / R, atol=1e-12):
        common = lcm(S, R)
        repeated = np.repeat(np.repeat(iou, common // S, 0), common // R, 1)
        return float(repeated[linear_sum_assignment(repeated, maximize=True)].mean())
    rows = np.kron(np.eye(S), np.ones(R))
    columns = np.kron(np.ones(S), np.eye(R))
    plan = linprog(-iou.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([w / w.sum(), v / v.sum()]))
    return float(-plan.fun)


@metric(
    "coverage",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    reference="Zhang 2022 (D_max)",
    formula="mean over readers of the best Dice among samples",
)
def coverage_of(scored: Scored) -> Tensor:
    possible = torch.where(scored.w[:, :, None] > 0, scored.dice, 0.0)
    return (scored.v * possible.amax(1)).sum(1)


@metric(
    "validity",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    reference="D-Persona 2024",
    formula="mean over samples of the best Dice among readers",
)
def validity_of(scored: Scored) -> Tensor:
    possible = torch.where(scored.v[:, None] > 0, scored.dice, 0.0)
    return (scored.w * possible.amax(2)).sum(1)


@metric(
    "dice_max",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    reference="D-Persona 2024",
    formula="mean of coverage and validity",
)
def dice_max(scored: Scored) -> Tensor:
    return (coverage_of(scored) + validity_of(scored)) / 2


@metric(
    "soft_dice",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    reference="Ji 2021 (MRNet)",
    formula="mean over t of Dice([p̄ ≥ t], [ȳ ≥ t]), t = 0.1, 0.3, 0.5, 0.7, 0.9",
)
def soft_dice_of(scored: Scored) -> Tensor:
    values = []
    for t in THRESHOLDS:
        a, b = scored.mean[:, None] >= t, scored.fraction[:, None] >= t
        values.append(dice_of(overlaps(a, b), a.sum((2, 3)).double(), b.sum((2, 3)).double()).flatten())
    return torch.stack(values).mean(0)


@metric(
    "ncc_variance",
    group="ambiguity",
    direction="higher",
    range=(-1, 1),
    reference="Baumgartner 2019, with variances",
    formula="Pearson correlation over pixels of the variance of the samples and ȳ(1−ȳ); undefined for constant maps",
)
def ncc_variance(scored: Scored) -> Tensor:
    spread = torch.einsum("bs,bshw->bhw", scored.w, (scored.samples.double() - scored.mean[:, None]).square())
    return pearson(spread.flatten(1), (scored.fraction * (1 - scored.fraction)).flatten(1))


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation (B,) along the last axis of (B,K), NaN where either is constant."""
    constant = (a.amax(1) == a.amin(1)) | (b.amax(1) == b.amin(1))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    scale = a.norm(dim=1) * b.norm(dim=1)
    return ratio((a * b).sum(1), torch.where(constant, 0.0, scale)).clamp(-1, 1)
