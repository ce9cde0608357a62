"""MC dropout (Gal 2016): dropout stays on when sampling; what no dropout changes is computed once."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from uqseg.methods.method import method
from uqseg.methods.unet import SingleNetwork, SingleOptions
from uqseg.nets.unet import UNet
from uqseg.noise import Noise


class MCDropoutOptions(SingleOptions):
    """Options of the network and of its dropout."""

    rate: float = Field(0.5, gt=0, lt=1, description="probability that a unit is dropped")
    placement: Literal["inner", "all"] = Field("inner", description="dropout in the two deepest levels, or in all")


def dropout(x: Tensor, rate: float, noise: Noise) -> Tensor:
    """x (B,C,H,W) with units dropped at `rate` and the rest scaled up, drawn from `noise`."""
    kept = noise.of_cases(tuple(x.shape[1:]), "uniform") >= rate
    return x * kept / (1 - rate)


@method("mcdropout")
class MCDropout(SingleNetwork[MCDropoutOptions]):
    """MC dropout: one U-Net whose dropout stays on; each pass is a sample."""

    Options = MCDropoutOptions
    version, small, varies = 1, {"width": 4, "depth": 3}, "weights"

    def make_network(self) -> Any:
        """A U-Net with places for dropout."""
        o = self.options
        return UNet(self.channels, o.width, o.depth, dropout=o.placement)

    @property
    def support(self) -> int | None:
        """None: each sample drops other units."""
        return None

    def logits(self, images: Tensor, noise: Noise) -> Tensor:
        """Logits (B,H,W) with dropout."""
        features = self.network(images, lambda x: dropout(x, self.options.rate, noise))
        return self.head(features).squeeze(1)  # type: ignore[no-any-return]

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,n,H,W), each with dropout of its own."""

        def drop(x: Tensor) -> Tensor:
            return dropout(x, self.options.rate, noise)

        skips, start = self.network.trunk(images)
        passes = self.network.tails(skips, start, [drop] * n)
        return torch.cat([self.head(features) for features in passes], 1).float().sigmoid()
