"""Rank statistics over images, for K sets of image weights at once: Spearman, AUROC, risk-coverage areas."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _running(values: Floats, weights: Floats, *factors: NDArray[Any]) -> tuple[NDArray[np.intp], list[Floats]]:
    """Place (N,) of each value's tie group, ascending, and the sums (K,U) up to the end of each group of the products
    of weights (K,N) with factors (N,)."""
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    ends = np.flatnonzero(np.diff(inverse[order], append=len(order)))
    ordered = weights.take(order, 1)
    sums = [np.cumsum(ordered * factor[order], 1) for factor in factors]
    return inverse, sums if len(ends) == len(order) else [x.take(ends, 1) for x in sums]


def _before(sums: Floats) -> Floats:
    """Of sums (K,U) up to each group those up to the one before, 0 for the first."""
    return np.pad(sums[:, :-1], ((0, 0), (1, 0)))


def _product(x: Floats, y: Floats) -> Floats:
    """Sums (K,) over each row of the products of x and y (K,U)."""
    product: Floats = np.einsum("kn,kn->k", x, y)
    return product


def _midranks(values: Floats, weights: Floats) -> Floats:
    """Weighted mid-ranks (K,N): weight below plus half the weight of the tie."""
    inverse, (upto,) = _running(values, weights, np.ones(len(values)))
    return ((_before(upto) + upto) / 2).take(inverse, 1)


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
    return _auroc(*_running(scores, weights, positive, ~positive)[1])


def failure_areas(uncertainty: Floats, risk: Floats, weights: Floats) -> Floats:
    """Four areas of images accepted in the order of their uncertainty (N,), the surest first, equal ones together.

    Columns of (K,4): AURC, the mean over images of the mean risk of all that are as sure or surer; its excess over that
    of taking the images one by one in the order of risk, never negative; AUGRC, the area under the risk of the accepted
    over all images, by trapezoids; the AUROC of the uncertainty for a risk above one half. NaN where undefined.
    """
    if len(risk) == 0:
        return np.full((len(weights), 4), np.nan)
    _, (cover, loss, failed) = _running(uncertainty, weights, np.ones(len(risk)), risk, risk > 0.5)
    total, area = cover[:, -1], _aurc(cover, loss)
    augrc = _product(np.diff(cover, prepend=0), _before(loss) + loss) / 2
    return np.stack(
        [
            area,
            np.maximum(area - _least_aurc(risk, weights), 0.0),
            np.where(total > 0, augrc / np.where(total > 0, total, 1) ** 2, np.nan),
            _auroc(failed, cover - failed),
        ],
        axis=1,
    )


def _auroc(positive: Floats, negative: Floats) -> Floats:
    """Area (K,) of the weights of both classes (K,U) up to each group."""
    won = _product(np.diff(positive, prepend=0), _before(negative) + negative) / 2
    pairs = positive[:, -1] * negative[:, -1]
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)


def _aurc(cover: Floats, loss: Floats) -> Floats:
    """Mean (K,), by weight, of the selective risk loss / cover, of both (K,U) up to each group."""
    total = cover[:, -1]
    selective = loss / np.where(cover > 0, cover, 1)
    return np.where(total > 0, _product(np.diff(cover, prepend=0), selective) / np.where(total > 0, total, 1), np.nan)


def _least_aurc(risk: Floats, weights: Floats) -> Floats:
    """AURC (K,) of taking the images one by one in the order of risk.

    Images of equal risk are not grouped in that order; the lighter ones come first. With unequal weights another order
    may be better by a little (a heavy image late).
    """
    order = np.argsort(risk, kind="stable")
    ordered, w = risk[order], weights.take(order, 1)
    for start, end in pairwise([*np.flatnonzero(np.diff(ordered, prepend=np.nan)), len(ordered)]):
        if end - start > 1:
            w[:, start:end] = np.sort(w[:, start:end], axis=1)
    return _aurc(np.cumsum(w, 1), np.cumsum(w * ordered, 1))
