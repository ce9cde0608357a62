"""Probabilistic U-Net (Kohl 2018): a U-Net whose last layers see a latent drawn from a learned prior."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from uqseg.methods.losses import cross_entropy, random_reader
from uqseg.methods.method import Method, Options, method
from uqseg.nets.latent import LatentEncoder
from uqseg.nets.unet import UNet, mask_head
from uqseg.noise import Noise

COLLAPSED = 0.01
"""KL in nats below which a latent dimension carries nothing."""
CACHED = 2**20
"""Numbers that one layer can hand to the next in a processor's caches."""
WORTH_BF16 = 32
"""Channels from which on a product in bf16 takes less time than one in float32."""


class ProbUNetOptions(Options):
    levels: tuple[int, ...] = Field((16, 32, 64, 64), min_length=2, description="channels of each level, finest first")
    convolutions: int = Field(2, ge=1, description="3×3 convolutions per block (3 in the paper)")
    latent: int = Field(6, ge=1, description="dimensions of the latent space")
    beta: float = Field(1.0, ge=0, description="weight of the KL against the cross-entropy summed over pixels")
    head: int = Field(3, ge=2, description="1×1 convolutions after the latent joins; one alone would nest the samples")


@method("probunet")
class ProbUNet(Method[ProbUNetOptions]):
    """Probabilistic U-Net: a latent drawn from a learned prior decides among the masks readers would draw."""

    Options = ProbUNetOptions
    version, small = 1, {"levels": (4, 8, 8)}

    def __init__(self, options: ProbUNetOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        levels, width = list(options.levels), options.levels[0]
        self.network = UNet(channels, levels=levels, convolutions=options.convolutions)
        self.prior = LatentEncoder(channels, levels, options.latent, options.convolutions)
        self.posterior = LatentEncoder(channels + 1, levels, options.latent, options.convolutions)
        # The first 1×1 layer is linear in [features; z]: one term per image, and one vector per sample.
        self.of_features = nn.Conv2d(width, width, 1)
        self.of_latent = nn.Linear(options.latent, width, bias=False)
        self.head = nn.ModuleList([*(nn.Conv2d(width, width, 1) for _ in range(options.head - 2)), mask_head(width)])
        self.kl: list[float] = []

    def decode(self, features: Tensor, z: Tensor) -> Tensor:
        """Logits (B,S,H,W) from the first layer's image term (B,width,H,W) and latents z (B,S,latent)."""
        B, S = z.shape[:2]
        shifts: Tensor = self.of_latent(z)
        x: Tensor = (features[:, None] + shifts[:, :, :, None, None]).flatten(0, 1)
        for layer in self.head:
            x = layer(F.relu_(x))
        return x.reshape(B, S, *x.shape[-2:])

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Negative ELBO: cross-entropy summed over pixels + β KL(posterior ‖ prior)."""
        rows = torch.arange(len(images), device=images.device)
        target = masks[rows, random_reader(read, noise)]
        prior_mean, prior_log = self.prior(images)
        mean, log_variance = self.posterior(torch.cat([images, target[:, None].to(images.dtype) - 0.5], 1))
        z = mean + noise.of_cases((self.options.latent,)) * (0.5 * log_variance).exp()
        logits = self.decode(self.of_features(self.network(images)), z[:, None]).squeeze(1)
        gap = (mean - prior_mean).square() / prior_log.exp()
        kl = 0.5 * (prior_log - log_variance + (log_variance - prior_log).exp() + gap - 1)
        self.kl = kl.detach().mean(0).tolist()
        loss: Tensor = cross_entropy(logits, target).sum((1, 2)) + self.options.beta * kl.sum(1)
        return loss

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        features = self.of_features(self.network(images))
        mean, log_variance = self.prior(images)
        z = mean[:, None] + noise.of_cases((n, self.options.latent)) * (0.5 * log_variance).exp()[:, None]
        logits = self.decode(features, z) if images.is_cuda else self._decode_in_cache(features, z)
        return logits.float().sigmoid_()

    def _decode_in_cache(self, features: Tensor, z: Tensor) -> Tensor:
        """`decode` on a processor, a few pixels of all samples at a time: what passes between the layers then never
        leaves its caches."""
        (B, S), (width, H, W) = z.shape[:2], features.shape[1:]
        dtype = features.dtype if width >= WORTH_BF16 else torch.float32
        shifts, pixels = self.of_latent(z).to(dtype), features.to(dtype).permute(0, 2, 3, 1).reshape(B, H * W, width)
        head: Any = self.head
        layers = [(layer.weight[:, :, 0, 0].t().to(dtype).contiguous(), layer.bias.to(dtype)) for layer in head]
        logits, few = pixels.new_empty(B, S, H * W), max(16, CACHED // (S * width))
        with torch.autocast("cpu", enabled=False):
            for b, first in product(range(B), range(0, H * W, few)):
                part = slice(first, first + few)
                x = (pixels[b, part] + shifts[b, :, None]).flatten(0, 1)
                for weight, bias in layers:
                    x = torch.addmm(bias, x.relu_(), weight)
                logits[b, :, part] = x.view(S, -1)
        return logits.view(B, S, H, W)

    def watch(self) -> dict[str, float]:
        return {f"kl_{k}": value for k, value in enumerate(self.kl)}

    def warning(self) -> str | None:
        if self.kl and max(self.kl) < COLLAPSED:
            return (
                f"the latent space has collapsed: the KL of every dimension is below {COLLAPSED} nats, so all samples "
                f"are alike; lower the option beta (now {self.options.beta}) or train longer"
            )
        return None
