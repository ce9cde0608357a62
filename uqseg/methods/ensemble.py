"""Annotator ensemble: one U-Net for each reader slot; its members are its samples."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from uqseg.data.annotated import AnnotatedSet
from uqseg.methods.losses import cross_entropy
from uqseg.methods.method import Method, Options, method
from uqseg.nets.unet import UNet, mask_head
from uqseg.noise import Noise


class EnsembleOptions(Options):
    """Options of each member."""

    width: int = Field(16, ge=1, le=4096, description="channels of the finest level, doubled at each level")
    depth: int = Field(5, ge=2, le=10, description="number of levels")
    pos_weight: float = Field(1.0, gt=0, description="weight of the foreground in the cross-entropy")


@method("ensemble")
class Ensemble(Method[EnsembleOptions]):
    """Annotator ensemble: one U-Net for each reader slot, trained on that slot; its members are its samples."""

    Options = EnsembleOptions
    version, small, varies = 1, {"width": 4, "depth": 3}, "weights"

    def __init__(self, options: EnsembleOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.members = nn.ModuleList(
            nn.Sequential(UNet(channels, options.width, options.depth), mask_head(options.width))
            for _ in range(readers)
        )

    @property
    def support(self) -> int | None:
        """One sample of each reader's member."""
        return self.readers

    def declines(self, train: AnnotatedSet) -> str | None:
        """It needs two readers or more, as many as it was built for, each of whom read an image."""
        if train.readers != self.readers:
            members = f"{self.readers} members, one for each reader"
            return f"it was built with {members}, and the data have {train.readers} readers"
        if train.readers < 2:
            return "one member per reader needs at least two readers"
        idle = [name for name, images in zip(train.reader_names, train.read.sum(0), strict=True) if not images]
        return f"no training image was read by {', '.join(idle)}: that member would stay untrained" if idle else None

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Sum over members; an image that slot k did not read teaches member k nothing."""
        total = images.new_zeros(len(images))
        for slot, member in enumerate(self.members):
            entropy = cross_entropy(member(images).squeeze(1), masks[:, slot], pos_weight=self.options.pos_weight)
            total = total + entropy.mean((1, 2)) * read[:, slot]
        return total

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,R,H,W), one member's each."""
        return torch.cat([member(images) for member in self.members], 1).float().sigmoid()
