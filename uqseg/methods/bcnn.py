"""Bayesian network with Gaussian weights (Blundell 2015), trained with Flipout (Wen 2018); MOPED as an option."""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from uqseg.methods.losses import cross_entropy
from uqseg.methods.method import method
from uqseg.methods.unet import SingleNetwork, SingleOptions
from uqseg.noise import Noise


class BCNNOptions(SingleOptions):
    """Options of the Bayesian network."""

    prior: float = Field(1.0, gt=0, description="standard deviation of the prior, in units of √(2/inputs) of a layer")
    sigma: float = Field(0.1, gt=0, description="standard deviation of the weights at the start, in the same units")
    beta: float = Field(1.0, ge=0, description="weight of the KL (in nats per image) against the summed cross-entropy")
    warmup: float = Field(1 / 3, gt=0, le=1, description="share of the steps in which the KL's weight rises to beta")
    moped: float | None = Field(
        None,
        gt=0,
        description="δ of MOPED: after a deterministic start, σ = δ|w| and prior mean w; none: no such start",
    )
    pretrain: float = Field(1 / 3, gt=0, lt=1, description="share of the steps that MOPED's deterministic start takes")

    @model_validator(mode="after")
    def _steps_suffice(self) -> BCNNOptions:
        if self.moped is not None and self.pretrain + self.warmup > 1:
            raise ValueError(
                f"pretrain={self.pretrain:g} and warmup={self.warmup:g}: expected a sum of at most 1, for the KL's "
                "weight would not reach beta"
            )
        return self


def signs(noise: Noise, channels: int) -> Tensor:
    """±1 for each case and channel: (B,channels,1,1)."""
    return 1 - 2 * (noise.of_cases((channels, 1, 1), "uniform") < 0.5).float()


