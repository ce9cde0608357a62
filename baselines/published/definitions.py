"""What papers compute under the names of this project's figures: each other definition as a small function.

Written from the released code, whose repository, file and commit stand in DEFINITIONS. Every function takes
probabilities float (N,S,H,W), equally weighted, and masks bool (N,R,H,W) of readers who all read every image, and gives
a value for each image, float64 (N,), NaN where undefined, or one for all images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from uqseg.metrics import figure, score
from uqseg.metrics.registry import Drawn
from uqseg.metrics.threshold import THRESHOLDS

Floats = NDArray[np.float64]
Probabilities = NDArray[np.floating]
Masks = NDArray[np.bool_]
BINS = 15
CHUNK = 64  # images whose pairs are counted at once


def counts(a: Masks, b: Masks) -> tuple[Floats, Floats]:
    """Pixels in common, and pixels of both together, of all pairs of sets (N,A,H,W) and (N,B,H,W): (N,A,B) each."""
    common, total = [], []
    for start in range(0, len(a), CHUNK):
        x, y = (s[start : start + CHUNK].reshape(*s[start : start + CHUNK].shape[:2], -1).astype(np.float32)
                for s in (a, b))  # fmt: skip
        common.append(np.einsum("nap,nbp->nab", x, y, optimize=True))
        total.append(x.sum(2)[:, :, None] + y.sum(2)[:, None])
    return np.concatenate(common).astype(float), np.concatenate(total).astype(float)


def quotient(top: Floats, below: Floats, empty: float) -> Floats:
    """top / below, `empty` where that is 0."""
    return np.where(below > 0, top / np.where(below > 0, below, 1), empty)


def iou(a: Masks, b: Masks, empty: float) -> Floats:
    """Of all pairs (N,A,B), `empty` for two empty sets."""
    common, total = counts(a, b)
    return quotient(common, total - common, empty)


def dice(a: Masks, b: Masks, empty: float) -> Floats:
    """Of all pairs (N,A,B), `empty` for two empty sets."""
    common, total = counts(a, b)
    return quotient(2 * common, total, empty)


def energy(distance: Callable[[Masks, Masks], Floats], prob: Probabilities, masks: Masks) -> Floats:
    """2 E d(h,y) − E d(h,h') − E d(y,y') of a function that gives the mean distance of two sets of masks, (N,)."""
    h = prob >= 0.5
    return 2 * distance(h, masks) - distance(h, h) - distance(masks, masks)


def ged(prob: Probabilities, masks: Masks) -> Floats:
    """V-statistics, d(∅,∅) = 0."""
    return energy(lambda a, b: 1 - iou(a, b, 1.0).mean((1, 2)), prob, masks)


def ged_of_far_empty_sets(prob: Probabilities, masks: Masks) -> Floats:
    """An ε in the denominator alone makes the IoU of two empty sets 0, so d(∅,∅) = 1."""
    return energy(lambda a, b: 1 - iou(a, b, 0.0).mean((1, 2)), prob, masks)


def ged_without_diagonals(prob: Probabilities, masks: Masks) -> Floats:
    """U-statistics on both sides, d(∅,∅) = 0; NaN for one sample or one reader."""

    def distance(a: Masks, b: Masks) -> Floats:
        d, n = 1 - iou(a, b, 1.0), a.shape[1]
        pairs = n * (n - 1) if a is b else d[0].size  # the diagonal adds 0
        return d.sum((1, 2)) / pairs if pairs else np.full(len(d), np.nan)

    return energy(distance, prob, masks)


def ged_pooled(prob: Probabilities, masks: Masks) -> Floats:
    """1 − Dice for the distance, its counts summed over all pairs first; 1 where all sets are empty."""

    def distance(a: Masks, b: Masks) -> Floats:
        common, total = (x.sum((1, 2)) for x in counts(a, b))
        return 1 - quotient(2 * common, total, 0.0)

    return energy(distance, prob, masks)


def ged_out_of_step(prob: Probabilities, masks: Masks) -> Floats:
    """Pairs taken from both sets repeated in turn: all of them where S = R, elsewhere some of them several times."""

    def distance(a: Masks, b: Masks) -> Floats:
        n, m = a.shape[1], b.shape[1]
        i, j = np.indices((n, m))
        return np.asarray(1 - iou(a, b, 1.0)[:, (i * m + j) % n, (j * n + i) % m].mean((1, 2)))

    return energy(distance, prob, masks)


def ged_without_empty_pairs(prob: Probabilities, masks: Masks) -> Floats:
    """d(∅,∅) = NaN: left out among readers, and undefined for an image with an empty sample."""
    h = prob >= 0.5
    cross, own, readers = (1 - iou(a, b, np.nan) for a, b in ((h, masks), (h, h), (masks, masks)))
    known = np.isfinite(readers)
    theirs = quotient(np.where(known, readers, 0).sum((1, 2)), known.sum((1, 2)).astype(float), np.nan)
    return np.asarray(2 * cross.mean((1, 2)) - own.mean((1, 2)) - theirs)


def hm_iou_rectangular(prob: Probabilities, masks: Masks) -> Floats:
    """Optimal assignment on the S×R matrix itself: where S > R each reader gets its best sample, the others none."""
    gains = iou(prob >= 0.5, masks, 1.0)
    return np.array([g[linear_sum_assignment(g, maximize=True)].mean() for g in gains])


def coverage_with_empty_at_0(prob: Probabilities, masks: Masks) -> Floats:
    """Mean over readers of the best Dice among samples, Dice(∅,∅) = 0."""
    return np.asarray(dice(prob >= 0.5, masks, 0.0).max(1).mean(1))


def validity_with_empty_at_0(prob: Probabilities, masks: Masks) -> Floats:
    """Mean over samples of the best Dice among readers, Dice(∅,∅) = 0."""
    return np.asarray(dice(prob >= 0.5, masks, 0.0).max(2).mean(1))


def dice_above(prob: Probabilities, masks: Masks, threshold: float) -> Floats:
    """Dice of [p̄ > t] and [ȳ > t], Dice(∅,∅) = 1."""
    mean, fraction = prob.mean(1, dtype=float).astype(np.float32), masks.mean(1, dtype=float).astype(np.float32)
    t = np.float32(threshold)
    return dice((mean > t)[:, None], (fraction > t)[:, None], 1.0)[:, 0, 0]


def soft_dice_above(prob: Probabilities, masks: Masks) -> Floats:
    """Mean over five thresholds of the Dice of [p̄ > t] and [ȳ > t]."""
    return np.asarray(np.mean([dice_above(prob, masks, t) for t in THRESHOLDS], axis=0))


def majority_dice_above(prob: Probabilities, masks: Masks) -> Floats:
    """Dice of [p̄ > 0.5] with the majority [ȳ > 0.5]: two of four readers make no lesion."""
    return dice_above(prob, masks, 0.5)


def ncc_of_raised_probabilities(prob: Probabilities, masks: Masks) -> Floats:
    """Correlation over pixels of the cross-entropies of p̄ and of each reader, log(p + 1e-8); mean over readers."""
    p = prob.astype(float)
    yes, no = np.log(p + 1e-8).mean(1), np.log(1 - p + 1e-8).mean(1)
    own = -(p.mean(1) * yes + (1 - p.mean(1)) * no)
    others = -np.where(masks, yes[:, None], no[:, None])
    x, y = (v - v.mean((-2, -1), keepdims=True) for v in (own[:, None], others))
    scale = np.sqrt((x**2).sum((-2, -1)) * (y**2).sum((-2, -1)))
    return np.asarray(quotient((x * y).sum((-2, -1)), scale, np.nan).mean(1))


def ece_per_image(prob: Probabilities, masks: Masks) -> Floats:
    """ECE in 15 bins of equal width, of each image by itself."""
    mean, fraction = prob.mean(1, dtype=float), masks.mean(1, dtype=float)
    index = np.minimum((mean * BINS).astype(int), BINS - 1)
    gaps = [np.abs(((mean - fraction) * (index == b)).sum((1, 2))) for b in range(BINS)]
    return np.asarray(np.sum(gaps, axis=0) / mean[0].size)


def entropy(prob: Probabilities) -> Floats:
    """Entropy of the mean in nats (N,H,W), 0 log 0 = 0."""
    p = prob.mean(1, dtype=float).clip(0, 1)
    return np.asarray(-sum(q * np.log(np.where(q > 0, q, 1)) for q in (p, 1 - p)))


def risk(prob: Probabilities, masks: Masks) -> Floats:
    """1 − Dice of [p̄ ≥ 0.5] with each reader, mean over the readers: (N,)."""
    cut = prob.mean(1, keepdims=True, dtype=float).astype(np.float32) >= 0.5
    return np.asarray(1 - dice(cut, masks, 1.0).mean((1, 2)))


def aurc_of_trapezoids(prob: Probabilities, masks: Masks) -> float:
    """Trapezoids under the mean risk of the k surest, between k = 1 and k = N; the first 1/N adds nothing."""
    order = np.argsort(entropy(prob).mean((1, 2)), kind="stable")
    selective = np.cumsum(risk(prob, masks)[order]) / np.arange(1, len(order) + 1)
    return float((selective[1:] + selective[:-1]).sum() / 2 / len(order))


def augrc_from_first(prob: Probabilities, masks: Masks) -> float:
    """Trapezoids under the risk of the k surest over N, from k = 1 on, over 1 − 1/N; ties in any order."""
    order = np.argsort(entropy(prob).mean((1, 2)), kind="stable")
    n = len(order)
    joint = np.cumsum(risk(prob, masks)[order]) / n
    return float((joint[1:] + joint[:-1]).sum() / 2 / (n - 1)) if n > 1 else np.nan


def aurc_above_one_threshold(prob: Probabilities, masks: Masks) -> float:
    """AURC by the mean of the uncertainty above one threshold for all images: the quantile, over all their pixels, of
    the mean share of background in a sample; 0 for an image that has nothing above it."""
    uncertainty = entropy(prob).reshape(len(prob), -1)
    threshold = np.quantile(uncertainty, 1 - (prob >= 0.5).mean())
    above = uncertainty >= threshold
    by = quotient((uncertainty * above).sum(1), above.sum(1).astype(float), 0.0)
    order = np.argsort(by, kind="stable")
    selective = np.cumsum(risk(prob, masks)[order]) / np.arange(1, len(order) + 1)
    return float(selective.mean())


class Definition(NamedTuple):
    """figure: this project's of the same name; text: how it differs; whose: the code, its file and commit."""

    figure: str
    text: str
    whose: str
    function: Callable[[Probabilities, Masks], Floats | float]


