"""Masksembles (Durasov 2021): fixed masks of channels make one network several that share weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from uqseg.methods.method import method
from uqseg.methods.unet import SingleNetwork, SingleOptions
from uqseg.nets.unet import Drop, UNet, widths_of
from uqseg.noise import Noise

FEWEST = 10
"""Channels below which the published construction does not work."""


class MasksemblesOptions(SingleOptions):
    """Options of the network and of its masks."""

    n: int = Field(4, ge=2, le=100, description="number of masks")
    scale: float = Field(2.0, ge=1.25, le=6, description="how little the masks overlap: two share about 1/scale")
    placement: Literal["inner", "all"] = Field("inner", description="masks in the two deepest levels, or in all")


def columns(active: int, n: int, scale: float) -> int:
    """Channels that n masks of `active` ones each are expected to use."""
    return int(active * scale * (1 - (1 - 1 / scale) ** n))


def masks_of(channels: int, n: int, scale: float) -> Tensor:
    """n masks bool (n,channels), each with the same number of ones, each channel used by at least one mask.

    As published: `active` ones in each among active × s positions, drawn anew until the used positions number what is
    expected, with s within a fifth of `scale` such that this is `channels`. Draws from torch's global generator, as
    initialisers do. Raises ValueError where there is no such s.
    """
    active, low, high = int(channels / (scale * (1 - (1 - 1 / scale) ** n))), 0.8 * scale, 1.2 * scale
    while columns(active, n, (low + high) / 2) != channels:
        if channels < FEWEST or high - low < 1e-9:
            raise ValueError(f"masks: no {n} masks of scale {scale} for {channels} channels; choose another scale")
        fewer = columns(active, n, (low + high) / 2) < channels
        low, high = ((low + high) / 2, high) if fewer else (low, (low + high) / 2)
    positions = int(active * (low + high) / 2)
    while True:
        # On the processor whatever the device in force, such as that of shapes alone: the masks' size decides.
        ones = torch.stack([torch.randperm(positions, device="cpu")[:active] for _ in range(n)])
        masks = torch.zeros(n, positions, dtype=torch.bool, device="cpu").scatter_(1, ones, True)
        masks = masks[:, masks.any(0)]
        if masks.shape[1] == channels:
            return masks


@method("masksembles")
class Masksembles(SingleNetwork[MasksemblesOptions]):
    """Masksembles: one U-Net whose channels are switched by n fixed masks; each mask is a sample."""

    Options = MasksemblesOptions
    version, small, varies = 1, {"width": 6, "depth": 3}, "weights"

    def __init__(self, options: MasksemblesOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        for place, width in enumerate(self.places()):
            self.register_buffer(f"masks_{place}", masks_of(width, options.n, options.scale))

    def make_network(self) -> Any:
        """A U-Net with places for the masks."""
        o = self.options
        return UNet(self.channels, o.width, o.depth, dropout=o.placement)

    def places(self) -> list[int]:
        """Channels at each place of a mask, in the order in which the network passes them."""
        widths, levels = widths_of(self.options.width, self.options.depth), range(self.options.depth)
        passed = [*levels, *reversed(levels[:-1])]
        return [widths[level] for level in passed if self.network.drops_at(level)]

    @property
    def support(self) -> int | None:
        """One sample of each mask."""
        return self.options.n

    def switch(self, index: Tensor) -> Drop:
        """A function that applies mask `index` (B,) or () of one place after the other to features (B,C,H,W)."""
        remaining: Iterator[Tensor] = iter([getattr(self, f"masks_{k}") for k in range(len(self.places()))])
        return lambda x: x * next(remaining)[index].reshape(-1, x.shape[1], 1, 1)

    def logits(self, images: Tensor, noise: Noise) -> Tensor:
        """Logits (B,H,W), each image with a random mask."""
        index = (noise.of_cases((), "uniform") * self.options.n).long()
        return self.head(self.network(images, self.switch(index))).squeeze(1)  # type: ignore[no-any-return]

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,masks,H,W)."""
        skips, start = self.network.trunk(images)
        switches = [self.switch(torch.tensor(k, device=images.device)) for k in range(self.options.n)]
        return torch.cat([self.head(f) for f in self.network.tails(skips, start, switches)], 1).float().sigmoid()
