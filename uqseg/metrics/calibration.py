"""Calibration figures: do the probabilities mean what they say? The target is every reader's label at every pixel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import log, log1p
from typing import TYPE_CHECKING, Any

import numpy as np

from uqseg.metrics.distances import unbiased
from uqseg.metrics.ranks import weighted_auroc
from uqseg.metrics.registry import Columns, Drawn, Figure, Floats, declare, derived, ratio, statistic
from uqseg.metrics.threshold import mean_of_defined

if TYPE_CHECKING:
    from torch import Tensor

    from uqseg.metrics.scored import Array, Scored

BINS = 15
FINE = 60
ACTIVE = 0.01
"""From here on a pixel is active; the bound lies in the first bin."""
CLIPPED = log(1e-6), log1p(-1e-6)
"""Logarithms of the lowest and the highest probability that likelihoods are computed with."""
_ECE = "Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602"
_GNEITING = "Gneiting and Raftery 2007, doi:10.1198/016214506000001437"


def reliability(prob: Array, masks: Array, bins: int = BINS, *, read: Array | None = None) -> Tensor:
    """Pixels, sum of probabilities and sum of reader fractions in equal-width bins: float64 (B,3,bins).

    Bins are [b/bins, (b+1)/bins), the last closed. prob (B,H,W) in [0,1]; masks bool (B,R,H,W); read bool (B,R),
    default everybody. ValueError naming the argument for anything else.
    """
    from uqseg.metrics.bins import equal_width
    from uqseg.metrics.scored import Scored, tensor

    if not isinstance(bins, int) or isinstance(bins, bool) or bins < 1:
        raise ValueError(f"bins: expected a whole number of at least 1, got {bins!r}")
    given = tensor("prob", prob)
    if given.dim() != 3:
        raise ValueError(f"prob: expected shape (B,H,W), got {tuple(given.shape)}")
    return Scored(given[:, None], masks, read).histogram(equal_width(bins))


@statistic("reliability", shape=(3, BINS), summed=True)
def _reliability(scored: Scored) -> Tensor:
    """Pixels, Σ p̄ and Σ ȳ in 15 bins of equal width."""
    from uqseg.metrics.bins import WIDTHS, merged

    return merged(scored.fine_histogram, WIDTHS)


@statistic("reliability_first_active", shape=(3,), summed=True)
def _first_active(scored: Scored) -> Tensor:
    """The same of the active pixels in the first bin: in all other bins every pixel is active."""
    from uqseg.metrics.bins import FIRST_ACTIVE, merged

    return merged(scored.fine_histogram, FIRST_ACTIVE)[:, :, 1]


@statistic("reliability_fine", shape=(3, FINE), summed=True)
def _fine(scored: Scored) -> Tensor:
    """Pixels, Σ p̄ and Σ ȳ in 60 bins of equal width in log-odds from -9 to 9, to be merged after summing."""
    from uqseg.metrics.bins import ODDS, merged

    return merged(scored.fine_histogram, ODDS)


def active(sums: Columns) -> Floats:
    """Reliability sums (...,3,BINS) of the active pixels, from those of all and of the first bin."""
    bins = np.array(sums["reliability"], float)
    bins[..., 0] = sums["reliability_first_active"]
    return bins


def _gaps(bins: Floats) -> tuple[Floats, Floats]:
    """Pixels and |Σp − Σy| of each bin."""
    return bins[..., 0, :], np.abs(bins[..., 1, :] - bins[..., 2, :])


def _expected(bins: Floats) -> Floats:
    n, gap = _gaps(bins)
    return ratio(gap.sum(-1), n.sum(-1))


def _average(bins: Floats) -> Floats:
    n, gap = _gaps(bins)
    return ratio(ratio(gap, n, 0.0).sum(-1), (n > 0).sum(-1).astype(float))


def _largest(bins: Floats) -> Floats:
    n, gap = _gaps(bins)
    return np.where(n.sum(-1) > 0, ratio(gap, n, 0.0).max(-1), np.nan)


def _adaptive(bins: Floats) -> Floats:
    """Merge the fine bins into 15 of nearly equal mass: a fine bin goes where the middle of its mass lies."""
    n, p, y = bins[..., 0, :], bins[..., 1, :], bins[..., 2, :]
    total = n.sum(-1, keepdims=True)
    middle = ratio(np.cumsum(n, -1) - n / 2, total, 0.0)
    group = np.minimum((middle * BINS).astype(int), BINS - 1)
    gaps = [np.abs(np.where(group == g, p - y, 0.0).sum(-1)) for g in range(BINS)]
    return ratio(np.sum(gaps, axis=0), total[..., 0])


def _binned(name: str, title: str, finish: Callable[[Floats], Floats], **more: Any) -> None:
    column = "reliability_fine" if name == "ece_adaptive" else "reliability"
    of = ("reliability", "reliability_first_active") if name == "ece_active" else (column,)
    from_sums = lambda sums, counts: finish(active(sums) if len(of) > 1 else np.asarray(sums[column]))  # noqa: E731
    declare(Figure(name, title, of, "lower", depends_on_samples=True, from_sums=from_sums,
                   degenerate="undefined without a pixel", **more))  # fmt: skip


_BINNED = "Σ_b n_b/N · |mean p̄ − mean ȳ| over 15 equal-width bins"
_NETCAL = "netcal, MoSE (15 bins), torchmetrics"
_MONAI = "MONAI, ValUES (per image, then the mean: 0.016 beside 0.008)"
_home = ("calibration",)
_binned("ece", "ECE", _expected, tables=_home, formula=f"{_BINNED}, all pixels", reference=_ECE, same_as=_NETCAL,
        unlike=_MONAI)  # fmt: skip
_binned("ece_active", "ECE, active", _expected, tables=("calibration", "summary"),
        formula=f"{_BINNED}, pixels with p̄ ≥ {ACTIVE}: a region chosen by the prediction alone", reference=_ECE,
        unlike="a foreground ECE, whose region the readers choose: it blames a perfect predictor")  # fmt: skip
_binned("ece_adaptive", "ECE, adaptive", _adaptive, tables=_home,
        formula="as ece over 15 bins of nearly equal mass, merged from 60 fine bins in log-odds",
        reference="Nixon et al. 2019, arXiv:1904.01685")  # fmt: skip
_binned("ace", "average CE", _average, tables=_home, formula="mean over non-empty bins of |mean p̄ − mean ȳ|",
        reference="Neumann et al. 2018", same_as=_NETCAL, unlike=_MONAI)  # fmt: skip
_binned("mce", "largest CE", _largest, tables=_home, formula="largest |mean p̄ − mean ȳ| of a bin", reference=_ECE,
        same_as=_NETCAL, unlike=_MONAI)  # fmt: skip


@statistic("brier")
def brier(scored: Scored) -> Tensor:
    """Mean over pixels and readers of (p̄ − y_r)²: (B,) in [0,1]."""
    return scored.misfit + scored.reader_variance.mean(1)  # p² − 2 p ȳ + ȳ


@statistic("brier_excess")
def brier_excess(scored: Scored) -> Tensor:
    """Mean over pixels of (p̄ − ȳ)²: (B,) in [0,1]."""
    return scored.misfit


@statistic("nll")
def nll(scored: Scored) -> Tensor:
    """Mean over pixels of the cross-entropy (B,) of p̄ against ȳ, in nats."""
    y, (least, most) = scored.fraction, CLIPPED
    yes, no = (x.clamp_(least, most) for x in (scored.prob.log(), (-scored.prob).log1p_()))
    return -(y * yes + (1 - y) * no).double().mean(1).clamp_min(least)  # below it is a rounding of float32


@statistic("nll_joint")
def nll_joint(scored: Scored) -> Tensor:
    """Mean over readers of the whole mask's negative log-likelihood (B,) under the samples, in nats."""
    mixed = (scored.logs.likelihood + scored.weights.log()[:, :, None]).logsumexp(1)
    return -(scored.reader_weights * mixed).sum(1)


