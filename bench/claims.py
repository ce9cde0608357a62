"""The claims of the 2020 student report, each tested on a run: supported, not supported or undecided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import f as f_distribution

from bench import stats
from bench.runs.results import Results
from uqseg.metrics import Scores, figure

ScoresBySplit = Mapping[str, Mapping[str, Sequence[Scores]]]
Histories = Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
Row = tuple[int, str, float, float, float, str, str]

MARGIN = 0.02  # "hardly changes": the whole interval of the change lies within this
EARLY = 0.1  # the start of a training: this part of its steps
SUPPORTED, REFUTED, UNDECIDED = "supported", "not supported", "undecided"
CLAIMS = {
    1: "The U-Net beats the SegNet on sensitivity, IoU and Dice averaged over thresholds",
    2: "The SegNet and the U-Net beat the accuracy of calling everything background",
    3: "Dice on training images exceeds that on validation images, which exceeds that on test images",
    4: "A positive weight of 99 raises sensitivity at 0.5, lowers Dice, and makes the U-Net's start more stable",
    5: f"Threshold 0.1 instead of 0.5 raises sensitivity while Dice and IoU hardly change (by less than {MARGIN})",
    6: "The ensemble at threshold 0.5 beats the single U-Net on sensitivity, IoU and Dice",
    7: "At least three quarters of the members touch the lesion in most images",
    8: "The deviation over samples is high where the readers' is high, over pixels (NCC) and over images (Spearman)",
}


class Term(NamedTuple):
    """A figure of a method on a split."""

    label: str
    figure: str
    split: str = "test"


class Part(NamedTuple):
    """One comparison of a claim: `high` minus `low` (a Term or a number) is above 0, below 0 or within MARGIN."""

    claim: int
    high: Term
    low: Term | float
    expected: str = "above"


def _parts() -> list[Part]:
    averaged = [f"{m}_mean" for m in ("sensitivity", "iou", "dice")]
    halves = [f"{m}@0.5" for m in ("sensitivity", "iou", "dice")]
    single, weighted = ("segnet", "unet"), "segnet[pos_weight=99]"
    parts = [Part(1, Term("unet", m), Term("segnet", m)) for m in averaged]
    parts += [Part(2, Term(n, "accuracy_mean"), Term("background", "accuracy_mean")) for n in single]
    for n in single:
        for a, b in (("train", "val"), ("val", "test")):
            parts.append(Part(3, Term(n, "dice_mean", a), Term(n, "dice_mean", b)))
    parts.append(Part(4, Term(weighted, "sensitivity@0.5"), Term("segnet", "sensitivity@0.5")))
    parts.append(Part(4, Term(weighted, "dice@0.5"), Term("segnet", "dice@0.5"), "below"))
    for n in single:
        parts.append(Part(5, Term(n, "sensitivity@0.1"), Term(n, "sensitivity@0.5")))
        parts += [Part(5, Term(n, f"{m}@0.1"), Term(n, f"{m}@0.5"), "within") for m in ("dice", "iou")]
    parts += [Part(6, Term("ensemble", m), Term("unet", m)) for m in halves]
    parts.append(Part(7, Term("ensemble", "hit_three_quarters"), 0.5))
    parts += [Part(8, Term(n, m), 0.0) for n in ("mcdropout", "probunet") for m in ("ncc_std", "spearman_std")]
    return parts


def examine(scores: ScoresBySplit, histories: Histories) -> pd.DataFrame:
    """A row for each comparison: claim, compared, difference, low, high (95 %), verdict, note.

    scores: from `scores_of`; histories: from `histories_of`. Differences on one split are paired over patients; those
    between splits are of different patients, so that each has its own resamples. Repetitions are resampled as a second
    level.
    """
    boots = _bootstraps(scores)
    rows = []
    for part in _parts():
        rows.append(_tested(part, boots))
        if part.claim == 4 and part.expected == "below":
            rows.append(_start(histories))
    return pd.DataFrame(rows, columns=["claim", "compared", "difference", "low", "high", "verdict", "note"])


def verdicts(table: pd.DataFrame) -> dict[int, str]:
    """Each claim's verdict: supported if all its comparisons are, not supported if one is not, else undecided."""
    by_claim = {claim: set(table.loc[table["claim"] == claim, "verdict"]) for claim in CLAIMS}
    return {
        claim: REFUTED if REFUTED in parts else UNDECIDED if UNDECIDED in parts else SUPPORTED
        for claim, parts in by_claim.items()
    }


