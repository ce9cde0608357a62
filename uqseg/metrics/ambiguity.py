"""Ambiguity metrics: do the samples disagree as the readers do?"""

from __future__ import annotations

from math import lcm

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

from uqseg.metrics.metric import Direction, Figure, Floats, Sums, metric
from uqseg.metrics.ranks import weighted_spearman
from uqseg.metrics.scored import Array, Scored
from uqseg.metrics.threshold import THRESHOLDS

CURVE = (1, 2, 4, 8, 16, 32, 64, 100)
_KOHL = "Kohl et al. 2018, arXiv:1806.05034"
_SZEKELY = "Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018"


def ged(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """GED² as a V-statistic, float64 (B,) in [0,2], of hypotheses (B,S,H,W) and readers (B,R,H,W), bool."""
    return _ged(Scored(samples, readers, None, sample_weights, reader_weights=reader_weights))["ged"]


def hm_iou(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """Mean IoU of hypotheses and readers optimally matched, float64 (B,) in [0,1]; arguments as in `ged`."""
    return _hm_iou(Scored(samples, readers, None, sample_weights, reader_weights=reader_weights))


def coverage(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """Mean over readers of the best Dice among samples, float64 (B,) in [0,1]; arguments as in `ged`."""
    return _coverage(Scored(samples, readers, None, sample_weights, reader_weights=reader_weights))


def validity(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """Mean over samples of the best Dice among readers, float64 (B,) in [0,1]; arguments as in `ged`."""
    return _validity(Scored(samples, readers, None, sample_weights, reader_weights=reader_weights))


def diversity(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """Expected distance of two hypotheses, float64 (B,) in [0,1); the readers are checked but do not enter."""
    return Scored(samples, readers, None, sample_weights, reader_weights=reader_weights).among_samples


def soft_dice(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """Mean over five thresholds of the Dice of mean sample and reader fraction, float64 (B,); samples may be float."""
    return _soft_dice(Scored(samples, readers, None, sample_weights, reader_weights=reader_weights))


def ncc(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """Normalised cross-correlation of Baumgartner et al. 2019, float64 (B,) in [-1,1], NaN where a map is constant."""
    return _ncc_samples(Scored(samples, readers, None, sample_weights, reader_weights=reader_weights))


def _ambiguity(name: str, direction: Direction, low: float, formula: str, degenerate: str = "") -> Figure:
    return Figure(name, "ambiguity", direction, (low, 2), formula, _SZEKELY, (name,), degenerate=degenerate)


@metric(
    "ged",
    group="ambiguity",
    direction="lower",
    range=(0, 2),
    formula="2 Σ w_s v_r d(h_s,y_r) − Σ w_s w_s' d(h_s,h_s') − Σ v_r v_r' d(y_r,y_r'), "
    "diagonals included; `ged_debiased` "
    "and `ged@k` correct it for the number of draws",
    reference=f"{_KOHL}; {_SZEKELY}",
    degenerate="d(∅,∅) = 0; `ged_debiased` and `ged@k`, k > 1, undefined for a single draw",
    figures=(
        _ambiguity("ged", "lower", 0, "2 E d(h,y) − E d(h,h') − E d(y,y'), diagonals included (GED²)"),
        _ambiguity("ged_cross", "lower", 0, "2 Σ w_s v_r d(h_s,y_r)"),
        _ambiguity("ged_samples", "none", 0, "Σ w_s w_s' d(h_s,h_s')"),
        _ambiguity("ged_readers", "none", 0, "Σ v_r v_r' d(y_r,y_r')"),
        _ambiguity("ged_debiased", "lower", -1, "GED with the sample term over 1 − Σ w_s², that is times S/(S−1); "
                   "unchanged where the samples are the whole distribution", "undefined for a single draw"),
        *(_ambiguity(f"ged@{k}", "lower", -1, f"GED expected from {k} draws: the debiased sample term times 1 − 1/{k}",
                     "undefined for a single draw if k > 1") for k in CURVE),
    ),
)  # fmt: skip
def _ged(scored: Scored) -> dict[str, Tensor]:
    cross, samples, readers = 2 * scored.to_readers, scored.among_samples, scored.among_readers
    distinct = 1 - scored.weights.square().sum(1)  # chance that two draws are not the same sample
    free = samples if scored.exact else torch.where(distinct > 1e-9, samples / distinct, torch.nan)
    columns = {
        "ged": cross - samples - readers,
        "ged_cross": cross,
        "ged_samples": samples,
        "ged_readers": readers,
        "ged_debiased": cross - free - readers,
    }
    for k in CURVE:
        spread = samples if scored.exact else free * (1 - 1 / k) if k > 1 else torch.zeros_like(free)
        columns[f"ged@{k}"] = cross - spread - readers
    return columns


@metric(
    "hm_iou",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    formula="mean IoU of samples and readers, repeated to lcm(S,R) and optimally assigned; "
    "optimal transport with weights",
    reference="Kohl et al. 2019, arXiv:1905.13077",
    degenerate="IoU(∅,∅) = 1",
)
def _hm_iou(scored: Scored) -> Tensor:
    gains = (1 - scored.distances[:, : scored.S, scored.S :]).cpu().numpy()
    w, v = scored.weights.cpu().numpy(), scored.reader_weights.cpu().numpy()
    best = [transport(g, a, b) for g, a, b in zip(gains, w, v, strict=True)]
    return torch.tensor(best, dtype=torch.float64, device=scored.masks.device)


def transport(gain: NDArray[np.float64], rows: Floats, columns: Floats) -> float:
    """Largest Σ π_ij gain_ij over couplings π ≥ 0 with the given row and column sums (each 1 in total)."""
    gain, rows, columns = gain[rows > 0][:, columns > 0], rows[rows > 0], columns[columns > 0]
    n, m = gain.shape
    length = lcm(n, m)
    if 1 in (n, m):
        return float(rows @ gain @ columns)
    if np.ptp(rows) < 1e-12 and np.ptp(columns) < 1e-12 and length <= 1024:
        matrix = np.repeat(np.repeat(gain, length // n, 0), length // m, 1)
        return float(matrix[linear_sum_assignment(matrix, maximize=True)].mean())
    sums = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))[:-1]])  # the last follows
    found = linprog(-gain.ravel(), A_eq=sums, b_eq=np.concatenate([rows, columns])[:-1], method="highs")
    if found.x is None:
        raise RuntimeError(f"optimal transport of {n} samples and {m} readers failed: {found.message}")
    return float(np.clip(gain.ravel() @ found.x, 0, 1))


@metric(
    "coverage",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    formula="Σ v_r max_s Dice(h_s, y_r), samples of weight 0 left out",
    reference="this project's name; called D_max in several papers",
    degenerate="Dice(∅,∅) = 1",
)
def _coverage(scored: Scored) -> Tensor:
    best = scored.dice.masked_fill((scored.weights <= 0)[:, :, None], -1).amax(1)
    return (scored.reader_weights * best).sum(1)


@metric(
    "validity",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    formula="Σ w_s max_r Dice(h_s, y_r), absent readers left out",
    reference="this project's name; called D_max in several papers",
    degenerate="Dice(∅,∅) = 1",
)
def _validity(scored: Scored) -> Tensor:
    best = scored.dice.masked_fill((scored.reader_weights <= 0)[:, None], -1).amax(2)
    return (scored.weights * best).sum(1)


@metric(
    "dice_max",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    formula="(coverage + validity)/2",
    reference="this project's name; called D_max in several papers",
    degenerate="Dice(∅,∅) = 1",
)
def _dice_max(scored: Scored) -> Tensor:
    return (_coverage(scored) + _validity(scored)) / 2


@metric(
    "soft_dice",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    formula="mean over t = 0.1, 0.3, 0.5, 0.7, 0.9 of Dice([p̄ ≥ t], [ȳ ≥ t])",
    reference="Ji et al. 2021, doi:10.1109/CVPR46437.2021.01216",
    degenerate="Dice(∅,∅) = 1",
)
def _soft_dice(scored: Scored) -> Tensor:
    found = []
    for t in THRESHOLDS:
        a, b = scored.prob >= t, scored.fraction >= t
        both, total = ((a & b).sum((1, 2)).double(), (a.sum((1, 2)) + b.sum((1, 2))).double())
        found.append(torch.where(total > 0, 2 * both / total, 1.0))
    return torch.stack(found).mean(0)


@metric(
    "diversity",
    group="ambiguity",
    direction="none",
    range=(0, 1),
    formula="Σ w_s w_s' d(h_s,h_s')",
    reference=_KOHL,
    degenerate="d(∅,∅) = 0; 0 for one sample",
)
def _diversity(scored: Scored) -> Tensor:
    return scored.among_samples


@metric(
    "diversity_ratio",
    group="ambiguity",
    direction="none",
    range=(0, np.inf),
    formula="diversity / Σ v_r v_r' d(y_r,y_r'); 1 is as diverse as the readers",
    reference="this project",
    degenerate="undefined where the readers agree exactly",
)
def _diversity_ratio(scored: Scored) -> Tensor:
    return torch.where(scored.among_readers > 0, scored.among_samples / scored.among_readers, torch.nan)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the last axis, float64, NaN where one of the two is constant up to float32 rounding."""
    a, b = a.double(), b.double()
    constant = _constant(a) | _constant(b)
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    value = (a * b).sum(-1) / (a.square().sum(-1) * b.square().sum(-1)).sqrt()
    return torch.where(constant, torch.nan, value.clamp(-1, 1))


def _constant(x: Tensor) -> Tensor:
    """Whether all values of the last axis are equal: maps summed in float32 differ by rounding where they are not."""
    return x.amax(-1) - x.amin(-1) <= 1e-6 * x.abs().amax(-1)


def _reader_variance(scored: Scored) -> Tensor:
    fraction = scored.fraction.double()
    return fraction * (1 - fraction)


@metric(
    "ncc_variance",
    group="ambiguity",
    direction="higher",
    range=(-1, 1),
    formula="Pearson correlation over pixels of the total uncertainty, the entropy of p̄, and ȳ(1−ȳ)",
    reference="Hu et al. 2019, arXiv:1907.01949; Kahl et al. 2024, arXiv:2401.08501",
    degenerate="undefined for a constant map",
)
def _ncc_variance(scored: Scored) -> Tensor:
    return pearson(scored.entropy.flatten(1), _reader_variance(scored).flatten(1))


@metric(
    "ncc_std",
    group="ambiguity",
    direction="higher",
    range=(-1, 1),
    formula="Pearson correlation over pixels of the standard deviation over samples and ȳ(1−ȳ)",
    reference="Hu et al. 2019, arXiv:1907.01949",
    degenerate="undefined for a constant map, so for a single sample",
)
def _ncc_std(scored: Scored) -> Tensor:
    return pearson(scored.std.flatten(1), _reader_variance(scored).flatten(1))


@metric(
    "ncc_samples",
    group="ambiguity",
    direction="higher",
    range=(-1, 1),
    formula="Σ v_r corr(Σ w_s CE(p̄, p_s), Σ w_s CE(y_r, p_s)) over pixels, p_s clipped to [1e-6, 1−1e-6]",
    reference="Baumgartner et al. 2019, arXiv:1906.04045",
    degenerate="undefined where a map is constant; the mean is over the readers for whom it is defined",
)
def _ncc_samples(scored: Scored) -> Tensor:
    yes, no, _ = scored.logs
    mean = scored.prob.flatten(1)
    own = -(mean * yes + (1 - mean) * no)
    others = -torch.where(scored.masks.flatten(2), yes[:, None], no[:, None])
    value = pearson(own[:, None].expand_as(others), others)
    weight = scored.reader_weights * ~value.isnan()
    total = weight.sum(1)
    return torch.where(total > 0, (weight * value.nan_to_num()).sum(1) / total, torch.nan)


def _spearman(x: str, y: str) -> Figure:
    def over(values: Sums, weights: Floats) -> Floats:
        return weighted_spearman(values[x], values[y], weights)

    name = "spearman_std" if x == "std_mean" else "spearman_diversity"
    text = {"std_mean": "mean standard deviation over samples and mean standard deviation over readers"}
    formula = f"Spearman's ρ across images of {text.get(x, 'diversity and 1 − mean IoU of two readers')}"
    return Figure(name, "ambiguity", "higher", (-1, 1), formula, "Spearman 1904", (x, y), "across",
                  "undefined where one of the two is constant", over=over)  # fmt: skip


@metric(
    "disagreement",
    group="ambiguity",
    direction="higher",
    range=(-1, 1),
    formula="Spearman's ρ across images of predicted and reader disagreement: `spearman_std` "
    "(mean standard deviation), "
    "`spearman_diversity` (diversity against 1 − mean IoU of two different readers)",
    reference="Spearman 1904",
    degenerate="images with one reader are left out of `spearman_diversity`; undefined where "
    "one of the two is constant",
    figures=(_spearman("std_mean", "reader_std_mean"), _spearman("diversity", "reader_disagreement")),
)
def _disagreement(scored: Scored) -> dict[str, Tensor]:
    distinct = 1 - scored.reader_weights.square().sum(1)
    return {
        "std_mean": scored.std.mean((1, 2), dtype=torch.float64),
        "reader_std_mean": _reader_variance(scored).sqrt().mean((1, 2)),
        "reader_disagreement": torch.where(distinct > 1e-9, scored.among_readers / distinct, torch.nan),
    }


@metric(
    "member_hits",
    group="ambiguity",
    direction="higher",
    range=(0, 1),
    formula="samples that touch the majority lesion [ȳ ≥ 0.5]: `hit_share` their share, `hit_three_quarters` the "
    "share of images where at least 3/4 of them do; column `member_hits` counts them, `hit_counts` the images by count",
    reference="this project",
    degenerate="undefined where the majority is empty",
    figures=(
        Figure("hit_share", "ambiguity", "higher", (0, 1), "mean share of samples that touch [ȳ ≥ 0.5]", "this project",
               ("hit_share",), degenerate="undefined where the majority is empty"),
        Figure("hit_three_quarters", "ambiguity", "higher", (0, 1), "images where ≥ 3/4 of the samples touch it",
               "this project", ("hit_three_quarters",), degenerate="undefined where the majority is empty"),
    ),
)  # fmt: skip
def _member_hits(scored: Scored) -> dict[str, Tensor]:
    touches = (scored.hypotheses & scored.majority[:, None]).flatten(2).any(2) & (scored.weights > 0)
    lesion = scored.majority.flatten(1).any(1)
    hits = torch.where(lesion, touches.sum(1).double(), torch.nan)
    share = torch.where(lesion, (scored.weights * touches).sum(1).clamp(0, 1), torch.nan)
    enough = torch.where(lesion, (share >= 0.75 - 1e-9).double(), torch.nan)
    return {"member_hits": hits, "hit_share": share, "hit_three_quarters": enough}


def hit_counts(member_hits: Floats, members: int) -> NDArray[np.int64]:
    """In how many images 0, 1, …, `members` samples touch the majority lesion: (members+1,), from the column (N,).

    Images without a majority lesion (NaN) are in none of them.
    """
    hits = np.asarray(member_hits, float)
    hits = hits[np.isfinite(hits)].astype(np.intp)
    if np.any(hits > members):
        raise ValueError(f"members: expected at least the most hits of an image, {hits.max()}, got {members}")
    return np.bincount(hits, minlength=members + 1).astype(np.int64)
