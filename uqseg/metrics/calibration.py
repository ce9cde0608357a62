"""Calibration: do the probabilities mean what they say? The target is the reader fraction ȳ."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from uqseg.metrics.metric import Array, Figure, Sums, metric, pooled
from uqseg.metrics.scored import Scored

BINS = 15
ACTIVE = 0.01
CLIP = 1e-6


def reliability(prob: Tensor, masks: Tensor, bins: int = BINS) -> tuple[Tensor, Tensor, Tensor]:
    """Per image and bin (B,bins): number of pixels int64, sum of prob and sum of the reader fraction, float64.

    prob: float (B,H,W); masks: bool (B,R,H,W), or the reader fraction itself, float (B,H,W). Bin k holds
    k/bins ≤ prob < (k+1)/bins, the last one also prob = 1.
    """
    fraction = masks.double().mean(1) if masks.ndim == 4 else masks.double()
    if fraction.shape != prob.shape:
        raise ValueError(f"masks: expected to fit prob {tuple(prob.shape)}, got {tuple(masks.shape)}")
    return _binned(
        prob.double().flatten(1), fraction.flatten(1), torch.ones_like(prob, dtype=torch.bool).flatten(1), bins
    )


def _binned(p: Tensor, y: Tensor, kept: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    place = (p * bins).long().clamp(max=bins - 1)
    zero = torch.zeros(len(p), bins, dtype=torch.float64, device=p.device)
    weight = kept.double()
    n, sum_p, sum_y = (zero.scatter_add(1, place, x) for x in (weight, p * weight, y * weight))
    return n.long(), sum_p, sum_y


def _gaps(prefix: str, sums: Sums) -> tuple[Array, Array]:
    """Counts and |mean p − mean y| of the bins, last axis; the gap of an empty bin is NaN."""
    n, p, y = (np.stack([sums[f"{prefix}_{part}_{b:02d}"] for b in range(BINS)], -1) for part in "npy")
    return n, np.abs(p - y) / n


def _ece(prefix: str, sums: Sums, counts: Sums) -> Array:
    n, gaps = _gaps(prefix, sums)
    return np.nansum(n * gaps, -1) / n.sum(-1)


def _over_bins(pick: str, sums: Sums, counts: Sums) -> Array:
    _, gaps = _gaps("rel", sums)
    filled = ~np.isnan(gaps)
    if pick == "max":
        return np.where(filled, gaps, -np.inf).max(-1)
    return np.where(filled, gaps, 0).sum(-1) / filled.sum(-1)


def _columns(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}_{part}_{b:02d}" for part in "npy" for b in range(BINS))


def _figure(name: str, formula: str, reference: str, prefix: str, finish: object) -> Figure:
    return Figure(name, "calibration", "lower", (0, 1), formula, reference, _columns(prefix), "pooled", finish)  # type: ignore[arg-type]


_FIGURES = [
    _figure(
        "ece",
        "Σ_bins n_b/n |p̄_b − ȳ_b|, 15 equal-width bins, all pixels",
        "Naeini 2015; Guo 2017",
        "rel",
        partial(_ece, "rel"),
    ),
    _figure(
        "ece_active",
        "ECE over pixels with p̄ ≥ 0.01; no such pixel: undefined",
        "Guo 2017, region by prediction",
        "act",
        partial(_ece, "act"),
    ),
    _figure(
        "ace",
        "unweighted mean of the gaps of non-empty bins",
        "Neumann 2018 (average)",
        "rel",
        partial(_over_bins, "mean"),
    ),
    _figure("mce", "largest gap of the non-empty bins", "Naeini 2015", "rel", partial(_over_bins, "max")),
]


@pooled("reliability", group="calibration", figures=_FIGURES)
def reliability_sums(scored: Scored) -> dict[str, Tensor]:
    """Counts and sums per bin, over all pixels (rel) and over active pixels (act)."""
    p, y = scored.mean.flatten(1).clamp(0, 1), scored.fraction.flatten(1)
    found = {}
    for prefix, kept in (("rel", torch.ones_like(p, dtype=torch.bool)), ("act", p >= ACTIVE)):
        for part, sums in zip("npy", _binned(p, y, kept, BINS), strict=True):
            found |= {f"{prefix}_{part}_{b:02d}": sums[:, b] for b in range(BINS)}
    return found


@metric(
    "brier",
    group="calibration",
    direction="lower",
    range=(0, 1),
    reference="Brier 1950",
    formula="mean over pixels and readers of (p̄ − y_r)²",
)
def brier(scored: Scored) -> Tensor:
    p, y = scored.mean, scored.fraction
    return (p.square() - 2 * p * y + y).mean((1, 2))


@metric(
    "brier_excess",
    group="calibration",
    direction="lower",
    range=(0, 1),
    reference="Murphy 1973",
    formula="mean over pixels of (p̄ − ȳ)²: the Brier score less the readers' own variance ȳ(1−ȳ)",
)
def brier_excess(scored: Scored) -> Tensor:
    return (scored.mean - scored.fraction).square().mean((1, 2))


@metric(
    "nll",
    group="calibration",
    direction="lower",
    range=(0, float("inf")),
    reference="Good 1952",
    formula="mean over pixels and readers of −log p̄(y_r) in nats, p̄ clipped to [1e-6, 1−1e-6]",
)
def nll(scored: Scored) -> Tensor:
    p, y = scored.mean.clamp(CLIP, 1 - CLIP), scored.fraction
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean((1, 2))
