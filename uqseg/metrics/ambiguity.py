"""Ambiguity figures: do the samples disagree as the readers do, in the same places, and in the same images?

What follows from mean distances alone, GED above all, is in `distances`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from uqseg.metrics.distances import ambiguity_figure
from uqseg.metrics.matching import assign, transport
from uqseg.metrics.ranks import weighted_spearman
from uqseg.metrics.registry import Columns, Drawn, Floats, declare, derived, statistic
from uqseg.metrics.threshold import THRESHOLDS

if TYPE_CHECKING:
    from torch import Tensor

    from uqseg.metrics.scored import Array, Scored


def ged(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """GED² as a V-statistic, float64 (B,) in [0,2], of hypotheses (B,S,H,W) and readers (B,R,H,W), bool."""
    scored = _pair(samples, readers, sample_weights, reader_weights)
    return 2 * scored.to_readers - scored.among_samples - scored.among_readers


def hm_iou(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """Mean IoU of hypotheses and readers optimally matched, float64 (B,) in [0,1]; arguments as in `ged`."""
    return _hm_iou(_pair(samples, readers, sample_weights, reader_weights))


def diversity(
    samples: Array, readers: Array, *, sample_weights: Array | None = None, reader_weights: Array | None = None
) -> Tensor:
    """Expected distance of two hypotheses, float64 (B,) in [0,1); the readers are checked but do not enter."""
    return _pair(samples, readers, sample_weights, reader_weights).among_samples


def _pair(samples: Array, readers: Array, sample_weights: Array | None, reader_weights: Array | None) -> Scored:
    from uqseg.metrics.scored import Scored

    return Scored(samples, readers, None, sample_weights, reader_weights=reader_weights)


# Matching samples and readers


@statistic("hm_iou")
def _hm_iou(scored: Scored) -> Tensor:
    gains = (1 - scored.distances[:, : scored.S, scored.S :]).cpu().numpy()
    w, v = scored.weights.cpu().numpy(), scored.reader_weights.cpu().numpy()
    best = [transport(g, a, b) for g, a, b in zip(gains, w, v, strict=True)]
    return scored.weights.new_tensor(best)


@statistic("dice_match")
def _dice_match(scored: Scored) -> Tensor:
    dice, v = scored.dice.cpu().numpy(), scored.reader_weights.cpu().numpy()
    drawn = (scored.weights > 0).cpu().numpy()
    best = [assign(d[keep], readers) for d, keep, readers in zip(dice, drawn, v, strict=True)]
    return scored.weights.new_tensor(best)


@statistic("coverage")
def _coverage(scored: Scored) -> Tensor:
    best = scored.dice.masked_fill((scored.weights <= 0)[:, :, None], -1).amax(1)
    return (scored.reader_weights * best).sum(1)


@statistic("validity")
def _validity(scored: Scored) -> Tensor:
    best = scored.dice.masked_fill((scored.reader_weights <= 0)[:, None], -1).amax(2)
    return (scored.weights * best).sum(1)


@derived("dice_max", ("coverage", "validity"))
def _dice_max(x: Columns, drawn: Drawn) -> Floats:
    return (x["coverage"] + x["validity"]) / 2


@statistic("soft_dice", several_readers=True)
def _soft_dice(scored: Scored) -> Tensor:
    import torch

    both = torch.bmm(scored.cuts, scored.reader_cuts.mT).diagonal(dim1=1, dim2=2).double()
    total = scored.cuts.sum(2).double() + scored.reader_cuts.sum(2).double()
    dice = (2 * both / total.clamp_min(1)).masked_fill(total == 0, 1)
    # Added one after the other: a sum over the axis may add in another order in another batch.
    return sum(dice.unbind(1)[1:], dice[:, 0]) / len(THRESHOLDS)


_match = partial(ambiguity_figure, direction="higher", depends_on_samples=True, degenerate="Dice(∅,∅) = 1")
_NAMED = "this project's name; one of three that papers call D_max"
declare(_match("hm_iou", "HM-IoU", ("hm_iou",), tables=("ambiguity", "summary"), degenerate="IoU(∅,∅) = 1",
               formula="mean IoU of samples and readers, repeated to lcm(S,R) and optimally assigned; optimal "
               "transport with weights", reference="Kohl et al. 2019, arXiv:1905.13077",
               same_as="CCDM, BerDiff, MoSE (also weighted)",
               unlike="Flow-SSN (each reader to its best of 100)"))  # fmt: skip
_PERSONA = "ValUES (empty against empty = 0)"
declare(_match("coverage", "coverage", ("coverage",),
               formula="Σ v_r max_s Dice(h_s, y_r), samples of weight 0 left out", reference=_NAMED,
               same_as="D-Persona's dice_max_reverse", unlike=_PERSONA))  # fmt: skip
declare(_match("validity", "validity", ("validity",), formula="Σ w_s max_r Dice(h_s, y_r), absent readers left out",
               reference=_NAMED, same_as="D-Persona's dice_max", unlike=_PERSONA,
               depends_on_samples=False))  # fmt: skip
declare(_match("dice_max", "mean of both", ("dice_max",), formula="(coverage + validity)/2", reference=_NAMED))
declare(_match("dice_match", "Dice, matched", ("dice_match",),
               formula="mean over readers of Dice, each matched to another sample so that it is largest; rises with S",
               reference="Wu et al. 2024 (D-Persona), CVPR",
               degenerate="Dice(∅,∅) = 1; undefined where S < R"))  # fmt: skip
declare(_match("soft_dice", "soft Dice", ("soft_dice",), depends_on_samples=False, same_as="MRNet (≥)",
               formula="mean over t = 0.1, 0.3, 0.5, 0.7, 0.9 of Dice([p̄ ≥ t], [ȳ ≥ t])",
               reference="Ji et al. 2021, doi:10.1109/CVPR46437.2021.01216",
               unlike="D-Persona, BerDiff (>): 0.73 beside 0.69 on the same maps"))  # fmt: skip


# Where, and in which images, the uncertainty is


@statistic("ncc_variance")
def _ncc_variance(scored: Scored) -> Tensor:
    from uqseg.metrics.maps import pearson

    return pearson(scored.entropy, scored.reader_variance)


@statistic("ncc_std")
def _ncc_std(scored: Scored) -> Tensor:
    from uqseg.metrics.maps import pearson

    return pearson(scored.std, scored.reader_variance)


@statistic("ncc_samples")
def _ncc_samples(scored: Scored) -> Tensor:
    import torch

    from uqseg.metrics.maps import pearson

    yes, no = scored.logs.yes, scored.logs.no
    own = scored.prob * yes + (1 - scored.prob) * no
    marks = scored.references[:, :-1].float()
    value = pearson(own[:, None], torch.lerp(no[:, None], yes[:, None], marks))  # of both with the other sign
    weight = scored.reader_weights * ~value.isnan()
    total = weight.sum(1)
    return (weight * value.nan_to_num()).sum(1) / total.masked_fill(total == 0, float("nan"))


@statistic("std_mean")
def _std_mean(scored: Scored) -> Tensor:
    return scored.std.double().mean(1)


@statistic("reader_std_mean")
def _reader_std_mean(scored: Scored) -> Tensor:
    return scored.reader_variance.sqrt().mean(1)


_agree = partial(ambiguity_figure, tables=("agreement",), direction="higher", range=(-1, 1))
declare(_agree("ncc_variance", "NCC, entropy", ("ncc_variance",), degenerate="undefined for a constant map",
               formula="Pearson correlation over pixels of the total uncertainty, the entropy of p̄, and ȳ(1−ȳ)",
               reference="Hu et al. 2019, arXiv:1907.01949; Kahl et al. 2024, arXiv:2401.08501"))  # fmt: skip
declare(_agree("ncc_std", "NCC, std", ("ncc_std",), reference="Hu et al. 2019, arXiv:1907.01949",
               formula="Pearson correlation over pixels of the standard deviation over samples and ȳ(1−ȳ)",
               degenerate="undefined for a constant map, so for a single sample"))  # fmt: skip
declare(_agree("ncc_samples", "NCC, samples", ("ncc_samples",), reference="Baumgartner et al. 2019, arXiv:1906.04045",
               formula="Σ v_r corr(Σ w_s CE(p̄, p_s), Σ w_s CE(y_r, p_s)) over pixels, p_s clipped to [1e-6, 1−1e-6]",
               degenerate="undefined where a map is constant; the mean is over the readers for whom it is defined",
               same_as="PHiSeg but for its log(p + 1e-8): equal where p is not below 1e-4"))  # fmt: skip


def _spearman(x: str, y: str) -> Callable[[Columns, Floats], Floats]:
    return lambda values, weights: weighted_spearman(values[x], values[y], weights)


for _end, _x, _y, _what in (
    (
        "std",
        "std_mean",
        "reader_std_mean",
        "mean standard deviation over samples and mean standard deviation over readers",
    ),
    ("diversity", "diversity", "reader_diversity", "diversity and 1 − mean IoU of two different readers"),
):
    declare(_agree(f"spearman_{_end}", f"Spearman, {_end}", (_x, _y), reference="Spearman 1904",
                   formula=f"Spearman's ρ across images of {_what}", from_cases=_spearman(_x, _y),
                   degenerate="undefined where one of the two is constant"))  # fmt: skip


@statistic("member_hits", several_readers=True)
def _member_hits(scored: Scored) -> Tensor:
    """How many samples touch the majority lesion [ȳ ≥ 0.5], NaN where there is none."""
    hits = (scored.touches & (scored.weights > 0)).sum(1).double()
    return hits.masked_fill(~scored.majority.any(1), float("nan"))


@statistic("hit_share", several_readers=True)
def _hit_share(scored: Scored) -> Tensor:
    share = (scored.weights * scored.touches).sum(1).clamp(0, 1)
    return share.masked_fill(~scored.majority.any(1), float("nan"))


@derived("hit_three_quarters", ("hit_share",))
def _hit_three_quarters(x: Columns, drawn: Drawn) -> Floats:
    share = x["hit_share"]
    return np.where(np.isnan(share), np.nan, share >= 0.75 - 1e-6)  # 3/4 by rounding, also that of float32 in a file


_hit = partial(ambiguity_figure, tables=("hits",), direction="higher", reference="this project",
               degenerate="undefined where the majority is empty")  # fmt: skip
declare(_hit("hit_share", "share of samples", ("hit_share",), formula="mean share of samples that touch [ȳ ≥ 0.5]"))
declare(_hit("hit_three_quarters", "images with 3/4 of them", ("hit_three_quarters",), depends_on_samples=True,
             formula="images where ≥ 3/4 of the samples touch it"))  # fmt: skip


def hit_counts(member_hits: Floats, members: int) -> NDArray[np.int64]:
    """In how many images 0, 1, …, `members` samples touch the majority lesion: (members+1,), from the column (N,).

    Images without a majority lesion (NaN) are in none of them.
    """
    hits = np.asarray(member_hits, float)
    hits = hits[np.isfinite(hits)].astype(np.intp)
    if np.any(hits > members):
        raise ValueError(f"members: expected at least the most hits of an image, {hits.max()}, got {members}")
    return np.bincount(hits, minlength=members + 1).astype(np.int64)
