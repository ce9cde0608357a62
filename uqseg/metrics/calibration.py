"""Calibration metrics: do the probabilities mean what they say? The target is every reader's label at every pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uqseg.metrics.metric import Figure, Finish, Floats, Sums, metric, ratio
from uqseg.metrics.ranks import weighted_auroc
from uqseg.metrics.scored import Scored

BINS = 15
FINE = 60
ACTIVE = 0.01


class Reliability(NamedTuple):
    """Per image and bin, (B,bins) each: pixels (int64), sum of probabilities, sum of reader fractions (float64)."""

    counts: Tensor
    probabilities: Tensor
    labels: Tensor


def _histogram(index: Tensor, prob: Tensor, fraction: Tensor, keep: Tensor, bins: int) -> Reliability:
    """Counts and sums of prob and fraction (B,H,W) by bin index (B,H,W), over the pixels of `keep`."""
    B = len(prob)
    index = torch.where(keep, index, bins) + (bins + 1) * torch.arange(B, device=prob.device)[:, None, None]
    flat, size = index.flatten(), B * (bins + 1)
    counts = torch.bincount(flat, minlength=size)
    # Whole numbers below 2^53 add up exactly in any order, so the sums are the same on every device and in every run,
    # which CUDA's bincount of fractions does not promise. A value is rounded by at most 2^-42 in an image of 64×64.
    scale = 2.0 ** (53 - prob[0].numel().bit_length())
    whole = ((x.double() * scale).round().flatten() for x in (prob, fraction))
    sums = [torch.bincount(flat, x, minlength=size) / scale for x in whole]
    return Reliability(*(x.view(B, bins + 1)[:, :bins] for x in (counts, *sums)))


def reliability(
    prob: Tensor, masks: Tensor, bins: int = BINS, *, read: Tensor | None = None, active: float = 0.0
) -> Reliability:
    """Counts and sums in equal-width bins [b/bins, (b+1)/bins), the last closed, of the pixels with prob ≥ active.

    prob (B,H,W) in [0,1]; masks bool (B,R,H,W); read bool (B,R), default everybody.
    """
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    if torch.as_tensor(prob).dim() != 3:
        raise ValueError(f"prob: expected shape (B,H,W), got {tuple(torch.as_tensor(prob).shape)}")
    scored = Scored(torch.as_tensor(prob)[:, None], masks, read)
    return _equal_width(scored.prob, scored.fraction, bins, active)


def _equal_width(prob: Tensor, fraction: Tensor, bins: int = BINS, active: float = 0.0) -> Reliability:
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=prob.device)[1:-1].to(prob.dtype)
    index = torch.bucketize(prob, edges, right=True)
    return _histogram(index, prob, fraction, prob >= active, bins)


def _log_odds(prob: Tensor, fraction: Tensor) -> Reliability:
    """Fine bins of equal width in log-odds from -9 to 9, from which equal-mass bins are merged after summing."""
    index = (torch.logit(prob.double(), eps=1e-6) + 9) * (FINE / 18)
    return _histogram(index.long().clamp(0, FINE - 1), prob, fraction, torch.ones_like(prob, dtype=torch.bool), FINE)


def _columns(prefix: str, found: Reliability) -> dict[str, Tensor]:
    parts = zip("npy", found, strict=True)
    return {f"{prefix}_{k}_{b:02d}": part[:, b] for k, part in parts for b in range(part.shape[1])}


def _names(prefix: str, bins: int = BINS) -> tuple[str, ...]:
    return tuple(f"{prefix}_{k}_{b:02d}" for k in "npy" for b in range(bins))


def _stack(prefix: str, sums: Sums, bins: int = BINS) -> tuple[Floats, Floats]:
    """Pixels and |Σp - Σy| of each bin, bins last."""
    n, p, y = (np.stack([np.asarray(sums[f"{prefix}_{k}_{b:02d}"], float) for b in range(bins)], -1) for k in "npy")
    return n, np.abs(p - y)


def _expected(prefix: str) -> Finish:
    def finish(sums: Sums, counts: Sums) -> Floats:
        n, gap = _stack(prefix, sums)
        return ratio(gap.sum(-1), n.sum(-1))

    return finish


def _average(sums: Sums, counts: Sums) -> Floats:
    n, gap = _stack("rel", sums)
    return ratio(ratio(gap, n, 0.0).sum(-1), (n > 0).sum(-1).astype(float))


def _largest(sums: Sums, counts: Sums) -> Floats:
    n, gap = _stack("rel", sums)
    return np.where(n.sum(-1) > 0, ratio(gap, n, 0.0).max(-1), np.nan)


def _adaptive(sums: Sums, counts: Sums) -> Floats:
    """Merge the fine bins into 15 of nearly equal mass: a fine bin goes where the middle of its mass lies."""
    n, p, y = (np.stack([np.asarray(sums[f"fine_{k}_{b:02d}"], float) for b in range(FINE)], -1) for k in "npy")
    total = n.sum(-1, keepdims=True)
    middle = ratio(np.cumsum(n, -1) - n / 2, total, 0.0)
    group = np.minimum((middle * BINS).astype(int), BINS - 1)
    gaps = [np.abs(np.where(group == g, p - y, 0.0).sum(-1)) for g in range(BINS)]
    return ratio(np.sum(gaps, axis=0), total[..., 0])


def _pooled(name: str, prefix: str, formula: str, reference: str, finish: Finish, bins: int = BINS) -> tuple[Figure]:
    columns = _names(prefix, bins)
    return (
        Figure(
            name, "calibration", "lower", (0, 1), formula, reference, columns, "pooled",
            "undefined without a pixel", finish,
        ),
    )  # fmt: skip


_ECE = "Naeini et al. 2015, doi:10.1609/aaai.v29i1.9602"
_BINNED = "Σ_b n_b/N · |mean p̄ − mean ȳ| over 15 equal-width bins"


@metric(
    "ece",
    group="calibration",
    direction="lower",
    range=(0, 1),
    formula=f"{_BINNED}, all pixels",
    reference=_ECE,
    degenerate="empty bins count nothing",
    figures=_pooled("ece", "rel", f"{_BINNED}, all pixels", _ECE, _expected("rel"))
    + _pooled("ace", "rel", "mean over non-empty bins of |mean p̄ − mean ȳ|", "Neumann et al. 2018", _average)
    + _pooled("mce", "rel", "largest |mean p̄ − mean ȳ| of a bin", _ECE, _largest),
)
def _reliability(scored: Scored) -> dict[str, Tensor]:
    return _columns("rel", _equal_width(scored.prob, scored.fraction))


@metric(
    "ece_active",
    group="calibration",
    direction="lower",
    range=(0, 1),
    formula=f"{_BINNED}, only pixels with p̄ ≥ {ACTIVE}: a region chosen by the prediction alone",
    reference=_ECE,
    degenerate="undefined where no pixel is active",
    figures=_pooled("ece_active", "act", f"{_BINNED}, pixels with p̄ ≥ {ACTIVE}", _ECE, _expected("act")),
)
def _active(scored: Scored) -> dict[str, Tensor]:
    return _columns("act", _equal_width(scored.prob, scored.fraction, active=ACTIVE))


@metric(
    "ece_adaptive",
    group="calibration",
    direction="lower",
    range=(0, 1),
    formula="as ece over 15 bins of nearly equal mass, merged from 60 fine bins in log-odds",
    reference="Nixon et al. 2019, arXiv:1904.01685",
    degenerate="equal probabilities stay in one bin",
    figures=_pooled(
        "ece_adaptive", "fine", "as ece, 15 bins of nearly equal mass", "Nixon et al. 2019", _adaptive, FINE
    ),
)
def _fine(scored: Scored) -> dict[str, Tensor]:
    return _columns("fine", _log_odds(scored.prob, scored.fraction))


@metric(
    "brier",
    group="calibration",
    direction="lower",
    range=(0, 1),
    formula="mean over pixels and readers of (p̄ − y_r)²",
    reference="Brier 1950",
)
def _brier(scored: Scored) -> Tensor:
    p, y = scored.prob.double(), scored.fraction.double()
    return (p * p - 2 * p * y + y).mean((1, 2))


@metric(
    "brier_excess",
    group="calibration",
    direction="lower",
    range=(0, 1),
    formula="mean over pixels of (p̄ − ȳ)²; brier less the readers' own variance ȳ(1−ȳ)",
    reference="Brier 1950; Murphy 1973",
)
def _brier_excess(scored: Scored) -> Tensor:
    return (scored.prob.double() - scored.fraction.double()).square().mean((1, 2))


@metric(
    "nll",
    group="calibration",
    direction="lower",
    range=(0, -float(np.log(1e-6))),
    formula="mean over pixels of −ȳ log p̄ − (1−ȳ) log(1−p̄), p̄ clipped to [1e-6, 1−1e-6], nats",
    reference="Gneiting and Raftery 2007",
    degenerate="clipped at 0 and 1",
)
def _nll(scored: Scored) -> Tensor:
    p, y = scored.prob.double().clamp(1e-6, 1 - 1e-6), scored.fraction.double()
    return -(y * p.log() + (1 - y) * torch.log1p(-p)).mean((1, 2))


@metric(
    "nll_joint",
    group="calibration",
    direction="lower",
    range=(0, np.inf),
    formula="− Σ_r v_r log Σ_s w_s Π_pixels p_s(y_r), p_s clipped to [1e-6, 1−1e-6], nats per image",
    reference="Monteiro et al. 2020, arXiv:2006.06015",
    degenerate="clipped at 0 and 1",
)
def _nll_joint(scored: Scored) -> Tensor:
    mixed = torch.logsumexp(scored.logs.likelihood + scored.weights.log()[:, :, None], 1)
    return -(scored.reader_weights * mixed).sum(1)


def _presence_bins(values: Sums, weights: Floats) -> Floats:
    # A share such as 8 × 0.1 may fall short of its bin's edge by rounding.
    index = np.minimum((values["presence"] * BINS + 1e-9).astype(int), BINS - 1)
    gap = (values["presence"] - values["presence_readers"])[:, None] * (index[:, None] == np.arange(BINS))
    return ratio(np.abs(weights @ gap).sum(-1), weights.sum(-1))


def _dispute(values: Sums, weights: Floats) -> Floats:
    disputed = (values["presence_readers"] > 0) & (values["presence_readers"] < 1)
    return weighted_auroc(values["presence"] * (1 - values["presence"]), disputed, weights)


_PRESENCE = "P̂ = Σ w_s [h_s ≠ ∅] against the share of readers who drew anything"
_PRESENCE_COLUMNS = ("presence", "presence_readers")


@metric(
    "presence",
    group="calibration",
    direction="lower",
    range=(0, 1),
    formula=f"{_PRESENCE}: `presence_ece`, `presence_brier`, `presence_auroc`",
    reference="this project",
    degenerate="an empty set of drawn samples has P̂ = 0; `presence_auroc` needs images with and without dispute",
    figures=(
        Figure("presence_ece", "calibration", "lower", (0, 1), f"ECE over images, 15 bins, of {_PRESENCE}", _ECE,
               _PRESENCE_COLUMNS, "across", over=_presence_bins),
        Figure("presence_brier", "calibration", "lower", (0, 1), f"mean (P̂ − [y_r ≠ ∅])²; {_PRESENCE}", "Brier 1950",
               ("presence_brier",)),
        Figure("presence_auroc", "calibration", "higher", (0, 1),
               "AUROC of P̂(1−P̂) for images where the readers disagree about presence", "Hanley and McNeil 1982",
               _PRESENCE_COLUMNS, "across", "undefined with one class only", over=_dispute),
    ),
)  # fmt: skip
def _presence(scored: Scored) -> dict[str, Tensor]:
    drew = (scored.areas > 0).double()
    p = (scored.weights * drew[:, : scored.S]).sum(1).clamp(0, 1)
    f = (scored.reader_weights * drew[:, scored.S :]).sum(1).clamp(0, 1)
    return {"presence": p, "presence_readers": f, "presence_brier": f * (1 - p) ** 2 + (1 - f) * p**2}


@metric(
    "area_crps",
    group="calibration",
    direction="lower",
    range=(0, np.inf),
    formula="Σ w_s v_r ‖|h_s| − |y_r|‖ − ½ Σ w_s w_s' ‖|h_s| − |h_s'|‖, pixels; `area_crps_mm2` in mm²",
    reference="Gneiting and Raftery 2007",
    degenerate="mm² undefined where the spacing is unknown",
    figures=tuple(
        Figure(name, "calibration", "lower", (0, np.inf), f"CRPS of the samples' areas for each reader's area, {unit}",
               "Gneiting and Raftery 2007", (name,))
        for name, unit in (("area_crps", "pixels"), ("area_crps_mm2", "mm²"))
    ),
)  # fmt: skip
def _area_crps(scored: Scored) -> dict[str, Tensor]:
    samples, readers, w = scored.areas[:, : scored.S], scored.areas[:, scored.S :], scored.weights
    error = torch.einsum("bs,bsr,br->b", w, (samples[:, :, None] - readers[:, None]).abs(), scored.reader_weights)
    spread = torch.einsum("bs,bst,bt->b", w, (samples[:, :, None] - samples[:, None]).abs(), w)
    crps = error - spread / 2
    return {"area_crps": crps, "area_crps_mm2": crps * scored.spacing.prod(1)}
