"""Claims tested on a run: supported, not supported or undecided."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import fdtr, fdtri

from bench import stats
from bench.expressions import Claim, Condition, Expected, Term
from bench.runs.results import Results
from uqseg.errors import UsageError, unknown
from uqseg.metrics import Scores, figure

ScoresBySplit = Mapping[str, Mapping[str, Sequence[Scores]]]
Histories = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]

EARLY = 0.1  # the start of a training: this part of its steps
START = "start_spread"  # ln of the standard deviation over repetitions of ln of the mean early loss
SUPPORTED, REFUTED, UNDECIDED = "supported", "not supported", "undecided"
RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What claims are tested on: scores by split and label, histories by label, and the table of cases."""

    scores: ScoresBySplit
    histories: Histories
    cases: pd.DataFrame

    @cached_property
    def boots(self) -> dict[tuple[Any, ...], stats.Bootstrap]:
        """Bootstraps that have been computed, by conditions, labels and figures."""
        return {}

    def labels(self, split: str) -> list[str]:
        """All that have scores of a split, yardsticks included."""
        return list(self.scores.get(split, {}))

    @property
    def methods(self) -> list[str]:
        """All but the yardsticks."""
        return [label for label in self.labels("test") if label in self.histories]

    @property
    def samplers(self) -> list[str]:
        """Methods of several samples, but those made of level sets."""
        return [n for n in self.methods if "+levels" not in n and self.scores["test"][n][0].samples > 1]


class Answer(NamedTuple):
    """A difference from what is claimed, with its interval; p two-sided against 0 (of an equivalence: the larger of its
    two one-sided ones). detectable: the difference that would be seen with a chance of 80 %."""

    compared: str
    difference: float
    low: float
    high: float
    p: float
    at_floor: bool
    detectable: float
    patients: int
    verdict: str
    note: str


class Group(NamedTuple):
    """A claim in words, which is supported if all its parts are."""

    text: str
    parts: tuple[Claim, ...]


def of_results(results: Results) -> Evidence:
    """The evidence in a results folder: methods and yardsticks."""
    by_split: dict[str, dict[str, list[Scores]]] = {}
    for label, repetitions in results.repetitions.items():
        for cell in repetitions:
            for split, scores in cell.scores.items():
                by_split.setdefault(split, {}).setdefault(label, []).append(scores)
    histories = {label: [c.history for c in each if c.history] for label, each in results.cells.items()}
    return Evidence(by_split, histories, results.cases)


def examine(groups: Sequence[Group], evidence: Evidence) -> pd.DataFrame:
    """A row for each part of each claim: claim (from 1), then the fields of Answer."""
    rows = [(k, *test(part, evidence)) for k, group in enumerate(groups, 1) for part in group.parts]
    return pd.DataFrame(rows, columns=["claim", *Answer._fields])


def verdicts(groups: Sequence[Group], table: pd.DataFrame) -> dict[int, str]:
    """Each claim's verdict: supported if all its parts are, not supported if one is not, else undecided."""
    by_claim = {k: set(table.loc[table["claim"] == k, "verdict"]) for k in range(1, len(groups) + 1)}
    return {
        claim: REFUTED if REFUTED in parts else UNDECIDED if UNDECIDED in parts else SUPPORTED
        for claim, parts in by_claim.items()
    }


def test(claim: Claim, evidence: Evidence) -> Answer:
    """What a run says of a claim.

    Terms over the same cases are paired over patients; those of other splits or subgroups have resamples of their own.
    Repetitions are resampled as a second level. UsageError for an unknown figure or column.
    """
    if any(term.figure == START for _, term in claim.terms):
        return _start(claim, evidence.histories)
    for _, term in claim.terms:
        figure(term.figure)
    if missing := [t for _, t in claim.terms if t.label not in evidence.labels(t.split)]:
        return _untested(claim, _lacking(missing, evidence))
    value, drawn, patients, fewest = claim.constant, np.zeros(1), 2**31, 2**31
    for factor, term in claim.terms:
        boot = _bootstrap(claim, term, evidence)
        if boot is None:
            return _untested(claim, f"no case has{_conditions(term)}")
        point, draws = boot.values(term.label, term.figure)
        value, patients = value + factor * point, min(patients, boot.patients)
        fewest = min(fewest, boot.fewest(term.figure, term.label))
        drawn = drawn + factor * draws
    drawn = (drawn + claim.constant)[np.isfinite(drawn)]
    _, low, high = stats.estimate(value, drawn, fewest)
    if not np.isfinite(low):
        reason = "too few patients" if np.isfinite(value) else "undefined on these cases"
        return _untested(claim, reason)._replace(difference=value, patients=patients)
    p, floor = _p(drawn, claim)
    return Answer(
        claim.compared, value, low, high, p, floor, stats.DETECTABLE * float(drawn.std()), patients,
        verdict(low, high, claim.expected, claim.margin), _kinds(claim, evidence),
    )  # fmt: skip


