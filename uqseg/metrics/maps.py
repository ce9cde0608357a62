"""Uncertainty maps from samples (B,S,...) with optional weights (B,S): one value a pixel, entropies in nats."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def _each(samples: Tensor, weights: Tensor | None) -> Iterator[tuple[Tensor, Tensor | float]]:
    """The samples one after the other, each with its weight: what is added up in this order is the same in any batch,
    and all maps at once would need as much memory as all samples."""
    for k, sample in enumerate(samples.unbind(1)):
        yield sample, 1.0 if weights is None else weights[:, k].view(-1, *[1] * (sample.dim() - 1))


def mean(samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean probability: float64 (B,...) in [0,1]. Equal weights: a sum, then one division, so that k of S is k/S."""
    total = torch.zeros_like(samples[:, 0], dtype=torch.float64)
    for sample, weight in _each(samples, weights):
        total += sample if weights is None else weight * sample.double()
    return total / samples.shape[1] if weights is None else total.clamp(0, 1)


def std(samples: Tensor, weights: Tensor | None = None, centre: Tensor | None = None) -> Tensor:
    """Standard deviation of the samples as the whole distribution (divisor S): (B,...) in [0, 0.5].

    centre: their mean, where it is known.
    """
    centre = mean(samples, weights).to(samples.dtype) if centre is None else centre
    variance, square = torch.zeros_like(centre, dtype=torch.float64), torch.empty_like(centre)
    for sample, weight in _each(samples, weights):
        torch.sub(sample, centre, out=square).square_()
        variance += square if weights is None else weight * square
    return (variance / samples.shape[1] if weights is None else variance).sqrt().to(samples.dtype)


def binary_entropy(prob: Tensor) -> Tensor:
    """Entropy of a Bernoulli variable in nats, 0 at 0 and 1: the shape of prob, in [0, ln 2]."""
    least = torch.finfo(prob.dtype).tiny  # whose logarithm is finite: 0 log 0 = 0
    other = 1 - prob
    return -(prob * prob.clamp_min(least).log() + other * other.clamp_min(least).log())


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the last axis, float64, NaN where one of the two is constant up to float32 rounding.

    The other axes are broadcast.
    """
    constant = _constant(a) | _constant(b)
    a, b = a.double(), b.double()
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    value = (a * b).sum(-1) / (torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1))
    return torch.where(constant, torch.nan, value.clamp(-1, 1))


def _constant(x: Tensor) -> Tensor:
    """Whether all values of the last axis are equal: maps summed in float32 differ by rounding where they are not."""
    low, high = x.amin(-1), x.amax(-1)
    return high - low <= 1e-6 * torch.maximum(high.abs(), low.abs())


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Average precision float64 (B,) over the last axis, equal scores taken together; NaN without a positive."""
    lowest = scores.masked_fill(~positive, torch.inf).amin(-1, keepdim=True)
    wanted = scores >= lowest  # what scores below every positive changes nothing
    most = max(1, int(wanted.sum(-1).max()))
    values, order = scores.topk(most, -1)
    hits = positive.gather(-1, order).double()
    place = torch.arange(most, device=values.device)
    last = torch.ones_like(values, dtype=torch.bool)
    last[..., :-1] = values[..., :-1] != values[..., 1:]
    end = torch.where(last, place, most).flip(-1).cummin(-1).values.flip(-1)  # where each score's tie ends
    precision = hits.cumsum(-1) / (place + 1)
    total = hits.sum(-1)
    # Added one after the other: how many zeros follow, and so the order of a sum, depends on the batch.
    return torch.where(total > 0, (hits * precision.gather(-1, end)).cumsum(-1)[..., -1] / total, torch.nan)
