"""SWAG (Maddox 2019): a Gaussian over all weights, from the last iterates of the training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from uqseg.errors import UsageError
from uqseg.methods.method import method
from uqseg.methods.unet import SingleNetwork, SingleOptions
from uqseg.noise import Noise
from uqseg.seeds import generator

if TYPE_CHECKING:
    from uqseg.training.recipe import Training


class SWAGOptions(SingleOptions):
    """Options of the network and of what is collected."""

    collect_from: float = Field(0.75, ge=0, lt=1, description="share of the steps after which iterates are collected")
    collected: int = Field(
        40, ge=2, le=10_000, description="iterates that are collected, evenly over the remaining steps"
    )
    rank: int = Field(20, ge=2, le=1000, description="last iterates whose deviations give the low-rank part (K)")
    scale: float = Field(0.5, gt=0, description="factor of the covariance (½ in the paper)")
    draws: int = Field(
        16, ge=1, le=1000, description="networks that are drawn when training ends: the most samples there are"
    )
    batches: int = Field(
        10, ge=1, le=10_000, description="training batches that give each drawn network's normalisation"
    )


@method("swag")
class SWAG(SingleNetwork[SWAGOptions]):
    """SWAG: a U-Net drawn from a Gaussian with low-rank and diagonal covariance around the mean of its last iterates.

    The drawn networks and their batch normalisation are fixed when training ends. Train with a constant learning rate:
    iterates of a rate that falls to 0 hardly differ.
    """

    Options = SWAGOptions
    version, small, varies = 1, {"width": 4, "depth": 3, "collect_from": 0.5, "rank": 3, "draws": 8}, "weights"
    cached = 2**18  # a draw of the weights is worth many images
    count: Tensor
    mean: Tensor
    square: Tensor
    deviations: Tensor
    statistics: Tensor

    def __init__(self, options: SWAGOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        weights, statistics = len(self.weights()), sum(t.numel() for t in self._statistics().values())
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(weights))
        self.register_buffer("square", torch.zeros(weights))  # mean of the squares
        self.register_buffer("deviations", torch.zeros(options.rank, weights, dtype=torch.bfloat16))
        self.register_buffer("statistics", torch.zeros(options.draws, statistics))  # 0 before training ends

    @property
    def support(self) -> int | None:
        """None, though there are `most` samples only: they are draws, not all there is."""
        return None

    @property
    def most(self) -> int | None:
        """The networks that are drawn when training ends."""
        return self.options.draws

    def declines_recipe(self, recipe: Training) -> str | None:
        """Earlier weights, as keep="best" keeps, lack the iterates."""
        return "it samples from what it collects over the last steps; give keep=last" if recipe.keep == "best" else None

    def model(self) -> nn.Sequential:
        """Network and head as one module, of which SWAG is computed."""
        return nn.Sequential(self.network, self.head)

    def weights(self) -> Tensor:
        """All weights of network and head as one vector."""
        return torch.cat([p.detach().flatten() for p in self.model().parameters()])

    def _statistics(self) -> dict[str, Tensor]:
        """Means and variances of the batch normalisation."""
        return {name: t for name, t in self.model().named_buffers() if name.endswith(("running_mean", "running_var"))}

    def after_step(self, step: int, total: int) -> None:
        """Collect the weights after evenly spaced steps, `collected` in all."""

        def due(step: int) -> int:
            share = (step / total - self.options.collect_from) / (1 - self.options.collect_from)
            return math.floor(share * self.options.collected + 1e-9)

        if due(step) > max(0, due(step - 1)):
            self.collect()

    def collect(self) -> None:
        """Take the present weights into the mean, the mean of squares and the deviations from the mean."""
        weights, k = self.weights(), int(self.count)
        self.count += 1
        self.mean.lerp_(weights, 1 / (k + 1))
        self.square.lerp_(weights.square(), 1 / (k + 1))
        self.deviations[k % self.options.rank] = weights - self.mean

    def draw_weights(self, normal: Tensor, low_rank: Tensor) -> Tensor:
        """mean + √scale (σ ∘ normal + Dᵀ low_rank / √(K−1)), (P,) from standard normal numbers (P,) and (K,)."""
        kept = min(int(self.count), self.options.rank)
        sigma = (self.square - self.mean.square()).clamp_min(1e-30).sqrt()
        low = low_rank[:kept].to(self.deviations.dtype) @ self.deviations[:kept]
        deviation = sigma * normal + low.float() / math.sqrt(max(1, kept - 1))
        return self.mean + math.sqrt(self.options.scale) * deviation

    def drawn(self, k: int) -> dict[str, Tensor]:
        """Weights and statistics of drawn network k, by name in `model`."""
        source = generator("swag", k)
        numbers = [torch.randn(len(t), generator=source).to(t.device) for t in (self.mean, self.deviations)]
        vector = self.draw_weights(*numbers)
        return _named(vector, dict(self.model().named_parameters())) | _named(self.statistics[k], self._statistics())

    @torch.no_grad()
    def finish(self, train: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Draw the networks and take the mean statistics of a few batches for each."""
        if self.count < 2:
            raise UsageError(
                f"method 'swag': expected at least 2 collected iterates, got {int(self.count)}; train for more steps"
            )
        batches = [images for images, _, _ in islice(train, self.options.batches)]
        model = self.model().train()
        norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
        for k in range(self.options.draws):
            state = self.drawn(k)
            for number, images in enumerate(batches):
                for norm in norms:
                    norm.momentum = 1 / (number + 1)  # the mean over the batches so far
                functional_call(model, state, (images,))
            self.statistics[k] = torch.cat([state[name] for name in self._statistics()])
        for norm in norms:
            norm.momentum = 0.1

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Samples of n of the drawn networks, in an order that the noise decides; of the present one before that."""
        model: Any = self.model()
        if n > self.options.draws:
            raise UsageError(f"method 'swag': {self.options.draws} networks were drawn when training ended, got n={n}")
        if not bool(self.statistics.any()):
            return model(images).float().sigmoid().expand(-1, n, -1, -1)  # type: ignore[no-any-return]
        order = noise.shared(0, (self.options.draws,), "uniform").argsort()[:n].tolist()
        return torch.cat([functional_call(model, self.drawn(k), (images,)) for k in order], 1).float().sigmoid()


def _named(vector: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """A vector cut into tensors of the shapes of `like`."""
    parts = torch.split(vector, [t.numel() for t in like.values()])
    return {name: part.view(t.shape).clone() for (name, t), part in zip(like.items(), parts, strict=True)}