def _untested(claim: Claim, note: str) -> Answer:
    nothing = float("nan")
    return Answer(claim.compared, nothing, nothing, nothing, nothing, False, nothing, 0, UNDECIDED, note)


def _lacking(terms: Sequence[Term], evidence: Evidence) -> str:
    """What to do about terms without scores: to add a method, where the run has none of it on any split."""
    known = {label for split in evidence.scores for label in evidence.labels(split)}
    if absent := dict.fromkeys(t.label for t in terms if t.label not in known):
        return f"add {', '.join(absent)} to --methods"
    return f"no scores of {' and '.join(dict.fromkeys(f'{t.label} on {t.split}' for t in terms))}"


def _conditions(term: Term) -> str:
    return "".join(f" {c.column}{c.relation}{c.value}" for c in term.conditions)


def _p(drawn: NDArray[np.float64], claim: Claim) -> tuple[float, bool]:
    """p, and whether no resample lay on the other side."""
    if claim.expected == "within":
        beyond = max(int((drawn >= claim.margin).sum()), int((drawn <= -claim.margin).sum()))
        return min(1.0, (beyond + 1) / (len(drawn) + 1)), beyond == 0
    beyond = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(drawn) + 1)), beyond == 0


def _kinds(claim: Claim, evidence: Evidence) -> str:
    """A warning where a figure that depends on number and kind of samples is compared between several of these."""
    terms = [t for _, t in claim.terms if figure(t.figure).depends_on_samples]
    kinds = {f"{s.samples} {s.drawn}" for t in terms for s in evidence.scores[t.split][t.label][:1]}
    if len(kinds) < 2:
        return ""
    names = ", ".join(dict.fromkeys(t.figure for t in terms))
    return f"{names} depends on the number and kind of samples, here {' and '.join(sorted(kinds))}: see ged_limit"


def _bootstrap(claim: Claim, term: Term, evidence: Evidence) -> stats.Bootstrap | None:
    """The bootstrap of all terms of the claim over the cases of this one; None where there are no such cases."""
    alike = [t for _, t in claim.terms if t.conditions == term.conditions]
    labels, names = (tuple(dict.fromkeys(getattr(t, field) for t in alike)) for field in ("label", "figure"))
    key = (term.conditions, labels, names)
    if key not in evidence.boots:
        tables = {label: [_of(term, s, evidence.cases) for s in evidence.scores[term.split][label]] for label in labels}
        if not len(tables[term.label][0]):
            return None
        wanted = [figure(name) for name in names]
        evidence.boots[key] = stats.bootstrap(tables, wanted, resamples=stats.RESAMPLES)  # as many for all terms
    return evidence.boots[key]


def _of(term: Term, scores: Scores, cases: pd.DataFrame) -> Scores:
    """The scores of the cases that meet the term's conditions."""
    conditions = [c for c in term.conditions if (c.column, c.relation) != ("split", "=")]
    if not conditions:
        return scores
    rows = cases[cases["split"] == term.split].set_index("case").loc[scores.cases.tolist()]
    return scores.take(np.logical_and.reduce([_meets(rows, condition) for condition in conditions]))


def _meets(cases: pd.DataFrame, condition: Condition) -> NDArray[np.bool_]:
    column, relation, value = condition
    if column not in cases:
        raise unknown("column of cases", column, map(str, cases.columns))
    values = cases[column]
    if pd.api.types.is_numeric_dtype(values):
        try:
            return np.asarray(RELATIONS[relation](values.to_numpy(float), float(value)), bool)
        except ValueError as error:
            raise UsageError(f"claim: {column}: expected a number, got '{value}'.") from error
    if relation not in ("=", "!="):
        raise UsageError(f"claim: {column} holds text: expected = or !=, got '{relation}'.")
    return np.asarray(RELATIONS[relation](values.fillna("").astype(str), value), bool)


