"""Latent encoder of the probabilistic U-Net (Kohl 2018): an axis-aligned Gaussian over a small latent space."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from uqseg.nets.unet import Block, check_size

LOG_VARIANCE = (-10.0, 10.0)
"""Clamp of the log-variance: unclamped it overflows in exp and ends in NaN."""


class LatentEncoder(nn.Module):
    """Mean and log-variance, float32 (B,latent) each, from inputs (B,C,H,W), H and W divisible by 2^(levels−1)."""

    def __init__(self, channels: int, levels: list[int], latent: int, convolutions: int = 2) -> None:
        super().__init__()
        inputs = [channels, *levels[:-1]]
        self.blocks = nn.ModuleList(Block(i, o, convolutions) for i, o in zip(inputs, levels, strict=True))
        self.head = nn.Linear(levels[-1], 2 * latent)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        check_size(inputs, len(self.blocks) - 1)
        x = inputs
        for level, block in enumerate(self.blocks):
            x = block(F.avg_pool2d(x, 2) if level else x)
        mean, log_variance = self.head(x.mean((2, 3))).float().chunk(2, 1)
        return mean, log_variance.clamp(*LOG_VARIANCE)