_PERSONA = "D-Persona (lib/metrics_set.py, 7d83ed2)"
_VALUES = "ValUES (83c9588)"
DEFINITIONS = (
    Definition("ged", "d(∅,∅) = 1, by an ε in the denominator alone", _PERSONA, ged_of_far_empty_sets),
    Definition("ged", "without the diagonals of both sides", f"{_PERSONA}, its second form", ged_without_diagonals),
    Definition("ged", "1 − Dice, its counts pooled over all pairs", _VALUES, ged_pooled),
    Definition("ged", "pairs out of step where S ≠ R", "cFlow (utils/utils.py, 79caf3c)", ged_out_of_step),
    Definition("ged", "undefined where two empty masks meet",
               "Prob. U-Net for Cityscapes (evaluation/eval_cityscapes.py, 2238bdf), with one class",
               ged_without_empty_pairs),
    Definition("hm_iou", "assignment on the S×R matrix, the other samples unmatched",
               "Flow-SSN (flowssn/eval/metrics.py, d587c56)", hm_iou_rectangular),
    Definition("coverage", "Dice(∅,∅) = 0", _VALUES, coverage_with_empty_at_0),
    Definition("validity", "Dice(∅,∅) = 0", _VALUES, validity_with_empty_at_0),
    Definition("soft_dice", "> for both maps", f"{_PERSONA}, BerDiff", soft_dice_above),
    Definition("dice_image_majority@0.5", "> for both maps", _PERSONA, majority_dice_above),
    Definition("ncc_samples", "log(p + 1e-8) in place of clipping", "PHiSeg (utils.py, 788d26e)",
               ncc_of_raised_probabilities),
    Definition("ece", "of each image, then the mean", "MONAI (metrics/calibration.py, 0688959), ValUES", ece_per_image),
    Definition("aurc_mean", "trapezoids, the first 1/N left out",
               "ValUES (evaluation/metrics/aurc.py, 1294593), after fd-shifts", aurc_of_trapezoids),
    Definition("augrc_mean", "from coverage 1/N on, over 1 − 1/N", "torch-uncertainty (risk_coverage.py, d084675)",
               augrc_from_first),
    Definition("aurc_top", "one threshold for the whole data set",
               "ValUES (find_threshold.py, 1332653; aggregate_uncertainties.py, 4ac243b)", aurc_above_one_threshold),
)  # fmt: skip


def compared(prob: Probabilities, masks: Masks, drawn: Drawn) -> pd.DataFrame:
    """The same samples under this project's definition of each figure and under the others.

    figure, definition, whose, value, and left_out: the images for which it is undefined.
    """
    names = dict.fromkeys(d.figure for d in DEFINITIONS)
    wanted = [figure(name) for name in names]
    scores = score(prob, masks, drawn=drawn, statistics=sorted({s for f in wanted for s in f.statistics}))
    rows = []
    for f in wanted:
        columns = [scores.column(name).reshape(len(scores), -1) for name in f.of]
        missing = int(np.any([np.isnan(x).all(1) for x in columns], axis=0).sum())
        rows.append((f.name, "this project", f.same_as, f.value(scores), missing))
        for definition in (d for d in DEFINITIONS if d.figure == f.name):
            value = np.asarray(definition.function(prob, masks))
            known = np.isfinite(value)
            mean = float(value[known].mean()) if known.any() else np.nan
            rows.append((f.name, definition.text, definition.whose, mean, int((~known).sum())))
    return pd.DataFrame(rows, columns=["figure", "definition", "whose", "value", "left_out"])
