"""Energy: a U-Net with a small code, trained on the energy distance between its samples and the readers itself."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from uqseg.methods.losses import count_entropy, expected_share, reader_fraction, reader_weights
from uqseg.methods.method import Method, method
from uqseg.methods.unet import PRESENCE_WEIGHT, UNetOptions
from uqseg.nets.conditioned import ConditionedHead
from uqseg.nets.pooled import PooledHead
from uqseg.nets.unet import UNet
from uqseg.noise import Noise

TINY = 1e-6


class EnergyOptions(UNetOptions):
    """Options of the network and of its energy distance."""

    latent: int = Field(
        8, ge=1, le=1000, description="dimensions of the code, which scales and shifts the head's first layer"
    )
    draws: int = Field(8, ge=2, le=1000, description="samples per image in a step (K), if there are no codes")
    codes: int = Field(
        0, ge=0, le=1000, description="learned codes instead of random ones: the samples are then a whole support"
    )
    c: float = Field(4.0, gt=0, description="pixels added to the union: below it a mask is nearly empty")
    energy_weight: float = Field(8.0, ge=0, description="weight of the energy distance")
    mean_weight: float = Field(0.02, ge=0, description="weight of the mean map's cross-entropy summed over pixels")
    presence: bool = Field(False, description="learn also how many readers draw anything, from pooled features")


def ruzicka(prob: Tensor, other: Tensor, c: float) -> Tensor:
    """Ruzicka distances Σ|p−q| / (Σ max(p,q) + c), (B,K,L), of maps in [0,1] (B,K,P) and (B,L,P).

    Between binary masks and with c = 0 it is one minus the Jaccard index; of a map to itself it is always 0, which a
    soft IoU's is not. Nothing of size K × L × P is kept.
    """
    gap = torch.cdist(prob, other, p=1.0)
    return gap / (0.5 * (prob.sum(2)[:, :, None] + other.sum(2)[:, None] + gap) + c)


def ruzicka_to_masks(prob: Tensor, masks: Tensor, c: float) -> Tensor:
    """`ruzicka` to binary masks (B,L,P), where Σ|p−y| = Σp + Σy − 2Σpy is one product."""
    both = prob @ masks.transpose(1, 2)
    total = prob.sum(2)[:, :, None] + masks.sum(2)[:, None]
    return (total - 2 * both) / (total - both + c)


def energy_distance(prob: Tensor, masks: Tensor, weights: Tensor, c: float, *, drawn: bool = True) -> Tensor:
    """2 E d(sample, reader) − E d(sample, sample') (B,), of samples (B,K,P), masks (B,R,P) and their weights (B,R).

    drawn: the samples are random, so that a pair must be of two different ones (U-statistic); else they are the whole
    distribution. What the readers' own distances would add does not depend on the samples.
    """
    K = prob.shape[1]
    to_readers = (ruzicka_to_masks(prob, masks, c).mean(1) * weights).sum(1)
    return 2 * to_readers - ruzicka(prob, prob, c).sum((1, 2)) / (K * (K - 1) if drawn else K * K)


@method("energy")
class Energy(Method[EnergyOptions]):
    """Energy: samples of a small code, trained so that their energy distance from all readers is least."""

    Options = EnergyOptions
    version, small = 1, {"width": 4, "depth": 3, "draws": 3}

    def __init__(self, options: EnergyOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.network = UNet(channels, options.width, options.depth)
        self.head = ConditionedHead(options.width, options.latent)
        if options.codes:
            self.codes = nn.Parameter(torch.randn(options.codes, options.latent))
        if options.presence:
            self.presence = PooledHead(self.network.deepest + options.width, readers + 1)

    @property
    def support(self) -> int | None:
        """One sample of each learned code; None where codes are random."""
        return self.options.codes or None

    def latents(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Codes (B,S,latent): n random ones, or all learned ones."""
        if self.options.codes:
            return self.codes.expand(len(images), -1, -1)
        return noise.of_cases((n, self.options.latent))

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Weighted sum of the energy distance and the cross-entropy of the mean map against the readers' fraction."""
        o, weights = self.options, reader_weights(read, noise)
        deepest, features = self.network.features(images)
        prob = self.head(features, self.latents(images, o.draws, noise)).float().sigmoid().flatten(2)
        with torch.autocast(images.device.type, enabled=False):
            energy = energy_distance(prob, masks.flatten(2).float(), weights, o.c, drawn=not o.codes)
        fraction, mean = reader_fraction(masks, weights).flatten(1), prob.mean(1)
        entropy = -fraction * (mean + TINY).log() - (1 - fraction) * (1 - mean + TINY).log()
        loss: Tensor = o.energy_weight * energy + o.mean_weight * entropy.sum(1)
        if o.presence:
            loss = loss + PRESENCE_WEIGHT * count_entropy(self.presence(deepest, features), masks, read)
        return loss

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,S,H,W): S = n random codes, or all learned ones."""
        return self.head(self.network(images), self.latents(images, n, noise)).float().sigmoid()  # type: ignore[no-any-return]

    def presence_of(self, images: Tensor) -> Tensor | None:
        """The share of readers (B,) expected to draw anything, with option `presence`; else None."""
        return expected_share(self.presence(*self.network.features(images))) if self.options.presence else None
