"""Hierarchical latents of PHiSeg (Baumgartner 2019): Gaussian maps at several scales, each given all coarser ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqseg.nets.latent import LOG_VARIANCE
from uqseg.nets.unet import Block, channels_last, check_size, mask_head


class GaussianMap(NamedTuple):
    """A Gaussian for each channel and pixel of a latent map."""

    mean: Tensor  # float32 (B,latent,h,w)
    log_variance: Tensor


Choose = Callable[[int, GaussianMap], Tensor]
"""The latent (B,latent,h,w) of a level (0 is the finest), given its distribution."""


def double(x: Tensor) -> Tensor:
    """Twice the height and width, bilinear."""
    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    if x.requires_grad:
        x.register_hook(channels_last)  # type: ignore[no-untyped-call]
    return x


class Double(nn.Module):
    """`double` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,2H,2W) from x (B,C,H,W)."""
        return double(x)


class LatentHierarchy(nn.Module):
    """Distributions of the latents, finest first, of inputs (B,C,H,W), H and W divisible by 2^(levels−1).

    levels: channels of each level of the encoder, the last `latents` of which have a latent map. Coarser latents reach
    a finer level in one chain, doubled and convolved at every step (the paper's table of chains, folded into one).
    """

    def __init__(self, channels: int, levels: list[int], latents: int, latent: int) -> None:
        super().__init__()
        self.latents = latents
        width, inputs = levels[0], [channels, *levels[:-1]]
        self.down = nn.ModuleList(Block(i, o) for i, o in zip(inputs, levels, strict=True))
        self.chain = nn.ModuleList(Block(latent + width * (level < latents - 2), width) for level in range(latents - 1))
        self.join = nn.ModuleList(Block(channels + width, channels) for channels in levels[-latents:-1])
        self.heads = nn.ModuleList(nn.Conv2d(channels, 2 * latent, 1) for channels in levels[-latents:])

    def encode(self, inputs: Tensor) -> list[Tensor]:
        """Features of the levels that have latents, finest first."""
        check_size(inputs, len(self.down) - 1)
        features, x = [], inputs
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            features.append(x)
        return features[-self.latents :]

    def forward(self, features: list[Tensor], choose: Choose) -> tuple[list[GaussianMap], list[Tensor]]:
        """Distributions and the latents that `choose` picks of them, both finest first, from the features."""
        maps: list[GaussianMap] = []
        latents: list[Tensor] = []
        coarser: Tensor | None = None
        for level in range(self.latents - 1, -1, -1):
            x = features[level]
            if latents:
                chained = latents[-1] if coarser is None else torch.cat([latents[-1], coarser], 1)
                coarser = self.chain[level](double(chained))
                x = self.join[level](torch.cat([x, coarser], 1))
            mean, log_variance = self.heads[level](x).float().chunk(2, 1)
            maps.append(GaussianMap(mean, log_variance.clamp(*LOG_VARIANCE)))
            latents.append(choose(level, maps[-1]))
        return maps[::-1], latents[::-1]


class Likelihood(nn.Module):
    """Logits of the mask at each level, (B,H·W of that level), from the latents alone: it never sees the image.

    levels: channels of each latent level, finest first. Each latent map is brought up fourfold, so that the finest
    reaches the size of the image; then coarse joins fine.
    """

    def __init__(self, levels: list[int], latent: int) -> None:
        super().__init__()
        self.rise = nn.ModuleList(
            nn.Sequential(Block(latent, width), Double(), Block(width, width, 1), Double(), Block(width, width, 1))
            for width in levels
        )
        self.join = nn.ModuleList(Block(fine + deep, fine) for fine, deep in pairwise(levels))
        self.heads = nn.ModuleList([*(nn.Conv2d(width, 1, 1) for width in levels[:-1]), mask_head(levels[-1])])

    def forward(self, latents: list[Tensor]) -> list[Tensor]:
        """Sums (B,1,H,W) of the logits from the coarsest level to each, coarsest first; the last is the output."""
        sums: list[Tensor] = []
        x = None
        for level in range(len(latents) - 1, -1, -1):
            y = self.rise[level](latents[level])
            x = y if x is None else self.join[level](torch.cat([y, double(x)], 1))
            logits = F.interpolate(self.heads[level](x).float(), scale_factor=2**level)
            sums.append(logits + sums[-1] if sums else logits)
        return sums