def verdict(low: float, high: float, expected: str) -> str:
    """What an interval says of a difference expected "above" 0, "below" 0 or "within" MARGIN of 0."""
    if not (np.isfinite(low) and np.isfinite(high)):
        return UNDECIDED
    if expected == "within":
        if low > -MARGIN and high < MARGIN:
            return SUPPORTED
        return REFUTED if low >= MARGIN or high <= -MARGIN else UNDECIDED
    if expected == "below":
        low, high = -high, -low
    return SUPPORTED if low > 0 else REFUTED if high < 0 else UNDECIDED


def scores_of(results: Results) -> ScoresBySplit:
    """Per split and label the scores of each repetition of a run's methods and yardsticks."""
    cells = {**results.cells, **{label: [cell] for label, cell in results.yardsticks.items()}}
    by_split: dict[str, dict[str, list[Scores]]] = {}
    for label, repetitions in cells.items():
        for cell in repetitions:
            for split, scores in cell.scores.items():
                by_split.setdefault(split, {}).setdefault(label, []).append(scores)
    return by_split


def histories_of(results: Results) -> Histories:
    """The lines of history.jsonl of each repetition of a run's methods; those without one are left out."""
    return {label: [c.history for c in cells if c.history] for label, cells in results.cells.items()}


def _bootstraps(scores: ScoresBySplit) -> dict[str, stats.Bootstrap]:
    terms = [t for part in _parts() for t in (part.high, part.low) if isinstance(t, Term)]
    boots = {}
    for split in dict.fromkeys(t.split for t in terms):
        labels = dict.fromkeys(t.label for t in terms if t.split == split and t.label in scores.get(split, {}))
        wanted = dict.fromkeys(t.figure for t in terms if t.split == split)
        if labels:
            tables = {n: scores[split][n] for n in labels}
            boots[split] = stats.bootstrap(tables, [figure(name) for name in wanted], resamples=stats.RESAMPLES)
    return boots


def _tested(part: Part, boots: Mapping[str, stats.Bootstrap]) -> Row:
    terms = [t for t in (part.high, part.low) if isinstance(t, Term)]
    compared = " − ".join(_named(t, terms) if isinstance(t, Term) else f"{t:g}" for t in (part.high, part.low))
    compared = compared.removesuffix(" − 0")
    missing = [t.label for t in terms if t.split not in boots or t.label not in boots[t.split].labels]
    if missing:
        note = f"add {', '.join(dict.fromkeys(missing))} to --methods"
        return part.claim, compared, np.nan, np.nan, np.nan, UNDECIDED, note
    value, drawn = boots[part.high.split].values(part.high.label, part.high.figure)
    if isinstance(part.low, Term):
        other, others = boots[part.low.split].values(part.low.label, part.low.figure)
        value, drawn = value - other, drawn - others
    else:
        value, drawn = value - part.low, drawn - part.low
    patients = min(boots[t.split].patients for t in terms)
    _, low, high = stats.estimate(value, drawn, patients)
    note = "" if np.isfinite(low) else "undefined on these data" if patients >= stats.FEWEST else "too few patients"
    return part.claim, compared, value, low, high, verdict(low, high, part.expected), note


def _named(term: Term, terms: Sequence[Term]) -> str:
    split = f" on {term.split}" if len({t.split for t in terms}) > 1 else ""
    return f"{term.figure} of {term.label}{split}"


def _start(histories: Histories) -> Row:
    """Whether repetitions of the weighted U-Net start more alike: ln of the ratio of two standard deviations.

    Of each repetition the logarithm of the mean loss early in training, so that a loss 99 times as large spreads no
    more; the interval is that of a ratio of variances of normal values (F distribution), wide with few repetitions.
    """
    compared, plain, weighted = "ln spread of the early loss, unet[pos_weight=99] − unet", "unet", "unet[pos_weight=99]"
    few = [n for n in (plain, weighted) if len(histories.get(n, [])) < 2]
    if few:
        note = f"needs {' and '.join(few)} with at least 2 repetitions (--seeds 0,1)"
        return 4, compared, np.nan, np.nan, np.nan, UNDECIDED, note
    spread, free = [], []
    for name in (weighted, plain):
        early = [np.log(_early_loss(lines)) for lines in histories[name]]
        spread.append(float(np.std(early, ddof=1)))
        free.append(len(early) - 1)
    if 0 in spread:
        return 4, compared, np.nan, np.nan, np.nan, UNDECIDED, "the repetitions of one of the two are identical"
    difference = float(np.log(spread[0] / spread[1]))
    tails = f_distribution.ppf([(1 + stats.LEVEL) / 2, (1 - stats.LEVEL) / 2], *free)
    low, high = (difference - np.log(tails) / 2).tolist()
    return 4, compared, difference, low, high, verdict(low, high, "below"), f"{free[0] + 1} and {free[1] + 1} trainings"


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
