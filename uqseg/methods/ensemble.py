"""Annotator ensemble: one U-Net for each reader slot; its members are its samples."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from uqseg.methods.draws import cross_entropy
from uqseg.methods.method import Method, Noise, Options, method
from uqseg.nets.unet import UNet, mask_head


class EnsembleOptions(Options):
    width: int = Field(16, ge=1, description="channels of the finest level, doubled at each level")
    depth: int = Field(5, ge=2, description="number of levels")
    pos_weight: float = Field(1.0, gt=0, description="weight of the foreground in the cross-entropy")


@method("ensemble")
class Ensemble(Method):
    """Annotator ensemble: one U-Net for each reader slot, trained on that slot; its members are its samples."""

    Options = EnsembleOptions
    samples_are = "epistemic"

    def __init__(self, options: Any, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.members = nn.ModuleList(
            nn.Sequential(UNet(channels, options.width, options.depth), mask_head(options.width))
            for _ in range(readers)
        )

    @property
    def support(self) -> int | None:
        return self.readers

    def declines(self, *, channels: int, readers: int, size: tuple[int, int]) -> str | None:
        return "one member a reader needs at least two readers" if readers < 2 else None

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, generator: torch.Generator) -> Tensor:
        """Sum over members; an image that slot k did not read teaches member k nothing."""
        total = images.new_zeros(())
        for slot, member in enumerate(self.members):
            each = cross_entropy(member(images).squeeze(1), masks[:, slot], pos_weight=self.options.pos_weight).mean(
                (1, 2)
            )
            total = total + (each * read[:, slot]).mean()
        return total

    def sample(self, images: Tensor, n: int, generator: Noise = None) -> Tensor:
        return torch.cat([member(images) for member in self.members], 1).float().sigmoid()
