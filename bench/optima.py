"""The best that each figure can be where the distribution of the readers' masks is known: closed forms, enumeration.

Masks bool (N,K,H,W) and probabilities float64 (N,K) are the distribution of a reader's mask, R readers draw from it.
Every function gives expected values of images, float64 (N,), by the name of the figure that they are the optimum of.
Written from the formulas, without the code that measures.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from uqseg.metrics.threshold import THRESHOLDS

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
CLIP = 1e-6  # of the log-likelihoods


def overlaps(masks: Masks) -> tuple[Floats, Floats, Floats]:
    """IoU and Dice of all pairs, 1 for two empty masks: (N,K,K); areas in pixels (N,K)."""
    flat = masks.reshape(*masks.shape[:2], -1).astype(np.float64)
    both = flat @ flat.swapaxes(1, 2)
    area = flat.sum(2)
    total = area[:, :, None] + area[:, None]
    empty = total == 0
    iou, dice = (np.where(empty, 1.0, top / np.where(empty, 1, below)) for top, below in
                 ((both, total - both), (2 * both, total)))  # fmt: skip
    return iou, dice, area


def multisets(p: Floats, n: int) -> tuple[NDArray[np.intp], Floats]:
    """All M unordered outcomes of n draws among K kinds, (M,n), and the probability of each in every image, (N,M)."""
    drawn = np.array(list(combinations_with_replacement(range(p.shape[1]), n)))
    ways = [factorial(n) / np.prod([factorial(c) for c in np.bincount(row)]) for row in drawn]
    return drawn, np.array(ways) * p[:, drawn].prod(2)


def best_match(dice: Floats, p: Floats, n: int) -> Floats:
    """Expected largest Dice of one draw with n others, by enumeration."""
    drawn, chance = multisets(p, n)
    return np.asarray(np.einsum("nk,nkm,nm->n", p, dice[:, :, drawn].max(3), chance))


def matched(overlap: Floats, p: Floats, n: int) -> Floats:
    """Expected mean overlap, IoU or Dice, of n draws assigned to n others so that it is largest, over all outcomes and
    all n! assignments."""
    drawn, chance = multisets(p, n)
    best = np.zeros((len(overlap), len(drawn), len(drawn)))
    for order in permutations(range(n)):
        pairs = [overlap[:, drawn[:, None, s], drawn[None, :, t]] for s, t in enumerate(order)]
        best = np.maximum(best, np.mean(pairs, axis=0))
    return np.asarray(np.einsum("na,nab,nb->n", chance, best, chance))


def soft_dice(masks: Masks, p: Floats, mean: Floats, readers: int) -> Floats:
    """Expected mean Dice over five thresholds of mean (N,H,W) and the fraction of R readers, by enumeration."""
    drawn, chance = multisets(p, readers)
    expected = np.zeros(len(p))
    for outcome, weight in zip(drawn, chance.T, strict=True):
        fraction = masks[:, outcome].sum(1) / np.float32(readers)
        for t in np.array(THRESHOLDS, np.float32):
            a, b = mean.astype(np.float32) >= t, fraction >= t
            total = a.sum((1, 2)) + b.sum((1, 2))
            both = 2.0 * (a & b).sum((1, 2))
            expected += weight * np.where(total > 0, both / np.where(total > 0, total, 1), 1.0) / len(THRESHOLDS)
    return expected


def _shared(masks: Masks, p: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The mean map (N,H,W); (N,): E d of two masks, the variance of a pixel, E |area − area'|."""
    iou, _, area = overlaps(masks)
    mean = np.einsum("nk,nkhw->nhw", p, masks)
    distance = np.einsum("nk,nkl,nl->n", p, 1 - iou, p)
    spread = np.einsum("nk,nkl,nl->n", p, np.abs(area[:, :, None] - area[:, None]), p)
    return mean, distance, (mean * (1 - mean)).mean((1, 2)), spread


def of_distribution(masks: Masks, p: Floats, readers: int) -> dict[str, Floats]:
    """Optima where the prediction is the whole distribution, each mask with its probability as weight."""
    _, dice, area = overlaps(masks)
    mean, distance, variance, spread = _shared(masks, p)
    marked = (p * (area > 0)).sum(1)
    clipped = mean.clip(CLIP, 1 - CLIP)
    log = np.log(np.where(p > 0, p, 1)) + masks[0, 0].size * np.log1p(-CLIP)
    both = np.concatenate([masks, (mean >= 0.5)[:, None]], 1)
    return {
        "brier": variance,
        "brier_excess": variance / readers,
        "nll": -(mean * np.log(clipped) + (1 - mean) * np.log1p(-clipped)).mean((1, 2)),
        "nll_joint": -(p * log).sum(1),
        "presence_brier": marked * (1 - marked),
        "area_crps": spread / 2,
        "dice_image@0.5": (p * overlaps(both)[1][:, -1, :-1]).sum(1),
        "soft_dice": soft_dice(masks, p, mean, readers),
        "ged": distance / readers,
        "ged_cross": 2 * distance,
        "ged_limit": distance / readers,
        "diversity_unbiased": distance,
        "coverage": np.ones(len(p)),
        "validity": best_match(dice, p, readers),
    }


def of_draws(masks: Masks, p: Floats, readers: int) -> dict[str, Floats]:
    """Optima where the prediction is as many independent draws as there are readers."""
    iou, dice, area = overlaps(masks)
    _, distance, variance, spread = _shared(masks, p)
    marked = (p * (area > 0)).sum(1)
    n = readers
    return {
        "brier": variance * (1 + 1 / n),
        "brier_excess": variance * (1 / n + 1 / readers),
        "presence_brier": marked * (1 - marked) * (1 + 1 / n),
        "area_crps": spread / 2,  # in its fair form
        "ged": distance * (1 / n + 1 / readers),
        "ged_cross": 2 * distance,
        "ged_samples": distance * (1 - 1 / n),
        "ged_readers": distance * (1 - 1 / readers),
        "ged_limit": distance / readers,
        "ged_limit_misfit": np.zeros(len(p)),
        "ged_limit_spread": distance / readers,
        "ged_unbiased": np.zeros(len(p)),
        "ged_presence_excess": np.zeros(len(p)),
        "diversity_unbiased": distance,
        "hm_iou": matched(iou, p, n),
        "dice_match": matched(dice, p, n),
        "coverage": best_match(dice, p, n),
        "validity": best_match(dice, p, readers),
    }
