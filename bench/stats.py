"""Intervals, paired differences and ranks: percentile bootstrap over patients, repetitions as a second level."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.metrics import Figure, Scores
from uqseg.seeds import seed_of

Floats = NDArray[np.float64]
Rows = NDArray[np.bool_]
LEVEL = 0.95
RESAMPLES = 2000
RESAMPLES_PER_COMPARISON = 200  # p cannot fall below 2/(resamples + 1), times the number of comparisons
BLOCK = 64  # resamples whose intermediate results stay in a core's cache
FEWEST = 10  # patients: below this no interval is given
COVERAGE = {10: 0.84, 20: 0.91, 50: 0.91, 176: 0.95}
"""Of so many patients, how often a 95 % interval of a skewed figure held the truth, in 400 simulated data sets each."""
FEW = 50  # patients: below this the report says at its head how far intervals can be trusted
DETECTABLE = 2.8  # standard errors: the difference that a two-sided test at 5 % sees with a chance of 80 %
NOTHING = ("background", "prevalence")  # yardsticks that learned nothing from an image


class Estimate(NamedTuple):
    """A value with its interval; NaN where undefined or, the interval, where there are too few patients."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference: p is two-sided; at the floor no resample lay on the other side of 0, so p is a bound."""

    value: float
    low: float
    high: float
    p: float
    at_floor: bool
    standard_error: float


