"""Distances: GED and its parts, and how much samples and readers differ among themselves.

All of it follows from three mean distances: of a sample and a reader, of two samples, of two readers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from uqseg.metrics.registry import Columns, Drawn, Figure, Floats, declare, derived, ratio, statistic

if TYPE_CHECKING:
    from torch import Tensor

    from uqseg.metrics.scored import Scored

CURVE = (1, 2, 4, 8, 16, 32, 64, 100)
"""Numbers of draws for which GED is given."""
_KOHL = "Kohl et al. 2018, arXiv:1806.05034"
_SZEKELY = "Székely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018"


@statistic("ged_cross")
def _ged_cross(scored: Scored) -> Tensor:
    return 2 * scored.to_readers


@statistic("ged_samples")
def _ged_samples(scored: Scored) -> Tensor:
    return scored.among_samples


@statistic("ged_readers")
def _ged_readers(scored: Scored) -> Tensor:
    return scored.among_readers


@statistic("weights_squared")
def _weights_squared(scored: Scored) -> Tensor:
    """Σ w_s², the chance that two draws are the same sample; 1/S for equal weights."""
    return scored.weights.square().sum(1)


def unbiased(spread: Floats, same: Floats) -> Floats:
    """A mean over pairs of draws without the pairs of a draw with itself; NaN for a single draw."""
    return ratio(spread, np.where(1 - same > 1e-6, 1 - same, 0.0))


def _of_draws(x: Columns, drawn: Drawn) -> Floats:
    """The model's own expected distance, D_m: corrected for independent draws, otherwise that of the samples."""
    return unbiased(x["ged_samples"], x["weights_squared"]) if drawn == "independent" else x["ged_samples"]


_PARTS = ("ged_cross", "ged_samples", "ged_readers")
_DRAWS = (*_PARTS, "weights_squared")


@derived("ged", _PARTS)
def _ged(x: Columns, drawn: Drawn) -> Floats:
    return x["ged_cross"] - x["ged_samples"] - x["ged_readers"]


@derived("ged_limit", _DRAWS)
def _ged_limit(x: Columns, drawn: Drawn) -> Floats:
    return x["ged_cross"] - _of_draws(x, drawn) - x["ged_readers"]


@derived("ged_limit_misfit", _DRAWS)
def _ged_limit_misfit(x: Columns, drawn: Drawn) -> Floats:
    return x["ged_cross"] - 2 * _of_draws(x, drawn)


@derived("ged_limit_spread", _DRAWS)
def _ged_limit_spread(x: Columns, drawn: Drawn) -> Floats:
    return _of_draws(x, drawn) - x["ged_readers"]


@derived("ged_debiased", _DRAWS)
def _ged_debiased(x: Columns, drawn: Drawn) -> Floats:
    return np.full_like(x["ged_cross"], np.nan) if drawn == "stratified" else _ged_limit(x, drawn)


@derived("ged_unbiased", (*_DRAWS, "reader_diversity"))
def _ged_unbiased(x: Columns, drawn: Drawn) -> Floats:
    both = x["ged_cross"] - _of_draws(x, drawn) - x["reader_diversity"]
    return both if drawn == "independent" else np.full_like(both, np.nan)


@derived("ged_by_draws", _DRAWS)
def _ged_by_draws(x: Columns, drawn: Drawn) -> Floats:
    """GED expected from k draws, (N,len(CURVE)): the samples' term times 1 − 1/k, that of a support as it is."""
    if drawn == "support":
        return np.repeat(_ged(x, drawn)[:, None], len(CURVE), 1)
    if drawn == "stratified":
        return np.full((len(x["ged_cross"]), len(CURVE)), np.nan)
    left = 1 - 1 / np.array(CURVE)
    spread = np.where(left > 0, _of_draws(x, drawn)[:, None] * left, 0.0)
    return (x["ged_cross"] - x["ged_readers"])[:, None] - spread


