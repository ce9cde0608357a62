"""U-Net that knows the time: the network of flows and of diffusion (Ho 2020, Dhariwal 2021), in a small form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqseg.nets.unet import check_size


def fourier(time: Tensor, features: int = 32) -> Tensor:
    """Sines and cosines (B,features) of times (B,) in [0,1], from a tenth of a turn to a hundred."""
    turns = torch.logspace(0, 3, features // 2, device=time.device) * 2 * math.pi / 10
    angles = time[:, None] * turns
    return torch.cat([angles.sin(), angles.cos()], 1)


def norm(channels: int) -> nn.GroupNorm:
    """Group norm of at most eight groups, of two channels or more: one alone would lose every shift, so the time."""
    groups = next(n for n in (8, 4, 2, 1) if channels % n == 0 and (n == 1 or channels > n))
    return nn.GroupNorm(groups, channels)


class TimedBlock(nn.Module):
    """Residual block of two 3×3 convolutions; the time shifts what lies between them."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Sequential(norm(inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1))
        self.of_time = nn.Linear(embedding, outputs)
        self.second = nn.Sequential(norm(outputs), nn.SiLU(), nn.Conv2d(outputs, outputs, 3, padding=1))
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """(B,outputs,H,W) from x (B,inputs,H,W) and embedded times (B,embedding)."""
        y = self.second(self.first(x) + self.of_time(time)[..., None, None])
        return y + self.skip(x)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention over the pixels of a small map, added to its input; a head has 32 channels, or a few more."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in range(max(1, channels // 32), 0, -1) if channels % heads == 0)
        self.norm, self.qkv, self.out = (
            norm(channels),
            nn.Conv2d(channels, 3 * channels, 1),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B,C,H,W) plus what each pixel took from all others."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        y = F.scaled_dot_product_attention(q, k, v).transpose(-1, -2).reshape(x.shape)
        return x + self.out(y)  # type: ignore[no-any-return]


class TimedUNet(nn.Module):
    """One logit per pixel (B,H,W) of inputs (B,C,H,W) and times (B,) in [0,1], H and W divisible by 2^(levels−1).

    levels: channels of each level, finest first; blocks: residual blocks per level; attention: at the deepest level.
    """

    def __init__(self, channels: int, levels: list[int], blocks: int = 1, *, attention: bool = False) -> None:
        super().__init__()
        embedding = 4 * levels[0]
        self.embed = nn.Sequential(nn.Linear(32, embedding), nn.SiLU())
        self.start = nn.Conv2d(channels, levels[0], 3, padding=1)

        def stage(inputs: int, outputs: int) -> nn.ModuleList:
            return nn.ModuleList(TimedBlock(outputs if k else inputs, outputs, embedding) for k in range(blocks))

        self.down = nn.ModuleList(stage(i, o) for i, o in zip([levels[0], *levels[:-1]], levels, strict=True))
        self.middle = Attention(levels[-1]) if attention else nn.Identity()
        self.up = nn.ModuleList(stage(d + s, s) for d, s in zip(levels[:0:-1], levels[-2::-1], strict=True))
        self.end = nn.Sequential(norm(levels[0]), nn.SiLU(), nn.Conv2d(levels[0], 1, 3, padding=1))

    def forward(self, inputs: Tensor, time: Tensor) -> Tensor:
        """Logits (B,H,W) of inputs (B,C,H,W) at times (B,) in [0,1]."""
        check_size(inputs, len(self.down) - 1)
        x, t, skips = self.start(inputs), self.embed(fourier(time)), []
        for level, stage in enumerate(self.down):
            x = F.avg_pool2d(x, 2) if level else x
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, t)
            skips.append(x)
        x = self.middle(x)
        for skip, stage in zip(skips[-2::-1], self.up, strict=True):
            x = torch.cat([skip, F.interpolate(x, scale_factor=2.0)], 1)
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, t)
        return self.end(x).squeeze(1).float()  # type: ignore[no-any-return]
