"""Deep ensemble (Lakshminarayanan 2017): U-Nets alike but for their start and the order of their data."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from uqseg.data.annotated import AnnotatedSet
from uqseg.methods.method import Method, method
from uqseg.methods.unet import SingleOptions, SingleUNet
from uqseg.noise import Noise


class DeepEnsembleOptions(SingleOptions):
    """Options of the ensemble and of each of its U-Nets."""

    members: int = Field(4, ge=2, le=100, description="number of U-Nets; a step trains one of them, each in its turn")


@method("deepensemble")
class DeepEnsemble(Method[DeepEnsembleOptions]):
    """Deep ensemble: U-Nets trained on all readers from different starts, each on batches of its own.

    A step trains the member whose turn it is, so each sees every image, in an order of its own, and K members cost as
    much as one network of the same number of steps.
    """

    Options = DeepEnsembleOptions
    version, small, varies = 1, {"width": 4, "depth": 3, "members": 3}, "weights"
    turn: Tensor

    def __init__(self, options: DeepEnsembleOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        one = SingleUNet.Options(**options.model_dump(exclude={"members"}))
        self.members = nn.ModuleList(
            SingleUNet(one, channels=channels, readers=readers) for _ in range(options.members)
        )
        self.register_buffer("turn", torch.zeros((), dtype=torch.int64))

    @property
    def member(self) -> SingleUNet:
        """The member whose turn it is."""
        return self.members[int(self.turn)]  # type: ignore[return-value]

    @property
    def support(self) -> int | None:
        """One sample of each member."""
        return self.options.members

    def declines(self, train: AnnotatedSet) -> str | None:
        """What a single U-Net declines."""
        return self.member.declines(train)

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """The loss (B,) of the member whose turn it is."""
        return self.member.loss(images, masks, read, noise)

    def after_step(self, step: int, total: int) -> None:
        """Pass the turn to the next member."""
        self.turn.fill_(step % self.options.members)

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,members,H,W)."""
        return torch.cat([member.draw(images, n, noise) for member in self.members], 1)  # type: ignore[operator]
