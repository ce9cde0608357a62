"""Latent encoder of the probabilistic U-Net (Kohl 2018): axis-aligned Gaussians over a small latent space."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqseg.nets.unet import Block, check_size

LOG_VARIANCE = (-10.0, 10.0)
"""Clamp of the log-variance: unclamped it overflows in exp and ends in NaN."""


class Mixture(NamedTuple):
    """A mixture of K axis-aligned Gaussians for each of B images; one alone is a Gaussian."""

    mean: Tensor  # float32 (B,K,latent)
    log_variance: Tensor  # float32 (B,K,latent)
    log_weights: Tensor  # float32 (B,K)

    def log_density(self, z: Tensor) -> Tensor:
        """Logarithm of the density (B,) at z (B,latent)."""
        gap = (z[:, None] - self.mean).square() / self.log_variance.exp()
        each = -0.5 * (gap + self.log_variance + math.log(2 * math.pi)).sum(2)
        return torch.logsumexp(self.log_weights + each, 1)

    def rows(self, index: Tensor) -> Mixture:
        """The mixtures of the images at `index`, which may repeat."""
        return Mixture(*(part[index] for part in self))

    def detach(self) -> Mixture:
        """The same, through which no gradient flows."""
        return Mixture(*(part.detach() for part in self))


class LatentEncoder(nn.Module):
    """Mixture over the latent space of inputs (B,C,H,W), H and W divisible by 2^(levels−1)."""

    def __init__(
        self, channels: int, levels: list[int], latent: int, convolutions: int = 2, components: int = 1
    ) -> None:
        super().__init__()
        inputs = [channels, *levels[:-1]]
        self.components = components
        self.blocks = nn.ModuleList(Block(i, o, convolutions) for i, o in zip(inputs, levels, strict=True))
        self.head = nn.Linear(levels[-1], components * 2 * latent)
        if components > 1:
            nn.init.normal_(self.head.bias.data.view(components, 2, latent)[:, 0])  # else all begin as one
            self.weights = nn.Linear(levels[-1], components)

    def forward(self, inputs: Tensor) -> Mixture:
        """The mixture of each of inputs float (B,C,H,W)."""
        check_size(inputs, len(self.blocks) - 1)
        x = inputs
        for level, block in enumerate(self.blocks):
            x = block(F.avg_pool2d(x, 2) if level else x)
        pooled = x.mean((2, 3))
        mean, log_variance = self.head(pooled).float().unflatten(1, (self.components, -1)).chunk(2, 2)
        weights = self.weights(pooled).float() if self.components > 1 else mean.new_zeros(len(mean), 1)
        return Mixture(mean, log_variance.clamp(*LOG_VARIANCE), weights.log_softmax(1))