ambiguity_figure = partial(Figure, tables=("ambiguity",), direction="lower", reference=_SZEKELY)
"""A figure of the table on ambiguity, unless more is said."""
_GED = "2 E d(h,y) − E d(h,h') − E d(y,y')"
declare(
    ambiguity_figure(
        "ged_limit", "GED, limit", ("ged_limit",), tables=("ambiguity", "summary", "limit"), range=(-1, 2),
        formula=f"{_GED}, the second term over 1 − Σ w_s² for independent draws; of stratified samples it is GED(S), "
        "which comes near the limit from above. Kinds of samples are compared in this figure",
        degenerate="undefined for a single independent draw",
    )
)  # fmt: skip
declare(
    ambiguity_figure(
        "ged", "GED", ("ged",), tables=("ambiguity", "summary"), range=(0, 2), depends_on_samples=True,
        formula=f"{_GED}, diagonals included (GED²); weights w_s, v_r", reference=f"{_KOHL}; {_SZEKELY}",
        degenerate="d(∅,∅) = 0", same_as="PHiSeg, BerDiff, CCDM (to 1e-15), MoSE, CIMD (their eps, 5e-6)",
        unlike="D-Persona (d(∅,∅) = 1 by an eps in the denominator: 0.078 beside 0.106) and its second form (U on both "
        "sides), ValUES (1 − Dice pooled over pairs), cFlow where S ≠ R (pairs misaligned), Kohl's Cityscapes code "
        "(NaN where both are empty)",
    )
)  # fmt: skip
declare(
    ambiguity_figure(
        "ged_debiased", "GED, debiased", ("ged_debiased",), range=(-1, 2),
        formula="GED with the second term over 1 − Σ w_s², that is times S/(S−1), for independent draws; of a support "
        "it is GED", degenerate="undefined for a single draw and for stratified samples",
    )
)  # fmt: skip
declare(
    ambiguity_figure(
        "ged_unbiased", "GED, unbiased", ("ged_unbiased",), tables=("limit",), range=(-2, 2),
        formula=f"{_GED}, without the diagonals of both sides (D-Persona's second form)",
        degenerate="only for independent draws, two at least, and two readers at least",
    )
)  # fmt: skip
_MISFIT = (
    "2 (E d(h,y) − D_m): what better training can remove, 0 for a perfect sampler and below 0 where samples disagree "
    "far more than the readers; D_m is E d of two draws"
)
for _name, _title, _formula in (
    ("misfit", "2 (cross − D_m)", _MISFIT),
    ("spread", "D_m − readers' V", "D_m − E d(y,y'): what is left of ged_limit"),
):
    declare(ambiguity_figure(f"ged_limit_{_name}", _title, (f"ged_limit_{_name}",), tables=("limit",), range=(-2, 2),
                             direction="none", formula=_formula,
                             degenerate="undefined for a single independent draw"))  # fmt: skip
declare(ambiguity_figure("ged_cross", "2 E d(sample, reader)", ("ged_cross",), tables=("parts",), direction="none",
                         range=(0, 2), formula="2 Σ w_s v_r d(h_s,y_r); no value is best: a single mask between "
                         "the readers has less than samples that disagree as they do"))  # fmt: skip
declare(ambiguity_figure("ged_samples", "E d(sample, sample)", ("ged_samples",), tables=("parts",), direction="none",
                         formula="Σ w_s w_s' d(h_s,h_s')", depends_on_samples=True))  # fmt: skip
declare(ambiguity_figure("ged_readers", "E d(reader, reader)", ("ged_readers",), tables=("parts",), direction="none",
                         formula="Σ v_r v_r' d(y_r,y_r')"))  # fmt: skip


def _mean_at(sums: Columns, counts: Columns, i: int) -> Floats:
    return ratio(np.asarray(sums["ged_by_draws"])[..., i], np.asarray(counts["ged_by_draws"])[..., i])


