"""Three demonstrations on simulated data with a known truth: what a figure hides, what it adds, what it can reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.reference import YARDSTICKS, frequency_of, samples_of
from bench import optima, stats
from bench.runner import BATCH, Data, fit_name, fitted
from bench.spec import Cell
from bench.store import Store
from uqseg.data import AnnotatedSet, toy
from uqseg.metrics import Figure, Scored, ambiguity, score
from uqseg.metrics.calibration import ACTIVE, reliability
from uqseg.metrics.metric import Direction
from uqseg.prediction import predict_batches
from uqseg.seeds import generator

COUNTS = (1, 2, 4, 8, 16, 32, 64, 100)
LEVEL = 0.99  # of the intervals around the optima: about two dozen are looked at together
ROUNDING = 1e-9  # a sum of weights that is 1 in exact arithmetic
SHOWN = ("background", "prevalence", "consensus", "oracle")  # yardsticks that can be held against the truth
REGIONS = {
    "all pixels": "nobody",
    f"p ≥ {ACTIVE}": "the prediction",
    "marked by a reader": "the readers",
}
CLOSENESS = {
    "brier_excess": "Brier excess",
    "mean_error": "error of the mean map",
    "ged": "GED to the truth",
    "presence_error": "error of presence",
    "diversity_error": "diversity − truth",
}


class Truth(NamedTuple):
    """The exact distribution of a reader's mask: masks bool (N,K,H,W), probabilities float64 (N,K)."""

    masks: Tensor
    p: Tensor

    @property
    def mean(self) -> Tensor:
        """The probability that a reader marks a pixel: float64 (N,H,W)."""
        return torch.einsum("nk,nkhw->nhw", self.p, self.masks.double())


def truth_of(data: AnnotatedSet) -> Truth:
    """The truth about the images of toy."""
    masks, p = toy.truth(data.table, data.images.shape[-1])
    return Truth(torch.from_numpy(masks), torch.from_numpy(p))


def draws(truth: Truth, n: int, noise: torch.Generator) -> Tensor:
    """n independent masks of each image from the exact distribution: bool (N,n,H,W)."""
    drawn = torch.multinomial(truth.p, n, replacement=True, generator=noise)
    return truth.masks[torch.arange(len(drawn))[:, None], drawn]


class Curves(NamedTuple):
    """Per region: a table row of its ECE, and per bin the mean probability, the fraction marked, and the pixels."""

    table: pd.DataFrame
    bins: dict[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]


def calibration_by_region(images: int = 40, side: int = 64, readers: int = 4) -> Curves:
    """ECE of a perfectly calibrated predictor over regions that nobody, the prediction, or the readers chose.

    The probability p of each pixel is u⁴ with u uniform, and each reader marks it with probability p.
    """
    noise = generator("demonstration", "calibration")
    p = torch.rand(images, side, side, generator=noise, dtype=torch.float64) ** 4
    masks = torch.rand(images, readers, side, side, generator=noise, dtype=torch.float64) < p[:, None]
    chosen = dict(zip(REGIONS, (torch.ones_like(p, dtype=torch.bool), p >= ACTIVE, masks.any(1)), strict=True))
    weights, _ = stats.patient_weights([f"{i:06d}" for i in range(images)], stats.RESAMPLES)
    rows, bins = [], {}
    for region, keep in chosen.items():
        found = [reliability(q[k][None, None], m[:, k][None, :, None]) for q, m, k in zip(p, masks, keep, strict=True)]
        count, probability, label = (torch.cat(part).double().numpy() for part in zip(*found, strict=True))
        drawn = np.abs(weights @ (probability - label)).sum(1) / (weights @ count).sum(1)
        low, high = stats.interval(drawn[:, None])
        total = count.sum(0)
        ece = np.abs((probability - label).sum(0)).sum() / total.sum()
        rows.append((region, REGIONS[region], int(total.sum()), ece, low[0], high[0]))
        full = np.where(total > 0, total, np.nan)
        bins[region] = (probability.sum(0) / full, label.sum(0) / full, total)
    return Curves(pd.DataFrame(rows, columns=["region", "chosen by", "pixels", "ece", "low", "high"]), bins)


