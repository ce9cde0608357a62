"""Yardsticks: predictors that need no training, the ends of the scale every method is read on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from uqseg.data import AnnotatedSet
from uqseg.errors import unknown

Noise = Sequence[torch.Generator]


@dataclass(frozen=True)
class Yardstick:
    """exact: the samples are its whole support, not draws. draw: see `samples_of`."""

    description: str
    exact: bool
    draw: Callable[[Tensor, Tensor, int, Noise, Tensor], Tensor]


def _background(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    return torch.zeros_like(masks[:, :1], dtype=torch.float32)


def _prevalence(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    return frequency.expand(len(masks), 1, *masks.shape[2:])


def _consensus(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    marked = (masks & read[..., None, None]).sum(1, keepdim=True)
    return (2 * marked >= read.sum(1)[:, None, None, None]).float()


def _oracle(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    drawn = [
        torch.multinomial(present.float(), n, replacement=True, generator=g)
        for present, g in zip(read, noise, strict=True)
    ]
    return torch.stack([mask[slots] for mask, slots in zip(masks, drawn, strict=True)]).float()


YARDSTICKS = {
    "background": Yardstick("all zero", True, _background),
    "prevalence": Yardstick("the training set's pixel-wise frequency of foreground", True, _prevalence),
    "consensus": Yardstick("the readers' own majority mask, the best a single mask could do", True, _consensus),
    "oracle": Yardstick(
        "draws from the readers themselves, the floor of GED at that number of samples", False, _oracle
    ),
}


def frequency_of(train: AnnotatedSet) -> Tensor:
    """How often readers marked each pixel of the training images: float32 (H,W) in [0,1], over who read them."""
    marked = np.zeros(train.masks.shape[2:], np.int64)
    for masks in train.masks:  # row by row: the masks may be larger than memory
        marked += masks.sum(0)
    return torch.from_numpy((marked / train.read.sum()).astype(np.float32))


def samples_of(name: str, masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    """Samples float32 (B,S,H,W) of the yardstick `name`; S = n for the oracle, otherwise 1.

    masks: bool (B,R,H,W); read: bool (B,R); noise: one generator an image; frequency: (H,W) from `frequency_of`.
    """
    if name not in YARDSTICKS:
        raise unknown("yardstick", name, YARDSTICKS)
    return YARDSTICKS[name].draw(masks, read, n, noise, frequency)
