"""Demonstrations on simulated data with a known truth: what a figure hides, what it adds, what it can reach."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from baselines import yardsticks
from baselines.published import published
from baselines.published.consistency import consistency
from baselines.published.definitions import compared
from bench import optima, stats
from bench.launchers import Settings
from bench.report.demonstrations import Demonstrations, Examples, Regions
from bench.runs.record import machine
from bench.runs.work import BATCH, Job, make_sampler
from uqseg.data import AnnotatedSet
from uqseg.data.sources import toy, toy_crossing
from uqseg.device import pick_device
from uqseg.metrics import Figure, Scored, Scores, ambiguity, score
from uqseg.metrics.calibration import ACTIVE, reliability
from uqseg.metrics.registry import Drawn
from uqseg.metrics.threshold import THRESHOLDS
from uqseg.prediction import predict
from uqseg.samples import Samples
from uqseg.seeds import generator

COUNTS = (1, 2, 4, 8, 16, 32, 64, 100)
LEVEL = 0.99  # of the intervals around the optima: about forty are looked at together
ROUNDING = 1e-9  # a sum of weights that is 1 in exact arithmetic
YARDSTICKS = ("background", "prevalence", "consensus", "oracle")  # those that can be held against the truth
TRUTHS = {"toy": toy.truth, toy_crossing.NAME: toy_crossing.truth}
TRUTH = "truth"  # the label of draws from the exact distribution
EXAMPLES = 6  # images of toy on the page
REGIONS = {
    "all pixels": "nobody",
    f"p ≥ {ACTIVE}": "the prediction",
    "marked by a reader": "the readers",
}
_to_truth = partial(Figure, direction="lower", tables=("ambiguity",), reference="this project", range=(-1, 2))
CLOSENESS = [
    _to_truth("brier_excess", "Brier excess", ("brier_excess",), formula="mean over pixels of (p̄ − truth)²"),
    _to_truth(
        "mean_error",
        "error of the mean map",
        ("mean_error",),
        formula="mean |p̄ − truth| over the pixels that a reader may mark",
    ),
    _to_truth("ged", "GED to the truth", ("ged",), formula="GED to the exact distribution, debiased for draws"),
    _to_truth(
        "presence_error",
        "error of presence",
        ("presence_error",),
        formula="|P̂ − the chance that a reader marks anything|",
    ),
    _to_truth(
        "diversity_error",
        "diversity − truth",
        ("diversity_error",),
        direction="none",
        formula="expected distance of two samples less that of two readers",
    ),
]


class Truth(NamedTuple):
    """The exact distribution of a reader's mask: masks bool (N,K,H,W), probabilities float64 (N,K)."""

    masks: Tensor
    p: Tensor

    @property
    def mean(self) -> Tensor:
        """The probability that a reader marks a pixel: float64 (N,H,W)."""
        return torch.einsum("nk,nkhw->nhw", self.p, self.masks.double())


def compute(job: Job, settings: Settings) -> Demonstrations:
    """All that the page shows: methods on `toy`, trained where they are not yet, and what needs no training."""
    splits, n = job.splits, job.run.samples
    samples = of_methods(job, settings)
    settings.log("figures on the known truth")
    scores = {label: closeness(splits.test, drawn) for label, drawn in samples.items()}
    scores |= {name: closeness(splits.test, drawn) for name, drawn in of_yardsticks(job).items()}
    model = next((m for m, s in samples.items() if s.drawn == "independent"), next(iter(samples)))
    return Demonstrations(
        facts=_facts(job, settings),
        samples=n,
        readers=splits.test.readers,
        images=len(splits.test),
        methods=list(samples),
        yardsticks=[*YARDSTICKS, TRUTH],
        regions=calibration_by_region(),
        draws=ged_by_draws(splits.test),
        examples=_examples(splits.test.take(slice(0, EXAMPLES))),
        reach=reach(splits.test),
        closeness=stats.bootstrap({label: [each] for label, each in scores.items()}, CLOSENESS),
        model=model,
        definitions=compared(samples[model].prob.numpy(), np.array(splits.test.masks), samples[model].drawn),
        consistency=consistency(published()),
    )


def _facts(job: Job, settings: Settings) -> dict[str, str]:
    record, run, test = job.record, job.run, job.splits.test
    counts = ", ".join(f"{len(getattr(job.splits, s))} {s}" for s in ("train", "val", "test"))
    return {
        "command": record["command"],
        "code": f"version {record['version']}, commit {record['commit']}",
        "data": f"toy, {run.size}×{run.size} pixels, {counts} images, {test.readers} readers",
        "recipe": f"{run.recipe_name}: {run.recipe.description}; one repetition",
        "samples": f"{run.samples} for each image; methods with finite support give all they have",
        "machine": ", ".join(f"{k} {v}" for k, v in machine(pick_device(settings.device)).items()),
        **{f"declined: {label}": reason for label, reason in record["declined"].items()},
    }