def selected_fraction(p: NDArray[np.float64], readers: int = 4) -> NDArray[np.float64]:
    """The fraction of R readers who mark a pixel of probability p, given that one of them does: p/(1−(1−p)^R)."""
    return p / (1 - (1 - p) ** readers)


def ged_by_draws(data: AnnotatedSet) -> pd.DataFrame:
    """GED of the exact distribution's own draws to that distribution: theory E d/S, measured plain and debiased.

    One row a number of draws S: samples, theory, ged, ged_low, ged_high, and the same of debiased (NaN at S = 1).
    """
    truth = truth_of(data)
    distance = ambiguity.diversity(truth.masks, truth.masks, sample_weights=truth.p).mean().item()
    figures = [_mean("ged"), _mean("debiased")]
    rows = []
    for n in COUNTS:
        samples = draws(truth, n, generator("demonstration", "draws", n))
        columns = {"ged": _ged(samples, truth, exact=True), "debiased": _ged(samples, truth, exact=False)}
        boot = stats.bootstrap({"draws": [_named(data, columns)]}, figures)
        low, high = stats.interval(boot.draws[0])
        (a, b), (c, d), (e, f) = boot.point[0], low, high
        rows.append((n, distance / n, a, c, e, b, d, f))
    names = ["samples", "theory", "ged", "ged_low", "ged_high", "debiased", "debiased_low", "debiased_high"]
    return pd.DataFrame(rows, columns=names)


def _ged(samples: Tensor, truth: Truth, *, exact: bool, weights: Tensor | None = None) -> Tensor:
    """GED (N,) to the exact distribution; debiased, NaN for one sample, unless the samples are all there are."""
    plain = ambiguity.ged(samples, truth.masks, sample_weights=weights, reader_weights=truth.p)
    return plain if exact else plain + _spread(samples, truth, True, weights) - _spread(samples, truth, False, weights)


def _spread(samples: Tensor, truth: Truth, exact: bool, weights: Tensor | None) -> Tensor:
    """Expected distance of two samples (N,), of draws without the chance to meet oneself."""
    spread = ambiguity.diversity(samples, truth.masks, sample_weights=weights)
    n = samples.shape[1]
    return spread if exact else spread * n / (n - 1) if n > 1 else torch.full_like(spread, torch.nan)


def _mean(name: str) -> Figure:
    """The mean over images of the column `name`."""
    direction: Direction = "none" if name == "diversity_error" else "lower"
    return Figure(name, "ambiguity", direction, (-1, 2), "", "", (name,))


def _named(data: AnnotatedSet, columns: Mapping[str, Any]) -> pd.DataFrame:
    return data.table[["case", "patient"]].assign(**columns)


def reach(data: AnnotatedSet) -> pd.DataFrame:
    """The exact distribution scored against the readers of toy, beside the optimum of every figure.

    prediction (the whole distribution, or as many draws as readers), figure, optimum, measured, difference with its
    99 % interval from resamples of patients, and whether that interval holds 0.
    """
    truth = truth_of(data)
    masks, p, R = truth.masks.numpy(), truth.p.numpy(), data.readers
    readers = torch.from_numpy(np.array(data.masks))
    sampled = draws(truth, R, generator("demonstration", "reach"))
    found = {
        "whole": (optima.of_distribution(masks, p, R), score(truth.masks, readers, weights=truth.p, exact=True)),
        f"{R} draws": (optima.of_draws(masks, p, R), score(sampled, readers)),
    }
    rows = []
    for prediction, (best, scores) in found.items():
        gaps = _named(data, {name: scores[name] - value for name, value in best.items()})
        boot = stats.bootstrap({prediction: [gaps]}, [_mean(name) for name in best])
        low, high = stats.interval(boot.draws[0], LEVEL)
        for k, (name, value) in enumerate(best.items()):
            inside = low[k] <= ROUNDING and high[k] >= -ROUNDING
            gap = boot.point[0, k]
            rows.append((prediction, name, value.mean(), scores[name].mean(), gap, low[k], high[k], inside))
    names = ["prediction", "figure", "optimum", "measured", "difference", "low", "high", "inside"]
    return pd.DataFrame(rows, columns=names)