@dataclass(frozen=True)
class Bootstrap:
    """Figures of M methods with their resamples: point (M,F) and draws (M,K,F), NaN where undefined.

    undefined (M,F): cases of all repetitions for which a statistic of the figure is undefined.
    defined (M,F): patients in whom the figure has a value, of the repetition with the fewest.
    kinds: per method the kind of its samples and their number.
    """

    labels: list[str]
    figures: list[Figure]
    point: Floats
    draws: Floats
    undefined: NDArray[np.int64]
    defined: NDArray[np.int64]
    patients: int
    images: int
    repetitions: dict[str, int]
    kinds: dict[str, tuple[str, int]]

    def figure(self, name: str) -> Figure:
        """The figure of a name."""
        return self.figures[self._columns[name]]

    def values(self, label: str, figure: str) -> tuple[float, Floats]:
        """The value of a figure and its resamples (K,)."""
        m, f = self.labels.index(label), self._columns[figure]
        return float(self.point[m, f]), self.draws[m, :, f]

    def estimate(self, label: str, figure: str) -> Estimate:
        """The value of a figure with its interval."""
        return estimate(*self.values(label, figure), self.fewest(figure, label))

    def fewest(self, figure: str, *labels: str) -> int:
        """Patients in whom a figure has a value, of that of some methods for which they are fewest."""
        return int(self.defined[[self.labels.index(label) for label in labels], self._columns[figure]].min())

    def left_out(self, label: str, figure: str) -> int:
        """Cases, counted in every repetition, that have no value of a figure."""
        return int(self.undefined[self.labels.index(label), self._columns[figure]])

    def difference(self, a: str, b: str, figure: str) -> Difference:
        """a − b of one figure, on the same resamples."""
        (value, drawn), (other, others) = self.values(a, figure), self.values(b, figure)
        drawn = (drawn - others)[np.isfinite(drawn - others)]
        result = estimate(value - other, drawn, self.fewest(figure, a, b))
        if not np.isfinite(result.low):
            return Difference(*result, np.nan, False, np.nan)
        beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
        p = min(1.0, 2 * (beyond + 1) / (len(drawn) + 1))
        return Difference(*result, p, bool(beyond == 0), float(drawn.std()))

    def differences(self, figure: str, reference: str, among: Sequence[str] | None = None) -> pd.DataFrame:
        """Each method − reference: the table of `paired`."""
        others = [m for m in (self.labels if among is None else among) if m != reference]
        return self.paired(figure, {m: (m, reference) for m in others})

    def paired(self, figure: str, pairs: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
        """a − b of each pair: method (the pair's name), difference, low, high, p, p_holm, bound, detectable, verdict.

        p_holm: Holm's correction over the pairs; bound: it rests on a p at the floor and is the most it can be.
        detectable: the difference that would be seen with a chance of 80 %. verdict, of a against b: better or worse
        (higher or lower where neither is better); tie where the interval holds 0 or p_holm is 0.05 or more, for among
        many intervals some miss 0 by chance; "" where undefined.
        """
        rows = np.array([self.difference(a, b, figure) for a, b in pairs.values()], np.float64).reshape(-1, 6)
        difference, low, high, p, floor, error = rows.T
        p_holm = holm(p)
        beyond_doubt = (p_holm < 1 - LEVEL) & ((low > 0) | (high < 0))
        words = {"lower": ("worse", "better"), "higher": ("better", "worse"), "none": ("higher", "lower")}
        above, below = words[self.figure(figure).direction]
        verdict = np.where(beyond_doubt, np.where(difference > 0, above, below), "tie")
        return pd.DataFrame(
            {
                "method": list(pairs),
                "difference": difference,
                "low": low,
                "high": high,
                "p": p,
                "p_holm": p_holm,
                "bound": np.isin(p_holm, p_holm[floor == 1]),
                "detectable": DETECTABLE * error,
                "verdict": np.where(np.isfinite(p_holm), verdict, ""),
            }
        )

    def leader(self, figure: str, among: Sequence[str]) -> str | None:
        """The best method by value; None where none has a value or neither direction is better."""
        direction = self.figure(figure).direction
        values = {label: self.values(label, figure)[0] for label in among}
        values = {label: v for label, v in values.items() if np.isfinite(v)}
        if direction == "none" or not values:
            return None
        return (min if direction == "lower" else max)(values, key=values.__getitem__)

    def best(self, figure: str, among: Sequence[str]) -> tuple[str | None, list[str]]:
        """The best method by value, and those whose paired difference from it is a tie."""
        best = self.leader(figure, among)
        if best is None:
            return None, []
        table = self.differences(figure, best, [m for m in among if np.isfinite(self.values(m, figure)[0])])
        return best, table.loc[table["verdict"] == "tie", "method"].tolist()

    def learned(self, label: str, figure: str) -> bool:
        """Whether a method beats the better of background and prevalence beyond doubt; True where neither has one."""
        nothing = self.leader(figure, [n for n in NOTHING if n in self.labels])
        if nothing is None:
            return True
        difference = self.difference(label, nothing, figure)
        return difference.low > 0 if self.figure(figure).direction == "higher" else difference.high < 0

    def marks(self, figure: str, among: Sequence[str]) -> dict[str, str]:
        """The methods to single out: "best" (if it learned anything) and its ties, "tie"; none of too few patients.

        A figure that depends on the number and kind of the samples has a best for each kind and number.
        """
        among = [label for label in among if self.fewest(figure, label) >= FEWEST]
        marks: dict[str, str] = {}
        apart = self.figure(figure).depends_on_samples
        for kind in dict.fromkeys(self.kinds.get(label) if apart else None for label in among):
            group = [label for label in among if not apart or self.kinds.get(label) == kind]
            best = self.leader(figure, group)
            if len(group) > 1 and best is not None and self.learned(best, figure):
                marks |= {best: "best", **dict.fromkeys(self.best(figure, group)[1], "tie")}
        return marks

    def rank(self, figure: str, among: Sequence[str]) -> pd.DataFrame:
        """Bootstrapped ranks, 1 the best: method, rank (of the values), low, high, first (share, ties split).

        Methods without a value are left out; low, high and first are NaN where there are too few patients.
        """
        f = self._columns[figure]
        rows = [m for m in map(self.labels.index, among) if np.isfinite(self.point[m, f])]
        sign = -1 if self.figures[f].direction == "higher" else 1
        drawn = sign * self.draws[rows][:, :, f]
        drawn = drawn[:, np.isfinite(drawn).any(0)]
        ranked = pd.DataFrame(drawn).rank(method="min").to_numpy()
        is_first = drawn == np.nanmin(drawn, axis=0)
        tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        enough = min(self.defined[rows, f], default=0) >= FEWEST
        low, high = np.nanquantile(ranked, tails, axis=1) if enough else np.full((2, len(rows)), np.nan)
        return pd.DataFrame(
            {
                "method": [self.labels[m] for m in rows],
                "rank": pd.Series(sign * self.point[rows, f]).rank(method="min").astype(int),
                "low": low,
                "high": high,
                "first": (is_first / is_first.sum(0)).mean(1) if enough else np.nan,
            }
        ).sort_values("rank", ignore_index=True)

    def share_of_way(self, figure: str, label: str) -> Estimate:
        """How far a method is on the way from background (0) to oracle (1), on the same resamples.

        Below 0 is worse than background; NaN where the two ends are equal or undefined.
        """
        value, start, end = (np.r_[self.values(x, figure)[0], self.values(x, figure)[1]]
                             for x in (label, "background", "oracle"))  # fmt: skip
        share = (value - start) / np.where(end != start, end - start, np.nan)
        return estimate(float(share[0]), share[1:], self.fewest(figure, label, "background", "oracle"))

    def summary(self) -> pd.DataFrame:
        """A row for each method and figure: method, figure, value, low, high, left_out."""
        rows = [
            (label, f.name, *self.estimate(label, f.name), self.left_out(label, f.name))
            for label in self.labels
            for f in self.figures
        ]
        return pd.DataFrame(rows, columns=["method", "figure", "value", "low", "high", "left_out"])

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {f.name: i for i, f in enumerate(self.figures)}


def estimate(value: float, draws: Floats, patients: int) -> Estimate:
    """A value with the percentile interval of its resamples (K,), of which undefined ones are left out."""
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(draws) or patients < FEWEST:
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def holm(p: Floats) -> Floats:
    """Holm's step-down adjusted p-values, in the order given; NaN stays NaN and is not counted."""
    adjusted = np.full(len(p), np.nan)
    defined = np.flatnonzero(np.isfinite(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return adjusted


def patient_weights(patients: Sequence[str], resamples: int) -> tuple[Floats, NDArray[np.intp]]:
    """How often each of P patients is drawn in each of K resamples, float64 (K,P), and the patient of each case (N,).

    The draws depend on the set of patients alone, so that all methods share them.
    """
    codes, names = pd.factorize(pd.Series(list(patients)), sort=True)
    rng = np.random.default_rng(seed_of("bootstrap", 0, *names))
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return drawn.astype(np.float64), codes.astype(np.intp)


def repetition_weights(label: str, repetitions: int, resamples: int) -> Floats:
    """The share of each of L repetitions in each resample: float64 (K,L), rows summing to 1."""
    rng = np.random.default_rng(seed_of("repetitions", 0, label))
    drawn = rng.multinomial(repetitions, np.full(repetitions, 1 / repetitions), size=resamples)
    return drawn / repetitions


def bootstrap(
    tables: Mapping[str, Sequence[Scores]],
    figures: Sequence[Figure],
    *,
    resamples: int | None = None,
    common_among: Sequence[str] | None = None,
) -> Bootstrap:
    """Bootstrap figures of several methods over the same patients.

    tables: per method the scores of each repetition, all of the same cases in the same order; figures that need a
    statistic which scores lack are undefined. resamples: default RESAMPLES, more where many methods are compared.
    common_among: the methods, default all, whose common cases count for figures that are compared on these only.
    ValueError where the cases differ.
    """
    first = next(iter(tables.values()))[0]
    for label, repetitions in tables.items():
        for scores in repetitions:
            if not np.array_equal(scores.cases, first.cases):
                raise ValueError(f"tables: '{label}' was scored on other cases than the rest")
    count = resamples or max(RESAMPLES, RESAMPLES_PER_COMPARISON * (len(tables) - 1))
    weights, codes = patient_weights(first.patients.tolist(), count)
    weights = np.concatenate([np.ones((1, weights.shape[1])), weights])  # the first row: every patient once
    among = [s for label, each in tables.items() if common_among is None or label in common_among for s in each]
    common = {f.name: _common(among, f) for f in figures if f.common_cases}
    work = [(label, scores) for label, repetitions in tables.items() for scores in repetitions]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as threads:  # NumPy lets go of the lock
        values = list(threads.map(lambda w: _values_of(w[1], figures, common, weights, codes), work))
    left_out = np.zeros((len(tables), len(figures)), np.int64)
    point, draws, defined = [], [], []
    for m, (label, repetitions) in enumerate(tables.items()):
        each = [value for (other, _), value in zip(work, values, strict=True) if other == label]
        shares = repetition_weights(label, len(each), count)[..., None]
        point.append(np.mean([value[0] for value, _ in each], axis=0))
        draws.append(sum(np.where(shares[:, i] > 0, value[1:] * shares[:, i], 0) for i, (value, _) in enumerate(each)))
        defined.append(np.min([patients for _, patients in each], axis=0))
        for i, f in enumerate(figures):
            outside = ~common[f.name] if f.name in common else np.zeros(len(first), bool)
            left_out[m, i] = sum((_undefined(s, f) | outside).sum() for s in repetitions)
    return Bootstrap(
        labels=list(tables),
        figures=list(figures),
        point=np.array(point),
        draws=np.array(draws),
        undefined=left_out,
        defined=np.array(defined),
        patients=weights.shape[1],
        images=len(first),
        repetitions={label: len(repetitions) for label, repetitions in tables.items()},
        kinds={label: (repetitions[0].drawn, repetitions[0].samples) for label, repetitions in tables.items()},
    )


def _values_of(
    scores: Scores, figures: Sequence[Figure], common: Mapping[str, Rows], weights: Floats, codes: NDArray[np.intp]
) -> tuple[Floats, NDArray[np.int64]]:
    """Every figure of one table over each of K+1 weightings of P patients, (K+1,F), and in how many it has a value."""
    values, defined = np.full((len(weights), len(figures)), np.nan), np.zeros(len(figures), np.int64)
    computable = [(i, f) for i, f in enumerate(figures) if scores.has(*f.of)]
    of_sums = [(i, f) for i, f in computable if f.kind == "sums"]
    of_patients = scores.sums(sorted({n for _, f in of_sums if f.name not in common for n in f.of}))
    weighted = _weighted(of_patients, weights)
    for i, f in of_sums:
        each, (sums, counts) = of_patients, weighted
        if f.name in common:
            kept = common[f.name]
            each = scores.take(kept).sums(f.of)
            sums, counts = _weighted(each, weights[:, np.unique(codes[kept])])
        values[:, i] = f.of_sums({n: sums[n] for n in f.of}, {n: counts[n] for n in f.of})
        defined[i] = np.isfinite(f.of_sums(*({n: part[n] for n in f.of} for part in each))).sum()
    of_cases = [(i, f, {n: scores.column(n) for n in f.of}) for i, f in computable if f.kind == "cases"]
    for i, _, columns in of_cases:
        defined[i] = len(np.unique(codes[np.all([np.isfinite(x) for x in columns.values()], axis=0)]))
    for start in range(0, len(weights), BLOCK):
        block, shared = slice(start, start + BLOCK), dict[object, Floats]()
        weights_of_cases = weights[block].take(codes, 1)
        for i, f, columns in of_cases:
            key = (f.from_cases, f.of)
            if key not in shared:
                shared[key] = f.shared_of_cases(columns, weights_of_cases)
            values[block, i] = shared[key][:, f.place]
    return values, defined


def _weighted(of_patients: Sequence[Mapping[str, Floats]], weights: Floats) -> list[dict[str, Floats]]:
    """Sums and numbers of patients (P,*shape) as those of each weighting (K,P) of the patients: (K,*shape)."""
    return [{n: np.tensordot(weights, x, 1) for n, x in part.items()} for part in of_patients]


def _common(scores: Sequence[Scores], figure: Figure) -> Rows:
    """The cases (N,) for which a figure is defined in every table that has it at all."""
    defined = [rows for s in scores if (rows := ~_undefined(s, figure)).any()]
    common: Rows = np.all(defined or [np.zeros(len(scores[0]), bool)], axis=0)
    return common


def _undefined(scores: Scores, figure: Figure) -> Rows:
    """The cases (N,) for which all that the figure reads of a statistic is undefined; none of one kept as sums."""
    if not scores.has(*figure.of):
        return np.ones(len(scores), bool)
    columns = [scores.column(n) for n in figure.of if n not in scores.patient_sums]
    columns = [(x if figure.reads is None else x[:, figure.reads]).reshape(len(scores), -1) for x in columns]
    undefined: Rows = np.any([np.isnan(x).all(1) for x in columns] or [np.zeros(len(scores), bool)], axis=0)
    return undefined