def truth_of(data: AnnotatedSet) -> Truth:
    """The truth about the images of toy or toy-crossing."""
    masks, p = TRUTHS[data.name](data.table, data.images.shape[-1])
    return Truth(torch.from_numpy(masks), torch.from_numpy(p))


def _examples(data: AnnotatedSet) -> Examples:
    truth = truth_of(data)
    return Examples(
        np.array(data.images[:, 0]), truth.mean.numpy(), truth.masks.numpy(), truth.p.numpy(), list(toy.KINDS)
    )


def draws(truth: Truth, n: int, noise: torch.Generator) -> Tensor:
    """n independent masks of each image from the exact distribution: bool (N,n,H,W)."""
    drawn = torch.multinomial(truth.p, n, replacement=True, generator=noise)
    return truth.masks[torch.arange(len(drawn))[:, None], drawn]


def calibration_by_region() -> Regions:
    """ECE of a perfectly calibrated predictor over regions that nobody, the prediction, or the readers chose.

    The probability p of each pixel is u⁴ with u uniform, and each reader marks it with probability p.
    """
    images, side, readers = 40, 64, 4
    noise = generator("demonstration", "calibration")
    p = torch.rand(images, side, side, generator=noise, dtype=torch.float64) ** 4
    masks = torch.rand(images, readers, side, side, generator=noise, dtype=torch.float64) < p[:, None]
    chosen = dict(zip(REGIONS, (torch.ones_like(p, dtype=torch.bool), p >= ACTIVE, masks.any(1)), strict=True))
    weights, _ = stats.patient_weights([f"{i:06d}" for i in range(images)], stats.RESAMPLES)
    rows, curves = [], {}
    for region, keep in chosen.items():
        each = [reliability(q[k][None, None], m[:, k][None, :, None]) for q, m, k in zip(p, masks, keep, strict=True)]
        count, probability, label = torch.cat(each).numpy().swapaxes(0, 1)
        gaps = np.abs(weights @ (probability - label)).sum(1) / (weights @ count).sum(1)
        total = count.sum(0)
        ece = np.abs((probability - label).sum(0)).sum() / total.sum()
        rows.append((region, REGIONS[region], int(total.sum()), *stats.estimate(ece, gaps, images)))
        full = np.where(total > 0, total, np.nan)
        curves[region] = (probability.sum(0) / full, label.sum(0) / full, total)
    return Regions(pd.DataFrame(rows, columns=["region", "chosen by", "pixels", "ece", "low", "high"]), curves, readers)


def ged_by_draws(data: AnnotatedSet) -> pd.DataFrame:
    """GED of the exact distribution's own draws to that distribution: theory E d/S, measured plain and debiased.

    A row for each number of draws S: samples, theory, ged, ged_low, ged_high, and the same of debiased (NaN at S = 1).
    """
    truth = truth_of(data)
    distance = ambiguity.diversity(truth.masks, truth.masks, sample_weights=truth.p).mean().item()
    figures = [_mean(name) for name in ("ged", "debiased")]
    rows = []
    for n in COUNTS:
        scored = Scored(draws(truth, n, generator("demonstration", "draws", n)), truth.masks, reader_weights=truth.p)
        scores = _scores(data, {"ged": _ged(scored, "support"), "debiased": _ged(scored, "independent")}, n)
        boot = stats.bootstrap({"draws": [scores]}, figures)
        rows.append((n, distance / n, *boot.estimate("draws", "ged"), *boot.estimate("draws", "debiased")))
    names = ["samples", "theory", "ged", "ged_low", "ged_high", "debiased", "debiased_low", "debiased_high"]
    return pd.DataFrame(rows, columns=names)


def _ged(scored: Scored, drawn: Drawn) -> Tensor:
    """GED (N,) to the readers of `scored`, debiased for independent draws, of which it takes two."""
    return 2 * scored.to_readers - _spread(scored, drawn) - scored.among_readers


def _spread(scored: Scored, drawn: Drawn) -> Tensor:
    """Expected distance of two samples (N,), of independent draws without the chance to meet oneself."""
    spread, n = scored.among_samples, scored.S
    if drawn != "independent":
        return spread
    return spread * n / (n - 1) if n > 1 else torch.full_like(spread, torch.nan)


