"""Intervals, paired differences and ranks: percentile bootstrap over patients, repetitions as a second level."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from uqseg.metrics.metric import Figure
from uqseg.seeds import seed_of

Floats = NDArray[np.float64]
LEVEL = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Bootstrap:
    """Figures of M methods with their resamples: point (M,F) and draws (M,K,F), NaN where undefined.

    left_out (M,F): images of all repetitions for which a column of the figure is undefined.
    """

    labels: list[str]
    figures: list[Figure]
    point: Floats
    draws: Floats
    patients: int
    images: int
    repetitions: dict[str, int]
    left_out: NDArray[np.int64]

    def column(self, figure: str) -> int:
        """The place of the figure called `figure`."""
        return [f.name for f in self.figures].index(figure)


def patient_weights(patients: Sequence[str], resamples: int, seed: int = 0) -> tuple[Floats, NDArray[np.intp]]:
    """How often each of P patients is drawn in each of K resamples, float64 (K,P), and the patient of each image (N,).

    The draws depend on the set of patients and the seed alone, so that all methods share them.
    """
    codes, names = pd.factorize(pd.Series(list(patients)), sort=True)
    rng = np.random.default_rng(seed_of("bootstrap", seed, *names))
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return drawn.astype(np.float64), codes.astype(np.intp)


def repetition_weights(label: str, repetitions: int, resamples: int, seed: int = 0) -> Floats:
    """The share of each of L repetitions in each resample: float64 (K,L), rows summing to 1."""
    rng = np.random.default_rng(seed_of("repetitions", seed, label))
    drawn = rng.multinomial(repetitions, np.full(repetitions, 1 / repetitions), size=resamples)
    return drawn / repetitions


def _all_figures(
    table: pd.DataFrame, figures: Sequence[Figure], weights: Floats, codes: NDArray[np.intp], of_images: Floats
) -> tuple[Floats, Floats]:
    """Every figure of one table: over all images once (F,), and over each resample (K,F).

    weights: (K,P) of patients; of_images: (K+1,N), a row of ones and the weights of the images' patients.
    """
    names = sorted({c for f in figures if f.kind != "across" for c in f.columns})
    values = table[names].to_numpy(np.float64)
    both = np.concatenate([np.nan_to_num(values), np.isfinite(values)], 1)
    per_patient = np.zeros((weights.shape[1], both.shape[1]))
    np.add.at(per_patient, codes, both)
    sums = np.concatenate([per_patient.sum(0, keepdims=True), weights @ per_patient])
    total = {c: sums[:, i] for i, c in enumerate(names)}
    count = {c: sums[:, len(names) + i] for i, c in enumerate(names)}
    found = np.empty((len(weights) + 1, len(figures)))
    for i, f in enumerate(figures):
        if f.kind == "across":
            found[:, i] = f.across({c: table[c].to_numpy(np.float64) for c in f.columns}, of_images)
        else:
            found[:, i] = f.value({c: total[c] for c in f.columns}, {c: count[c] for c in f.columns})
    return found[0], found[1:]


def _left_out(table: pd.DataFrame, figures: Sequence[Figure]) -> NDArray[np.int64]:
    """Images of one table for which a column of each figure is undefined: (F,)."""
    names = sorted({c for f in figures for c in f.columns})
    undefined = dict(zip(names, ~np.isfinite(table[names].to_numpy(np.float64)).T, strict=True))
    return np.array([np.any([undefined[c] for c in f.columns], axis=0).sum() for f in figures], np.int64)


def bootstrap(
    tables: Mapping[str, Sequence[pd.DataFrame]],
    figures: Sequence[Figure],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Bootstrap figures of several methods over the same patients.

    tables: per method, one table of per-image columns (with case and patient) a repetition, all of the same cases.
    ValueError where the cases differ.
    """
    first = next(iter(tables.values()))[0]
    for label, repetitions in tables.items():
        for table in repetitions:
            if table["case"].tolist() != first["case"].tolist():
                raise ValueError(f"tables: '{label}' was scored on other cases than the rest")
    weights, codes = patient_weights(first["patient"].tolist(), resamples, seed)
    of_images = np.concatenate([np.ones((1, len(codes))), weights[:, codes]])
    work = [(label, table) for label, repetitions in tables.items() for table in repetitions]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:  # NumPy lets go of the lock
        done = list(threads.map(lambda w: _all_figures(w[1], figures, weights, codes, of_images), work))
    point, draws = [], []
    for label in tables:
        each = [found for (other, _), found in zip(work, done, strict=True) if other == label]
        shares = repetition_weights(label, len(each), resamples, seed)
        point.append(np.mean([p for p, _ in each], axis=0))
        drawn = np.zeros_like(each[0][1])
        for number, (_, values) in enumerate(each):
            drawn += np.where(shares[:, number, None] > 0, values * shares[:, number, None], 0)
        draws.append(drawn)
    return Bootstrap(
        list(tables),
        list(figures),
        np.array(point),
        np.array(draws),
        weights.shape[1],
        len(first),
        {label: len(r) for label, r in tables.items()},
        np.array([np.sum([_left_out(table, figures) for table in r], axis=0) for r in tables.values()]),
    )


