"""The probabilistic U-Net as public PyTorch implementations build it, to be timed beside this project's.

Written from the paper (Kohl 2018, arXiv:1806.05034) and the layers that its ports share: three convolutions 3×3 a level
with ReLU and without normalisation, average pooling, four 1×1 layers after the latent joins; float32, channels first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional as F

LATENT = 6


def convolutions(inputs: int, outputs: int) -> nn.Sequential:
    """Three of 3×3, each with ReLU."""
    layers: list[nn.Module] = []
    for k in range(3):
        layers += [nn.Conv2d(outputs if k else inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def levels_of(inputs: int, levels: Sequence[int]) -> nn.ModuleList:
    """The convolutions of each level of an encoder; what lies between them is pooling."""
    return nn.ModuleList(convolutions(i, o) for i, o in zip((inputs, *levels), levels, strict=False))


class Encoder(nn.Module):
    """A Gaussian over latents of what it is shown."""

    def __init__(self, inputs: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.down = levels_of(inputs, levels)
        self.head = nn.Conv2d(levels[-1], 2 * LATENT, 1)

    def forward(self, x: Tensor) -> Independent[Normal]:
        """A Gaussian over (B,LATENT), given x float (B,C,H,W)."""
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
        mean, log_scale = self.head(x.mean((2, 3), keepdim=True))[:, :, 0, 0].chunk(2, 1)
        return Independent(Normal(mean, log_scale.exp()), 1)


class ProbUNet(nn.Module):
    """Grey images float (B,1,H,W) in, one logit a pixel out."""

    def __init__(self, levels: Sequence[int] = (32, 64, 128, 192)) -> None:
        super().__init__()
        self.down = levels_of(1, levels)
        pairs = zip(levels[:0:-1], levels[-2::-1], strict=True)
        self.up = nn.ModuleList(convolutions(deep + skip, skip) for deep, skip in pairs)
        self.prior, self.posterior = Encoder(1, levels), Encoder(2, levels)
        width = levels[0]
        layers: list[nn.Module] = []
        for k in range(3):
            layers += [nn.Conv2d(width + LATENT * (k == 0), width, 1), nn.ReLU(inplace=True)]
        self.head = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def features(self, x: Tensor) -> Tensor:
        """Features (B,width,H,W) of images float (B,1,H,W), before the latent joins."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        for skip, block in zip(skips[-2::-1], self.up, strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = block(torch.cat([x, skip], 1))
        return x

    def decode(self, features: Tensor, z: Tensor) -> Tensor:
        """Logits (B,H,W) of one latent (B,LATENT) each, tiled over the features."""
        tiled = z[:, :, None, None].expand(-1, -1, *features.shape[2:])
        return self.head(torch.cat([features, tiled], 1))[:, 0]  # type: ignore[no-any-return]

    def loss(self, images: Tensor, target: Tensor) -> Tensor:
        """Negative ELBO against target float (B,H,W), averaged over the batch."""
        prior, posterior = self.prior(images), self.posterior(torch.cat([images, target[:, None]], 1))
        logits = self.decode(self.features(images), posterior.rsample())
        misfit = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum((1, 2))
        return (misfit + kl_divergence(posterior, prior)).mean()

    def samples(self, images: Tensor, n: int) -> Tensor:
        """n maps (B,n,H,W), one after another; the features are computed once."""
        features, prior = self.features(images), self.prior(images)
        return torch.stack([self.decode(features, prior.sample()).sigmoid() for _ in range(n)], 1)
