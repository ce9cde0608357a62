"""U-Net: one network, one probability map."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from uqseg.methods.draws import cross_entropy, random_reader
from uqseg.methods.method import Method, Noise, Options, method
from uqseg.nets.unet import UNet, mask_head


class SingleOptions(Options):
    """Options of a method that is one network trained on one reader's mask at a time."""

    width: int = Field(16, ge=1, description="channels of the finest level, doubled at each level")
    depth: int = Field(5, ge=2, description="number of levels")
    reader: int | None = Field(None, ge=0, description="train on this reader slot; none: a random reader a step")
    pos_weight: float = Field(1.0, gt=0, description="weight of the foreground in the cross-entropy")


class SingleNetwork(Method):
    """A network with a 1×1 head, trained by binary cross-entropy against one reader's mask."""

    def __init__(self, options: Any, *, channels: int, readers: int) -> None:
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

    def logits(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Logits (B,H,W); `generator` is for networks that draw while they train."""
        return self.head(self.network(images)).squeeze(1)  # type: ignore[no-any-return]

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.arange(len(images), device=images.device)
        if self.options.reader is None:
            slot, counted = random_reader(read, generator), None
        else:
            slot = torch.full_like(rows, self.options.reader)
            counted = read[rows, slot].float()
        each = cross_entropy(
            self.logits(images, generator), masks[rows, slot], pos_weight=self.options.pos_weight
        ).mean((1, 2))
        # The share of images that this reader read scales the loss; a batch without any gives 0, not 0/0.
        return each.mean() if counted is None else (each * counted).mean()

    def sample(self, images: Tensor, n: int, generator: Noise = None) -> Tensor:
        return self.head(self.network(images)).float().sigmoid()  # type: ignore[no-any-return]


@method("unet")
class SingleUNet(SingleNetwork):
    """U-Net: one network trained on a random reader a step, one probability map."""

    Options = SingleOptions
