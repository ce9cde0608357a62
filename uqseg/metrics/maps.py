"""Uncertainty maps from samples (B,S,...) with optional weights (B,S): one value a pixel, entropies in nats."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**16
"""Samples times pixels that are worked on at a time: they stay in a processor's cache."""


def blocks(samples: Tensor) -> list[tuple[int, slice, slice]]:
    """Where the blocks of samples (B,S,P) are: an image, all of its samples, some of its pixels; none is larger than
    the first.

    They are the same for an image in any batch, and so is what is added up within them.
    """
    B, S, P = samples.shape
    step = max(1, BLOCK // S)
    return [(b, slice(None), slice(start, start + step)) for b in range(B) for start in range(0, P, step)]


def mean(samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean probability: float64 (B,...) in [0,1]. Equal weights: a sum, then one division, so that k of S is k/S."""
    flat, S = samples.flatten(2), samples.shape[1]
    total = torch.empty_like(flat[:, 0], dtype=torch.float64)
    factors = total.new_ones(len(flat), S) if weights is None else weights.double()
    for b, every, at in blocks(flat):
        total[b, at] = factors[b] @ flat[b, every, at].double()
    return (total / S if weights is None else total.clamp(0, 1)).view_as(samples[:, 0])


def std(samples: Tensor, weights: Tensor | None = None, centre: Tensor | None = None) -> Tensor:
    """Standard deviation of the samples as the whole distribution (divisor S): (B,...) in [0, 0.5].

    centre: their mean, where it is known.
    """
    kind, S = torch.promote_types(samples.dtype, torch.float32), samples.shape[1]
    flat, middle = samples.flatten(2), (mean(samples, weights) if centre is None else centre).flatten(1).to(kind)
    variance = torch.empty_like(middle)
    shares = middle.new_full((len(flat), S), 1 / S) if weights is None else weights.to(kind)
    for b, every, at in blocks(flat):
        variance[b, at] = shares[b] @ (flat[b, every, at] - middle[b, at]).square_()
    return variance.sqrt().to(samples.dtype).view_as(samples[:, 0])


def binary_entropy(prob: Tensor) -> Tensor:
    """Entropy of a Bernoulli variable in nats, 0 at 0 and 1: the shape of prob, in [0, ln 2]."""
    least = torch.finfo(prob.dtype).tiny  # whose logarithm is finite: 0 log 0 = 0
    other = 1 - prob
    return -(prob * prob.clamp_min(least).log() + other * other.clamp_min(least).log())


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation over the last axis, float64, NaN where one of the two is constant up to float32 rounding.

    a is broadcast to b.
    """
    constant = _constant(a) | _constant(b)
    a, b = (x.to(torch.float64, copy=True) for x in (a, b))  # then in place: new memory would take longer than the sums
    a -= a.mean(-1, keepdim=True)
    b -= b.mean(-1, keepdim=True)
    lengths = torch.linalg.vector_norm(a, dim=-1) * torch.linalg.vector_norm(b, dim=-1)
    value = b.mul_(a).sum(-1) / lengths
    return torch.where(constant, torch.nan, value.clamp(-1, 1))


def _constant(x: Tensor) -> Tensor:
    """Whether all values of the last axis are equal: maps summed in float32 differ by rounding where they are not."""
    low, high = x.amin(-1), x.amax(-1)
    return high - low <= 1e-6 * torch.maximum(high.abs(), low.abs())


def ascending(x: Tensor) -> Tensor:
    """The values of the last axis in ascending order. NumPy sorts numbers by vector instructions, torch does not on a
    processor: 7 µs where that takes 177, for 4,096 of them."""
    return x.sort(-1).values if x.is_cuda else torch.from_numpy(np.sort(x.numpy()))


def average_precision(scores: Tensor, positive: Tensor, ordered: Tensor | None = None) -> Tensor:
    """Average precision float64 (B,) over the last axis of scores (B,P), equal scores taken together; NaN without a
    positive. ordered: the scores in ascending order, where that is known."""
    ordered = ascending(scores) if ordered is None else ordered
    total = positive.sum(-1)
    most = max(1, int(total.max()))
    hits = ascending(scores.masked_fill(~positive, -torch.inf))[..., -most:].contiguous()
    reached = most - torch.searchsorted(hits, hits)  # positives that score as high or higher
    accepted = scores.shape[-1] - torch.searchsorted(ordered, hits)
    precision = (reached / accepted.double()).where(hits > -torch.inf, 0)
    # Added one after the other: how many zeros there are, and so the order of a sum, depends on the batch.
    return torch.where(total > 0, precision.cumsum(-1)[..., -1] / total, torch.nan)
