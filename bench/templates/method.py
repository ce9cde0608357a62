"""A method of one's own: a U-Net whose logits vary along one learned direction, a stochastic segmentation network
(Monteiro 2020) of rank 1. It works as it is; change what you like, and run `uqseg check` again.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from uqseg.methods import Method, Options
from uqseg.methods.losses import random_reader
from uqseg.nets.unet import UNet
from uqseg.noise import Noise


class NewMethodOptions(Options):
    """What can be set: NewMethod[width=32] on the command line. Each has a type, a default and a description."""

    width: int = Field(16, ge=1, description="channels of the finest level, doubled at each level")
    depth: int = Field(5, ge=2, description="number of levels")
    draws: int = Field(8, ge=1, description="draws for each image in the loss")


class NewMethod(Method[NewMethodOptions]):
    """U-Net whose logits vary along one learned direction."""  # what lists show

    Options = NewMethodOptions
    small: ClassVar = {"width": 4, "depth": 3}  # options with which checks take moments
    varies = "outcome"  # what differs between samples: "weights" of the network, "outcome", or "both"

    def __init__(self, options: NewMethodOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.network = UNet(channels, options.width, options.depth)  # features (B,width,H,W) of images (B,C,H,W)
        self.head = torch.nn.Conv2d(options.width, 2, 1)

    def logits(self, images: Tensor, z: Tensor) -> Tensor:
        """Logits (B,S,H,W) for standard normal numbers z (B,S), one a sample."""
        mean, direction = self.head(self.network(images)).float().unbind(1)
        logits: Tensor = mean[:, None] + z[:, :, None, None] * direction[:, None]
        return logits

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """One value an image, (B,); the loop averages.

        images: float (B,C,H,W) in −1…1. masks: bool (B,R,H,W), one a reader. read: bool (B,R), who read the image.
        noise: the only source of randomness; `of_cases(shape)` gives each image its own numbers, (B,*shape).
        """
        rows, reader = torch.arange(len(masks), device=masks.device), random_reader(read, noise)
        target = masks[rows, reader].float()[:, None]
        logits = self.logits(images, noise.of_cases((self.options.draws,)))
        entropy = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none").sum((2, 3))
        # −ln of the mean likelihood of the whole mask over the draws.
        likelihood = torch.logsumexp(-entropy, 1) - math.log(self.options.draws)
        return -likelihood / target[0].numel()

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """n samples of each image: probabilities (B,n,H,W) in [0,1]. A mask is where a sample is at least 0.5."""
        return self.logits(images, noise.of_cases((n,))).sigmoid()
