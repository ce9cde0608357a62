"""Bins of probabilities: the edges between them, and how those of finer bins are merged."""

from __future__ import annotations

import torch
from torch import Tensor

from uqseg.metrics.calibration import ACTIVE, BINS, FINE


def equal_width(bins: int) -> Tensor:
    """The inner edges of bins of equal width in [0, 1], float32 (bins-1,)."""
    return torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1].float()


def equal_odds(bins: int, most: float) -> Tensor:
    """The inner edges of bins of equal width in log-odds from -most to most, float32 (bins-1,): each the smallest
    number of its type whose log-odds reach it."""
    edges = (most * (2 * torch.arange(1, bins, dtype=torch.float64) / bins - 1)).sigmoid()
    near = edges.float()
    return torch.where(near.double() < edges, near.nextafter(torch.ones(())), near)


WIDTHS, ODDS, FIRST_ACTIVE = equal_width(BINS), equal_odds(FINE, 9.0), torch.tensor([ACTIVE, 1 / BINS])
FINEST = torch.unique(torch.cat([WIDTHS, ODDS, FIRST_ACTIVE]))
"""The edges of all three together, ascending."""


def merged(histogram: Tensor, edges: Tensor) -> Tensor:
    """A histogram (B,3,len(FINEST)+1) in the bins between some of its edges: (B,3,len(edges)+1)."""
    lower = torch.cat([FINEST[:1] - 1, FINEST])
    group = torch.bucketize(lower, edges, right=True).to(histogram.device)
    return histogram.new_zeros(*histogram.shape[:2], len(edges) + 1).index_add_(2, group, histogram)