_mean_of_draws = partial(Figure, direction="lower", depends_on_samples=True)
declare(_mean_of_draws("brier", "Brier", ("brier",), tables=("calibration", "summary"),
                       formula="mean over pixels and readers of (p̄ − y_r)²", reference="Brier 1950"))  # fmt: skip
declare(_mean_of_draws("brier_excess", "Brier, excess", ("brier_excess",), tables=_home,
                       formula="mean over pixels of (p̄ − ȳ)²; brier less the readers' own variance ȳ(1−ȳ)",
                       reference="Brier 1950; Murphy 1973"))  # fmt: skip
declare(_mean_of_draws("nll", "NLL", ("nll",), tables=_home, range=(0, -CLIPPED[0]),
                       formula="mean over pixels of −ȳ log p̄ − (1−ȳ) log(1−p̄), p̄ clipped to [1e-6, 1−1e-6], nats",
                       reference=_GNEITING, degenerate="clipped at 0 and 1"))  # fmt: skip
declare(_mean_of_draws("nll_joint", "joint NLL (nats)", ("nll_joint",), tables=("presence",), range=(0, np.inf),
                       formula="− Σ_r v_r log Σ_s w_s Π_pixels p_s(y_r), p_s clipped to [1e-6, 1−1e-6]",
                       reference="Monteiro et al. 2020, arXiv:2006.06015",
                       degenerate="clipped at 0 and 1"))  # fmt: skip


@statistic("presence")
def presence(scored: Scored) -> Tensor:
    """P̂, the weighted share of samples that mark anything."""
    return (scored.weights * (scored.areas[:, : scored.S] > 0)).sum(1).clamp(0, 1)