class FlipoutConv2d(nn.Conv2d):
    """A convolution with Gaussian weights: means `weight`, standard deviations softplus(`rho`).

    With `noise` set it computes with one draw of the weights' deviations, whose signs each case turns for its own input
    and output channels (Flipout): each case has a proper draw, nearly independent of the others'. Otherwise it computes
    with the means.
    """

    noise: Noise | None = None
    prior_mean: Tensor

    def __init__(self, plain: nn.Conv2d, sigma: float, prior: float) -> None:
        size: Any = plain.kernel_size
        bias, padding = plain.bias is not None, (size[0] // 2, size[1] // 2)
        super().__init__(plain.in_channels, plain.out_channels, size, padding=padding, bias=bias)
        self.load_state_dict(plain.state_dict())
        unit = math.sqrt(2 / self.weight[0].numel())
        self.prior = prior * unit
        self.rho = nn.Parameter(torch.full(self.weight.shape, math.log(math.expm1(sigma * unit))))
        self.register_buffer("prior_mean", torch.zeros(()))

    def deviations(self, normal: Tensor) -> Tensor:
        """Standard normal numbers as deviations of the weights from their means."""
        return F.softplus(self.rho) * normal

    def forward(self, x: Tensor) -> Tensor:
        """x (B,C,H,W) convolved: with the means, or where `noise` is set with a draw for each case."""
        means = super().forward(x)
        if self.noise is None:
            return means
        weight = self.deviations(self.noise.shared(0, tuple(self.weight.shape)))
        turned = x * signs(self.noise, self.in_channels).to(x.dtype)
        deviation = F.conv2d(turned, weight, padding=self.padding)
        return torch.addcmul(means, deviation, signs(self.noise, self.out_channels).to(deviation.dtype))

    def kl(self) -> Tensor:
        """KL(weights ‖ prior) in nats, summed over all weights of the layer."""
        sigma = F.softplus(self.rho)
        gap = (sigma.square() + (self.weight - self.prior_mean).square()).sum() / (2 * self.prior**2)
        return gap - sigma.log().sum() + sigma.numel() * (math.log(self.prior) - 0.5)

    @torch.no_grad()
    def start_from_means(self, delta: float) -> None:
        """MOPED (Krishnan 2020): the means as trained are the prior's means; standard deviations δ|w|."""
        self.prior_mean = self.weight.clone()
        self.rho.copy_((delta * self.weight.abs()).clamp_min(1e-6).expm1().log())


@method("bcnn")
class BCNN(SingleNetwork[BCNNOptions]):
    """Bayesian U-Net: Gaussian weights trained with Flipout; each sample is one draw of the weights for all images."""

    Options = BCNNOptions
    version, small, varies = 1, {"width": 4, "depth": 3}, "weights"
    cached = 2**18  # a draw of the weights is worth many images
    progress: Tensor

    def __init__(self, options: BCNNOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        for block in [*self.network.down, *self.network.up]:
            for k, layer in enumerate(block):
                if isinstance(layer, nn.Conv2d):
                    block[k] = FlipoutConv2d(layer, options.sigma, options.prior)
        self.head = FlipoutConv2d(self.head, options.sigma, options.prior)
        if options.moped is not None:
            for layer in self.layers().values():
                layer.prior_mean = torch.zeros_like(layer.weight)
        self.register_buffer("progress", torch.zeros(()))  # share of the steps that are done
        self.images = 1
        self.nats = 0.0

    def layers(self) -> dict[str, FlipoutConv2d]:
        """The random layers by their names in the sequence of network and head."""
        named = nn.Sequential(self.network, self.head).named_modules()
        return {name: layer for name, layer in named if isinstance(layer, FlipoutConv2d)}

    @property
    def support(self) -> int | None:
        """None: each sample draws the weights anew."""
        return None

    @property
    def pretraining(self) -> bool:
        """Whether the weights are not random yet."""
        return self.options.moped is not None and float(self.progress) < self.options.pretrain

    def before_steps(self, images: int, steps: int) -> None:
        """Take note of the number of images, over which the KL is spread."""
        self.images = images

    def after_step(self, step: int, total: int) -> None:
        """Take note of the progress; when MOPED's deterministic start ends, set σ and prior mean."""
        before = self.pretraining
        self.progress.fill_(step / total)
        if before and not self.pretraining:
            assert self.options.moped is not None
            for layer in self.layers().values():
                layer.start_from_means(self.options.moped)

    def logits(self, images: Tensor, noise: Noise) -> Tensor:
        """Logits (B,H,W) with a draw of the weights for each case; in the deterministic start with the means."""
        layers = self.layers().values()
        for layer in layers:
            layer.noise = None if self.pretraining else noise
        try:
            return super().logits(images, noise)
        finally:
            for layer in layers:
                layer.noise = None

    def entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (B,) summed over pixels, in nats."""
        return cross_entropy(logits, target, pos_weight=self.options.pos_weight).sum((1, 2))

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Negative ELBO of one image, in nats: its cross-entropy + weight × KL / number of training images."""
        entropy = super().loss(images, masks, read, noise)
        if self.pretraining:
            return entropy
        o = self.options
        begin = 0.0 if o.moped is None else o.pretrain
        weight = o.beta * min(1.0, (float(self.progress) - begin) / o.warmup)
        kl = torch.stack([layer.kl() for layer in self.layers().values()]).sum() / self.images
        self.nats = float(kl.detach())
        return entropy + weight * kl

    def watch(self) -> dict[str, float]:
        """The KL in nats."""
        return {"kl": self.nats}

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,n,H,W): sample k is one draw of the weights, the same for all cases."""
        model, layers = nn.Sequential(self.network, self.head), self.layers()
        if self.pretraining:
            return model(images).float().sigmoid().expand(-1, n, -1, -1)  # type: ignore[no-any-return]
        maps = []
        for k in range(n):
            weights = {
                f"{name}.weight": layer.weight + layer.deviations(noise.shared(k, tuple(layer.weight.shape)))
                for name, layer in layers.items()
            }
            maps.append(functional_call(model, weights, (images,)))
        return torch.cat(maps, 1).float().sigmoid()
