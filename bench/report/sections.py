"""The sections of a report, by topic: tables and plots in, blocks of a page out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench import stats
from bench.report import beside, plots, tables
from bench.report.blocks import Block, Fold, Table
from bench.report.context import Report
from bench.report.tables import escape
from bench.runs.results import SPLITS
from uqseg.metrics import Scores, figure, figures
from uqseg.metrics import tables as registered_tables
from uqseg.metrics.ambiguity import hit_counts
from uqseg.metrics.calibration import active
from uqseg.metrics.registry import Columns

RANKED = ("ged_limit", "dice@0.5")
"""Figures by which methods are ranked: samples of any kind and number can be compared in them."""
PRESENCE_BINS = 10
SPARSE = 0.1  # share of marked pixels below which nearly all are background
RELIABILITY = ("reliability", "reliability_first_active")
PLACED = {"summary", "ambiguity", "limit", "parts", "presence_and_place", "diversity", "agreement", "draws", "hits",
          "calibration", "presence", "failure", "aggregations",
          "other_aggregations", "entropy", "threshold"}  # fmt: skip
"""The tables of the registry that have a place on the page; others, such as a plugin's, stand under further figures."""


def ranks(report: Report) -> list[Block]:
    """Rank intervals by each of RANKED, and paired differences from the best method and from the U-Net."""
    methods, boot = report.methods, report.boot
    wanted = [f for f in map(figure, RANKED) if report.has(f)]
    if len(methods) < 2 or boot.patients < stats.FEWEST or not wanted:
        return []
    ranked = {f.title: boot.rank(f.name, methods) for f in wanted}
    ties = {f.title: boot.best(f.name, methods)[1] for f in wanted}
    ranks_csv = report.csv(pd.concat([t.assign(figure=title) for title, t in ranked.items()]), "ranks")
    first = wanted[0]
    best = str(ranked[first.title]["method"].iloc[0])
    references = dict.fromkeys([best, *(["unet"] if "unet" in methods else [])])
    by_reference = {r: boot.differences(first.name, r, methods) for r in references}
    csv = report.csv(pd.concat([t.assign(reference=r) for r, t in by_reference.items()]), "differences")
    text: list[Block] = ["## How sure is that?"]
    for reference, table in by_reference.items():
        rows = table.to_dict("records")
        differences = [tables.with_interval(stats.Estimate(r["difference"], r["low"], r["high"])) for r in rows]
        columns = {
            "method": map(escape, table["method"]),
            f"{first.title} − that of {escape(reference)}": differences,
            "p, Holm": [tables.p_value(r["p_holm"], r["bound"]) for r in rows],
            "": table["verdict"].replace("", "–"),
            "seen with 80 %": [tables.digits(r["detectable"]) for r in rows],
        }
        text.append(Table(pd.DataFrame(columns)))
    text += [
        "Paired differences on the same resamples of patients and repetitions; below 0 is "
        f"{'better' if first.direction == 'lower' else 'worse'} than the reference. ≤: no resample lay on the other "
        f"side, so p is at most this. The last column: the difference that these data would show with a chance of "
        f"80 %. All in {csv}.",
        report.picture(plots.ranks(ranked, ties), "ranks", "Ranks"),
        "The dot is the rank by value (hollow: a tie with the best), the line its 95 % interval over resamples; in "
        f"brackets how often the method came first ({ranks_csv}).",
    ]
    return text


def reliability_curve(scores: list[Scores], bins_of: Callable[[Columns], plots.Floats]) -> plots.Curve:
    """Mean probability, reader fraction and pixels of each reliability bin, over all cases; pixels of a repetition."""
    sums = [{n: x.sum(0) for n, x in s.sums(RELIABILITY)[0].items()} for s in scores]
    n, p, y = np.mean([bins_of(total) for total in sums], axis=0)
    full = np.where(n > 0, n, np.nan)
    return p / full, y / full, n


def _marked_share(scores: Mapping[str, list[Scores]]) -> float:
    """The share of pixels that readers marked, over all test images; NaN where no method has the statistic."""
    for each in scores.values():
        if each[0].has("reliability"):
            n, _, marked = each[0].sums(["reliability"])[0]["reliability"].sum(0)
            return float(marked.sum() / n.sum())
    return float("nan")


def presence_curve(scores: list[Scores]) -> plots.Curve:
    """The same over images: P̂, the share of readers who drew anything, and images of a repetition, in bins of P̂."""
    predicted, readers = (np.concatenate([s.column(c) for s in scores]) for c in ("presence", "presence_readers"))
    bins = np.minimum((predicted * PRESENCE_BINS + 1e-9).astype(int), PRESENCE_BINS - 1)
    n = np.bincount(bins, minlength=PRESENCE_BINS).astype(float)
    full = np.where(n > 0, n, np.nan)
    p, y = (np.bincount(bins, x, minlength=PRESENCE_BINS) / full for x in (predicted, readers))
    return p, y, n / len(scores)