@derived("presence_readers", ("areas_readers",))
def presence_readers(columns: Columns, drawn: Drawn) -> Floats:
    """P̄, the share of those who read the image that marked anything."""
    areas = columns["areas_readers"][:, :-1]
    return mean_of_defined(np.where(np.isfinite(areas), areas > 0, np.nan), 1)


@derived("presence_brier", ("presence", "presence_readers"))
def presence_brier(columns: Columns, drawn: Drawn) -> Floats:
    """Mean over readers of (P̂ − who marked anything)²: (N,) in [0,1]."""
    p, f = columns["presence"], columns["presence_readers"]
    return f * (1 - p) ** 2 + (1 - f) * p**2


def _presence_bins(values: Columns, weights: Floats) -> Floats:
    # A share such as 8 × 0.1 may fall short of its bin's edge by rounding, also that of float32 in a file.
    index = np.minimum((values["presence"] * BINS + 1e-6).astype(int), BINS - 1)
    gap = (values["presence"] - values["presence_readers"])[:, None] * (index[:, None] == np.arange(BINS))
    return ratio(np.abs(weights @ gap).sum(-1), weights.sum(-1))


def _dispute(values: Columns, weights: Floats) -> Floats:
    disputed = (values["presence_readers"] > 0) & (values["presence_readers"] < 1)
    # In the order of P̂(1−P̂), which rounding does not change: p and 1 − p are equal.
    less = np.minimum(values["presence"], 1 - values["presence"]).round(6)
    return weighted_auroc(less, disputed, weights)


_PRESENCE = "P̂ = Σ w_s [h_s ≠ ∅] against the share of readers who drew anything"
_both = ("presence", "presence_readers")
declare(Figure("presence_ece", "presence ECE", _both, "lower", ("presence",),
               f"ECE over images, 15 bins, of {_PRESENCE}", _ECE, depends_on_samples=True,
               from_cases=_presence_bins))  # fmt: skip
declare(Figure("presence_brier", "presence Brier", ("presence_brier",), "lower", ("presence",),
               f"mean (P̂ − [y_r ≠ ∅])²; {_PRESENCE}", "Brier 1950", depends_on_samples=True))  # fmt: skip
declare(Figure("presence_auroc", "AUROC of dispute", _both, "higher", ("presence",),
               "AUROC of P̂(1−P̂) for images where the readers disagree about presence", "Hanley and McNeil 1982",
               degenerate="undefined with one class only", depends_on_samples=True, from_cases=_dispute))  # fmt: skip


@statistic("area_error")
def area_error(scored: Scored) -> Tensor:
    """Σ w_s v_r ‖|h_s| − |y_r|‖, pixels."""
    samples, readers = scored.areas[:, : scored.S], scored.areas[:, scored.S :]
    gaps = (samples[:, :, None] - readers[:, None]).abs()
    return (scored.weights[:, :, None] * gaps * scored.reader_weights[:, None]).sum((1, 2))


@statistic("area_spread")
def area_spread(scored: Scored) -> Tensor:
    """Σ w_s w_s' ‖|h_s| − |h_s'|‖, pixels."""
    areas = scored.areas[:, : scored.S]
    gaps = (areas[:, :, None] - areas[:, None]).abs()
    return (scored.weights[:, :, None] * gaps * scored.weights[:, None]).sum((1, 2))


@statistic("pixel_mm2")
def pixel_mm2(scored: Scored) -> Tensor:
    """Area of a pixel, NaN where the spacing is unknown."""
    return scored.spacing.prod(1)


@derived("area_crps", ("area_error", "area_spread", "weights_squared"))
def area_crps(columns: Columns, drawn: Drawn) -> Floats:
    """In its fair form for independent draws: version 0.1 took the spread with its diagonal for them, too."""
    spread = columns["area_spread"]
    return (
        columns["area_error"] - (unbiased(spread, columns["weights_squared"]) if drawn == "independent" else spread) / 2
    )


@derived("area_crps_mm2", ("area_crps", "pixel_mm2"))
def area_crps_mm2(columns: Columns, drawn: Drawn) -> Floats:
    """`area_crps` in mm², NaN where the spacing is unknown."""
    return columns["area_crps"] * columns["pixel_mm2"]


for _name, _unit in (("area_crps", "pixels"), ("area_crps_mm2", "mm²")):
    declare(Figure(_name, f"area CRPS ({_unit})", (_name,), "lower", ("presence",),
                   f"Σ w_s v_r ‖|h_s| − |y_r|‖ − ½ Σ w_s w_s' ‖|h_s| − |h_s'|‖, {_unit}; for independent draws the "
                   "last term over 1 − Σ w_s² (the fair form)",
                   f"{_GNEITING}; Ferro 2014, doi:10.1002/qj.2270", range=(-np.inf, np.inf),
                   degenerate="undefined for a single draw; mm² also where the spacing is unknown"))  # fmt: skip
