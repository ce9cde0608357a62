"""U-Net: one network, one probability map."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from uqseg.methods.losses import cross_entropy, random_reader
from uqseg.methods.method import Method, Options, method
from uqseg.nets.unet import UNet, mask_head
from uqseg.noise import Noise


class SingleOptions(Options):
    """Options of a method that is one network trained on one reader's mask at a time."""

    width: int = Field(16, ge=1, description="channels of the finest level, doubled at each level")
    depth: int = Field(5, ge=2, description="number of levels")
    reader: int | None = Field(None, ge=0, description="train on this reader slot; none: a random reader per step")
    pos_weight: float = Field(1.0, gt=0, description="weight of the foreground in the cross-entropy")


S = TypeVar("S", bound=SingleOptions)


class SingleNetwork(Method[S]):
    """A network with a 1×1 head, trained by binary cross-entropy against one reader's mask."""

    def __init__(self, options: S, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.network = self.make_network()
        self.head = mask_head(self.network.width)

    def make_network(self) -> Any:
        """The module that gives features (B,width,H,W)."""
        return UNet(self.channels, self.options.width, self.options.depth)

    @property
    def support(self) -> int | None:
        return 1

    def declines(self, *, channels: int, readers: int, size: tuple[int, int]) -> str | None:
        reader = self.options.reader
        if reader is not None and reader >= readers:
            return f"option reader={reader} names a slot that does not exist: the data have {readers} readers"
        return None

    def logits(self, images: Tensor, noise: Noise) -> Tensor:
        """Logits (B,H,W); `noise` is for networks that draw while they train."""
        return self.head(self.network(images)).squeeze(1)  # type: ignore[no-any-return]

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Mean over pixels; 0 for an image that the reader of option `reader` did not read."""
        rows, reader = torch.arange(len(images), device=images.device), self.options.reader
        slot = random_reader(read, noise) if reader is None else torch.full_like(rows, reader)
        entropy = cross_entropy(self.logits(images, noise), masks[rows, slot], pos_weight=self.options.pos_weight)
        return entropy.mean((1, 2)) * read[rows, slot]

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        return self.head(self.network(images)).float().sigmoid()  # type: ignore[no-any-return]


@method("unet")
class SingleUNet(SingleNetwork[SingleOptions]):
    """U-Net: one network trained on a random reader per step, one probability map."""

    Options = SingleOptions
    version, small = 1, {"width": 4, "depth": 3}