def calibration(report: Report) -> list[Block]:
    """Calibration of pixels, of presence and of areas, with their diagrams."""
    scores = {label: report.scores(label) for label in report.methods}
    binned = {"all pixels": lambda sums: sums["reliability"], "pixels with probability ≥ 1 %": active}
    panels = {
        title: {label: reliability_curve(each, bins_of) for label, each in scores.items() if each[0].has(*RELIABILITY)}
        for title, bins_of in binned.items()
    }
    presence = {"a lesion is present": {label: presence_curve(each) for label, each in scores.items()}}
    pixels = plots.reliability(panels, "predicted probability", "pixels", report.styles)
    images = plots.reliability(presence, "share of samples that mark anything", "images", report.styles)
    easy = _marked_share(scores) < SPARSE
    small = (
        "over all pixels is small for everybody since nearly all pixels are background" if easy else "is of all pixels"
    )
    text: list[Block] = [
        "## Calibration",
        *report.titled(
            "calibration",
            f"ECE {small}; the active one looks "
            "only at pixels predicted with at least 1 %. Calibration errors add up absolute values, so resamples give "
            "larger ones and an interval may lie above its value. The excess Brier leaves out the readers' own "
            "variance, which no model can remove.",
        ),
        report.picture(pixels, "reliability", "Reliability diagram"),
        "Above: of the pixels predicted with a probability, the fraction that readers marked; on the grey line the "
        "probabilities are right, below it they are too high. Under it: how many pixels stand behind each point, "
        "mean over repetitions.",
        *report.titled(
            "presence",
            "Presence: the share of samples that mark anything against the share of readers who did. Joint NLL asks "
            "for whole masks, not pixels. Area CRPS: how far the samples' areas are from each reader's.",
        ),
        report.picture(images, "presence", "Presence diagram"),
        "The same diagram for whole images: of the images where this share of samples marks anything, the share of "
        "readers who did. Networks with one answer say 0 or 1, two points with nothing between them.",
    ]
    return text


def ambiguity(report: Report) -> list[Block]:
    """GED and its parts, coverage, diversity, correlation with the readers' disagreement, GED by number of samples."""
    samples = report.results.run["spec"]["samples"]
    text: list[Block] = [
        "## Ambiguity",
        *report.titled(
            "ambiguity",
            f"GED is the squared energy distance between {samples} samples (or the whole support) and the readers; it "
            "is 0 only if both disagree in the same way. Coverage: how near the best sample comes to each reader; "
            "validity: how near the best reader comes to each sample. Figures that depend on the number and kind of "
            "samples have a best within one kind and number only. A dash under GED, "
            "debiased: it is defined for independent draws, two at least, and for whole supports; stratified samples, "
            "such as level sets, are neither.",
        ),
        *report.titled(
            "limit",
            "What GED would be with infinitely many samples, where kinds of samples can be compared: debiased for "
            "independent draws, GED itself for a whole support, and for stratified samples GED, which stands in for "
            "the limit from above. A dash under GED, unbiased: it leaves out the pairs of a "
            "draw with itself, which is right for independent draws alone, two at least; not for a whole support, such "
            "as an ensemble's members, and not for stratified samples, such as level sets.",
        ),
        *report.titled("parts", folded=True),
        *report.titled(
            "presence_and_place",
            "Whether anything is drawn, and what is drawn where both drew. The second is compared over the cases where "
            "it is defined for every method.",
        ),
        *_whether_and_where(report),
        *_parts(report),
        *report.titled(
            "diversity",
            "Expected distance of two samples, each also counted against itself, as it enters GED; then of two "
            "different samples and of two different readers, which may be compared: neither high nor low is good, a "
            "method as diverse as the readers has a ratio of 1.",
        ),
        *report.titled(
            "agreement",
            "Correlation between a method's uncertainty and the readers' disagreement, over the pixels of an image "
            "(NCC) and over images (Spearman). 1 is perfect, 0 is none; images where one of them is constant are left "
            "out.",
        ),
        *_draws(report),
        *hits(report),
    ]
    return text


def _whether_and_where(report: Report) -> list[Block]:
    """Bars of the two things that GED is about, beside each other: whether anything is drawn, and what."""
    wanted = [f for f in map(figure, ("ged_presence", "ged_drawn")) if report.has(f)]
    labels = [*report.methods, *report.yardsticks]
    values = {f.title: {label: report.boot.estimate(label, f.name) for label in labels} for f in wanted}
    if not values:
        return []
    picture = report.picture(plots.bars(values), "presence-and-drawn", "Whether, and where")
    text = (
        f"The two for each method, with {tables.INTERVALS}: a long first bar asks for a better answer to whether there "
        "is anything, a long second one for better outlines."
    )
    return [picture, text]


