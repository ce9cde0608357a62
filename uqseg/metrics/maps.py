"""Uncertainty maps from samples (B,S,H,W) with optional weights (B,S): one value a pixel, entropies in nats."""

import torch
from torch import Tensor


def mean(samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean probability: float64 (B,H,W) in [0,1]."""
    if weights is None:
        return samples.sum(1, dtype=torch.float64) / samples.shape[1]
    return torch.einsum("bs,bshw->bhw", weights.double(), samples.double()).clamp(0, 1)


def std(samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """Standard deviation of the samples as the whole distribution (divisor S): (B,H,W) in [0, 0.5]."""
    if weights is None:
        return samples.std(1, correction=0)
    squares = (samples - mean(samples, weights).to(samples.dtype)[:, None]).square()
    variance: Tensor = torch.einsum("bs,bshw->bhw", weights.to(samples.dtype), squares)
    return variance.sqrt()


def binary_entropy(prob: Tensor) -> Tensor:
    """Entropy of a Bernoulli variable in nats, 0 at 0 and 1: the shape of prob, in [0, ln 2]."""
    both: Tensor = torch.special.entr(prob) + torch.special.entr(1 - prob)
    return both


def entropy(samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """Total uncertainty: entropy of the mean probability, (B,H,W) in [0, ln 2]."""
    return binary_entropy(mean(samples, weights).to(samples.dtype))


def expected_entropy(samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean entropy of the samples, (B,H,W) in [0, ln 2]: what is left when the sample is known."""
    total = torch.zeros_like(samples[:, 0], dtype=torch.float64)
    for k, sample in enumerate(samples.unbind(1)):  # one at a time: all entropies at once need as much as all samples
        each = binary_entropy(sample)
        total += each if weights is None else weights[:, k, None, None] * each
    return (total / samples.shape[1] if weights is None else total).to(samples.dtype)


def mutual_information(samples: Tensor, weights: Tensor | None = None) -> Tensor:
    """Entropy of the mean less mean entropy, (B,H,W) in [0, ln 2]: what the sample tells (Houlsby et al. 2011).

    Never negative in exact arithmetic (Jensen); rounding below 0 is set to 0.
    """
    return (entropy(samples, weights) - expected_entropy(samples, weights)).clamp_min(0)