for _i, _k in enumerate(CURVE):
    declare(ambiguity_figure(f"ged@{_k}", f"GED of {_k}", ("ged_by_draws",), tables=("draws",), range=(-1, 2),
                             family="ged@k", depends_on_samples=True,
                             formula="GED expected from k draws: the debiased sample term times 1 − 1/k",
                             degenerate="undefined for a single draw if k > 1, and for stratified samples",
                             from_sums=partial(_mean_at, i=_i), reads=(_i,)))  # fmt: skip


# Whether, and where: d(a,b) = [exactly one is empty] + [both drawn]·(1 − IoU).


@statistic("samples_drawing")
def _samples_drawing(scored: Scored) -> Tensor:
    """How many samples of weight above 0 mark anything."""
    return ((scored.areas[:, : scored.S] > 0) & (scored.weights > 0)).sum(1).double()


_PRESENCE = ("presence", "presence_readers")


def _among_those_who_draw(x: Columns, part: str, presence: str) -> Floats:
    """V-diversity among the sets that are not empty, 0 where there are none."""
    p = x[presence]
    return ratio(x[part] - 2 * p * (1 - p), p**2, 0.0)


@derived("ged_presence", _PRESENCE)
def _ged_presence(x: Columns, drawn: Drawn) -> Floats:
    return 2 * (x["presence"] - x["presence_readers"]) ** 2


@derived("ged_presence_debiased", (*_PRESENCE, "weights_squared"))
def _ged_presence_debiased(x: Columns, drawn: Drawn) -> Floats:
    same = x["weights_squared"]
    bias = 2 * x["presence"] * (1 - x["presence"]) * unbiased(same, same)
    return _ged_presence(x, drawn) - (bias if drawn == "independent" else 0)


@derived("ged_presence_excess", (*_PRESENCE, "weights_squared", "readers_present"))
def _ged_presence_excess(x: Columns, drawn: Drawn) -> Floats:
    f, n = x["presence_readers"], x["readers_present"]
    return _ged_presence_debiased(x, drawn) - ratio(2 * f * (1 - f), n - 1)


@derived("ged_mixed", (*_PRESENCE, "ged_samples", "ged_readers"))
def _ged_mixed(x: Columns, drawn: Drawn) -> Floats:
    """−(P̂ − P̄)(P̂·D_h − P̄·D_y)."""
    p, f = x["presence"], x["presence_readers"]
    own = _among_those_who_draw(x, "ged_samples", "presence")
    theirs = _among_those_who_draw(x, "ged_readers", "presence_readers")
    return -(p - f) * (p * own - f * theirs)


@derived("ged_place", (*_PARTS, *_PRESENCE))
def _ged_place(x: Columns, drawn: Drawn) -> Floats:
    """P̂·P̄·`ged_drawn`, 0 where nobody draws on one side."""
    return np.where(
        x["presence"] * x["presence_readers"] > 0, _ged(x, drawn) - _ged_presence(x, drawn) - _ged_mixed(x, drawn), 0
    )


@derived("ged_drawn", (*_PARTS, *_PRESENCE, "samples_drawing"))
def _ged_drawn(x: Columns, drawn: Drawn) -> Floats:
    enough = x["samples_drawing"] >= (2 if drawn == "independent" else 1)
    return np.where(enough, ratio(_ged_place(x, drawn), x["presence"] * x["presence_readers"]), np.nan)


_place = partial(ambiguity_figure, tables=("presence_and_place",), reference="this project")
_IDENTITY = "`ged` = `ged_presence` + `ged_place` + `ged_mixed`"
declare(_place("ged_presence", "presence", ("ged_presence",), range=(0, 2), depends_on_samples=True,
               formula=f"2(P̂ − P̄)², shares of samples and readers that draw anything; {_IDENTITY}"))  # fmt: skip
declare(_place("ged_place", "place", ("ged_place",), range=(-2, 2), depends_on_samples=True,
               formula=f"P̂·P̄·`ged_drawn`, 0 where nobody draws on one side; {_IDENTITY}"))  # fmt: skip
