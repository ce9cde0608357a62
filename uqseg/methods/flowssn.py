"""Flow-SSN, continuous (2025): the base network's Gaussian around a mean map, carried to masks by a small flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import Tensor, nn

from uqseg.methods.losses import cross_entropy, random_reader
from uqseg.methods.method import Method, Widths, method
from uqseg.methods.unet import PIXELS, UNetOptions
from uqseg.nets.unet import UNet, mask_head
from uqseg.noise import Noise

if TYPE_CHECKING:
    from uqseg.training.recipe import Training


class FlowSSNOptions(UNetOptions):
    """Options of the base network and of the flow."""

    flow: Widths = Field((16, 16, 16), min_length=1, description="channels of each level of the flow's network")
    steps: int = Field(10, ge=1, le=10_000, description="Euler steps of a sample (50 in the paper's tables)")


@method("flowssn")
class FlowSSN(Method[FlowSSNOptions]):
    """Flow-SSN: one pass of a U-Net, then a small flow that never sees the image makes each mask of noise."""

    Options = FlowSSNOptions
    version, small = 1, {"width": 4, "depth": 3, "flow": (4, 4), "steps": 2}

    def __init__(self, options: FlowSSNOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.network = UNet(channels, options.width, options.depth)
        self.head = nn.Conv2d(options.width, 1, 1)
        self.flow = UNet(3, levels=list(options.flow))
        self.flow_head = mask_head(options.flow[0])

    def declines_recipe(self, recipe: Training) -> str | None:
        """The flow sees the time as a constant map, which batch norm takes away where all images have the same."""
        if recipe.batch > 1:
            return None
        return "its flow learns the time from images of different times in one step; give batch=2 or more"

    def base(self, images: Tensor) -> Tensor:
        """Mean map (B,H,W) around which the noise lies."""
        return self.head(self.network(images)).squeeze(1).float()  # type: ignore[no-any-return]

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Cross-entropy of the mask that the flow sees behind (1−t)·u + t·mask, u = mean + noise, at a random time t.

        One number in 0…1 per pixel stands for the two classes; gradients reach the base network through u.
        """
        target = masks[torch.arange(len(images), device=images.device), random_reader(read, noise)]
        time = noise.of_cases((), "uniform")
        u = self.base(images) + noise.of_cases(tuple(images.shape[2:]))
        now = torch.lerp(u, target.float(), time[:, None, None])
        return cross_entropy(self.seen(now, time), target).sum((1, 2)) / PIXELS

    def seen(self, y: Tensor, time: Tensor) -> Tensor:
        """Logits (B,H,W) of the mask behind y (B,H,W) at times (B,), which are two further channels: t and 4t(1−t)."""
        times = torch.stack([time, 4 * time * (1 - time)], 1)[..., None, None].expand(-1, -1, *y.shape[1:])
        inputs = torch.cat([y[:, None], times], 1).contiguous(memory_format=torch.channels_last)
        return self.flow_head(self.flow(inputs)).squeeze(1)  # type: ignore[no-any-return]

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,n,H,W): the flow carries n starting points around the mean."""
        mean = self.base(images)
        return torch.stack([self.carry(mean + noise.of_cases(tuple(mean.shape[1:]))) for _ in range(n)], 1)

    def carry(self, u: Tensor) -> Tensor:
        """Probabilities (B,H,W) where the flow takes the starting points u: Euler steps of dy/dt = σ(flow(y,t)) − u.

        As u stays the start of the path, the end is the mean of what the flow saw at each step, within 0…1.
        """
        y, steps, seen = u, self.options.steps, torch.zeros_like(u)
        for step in range(steps):
            time = torch.full((len(u),), step / steps, device=u.device)
            now = self.seen(y, time).float().sigmoid()
            y, seen = y + (now - u) / steps, seen + now / steps
        return seen.clamp_max(1)