def _mean(name: str) -> Figure:
    """The mean over images of the statistic `name`."""
    return _to_truth(name, name, (name,), formula="mean")


def _scores(data: AnnotatedSet, values: Mapping[str, Tensor], n: int, drawn: Drawn = "independent") -> Scores:
    cases, patients = (data.table[c].to_numpy(np.str_) for c in ("case", "patient"))
    return Scores(cases, patients, {name: value.double().numpy() for name, value in values.items()}, n, drawn)


def reach(data: AnnotatedSet) -> pd.DataFrame:
    """The exact distribution scored against the readers of toy, beside the optimum of every figure.

    prediction (the distribution itself, or as many draws as readers), figure, optimum, measured, difference with its
    99 % interval from resamples of patients, and whether that interval holds 0.
    """
    truth = truth_of(data)
    masks, p, R = truth.masks.numpy(), truth.p.numpy(), data.readers
    readers = torch.from_numpy(np.array(data.masks))
    sampled = draws(truth, R, generator("demonstration", "reach"))
    predictions = {
        "distribution": (
            optima.of_distribution(masks, p, R),
            score(Samples(truth.masks.float(), truth.p, "support"), readers),
        ),
        f"{R} draws": (optima.of_draws(masks, p, R), score(sampled, readers)),
    }
    rows = []
    for prediction, (best, scores) in predictions.items():
        measured = {name: _column(scores, name) for name in best}
        gaps = _scores(data, {name: measured[name] - torch.from_numpy(value) for name, value in best.items()}, R)
        boot = stats.bootstrap({prediction: [gaps]}, [_mean(name) for name in best])
        for name, value in best.items():
            gap, resampled = boot.values(prediction, name)
            ends = np.quantile(resampled[np.isfinite(resampled)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            gap, low, high = (0.0 if abs(v) <= ROUNDING else v for v in (gap, *ends))
            inside = low <= 0 <= high
            rows.append((prediction, name, value.mean(), measured[name].nanmean().item(), gap, low, high, inside))
    names = ["prediction", "figure", "optimum", "measured", "difference", "low", "high", "inside"]
    return pd.DataFrame(rows, columns=names)


def _column(scores: Scores, figure: str) -> Tensor:
    """The values (N,) whose mean is a figure; after an @ stands the threshold."""
    statistic, _, threshold = figure.partition("@")
    column = scores.column(statistic)
    return torch.from_numpy(column[:, THRESHOLDS.index(float(threshold))] if threshold else column)


def closeness(data: AnnotatedSet, samples: Samples) -> Scores:
    """How far samples (N,S,H,W) of images whose truth is known are from it, by the names in CLOSENESS; 0 is perfect."""
    return _scores(data, distances_to(truth_of(data), samples), samples.prob.shape[1], samples.drawn)


def distances_to(truth: Truth, samples: Samples) -> dict[str, Tensor]:
    """The statistics of CLOSENESS, (N,) each."""
    scored = Scored(samples.prob, truth.masks, weights=samples.weights, reader_weights=truth.p)
    mean = truth.mean.flatten(1)
    gap, possible = scored.prob.double() - mean, mean > 0
    drew = (scored.areas > 0).double()
    presence = (scored.weights * drew[:, : scored.S]).sum(1), (truth.p * drew[:, scored.S :]).sum(1)
    return {
        "brier_excess": gap.square().mean(1),
        "mean_error": (gap.abs() * possible).sum(1) / possible.sum(1),
        "ged": _ged(scored, samples.drawn),
        "presence_error": (presence[0] - presence[1]).abs(),
        "diversity_error": _spread(scored, samples.drawn) - scored.among_readers,
    }


def of_methods(job: Job, settings: Settings) -> dict[str, Samples]:
    """Samples of the test images by each method of the run, which is trained if it is not yet."""
    samples = {}
    for name, entry in job.entries.items():
        if "fit" in entry:
            settings.log(entry["label"])
            sampler = make_sampler(job, name, settings)
            samples[entry["label"]] = predict(sampler, job.splits.test, job.run.samples, batch=BATCH)
    return samples


def of_yardsticks(job: Job) -> dict[str, Samples]:
    """Samples by the yardsticks, and as many draws from the exact distribution."""
    train, test, n = job.splits.train, job.splits.test, job.run.samples
    samples = {name: predict(yardsticks.build(name, train), test, n) for name in YARDSTICKS}
    own = draws(truth_of(test), n, generator("demonstration", "closeness", n))
    return {**samples, TRUTH: Samples(own.float(), None, "independent")}