def _parts(report: Report) -> list[Block]:
    """Bars of the three parts of GED, whether, where and both together, which add up exactly."""
    names = {"ged_presence": "whether: presence", "ged_place": "where: both drew", "ged_mixed": "both together"}
    labels = [n for n in (*report.methods, *report.yardsticks) if all(s.has(*names) for s in report.scores(n))]
    if not labels:
        return []
    rows = [[np.nanmean(report.mean(label, name)) for name in names] for label in labels]
    table = pd.DataFrame(rows, index=pd.Index(labels, name="method"), columns=list(names.values()))
    plot = plots.stacked(table, "part of GED (lower is better)")
    return [
        report.picture(plot, "ged-parts", "The parts of GED"),
        "GED as the sum of its three parts: what comes of the wrong share of samples that draw anything, of what is "
        f"drawn, and of the two together ({report.csv(table.reset_index(), 'ged-parts')}).",
    ]


def _draws(report: Report) -> list[Block]:
    curve = [f for f in figures(table="draws") if f.name.startswith("ged@")]
    labels = [*report.methods, *(n for n in ("background", "consensus") if n in report.yardsticks)]
    curves = {label: [report.boot.estimate(label, f.name) for f in curve] for label in labels}
    counts = [int(f.name.partition("@")[2]) for f in curve]
    stratified = [label for label in report.methods if report.boot.kinds[label][0] == "stratified"]
    missing = (
        f" Stratified samples, such as level sets, stand for all draws at once, so no curve by number of draws is "
        f"defined for them: {', '.join(map(escape, stratified))} are left out."
        if stratified
        else ""
    )
    return [
        report.picture(plots.ged_of_samples(curves, counts, report.styles), "ged-samples", "GED against samples"),
        "Expected GED of k independent draws, in closed form from the samples drawn. Whole supports are level, for "
        'they are not drawn: the one answer of a network, or all members of an ensemble, also under "GED of 1".'
        f"{missing}",
        *report.titled("draws", "Bold and ties are among methods with samples of one kind and number.", folded=True),
    ]


def hits(report: Report) -> list[Block]:
    """In how many images 0, 1, … samples touch the majority lesion, of methods with several but finitely many."""
    text, rows = report.titled("hits"), []
    by_members: dict[int, list[dict[str, str]]] = {}
    for label, cells in report.results.cells.items():
        members = cells[0].info["support"]
        if members is None or members < 2:
            continue
        count = np.mean([hit_counts(s.column("member_hits"), members) for s in report.scores(label)], axis=0)
        rows += [(label, k, n) for k, n in enumerate(count)]
        shares = {f"{k} of {members}": f"{100 * n / max(1, count.sum()):.1f} %" for k, n in enumerate(count)}
        by_members.setdefault(members, []).append({"members that touch it": escape(label)} | shares)
    text += [Table(pd.DataFrame(shares)) for shares in by_members.values()]
    if rows:
        csv = report.csv(pd.DataFrame(rows, columns=["method", "hits", "images"]), "hits")
        text.append(
            f"Images by how many members touch the lesion that at least half of the readers marked; in {csv} their "
            "numbers, mean over repetitions."
        )
    return text


def failure(report: Report) -> list[Block]:
    """Whether images and pixels with much uncertainty are those that are wrong."""
    curves = {}
    for label in report.methods:
        each = [(s.column("uncertainty_mean"), s.column("risk")) for s in report.scores(label)]
        kept = [(u[np.isfinite(r)], r[np.isfinite(r)]) for u, r in each]
        ranked = [r[np.argsort(u, kind="stable")] for u, r in kept]
        curves[label] = _mean_curve(ranked), _mean_curve([np.sort(r) for r in ranked])
    kinds: dict[str, list[str]] = {}
    for label, cells in report.results.cells.items():
        kinds.setdefault(_varies(cells[0].info), []).append(escape(label))
    named = ". ".join(f"{kind}: {', '.join(labels)}" for kind, labels in kinds.items())
    repeated = _as_the_mean(report)
    one_size = (
        " In images of one size the sum ranks as the mean does, so it has no column here and in the next table."
        if repeated
        else ""
    )
    text: list[Block] = [
        "## Failure",
        *report.titled(
            "failure",
            "Images are ranked by the mean entropy of the mean map; the risk is 1 − Dice against the readers. AURC: "
            "mean risk over all coverages; excess: what a perfect ranking would save; failure: Dice below 0.5.",
            yardsticks=False,
        ),
        report.picture(plots.risk_coverage(curves, report.styles), "risk-coverage", "Risk against coverage"),
        "Mean risk of the images kept, surest first. A useful uncertainty keeps the line near that of the perfect "
        "ranking; at random the risk would be the same at every share.",
        *report.titled(
            "aggregations",
            "By how the map becomes one number for an image: its mean, its sum, the mean of its largest 10×10 patch, "
            f"the mean of as many of its largest pixels as are predicted foreground.{one_size}",
            folded=True,
            yardsticks=False,
            without=repeated,
        ),
        *report.titled("other_aggregations", folded=True, yardsticks=False, without=repeated),
        *report.titled(
            "entropy",
            "Entropy in nats per pixel: total = within + between samples. The part between samples is what "
            f"varies between them. {named}.",
            yardsticks=False,
        ),
    ]
    return text