def verdict(low: float, high: float, expected: Expected, margin: float = 0.0) -> str:
    """What an interval says of a difference expected "above" 0, "below" 0 or "within" `margin` of 0."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return UNDECIDED
    if expected == "within":
        if low > -margin and high < margin:
            return SUPPORTED
        return REFUTED if low >= margin or high <= -margin else UNDECIDED
    if expected == "below":
        low, high = -high, -low
    return SUPPORTED if low > 0 else REFUTED if high < 0 else UNDECIDED


def patients_needed(answer: Answer, difference: float) -> int:
    """How many test patients would show a difference with a chance of 80 %, if they are like those of the run."""
    return int(np.ceil(answer.patients * (answer.detectable / difference) ** 2))


def _start(claim: Claim, histories: Histories) -> Answer:
    """Whether repetitions of one method start more alike than those of another: ln of a ratio of standard deviations.

    Of each repetition the logarithm of the mean loss early in training, so that a loss 99 times as large spreads no
    more; the interval is that of a ratio of variances of normal values (F distribution), wide with few repetitions.
    """
    factors = [factor for factor, _ in claim.terms]
    if factors != [1, -1] or claim.constant or any(t.figure != START or t.conditions for _, t in claim.terms):
        raise UsageError(f"claim: {START} is compared as {START}(A) < {START}(B) alone.")
    labels = [term.label for _, term in claim.terms]
    if few := [n for n in reversed(labels) if len(histories.get(n, [])) < 2]:
        return _untested(claim, f"needs {' and '.join(few)} with at least 2 repetitions (--seeds 0,1)")
    early = [[np.log(_early_loss(lines)) for lines in histories[name]] for name in labels]
    spread, free = [float(np.std(each, ddof=1)) for each in early], [len(each) - 1 for each in early]
    if 0 in spread:
        return _untested(claim, "the repetitions of one of the two are identical")
    difference = float(np.log(spread[0] / spread[1]))
    tails = fdtri(free[0], free[1], [(1 + stats.LEVEL) / 2, (1 - stats.LEVEL) / 2])
    low, high = (difference - np.log(tails) / 2).tolist()
    below = float(fdtr(free[0], free[1], (spread[0] / spread[1]) ** 2))
    p, note = 2 * min(below, 1 - below), f"{free[0] + 1} and {free[1] + 1} trainings"
    nothing = float("nan")
    return Answer(claim.compared, difference, low, high, p, False, nothing, 0, verdict(low, high, claim.expected), note)


def _early_loss(lines: Sequence[Mapping[str, Any]]) -> float:
    """Mean logged loss of the first EARLY of the steps, at least of the first reading."""
    last = max(EARLY * lines[-1]["step"], lines[0]["step"])
    return float(np.mean([line["loss"] for line in lines if line["step"] <= last]))


def published_oddities(table: pd.DataFrame) -> dict[str, str]:
    """What the published tables contradict by themselves: IoU against Dice/2, sensitivity against the threshold.

    table: from `baselines.published.published`. Values have four decimals, so 2 IoU may differ from Dice by 0.00015.
    """
    own = table[(table["known"] == "report") & table["source"].str.contains("Table")]
    keys = ["source", "method", "split", "threshold"]
    wide = own.pivot_table(index=keys, columns="metric", values="value").reset_index()
    halves = int(((2 * wide["iou"] - wide["dice"]).abs() < 0.00016).sum())
    jaccard = int(((wide["dice"] / (2 - wide["dice"]) - wide["iou"]).abs() < 0.0002).sum())
    rises = []
    series = wide[wide["threshold"] != "mean"].sort_values("threshold").groupby(["method", "split"])
    for (method, split), rows in series:
        s, t = rows["sensitivity"].to_numpy(), rows["threshold"].tolist()
        rises += [
            f"{method} {split} {s[i]:.4f} at {t[i]}, {s[i + 1]:.4f} at {t[i + 1]}" for i in range(4) if s[i + 1] > s[i]
        ]
    return {
        "iou": f"The published IoU is half the published Dice in {halves} of {len(wide)} rows, and the Jaccard index "
        f"Dice/(2 − Dice) in {jaccard}.",
        "sensitivity": f"On one set of images sensitivity cannot rise with the threshold; in {len(rises)} places the "
        f"published one does: {'; '.join(rises)}.",
    }