declare(_place("ged_mixed", "mixed", ("ged_mixed",), range=(-2, 2), direction="none", depends_on_samples=True,
               formula="−(P̂ − P̄)(P̂·D_h − P̄·D_y), D the V-diversity among those that draw"))  # fmt: skip
declare(_place("ged_presence_debiased", "presence, debiased", ("ged_presence_debiased",), range=(-2, 2),
               formula="ged_presence, for independent draws less 2P̂(1−P̂)/(S−1)",
               degenerate="undefined for a single independent draw"))  # fmt: skip
declare(_place("ged_presence_excess", "presence, excess", ("ged_presence_excess",), range=(-2, 2),
               direction="none", formula="ged_presence_debiased less 2P̄(1−P̄)/(R−1): 0 is expected of a perfect "
               "sampler, less of one that knows these very readers, as the oracle does",
               degenerate="undefined for one reader or a single independent draw"))  # fmt: skip
declare(_place("ged_drawn", "GED of those that draw", ("ged_drawn",), range=(0, 2), depends_on_samples=True,
               common_cases=True, formula="GED between the samples that draw anything and the readers who did",
               degenerate="undefined where nobody draws on one side, or one of independent draws"))  # fmt: skip


@derived("diversity", ("ged_samples",))
def _diversity(x: Columns, drawn: Drawn) -> Floats:
    return x["ged_samples"]


@derived("diversity_unbiased", ("ged_samples", "weights_squared"))
def _diversity_unbiased(x: Columns, drawn: Drawn) -> Floats:
    single = x["weights_squared"] > 1 - 1e-6
    return np.where(single | (drawn == "stratified"), np.nan, _of_draws(x, drawn))


@derived("readers_present", ("areas_readers",))
def _readers_present(x: Columns, drawn: Drawn) -> Floats:
    """How many readers read the image."""
    return np.asarray(np.isfinite(x["areas_readers"][:, :-1]).sum(1), np.float64)


@derived("reader_diversity", ("ged_readers", "readers_present"))
def _reader_diversity(x: Columns, drawn: Drawn) -> Floats:
    """Mean distance of two different readers: the V-statistic times R/(R−1), NaN for one reader."""
    n = x["readers_present"]
    return ratio(x["ged_readers"] * n, n - 1)


@derived("diversities", ("diversity_unbiased", "reader_diversity"))
def _diversities(x: Columns, drawn: Drawn) -> Floats:
    """Those of samples and readers, (N,2), where both are defined."""
    both = np.stack([x["diversity_unbiased"], x["reader_diversity"]], 1)
    return np.where(np.isfinite(both).all(1, keepdims=True), both, np.nan)


_diverse = partial(ambiguity_figure, tables=("diversity",), direction="none", reference=_KOHL)
declare(_diverse("diversity", "E d of two samples", ("diversity",), tables=("diversity",), depends_on_samples=True,
                 formula="Σ w_s w_s' d(h_s,h_s'), the diagonal included: not to be compared with the readers'",
                 degenerate="d(∅,∅) = 0; 0 for one sample"))  # fmt: skip
declare(_diverse("diversity_unbiased", "of different samples", ("diversity_unbiased",),
                 formula="diversity over 1 − Σ w_s² for independent draws; as it is for a support",
                 degenerate="undefined for one sample and for stratified samples"))  # fmt: skip
declare(_diverse("reader_diversity", "of different readers", ("reader_diversity",),
                 formula="R/(R−1) Σ v_r v_r' d(y_r,y_r')", degenerate="undefined for one reader"))  # fmt: skip
declare(_diverse("diversity_ratio", "ratio of the two", ("diversities",), range=(0, np.inf), reference="this project",
                 formula="mean of diversity_unbiased over mean of reader_diversity, over the images that have both",
                 degenerate="undefined where the readers agree everywhere",
                 from_sums=lambda sums, counts: ratio(sums["diversities"][..., 0],
                                                      sums["diversities"][..., 1])))  # fmt: skip
