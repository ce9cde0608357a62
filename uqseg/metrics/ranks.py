"""Rank statistics over images, for K sets of image weights at once: Spearman, AUROC, risk-coverage areas."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _groups(values: Floats, weights: Floats, *also: Floats) -> tuple[NDArray[np.intp], list[Floats]]:
    """Tie group of each value (ascending) and, of weights (K,N) and more of that shape, the sums (K,U) by group."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.flatnonzero(np.diff(inverse[order], prepend=-1))
    sorted_ = [x[:, order] for x in (weights, *also)]
    if len(starts) == len(order):  # no ties, nothing to sum
        return inverse, sorted_
    return inverse, [np.add.reduceat(x, starts, axis=1) for x in sorted_]


def _midranks(values: Floats, weights: Floats) -> Floats:
    """Weighted mid-ranks (K,N): weight below plus half the weight of the tie."""
    inverse, (mass,) = _groups(values, weights)
    return (np.cumsum(mass, 1) - mass / 2)[:, inverse]


def weighted_spearman(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Spearman's ρ (K,) of x and y (N,) with mid-ranks under weights (K,N); NaN where one of them is constant."""
    if len(x) == 0:
        return np.full(len(weights), np.nan)
    total = weights.sum(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (r - (weights * r).sum(1, keepdims=True) / total for r in (_midranks(x, weights), _midranks(y, weights)))
        cov, va, vb = ((weights * u * v).sum(1) for u, v in ((a, b), (a, a), (b, b)))
        tiny = 1e-12 * total[:, 0] ** 3  # variance of ranks that is rounding only
        return np.where((va > tiny) & (vb > tiny), np.clip(cov / np.sqrt(va * vb), -1, 1), np.nan)


def weighted_auroc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the ROC curve (K,), ties count one half; NaN where a class has no weight."""
    if len(scores) == 0:
        return np.full(len(weights), np.nan)
    _, (pos, neg) = _groups(scores, weights * positive, weights * ~positive)
    won = (pos * (np.cumsum(neg, 1) - neg / 2)).sum(1)
    pairs = pos.sum(1) * neg.sum(1)
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)


def weighted_aurc(uncertainty: Floats, risk: Floats, weights: Floats) -> Floats:
    """Area under the risk-coverage curve (K,): mean over images of the mean risk of all that are as sure or surer.

    Images of equal uncertainty are accepted together.
    """
    if len(risk) == 0:
        return np.full(len(weights), np.nan)
    _, (mass, loss) = _groups(uncertainty, weights, weights * risk)
    cover, total = np.cumsum(mass, 1), mass.sum(1)
    selective = np.cumsum(loss, 1) / np.where(cover > 0, cover, 1)
    return np.where(total > 0, (mass * selective).sum(1) / np.where(total > 0, total, 1), np.nan)


def weighted_eaurc(uncertainty: Floats, risk: Floats, weights: Floats) -> Floats:
    """Excess of the area over that of taking the images one by one in the order of risk (K,), never negative.

    Images of equal risk are not grouped in that order; the lighter ones come first. With unequal weights another order
    may be better by a little (a heavy image late); an excess that would be negative for that is 0.
    """
    if len(risk) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(risk, kind="stable")
    ordered, w = risk[order], weights[:, order]
    for start, end in pairwise([*np.flatnonzero(np.diff(ordered, prepend=np.nan)), len(ordered)]):
        if end - start > 1:
            w[:, start:end] = np.sort(w[:, start:end], axis=1)
    cover, total = np.cumsum(w, 1), w.sum(1)
    selective = np.cumsum(w * ordered, 1) / np.where(cover > 0, cover, 1)
    best = np.where(total > 0, (w * selective).sum(1) / np.where(total > 0, total, 1), np.nan)
    return np.maximum(weighted_aurc(uncertainty, risk, weights) - best, 0.0)


def weighted_augrc(uncertainty: Floats, risk: Floats, weights: Floats) -> Floats:
    """Area under the generalised risk-coverage curve (K,): risk of the accepted over all images, trapezoids."""
    if len(risk) == 0:
        return np.full(len(weights), np.nan)
    _, (mass, loss) = _groups(uncertainty, weights, weights * risk)
    total = mass.sum(1)
    area = (mass * (np.cumsum(loss, 1) - loss / 2)).sum(1)
    return np.where(total > 0, area / np.where(total > 0, total, 1) ** 2, np.nan)