def interval(draws: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Percentile interval over the first axis; NaN where no resample is defined."""
    tail = (1 - level) / 2
    defined = np.isfinite(draws).any(0)
    safe = np.where(defined, draws, 0.0)
    low, high = np.nanquantile(safe, [tail, 1 - tail], axis=0)
    return np.where(defined, low, np.nan), np.where(defined, high, np.nan)


def summary(boot: Bootstrap) -> pd.DataFrame:
    """One row a method and figure: method, figure, value, low, high, left_out."""
    rows = []
    for m, label in enumerate(boot.labels):
        low, high = interval(boot.draws[m])
        for f, figure in enumerate(boot.figures):
            rows.append((label, figure.name, boot.point[m, f], low[f], high[f], boot.left_out[m, f]))
    return pd.DataFrame(rows, columns=["method", "figure", "value", "low", "high", "left_out"])


def holm(p: Floats) -> Floats:
    """Holm's step-down adjusted p-values, in the order given; NaN stays NaN and is not counted."""
    adjusted = np.full(len(p), np.nan)
    defined = np.flatnonzero(np.isfinite(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def differences(boot: Bootstrap, figure: str, reference: str, among: Sequence[str] | None = None) -> pd.DataFrame:
    """Paired differences method − reference of one figure: difference, low, high, p, p_holm, tie.

    p is two-sided from the resamples; a tie is a difference whose interval holds 0, or whose Holm-adjusted p is 0.05
    or more: the intervals are each for itself, and among many some miss 0 by chance.
    """
    f, r = boot.column(figure), boot.labels.index(reference)
    others = [label for label in boot.labels if label != reference and (among is None or label in among)]
    rows = []
    for label in others:
        m = boot.labels.index(label)
        drawn = boot.draws[m, :, f] - boot.draws[r, :, f]
        drawn = drawn[np.isfinite(drawn)]
        low, high = interval(drawn[:, None]) if len(drawn) else (np.array([np.nan]), np.array([np.nan]))
        least = min((drawn <= 0).sum(), (drawn >= 0).sum())
        p = min(1.0, 2 * (least + 1) / (len(drawn) + 1)) if len(drawn) else np.nan
        rows.append((label, boot.point[m, f] - boot.point[r, f], float(low[0]), float(high[0]), p))
    table = pd.DataFrame(rows, columns=["method", "difference", "low", "high", "p"])
    table["p_holm"] = holm(table["p"].to_numpy(np.float64))
    # Not < 0.05 rather than >= 0.05: an undefined difference is no difference shown.
    table["tie"] = ~((table["p_holm"] < 1 - LEVEL) & ((table["low"] > 0) | (table["high"] < 0)))
    return table


def best_of(boot: Bootstrap, figure: str, among: Sequence[str]) -> tuple[str | None, list[str]]:
    """The best method by point value among `among`, and those whose paired difference from it is a tie."""
    f = boot.column(figure)
    direction = boot.figures[f].direction
    values = {label: boot.point[boot.labels.index(label), f] for label in among}
    values = {label: v for label, v in values.items() if np.isfinite(v)}
    if direction == "none" or not values:
        return None, []
    best = (min if direction == "lower" else max)(values, key=values.__getitem__)
    against = differences(boot, figure, best, list(values))
    return best, against.loc[against["tie"], "method"].tolist()


def ranks(boot: Bootstrap, figure: str, among: Sequence[str]) -> pd.DataFrame:
    """Bootstrapped ranks of one figure, 1 the best: method, rank (of the values), low, high, first (share, ties split).

    Methods without a value are left out.
    """
    f = boot.column(figure)
    rows = [boot.labels.index(label) for label in among]
    rows = [m for m in rows if np.isfinite(boot.point[m, f])]
    sign = -1 if boot.figures[f].direction == "higher" else 1
    drawn = sign * boot.draws[rows][:, :, f]
    drawn = drawn[:, np.isfinite(drawn).any(0)]
    ranked = rankdata(drawn, axis=0, method="average", nan_policy="omit")
    is_first = drawn == np.nanmin(drawn, axis=0)
    low, high = np.nanquantile(ranked, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return pd.DataFrame(
        {
            "method": [boot.labels[m] for m in rows],
            "rank": rankdata(sign * boot.point[rows, f], method="min").astype(int),
            "low": low,
            "high": high,
            "first": (is_first / is_first.sum(0)).mean(1),
        }
    ).sort_values("rank", ignore_index=True)


def share_of_way(boot: Bootstrap, figure: str, labels: Sequence[str]) -> pd.DataFrame:
    """How far each method is on the way from background (0) to oracle (1): method, share, low, high.

    share = (x − background)/(oracle − background) of one figure, on the same resamples; below 0 is worse than
    background. NaN where the two ends are equal or undefined. ValueError where they are not among the boot's labels.
    """
    for end in ("background", "oracle"):
        if end not in boot.labels:
            raise ValueError(f"boot: expected the yardstick '{end}' among its labels, got {', '.join(boot.labels)}")
    f = boot.column(figure)
    values = np.concatenate([boot.point[:, None, f], boot.draws[:, :, f]], 1)
    background, oracle = values[boot.labels.index("background")], values[boot.labels.index("oracle")]
    way = np.where(oracle != background, oracle - background, np.nan)
    rows = []
    for label in labels:
        share = (values[boot.labels.index(label)] - background) / way
        drawn = share[1:][np.isfinite(share[1:])]
        low, high = interval(drawn[:, None]) if len(drawn) else (np.array([np.nan]), np.array([np.nan]))
        rows.append((label, share[0], float(low[0]), float(high[0])))
    return pd.DataFrame(rows, columns=["method", "share", "low", "high"])
