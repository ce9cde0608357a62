"""U-Net: one network, one probability map."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from uqseg.data.annotated import AnnotatedSet
from uqseg.methods.losses import (
    count_entropy,
    cross_entropy,
    expected_share,
    random_reader,
    reader_fraction,
    reader_weights,
)
from uqseg.methods.method import Method, Options, method
from uqseg.nets.pooled import PooledHead
from uqseg.nets.unet import UNet, mask_head
from uqseg.noise import Noise

PIXELS = 50
"""Divisor of a cross-entropy summed over pixels, so that it stands beside one number per image: half an outline."""
PRESENCE_WEIGHT = 0.2
"""Weight of the cross-entropy of the number of readers who drew."""


class UNetOptions(Options):
    """Size of the U-Net."""

    width: int = Field(16, ge=1, le=4096, description="channels of the finest level, doubled at each level")
    depth: int = Field(5, ge=2, le=10, description="number of levels")


class SingleOptions(UNetOptions):
    """Options of a method that is one network."""

    reader: int | None = Field(None, ge=0, description="train on this reader slot; none: a random reader per step")
    pos_weight: float = Field(1.0, gt=0, description="weight of the foreground in the cross-entropy")
    target: Literal["reader", "fraction"] = Field(
        "reader", description="train on the mask of one reader, or on the share of all readers who marked a pixel"
    )

    @model_validator(mode="after")
    def _one_target(self) -> SingleOptions:
        if self.target == "fraction" and self.reader is not None:
            raise ValueError(
                f"target=fraction uses all readers, reader={self.reader} one of them: set only one of both"
            )
        return self


class PresenceOptions(SingleOptions):
    """Options of a method that is one network without noise."""

    presence: bool = Field(False, description="learn also how many readers draw anything, from pooled features")


S = TypeVar("S", bound=SingleOptions)
P = TypeVar("P", bound=PresenceOptions)


class SingleNetwork(Method[S]):
    """A network with a 1×1 head, trained by binary cross-entropy against one reader's mask or all readers' fraction."""

    def __init__(self, options: S, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.network = self.make_network()
        self.head = mask_head(self.network.width)

    def make_network(self) -> Any:
        """The module that gives features (B,width,H,W)."""
        return UNet(self.channels, self.options.width, self.options.depth)

    @property
    def support(self) -> int | None:
        """One map."""
        return 1

    @property
    def summed(self) -> bool:
        """Whether the cross-entropy is summed over pixels, then divided by PIXELS; else it is their mean."""
        return self.options.target == "fraction"

    def declines(self, train: AnnotatedSet) -> str | None:
        """Option `reader` must name one of the data's slots."""
        reader = self.options.reader
        if reader is not None and reader >= train.readers:
            return f"option reader={reader} names a slot that does not exist: the data have {train.readers} readers"
        return None

    def logits(self, images: Tensor, noise: Noise) -> Tensor:
        """Logits (B,H,W); `noise` is for networks that draw while they train."""
        return self.head(self.network(images)).squeeze(1)  # type: ignore[no-any-return]

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """0 for an image that the reader of option `reader` did not read."""
        target, weight = self.target(masks, read, noise)
        return self.entropy(self.logits(images, noise), target) * weight

    def target(self, masks: Tensor, read: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """What the map should be (B,H,W), and the weight of each image (B,)."""
        if self.options.target == "fraction":
            return reader_fraction(masks, reader_weights(read, noise)), masks.new_ones(len(masks))
        rows, reader = torch.arange(len(masks), device=masks.device), self.options.reader
        slot = random_reader(read, noise) if reader is None else torch.full_like(rows, reader)
        return masks[rows, slot], read[rows, slot]

    def entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy (B,) of logits (B,H,W)."""
        entropy = cross_entropy(logits, target, pos_weight=self.options.pos_weight)
        return entropy.sum((1, 2)) / PIXELS if self.summed else entropy.mean((1, 2))

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Its map (B,1,H,W), whatever n is."""
        return self.head(self.network(images)).float().sigmoid()  # type: ignore[no-any-return]


class PresenceNetwork(SingleNetwork[P]):
    """A network that can learn beside its map how many readers draw anything."""

    def __init__(self, options: P, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        if options.presence:
            self.presence = PooledHead(self.network.deepest + self.network.width, readers + 1)

    @property
    def summed(self) -> bool:
        """As of a single network; with `presence` always."""
        return super().summed or self.options.presence

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """With `presence` plus the cross-entropy of the number of readers who drew."""
        if not self.options.presence:
            return super().loss(images, masks, read, noise)
        target, weight = self.target(masks, read, noise)
        deepest, features = self.network.features(images)
        counts = count_entropy(self.presence(deepest, features), masks, read)
        return self.entropy(self.head(features).squeeze(1), target) * weight + PRESENCE_WEIGHT * counts

    def presence_of(self, images: Tensor) -> Tensor | None:
        """The share of readers (B,) expected to draw anything, with option `presence`; else None."""
        return expected_share(self.presence(*self.network.features(images))) if self.options.presence else None


@method("unet")
class SingleUNet(PresenceNetwork[PresenceOptions]):
    """U-Net: one network trained on a random reader per step or on all readers' fraction, one probability map."""

    Options = PresenceOptions
    version, small = 1, {"width": 4, "depth": 3}
