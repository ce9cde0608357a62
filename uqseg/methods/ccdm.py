"""CCDM (Zbinden 2023): categorical diffusion of the mask, two classes, conditioned on the image. For a GPU."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from pydantic import Field, model_validator
from torch import Tensor

from uqseg.methods.losses import random_reader
from uqseg.methods.method import Method, Options, Widths, method
from uqseg.methods.unet import PIXELS
from uqseg.nets.timed import TimedUNet
from uqseg.noise import Noise

OFFSET = 0.008
"""Of the cosine schedule (Nichol 2021)."""
LARGEST = 0.999
"""Largest share of a pixel's state that one step may forget."""
TINY = 1e-12


class CCDMOptions(Options):
    """Options of the categorical diffusion."""

    levels: Widths = Field((32, 64, 96, 128), min_length=2, description="channels of each level, finest first")
    blocks: int = Field(2, ge=1, le=10, description="residual blocks per level")
    times: int = Field(250, ge=2, le=10_000, description="steps of the diffusion (T)")
    steps: int = Field(250, ge=1, le=10_000, description="steps of a sample, at most T: fewer skip evenly")

    @model_validator(mode="after")
    def _steps_exist(self) -> CCDMOptions:
        if self.steps > self.times:
            raise ValueError(f"steps={self.steps}: expected at most times={self.times}")
        return self


def cosine(times: int) -> Tensor:
    """ᾱ_t, t = 0 … T: how much of the mask is left, float64 (T+1,), ᾱ_0 = 1."""
    t = torch.arange(times + 1, dtype=torch.float64, device="cpu") / times
    level = ((t + OFFSET) / (1 + OFFSET) * math.pi / 2).cos().square()
    forgotten = (1 - level[1:] / level[:-1]).clamp_max(LARGEST)
    return torch.cat([level.new_ones(1), (1 - forgotten).cumprod(0)])


def posterior(x: Tensor, start: Tensor, kept: Tensor, earlier: Tensor) -> Tensor:
    """q(x_s = 1 | x_t, x_0) for states x and x_0 = `start` in {0,1}, and start between them: the sum over both classes
    of x_0, weighted by its probability.

    kept = ᾱ_t/ᾱ_s, earlier = ᾱ_s: ∝ (kept·[x_s = x_t] + (1−kept)/2)(earlier·[x_s = x_0] + (1−earlier)/2).
    """

    def given(mask: float) -> Tensor:
        of_one = (kept * x + (1 - kept) / 2) * (earlier * mask + (1 - earlier) / 2)
        of_zero = (kept * (1 - x) + (1 - kept) / 2) * (earlier * (1 - mask) + (1 - earlier) / 2)
        return of_one / (of_one + of_zero).clamp_min(TINY)

    return start * given(1.0) + (1 - start) * given(0.0)


def bernoulli_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(Bernoulli(q) ‖ Bernoulli(p)) in nats."""
    p = p.clamp(TINY, 1 - 1e-7)
    return torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q) - q * p.log() - (1 - q) * (1 - p).log()


@method("ccdm")
class CCDM(Method[CCDMOptions]):
    """CCDM: categorical diffusion, from a coin for each pixel to a mask in many steps."""

    Options = CCDMOptions
    version, small = 2, {"levels": (4, 4, 4), "blocks": 1, "times": 4, "steps": 2}

    left: Tensor

    def __init__(self, options: CCDMOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.network = TimedUNet(channels + 1, list(options.levels), options.blocks, attention=True)
        self.register_buffer("left", cosine(options.times).float(), persistent=False)

    def start(self, images: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Probability (B,H,W) that the mask behind the state x (B,H,W) at times t (B,) marks a pixel."""
        return self.network(torch.cat([2 * x[:, None] - 1, images], 1), t / self.options.times).sigmoid()  # type: ignore[no-any-return]

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) summed over pixels, at a random t; at t = 1 a cross-entropy."""
        target = masks[torch.arange(len(images), device=images.device), random_reader(read, noise)].float()
        t = 1 + (noise.of_cases((), "uniform") * self.options.times).long()
        left, earlier = self.left[t, None, None], self.left[t - 1, None, None]
        x = (noise.of_cases(tuple(target.shape[1:]), "uniform") < left * target + (1 - left) / 2).float()
        true, predicted = (posterior(x, start, left / earlier, earlier) for start in (target, self.start(images, x, t)))
        return bernoulli_kl(true, predicted).sum((1, 2)) / PIXELS

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,n,H,W), each the end of a walk of its own."""
        return torch.stack([self.walk(images, noise) for _ in range(n)], 1)

    def walk(self, images: Tensor, noise: Noise) -> Tensor:
        """One sample (B,H,W): at the last step the probability of the mask, whose larger class is the hypothesis."""
        shape, times = tuple(images.shape[2:]), self.options.times
        x = (noise.of_cases(shape, "uniform") < 0.5).float()
        visited = torch.linspace(times, 0, self.options.steps + 1).round().long().tolist()
        for now, following in pairwise(visited):
            start = self.start(images, x, torch.full((len(images),), now, device=images.device))
            if following:
                kept, earlier = self.left[now] / self.left[following], self.left[following]
                x = (noise.of_cases(shape, "uniform") < posterior(x, start, kept, earlier)).float()
        return start
