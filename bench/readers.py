"""How far the readers of a data set agree: pair by pair, in whether they mark, where, how much, and in which cases."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench import stats
from bench.report.readers import FIGURES, LIMITS, Study
from bench.stats import Estimate
from uqseg.data import AnnotatedSet

BATCH = 64
Floats = NDArray[np.float64]


def study(data: AnnotatedSet, common: Floats | None = None) -> Study:
    """Compare the readers of a set. Intervals are over patients, from stats.FEWEST patients on.

    common: its `overlaps`, where they are known; to read all masks takes longest.
    """
    common = overlaps(data) if common is None else common
    pixels = np.diagonal(common, axis1=1, axis2=2)
    known = bool(np.isfinite(data.spacing).all())
    areas = np.where(data.read, pixels * (data.spacing.astype(float).prod(1, keepdims=True) if known else 1.0), np.nan)
    places = list(combinations(range(data.readers), 2))
    points, draws, seen = of_pairs(data, common, places)
    overall = {name: _mean(points[name], draws[name], int(seen[name].any(1).sum())) for name in FIGURES}
    pairs = {
        pair: {
            name: stats.estimate(float(points[name][i]), draws[name][:, i], int(seen[name][:, i].sum()))
            for name in FIGURES
        }
        for i, pair in enumerate(places)
    }
    persons = data.readers_are_persons
    biases, differences = _biases(data, areas) if persons else (pd.DataFrame(), {})
    drawn = np.where(areas > 0, areas, np.nan)
    readers = pd.DataFrame(
        {"reader": data.reader_names, "read": data.read.sum(0), "marked": (areas > 0).sum(0),
         "area": [np.nanmean(x) if np.isfinite(x).any() else np.nan for x in drawn.T]}
    )  # fmt: skip
    cases = _cases(data, common, areas, places)
    unit = "mm²" if known else "pixels"
    names = data.reader_names
    return Study(names, persons, readers, overall, pairs if persons else {}, biases, differences, cases, unit)


def overlaps(data: AnnotatedSet) -> Floats:
    """Pixels that two readers both marked (N,R,R); on the diagonal what each one marked."""
    common = np.zeros((len(data), data.readers, data.readers))
    for start in range(0, len(data), BATCH):
        part = slice(start, start + BATCH)
        flat = np.asarray(data.masks[part]).reshape(-1, data.readers, data.masks.shape[2] * data.masks.shape[3])
        flat = flat.astype(np.float32)  # counts are exact up to 2²⁴ pixels
        common[part] = flat @ flat.transpose(0, 2, 1)
    return common


def of_pairs(
    data: AnnotatedSet, common: Floats, places: Sequence[tuple[int, int]]
) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, NDArray[np.bool_]]]:
    """Each of FIGURES of every pair (P,), its resamples (K,P), and of which patients it is, (N,P)."""
    i, j = np.array(places, int).reshape(-1, 2).T
    both = data.read[:, i] & data.read[:, j]
    a, b, shared = common[:, i, i], common[:, j, j], common[:, i, j]
    drew = both & (a > 0) & (b > 0)
    total = data.masks.shape[2] * data.masks.shape[3]
    union = np.where(drew, a + b - shared, 1)
    parts = {
        "both": both, "drew": drew,
        "dice": np.where(drew, 2 * shared / np.where(drew, a + b, 1), 0), "iou": np.where(drew, shared / union, 0),
        "pixels": both * total, "a": both * a, "b": both * b, "shared": both * shared,
        "has_a": both & (a > 0), "has_b": both & (b > 0),
    }  # fmt: skip
    weights, codes = stats.patient_weights(data.table["patient"].tolist(), stats.RESAMPLES)
    weights = np.concatenate([np.ones((1, weights.shape[1])), weights])  # the first row: every patient once
    sums, seen = {}, {}
    for name, values in parts.items():
        of_patients = np.zeros((weights.shape[1], len(places)))
        np.add.at(of_patients, codes, values.astype(float))
        sums[name], seen[name] = weights @ of_patients, of_patients > 0
    figures = {
        "dice": _ratio(sums["dice"], sums["drew"]),
        "iou": _ratio(sums["iou"], sums["drew"]),
        "kappa": kappa(sums["shared"], sums["a"], sums["b"], sums["pixels"]),
        "presence": _ratio(sums["both"] - sums["has_a"] - sums["has_b"] + 2 * sums["drew"], sums["both"]),
        "presence_kappa": kappa(sums["drew"], sums["has_a"], sums["has_b"], sums["both"]),
    }
    counted = {n: seen["drew" if n in ("dice", "iou") else "both"] for n in figures}
    return {n: x[0] for n, x in figures.items()}, {n: x[1:] for n, x in figures.items()}, counted


def kappa(both: Floats, a: Floats, b: Floats, n: Floats) -> Floats:
    """Cohen's kappa of two who say yes `a` and `b` times of n, `both` at once; NaN where one answer is all there is."""
    observed = _ratio(n - a - b + 2 * both, n)
    chance = _ratio(a * b + (n - a) * (n - b), n**2)
    return _ratio(observed - chance, 1 - chance)