def closeness(samples: Tensor, truth: Truth, *, exact: bool, weights: Tensor | None = None) -> dict[str, Tensor]:
    """How far samples (N,S,H,W) are from the truth, (N,) each; 0 is perfect.

    brier_excess: mean over pixels of (p̄ − truth)²; mean_error: mean |p̄ − truth| over the pixels that a reader may
    mark; ged to the exact distribution, debiased for draws; presence_error: |P̂ − chance that a reader marks anything|;
    diversity_error: expected distance of two samples less that of two readers.
    """
    scored = Scored(samples, truth.masks, weights=weights, reader_weights=truth.p)
    mean = truth.mean
    gap, possible = scored.prob.double() - mean, mean > 0
    drew = (scored.areas > 0).double()
    presence = (scored.weights * drew[:, : scored.S]).sum(1), (truth.p * drew[:, scored.S :]).sum(1)
    hypotheses = scored.hypotheses
    return {
        "brier_excess": gap.square().mean((1, 2)),
        "mean_error": (gap.abs() * possible).sum((1, 2)) / possible.sum((1, 2)),
        "ged": _ged(hypotheses, truth, exact=exact, weights=weights),
        "presence_error": (presence[0] - presence[1]).abs(),
        "diversity_error": _spread(hypotheses, truth, exact, weights) - scored.among_readers,
    }


def of_methods(
    cells: list[Cell], data: Data, where: Store, n: int, device: str, say: Callable[[str], None]
) -> dict[str, list[pd.DataFrame]]:
    """Closeness of each cell on the test images: per label one table a repetition. Trains what is not trained yet."""
    truth = truth_of(data.test)
    tables: dict[str, list[pd.DataFrame]] = {}
    for cell in cells:
        say(f"{cell.label}, repetition {cell.repetition}")
        with where.locked(fit_name(cell, data)):
            method = fitted(cell, data, where, device, progress=False)
        parts = []
        for part, samples in predict_batches(
            method, data.test.images, n, batch=BATCH, keys=data.test.table["case"].tolist()
        ):
            weights = method.weights(torch.from_numpy(np.array(data.test.images[part])), n)
            here = Truth(truth.masks[part], truth.p[part])
            held = None if weights is None else weights.cpu()
            found = closeness(samples.cpu(), here, exact=method.support is not None, weights=held)
            parts.append(pd.DataFrame({k: v.numpy() for k, v in found.items()}))
        whole = pd.concat(parts, ignore_index=True)
        tables.setdefault(cell.label, []).append(_named(data.test, {c: whole[c] for c in CLOSENESS}))
    return tables


def of_yardsticks(data: Data, n: int) -> dict[str, list[pd.DataFrame]]:
    """Closeness of the yardsticks, and of n draws from the exact distribution ("truth")."""
    truth, test = truth_of(data.test), data.test
    masks, read, frequency = (
        torch.from_numpy(np.array(test.masks)),
        torch.from_numpy(test.read),
        frequency_of(data.train),
    )
    tables = {}
    for name in SHOWN:
        noise = [generator(name, case) for case in test.table["case"]]
        samples = samples_of(name, masks, read, n, noise, frequency)
        tables[name] = [_named(test, closeness(samples, truth, exact=YARDSTICKS[name].exact))]
    own = draws(truth, n, generator("demonstration", "closeness", n))
    return {**tables, "truth": [_named(test, closeness(own, truth, exact=False))]}


def compare(tables: Mapping[str, list[pd.DataFrame]]) -> stats.Bootstrap:
    """Bootstrapped means of the figures of CLOSENESS."""
    return stats.bootstrap(tables, [_mean(name) for name in CLOSENESS])