def _varies(info: Mapping[str, Any]) -> str:
    """What the part of a method's entropy between its samples stands for, in words; info: that of one of its cells."""
    if info["support"] == 1:
        return "One answer, no such part"
    if info["varies"] == "weights" and info["method"].partition("[")[0] == "ensemble":
        return "Weights and readers together, for each member learns from another reader number"
    words = {"weights": "Epistemic, the weights vary", "outcome": "Aleatoric, the outcome varies",
             "both": "Weights and outcome together", "input": "The input varies"}  # fmt: skip
    return words.get(info["varies"], str(info["varies"]))


def _as_the_mean(report: Report) -> list[str]:
    """The figures by an uncertainty's sum that are those by its mean for every method, as in images of one size."""

    def values(name: str) -> list[stats.Estimate]:
        return [report.boot.estimate(label, name) for label in report.methods]

    by_sum = [f.name for f in report.boot.figures if f.name.endswith("_sum") and "uncertainty_sum" in f.of]
    return [n for n in by_sum if np.allclose(values(n), values(f"{n.removesuffix('_sum')}_mean"), equal_nan=True)]


def _mean_curve(risks: list[plots.Floats]) -> plots.Floats:
    """Mean risk of the first k of N images, mean over the repetitions: (N,)."""
    mean: plots.Floats = np.mean([np.cumsum(r) / np.arange(1, len(r) + 1) for r in risks], axis=0)
    return mean


def thresholds(report: Report) -> list[Block]:
    """Five thresholds and their average, on the three splits; on LIDC with tables A to C of the 2020 student report."""
    measures = {"accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity", "iou": "IoU",
                "dice": "Dice"}  # fmt: skip
    ends = {**{f"@{t}": str(t) for t in (0.1, 0.3, 0.5, 0.7, 0.9)}, "_mean": "average"}
    rows = [
        (label, split, text, *(np.mean([figure(m + end).value(s) for s in scores]) for m in measures))
        for label in report.methods
        for split in SPLITS
        if (scores := report.scores(label, split))
        for end, text in ends.items()
    ]
    table = pd.DataFrame(rows, columns=["method", "split", "threshold", *measures.values()])
    if table.empty:
        return []
    texts = table.assign(
        **{c: table[c].map(lambda x: f"{x:.4f}" if np.isfinite(x) else "–") for c in measures.values()}
    )
    theirs = beside.student_report(report.results)
    for row in theirs.to_dict("records"):
        place = [row["method"], row["split"], ends.get(f"@{row['threshold']}", "average")]
        at = (texts[["method", "split", "threshold"]] == place).all(axis=1)
        value = f"{row['value']:.4f}" if "Table" in row["source"] else f"{row['value']:g}"
        texts.loc[at, measures[row["metric"]]] += f" ({value})"
    notes = {label: _in_brackets(part) for label, part in theirs.groupby("method")}
    least, most = report.results.run["data"]["read_per_case"]
    uneven = ", and an image counts once however many have read it" if least < most else ""
    return [
        "## Thresholds",
        "Pooled over images: true and false positives and negatives are summed before the ratio; each reader in "
        f"turn is the reference{uneven}. With the threshold, sensitivity can only fall and specificity only rise. Much "
        f"better figures on train than on test are overfitting. All in {report.csv(table, 'thresholds')}.",
        *(
            Fold(escape(label), [Table(part.drop(columns="method"), 2), notes.get(label, "")])
            for label, part in texts.groupby("method", sort=False)
        ),
    ]


def _in_brackets(rows: pd.DataFrame) -> str:
    """Whose the published values of a method are, and that they are no test."""
    places = ", ".join(source.rpartition(", ")[2] for source in dict.fromkeys(rows["source"]))
    return (
        f"In brackets what the 2020 student report published ({places}), of another protocol: "
        f"{escape('; '.join(dict.fromkeys(rows['protocol'])))}. Images, splits and references are others, so a "
        "difference is no test."
    )


def further(report: Report) -> list[Block]:
    """The tables of the registry that no other section shows, such as those of a plugin."""
    text = [line for name in registered_tables() if name not in PLACED for line in report.titled(name)]
    return ["## Further figures", *text] if text else []