def _ratio(x: Floats, y: Floats) -> Floats:
    return x / np.where(np.abs(y) > 1e-12, y, np.nan)


def _mean(point: Floats, draws: Floats, patients: int) -> Estimate:
    """The mean over those pairs that have a value."""
    pairs = np.isfinite(point)
    if not pairs.any():
        return Estimate(np.nan, np.nan, np.nan)
    return stats.estimate(float(point[pairs].mean()), draws[:, pairs].mean(1), patients)


def _biases(data: AnnotatedSet, areas: Floats) -> tuple[pd.DataFrame, dict[str, tuple[Floats, Floats]]]:
    """Each reader's areas less the mean of the others', over the cases where they and another drew anything."""
    rows, behind = [], {}
    drawn = np.where(areas > 0, areas, 0)
    for r, name in enumerate(data.reader_names):
        others = np.delete(drawn, r, axis=1)
        count = (others > 0).sum(1)
        kept = (drawn[:, r] > 0) & (count > 0)
        rest = others[kept].sum(1) / count[kept]
        difference = drawn[kept, r] - rest
        behind[name] = (drawn[kept, r] + rest) / 2, difference
        if not kept.any():
            continue
        weights, codes = stats.patient_weights(data.table["patient"][kept].tolist(), stats.RESAMPLES)
        sums, counts = (np.bincount(codes, x) for x in (difference, np.ones(len(difference))))
        bias = stats.estimate(float(difference.mean()), weights @ sums / (weights @ counts), weights.shape[1])
        spread = LIMITS * difference.std()
        rows.append((name, int(kept.sum()), *bias, bias.value - spread, bias.value + spread))
    return pd.DataFrame(rows, columns=["reader", "cases", "bias", "low", "high", "below", "above"]), behind


def _cases(data: AnnotatedSet, common: Floats, areas: Floats, places: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """case, patient, split, read, marked, dispute, dice and each area; the most disputed first, undefined ones last.

    dispute: mean of 1 − IoU over the pairs that read the case, two empty answers being equal. dice: mean where both
    drew.
    """
    i, j = np.array(places, int).reshape(-1, 2).T
    both = data.read[:, i] & data.read[:, j]
    a, b, shared = common[:, i, i], common[:, j, j], common[:, i, j]
    union, drew = a + b - shared, both & (a > 0) & (b > 0)
    apart = np.where(union > 0, 1 - shared / np.where(union > 0, union, 1), 0)
    dice = np.where(drew, 2 * shared / np.where(drew, a + b, 1), 0)
    table = data.table[["case", "patient", "split"]].assign(
        read=data.read.sum(1),
        marked=(areas > 0).sum(1),
        dispute=_ratio((apart * both).sum(1), both.sum(1)),
        dice=_ratio(dice.sum(1), drew.sum(1)),
        **{f"area {name}": areas[:, r] for r, name in enumerate(data.reader_names)},
    )
    return table.sort_values(["dispute", "case"], ascending=[False, True], ignore_index=True)


def most_disputed(data: AnnotatedSet, studied: Study, count: int) -> AnnotatedSet:
    """At most `count` cases about which the readers differ at all, the most disputed first."""
    names = studied.cases.loc[studied.cases["dispute"] > 0, "case"].head(count)
    return data.take(pd.Index(data.table["case"]).get_indexer(names.tolist()))
