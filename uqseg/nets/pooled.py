"""A head for the whole image, on pooled features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PooledHead(nn.Module):
    """Numbers (B,outputs) of an image from the average and the maximum over each channel of feature maps (B,C,h,w).

    channels: of all the maps together.
    """

    def __init__(self, channels: int, outputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * channels, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, *maps: Tensor) -> Tensor:
        """Numbers (B,outputs) from maps (B,C,h,w) of any sizes."""
        pooled = [pool for x in maps for pool in (x.mean((2, 3)), x.amax((2, 3)))]
        return self.layers(torch.cat(pooled, 1)).float()  # type: ignore[no-any-return]
