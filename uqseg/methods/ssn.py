"""Stochastic segmentation networks (Monteiro 2020): logits from a Gaussian with a low-rank covariance over pixels."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from uqseg.methods.losses import Readers, cross_entropy, reader_fraction, reader_weights
from uqseg.methods.method import Method, method
from uqseg.methods.unet import UNetOptions
from uqseg.nets.unet import UNet
from uqseg.noise import Noise

LOG_DIAGONAL = 3.0
"""Largest logarithm of a pixel's own variance: where logits saturate nothing else would bound it."""


class SSNOptions(UNetOptions):
    """Options of the network, of the covariance and of the likelihood."""

    rank: int = Field(10, ge=1, le=1000, description="rank of the covariance")
    draws: int = Field(20, ge=1, le=1000, description="Monte Carlo draws of the likelihood (M)")
    pretrain: float = Field(0.1, ge=0, le=1, description="share of the steps that train the mean alone")
    readers: Readers = Field("all", description="masks in a step: of one random reader (as in the paper), or of all")


def low_rank_draws(mean: Tensor, factor: Tensor, log_diagonal: Tensor, of_factor: Tensor, of_pixels: Tensor) -> Tensor:
    """Draws (B,M,P) of N(mean, factor·factorᵀ + diagonal), by hand: no r×r system that could fail to factorise.

    mean, log_diagonal (B,P), factor (B,r,P); standard normal numbers of_factor (B,M,r) and of_pixels (B,M,P).
    """
    deviation = (0.5 * log_diagonal.clamp_max(LOG_DIAGONAL)).exp()
    return torch.baddbmm(mean[:, None], of_factor, factor) + deviation[:, None] * of_pixels


def log_likelihood(logits: Tensor, masks: Tensor) -> Tensor:
    """log (1/M) Σ_m Π_pixels p(mask | logits_m) in nats (B,R), of logits (B,M,P) and masks (B,R,P).

    Σ_pixels log p = Σ (y·logit − softplus(logit)): one product for all readers.
    """
    each = masks.to(logits.dtype) @ logits.transpose(1, 2) - nn.functional.softplus(logits).sum(2)[:, None]
    return torch.logsumexp(each, 2) - math.log(logits.shape[1])


@method("ssn")
class SSN(Method[SSNOptions]):
    """Stochastic segmentation network: one map of correlated Gaussian logits, drawn from at once."""

    Options = SSNOptions
    version, small = 1, {"width": 4, "depth": 3, "rank": 3, "draws": 4, "pretrain": 0.0}

    progress: Tensor

    def __init__(self, options: SSNOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.network = UNet(channels, options.width, options.depth)
        self.head = nn.Conv2d(options.width, 2 + options.rank, 1)
        with torch.no_grad():  # wider, the first draws would saturate
            self.head.weight[1:].normal_(std=0.01)
            self.head.bias.zero_()  # type: ignore[union-attr]
            self.head.bias[:2] = torch.tensor([math.log(0.01 / 0.99), -2.0])  # type: ignore[index]
        self.register_buffer("progress", torch.zeros(()))

    def gaussian(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (B,P), factor (B,rank,P) and logarithm of the diagonal (B,P), float32."""
        outputs = self.head(self.network(images)).float().flatten(2)
        return outputs[:, 0], outputs[:, 2:], outputs[:, 1]

    def draws(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Logits (B,n,P)."""
        mean, factor, log_diagonal = self.gaussian(images)
        of_factor = noise.of_cases((n, factor.shape[1]))
        with torch.autocast(images.device.type, enabled=False):
            return low_rank_draws(mean, factor, log_diagonal, of_factor, noise.of_cases((n, mean.shape[1])))

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Negative log-likelihood in nats, the mean over readers; at first cross-entropy of the mean's logits."""
        weights = reader_weights(read, noise, self.options.readers)
        if self.progress < self.options.pretrain:
            mean = self.gaussian(images)[0].view(-1, *masks.shape[2:])
            return cross_entropy(mean, reader_fraction(masks, weights)).sum((1, 2))
        logits = self.draws(images, self.options.draws, noise)
        with torch.autocast(images.device.type, enabled=False):
            return -(log_likelihood(logits, masks.flatten(2)) * weights).sum(1)

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,n,H,W): the sigmoid of n draws of the logits."""
        return self.draws(images, n, noise).sigmoid_().view(len(images), n, *images.shape[2:])

    def after_step(self, step: int, total: int) -> None:
        """Take note of the progress, which decides when the covariance is trained."""
        self.progress.fill_(step / total)
