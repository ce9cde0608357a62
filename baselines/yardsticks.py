"""Yardsticks: samplers that need no training, the ends of the scale every method is read on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from uqseg.data import AnnotatedSet
from uqseg.errors import unknown
from uqseg.noise import Noise
from uqseg.samples import Batch, Description, Samples, Varies
from uqseg.seeds import generator


class Yardstick(ABC):
    """A sampler that sees the readers, on the processor.

    train: the training set, for those that count in it.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when the code changes the samples."""
    varies: ClassVar[Varies] = "outcome"
    support: int | None = 1
    needs_readers: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    """Whether it counts in the training set."""
    leave_one_out: ClassVar[bool] = False
    """Whether it is scored by `uqseg.metrics.leave_one_out`, from R − 1 samples at a time."""

    def __init__(self, train: AnnotatedSet) -> None:
        self.readers = train.readers

    @property
    def describes(self) -> Description:
        """Name, what varies and support, as declared."""
        return Description(self.name, self.varies, self.support)

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """Samples of a batch that has its readers, as float32. Raises ValueError where it has none."""
        if batch.masks is None or batch.read is None:
            raise ValueError(f"yardstick '{self.name}': expected a batch with masks and read, got one without readers")
        return self.of_readers(batch.masks & batch.read[:, :, None, None], batch.read, n, batch.keys)

    @abstractmethod
    def of_readers(self, masks: Tensor, read: Tensor, n: int, keys: list[str]) -> Samples:
        """Samples from masks bool (B,R,H,W), empty where a reader did not read, and read bool (B,R)."""


class Background(Yardstick):
    """One empty mask."""

    name, description = "background", "all zero"

    def of_readers(self, masks: Tensor, read: Tensor, n: int, keys: list[str]) -> Samples:
        """One sample (B,1,H,W) of zeros."""
        return Samples(torch.zeros_like(masks[:, :1], dtype=torch.float32), None, "support")


class Prevalence(Yardstick):
    """One map for all cases: how often each pixel is marked in the training set."""

    name, description = "prevalence", "the training set's pixel-wise frequency of foreground"
    learns = True

    def __init__(self, train: AnnotatedSet) -> None:
        super().__init__(train)
        marked = np.zeros(train.masks.shape[2:], np.int64)
        for masks in train.masks:  # row by row: the masks may be larger than memory
            marked += masks.sum(0)
        self.frequency = torch.from_numpy((marked / train.read.sum()).astype(np.float32))

    def of_readers(self, masks: Tensor, read: Tensor, n: int, keys: list[str]) -> Samples:
        """One sample (B,1,H,W) in [0,1], the same for each case."""
        return Samples(self.frequency.expand(len(masks), 1, *masks.shape[2:]), None, "support")


class Consensus(Yardstick):
    """One mask: the pixels that at least half of those who read the image marked."""

    name, description = "consensus", "the readers' own majority mask, a good single mask"

    def of_readers(self, masks: Tensor, read: Tensor, n: int, keys: list[str]) -> Samples:
        """One sample (B,1,H,W) of 0 and 1."""
        majority = 2 * masks.sum(1, keepdim=True) >= read.sum(1)[:, None, None, None]
        return Samples(majority.float(), None, "support")


class Oracle(Yardstick):
    """Independent draws from the masks of those who read the image."""

    name, description = "oracle", "draws from the readers themselves, as a perfect sampler would"
    support = None

    def of_readers(self, masks: Tensor, read: Tensor, n: int, keys: list[str]) -> Samples:
        """The draws depend on the case's name alone, not on the seed."""
        slots = [
            torch.multinomial(present.float(), n, replacement=True, generator=generator(self.name, key))
            for present, key in zip(read, keys, strict=True)
        ]
        drawn = torch.stack([mask[slot] for mask, slot in zip(masks, slots, strict=True)])
        return Samples(drawn.float(), None, "independent")


class _AllReaders(Yardstick):
    """A yardstick with one sample per reader slot; slots are left out by weight 0."""

    def __init__(self, train: AnnotatedSet) -> None:
        super().__init__(train)
        self.support = train.readers


class Nested(_AllReaders):
    """Of R readers R samples: pixels that at least 1 … R of them marked."""

    name = "nested"
    description = "the level sets of the readers' own fraction, a reference for nested samples (no floor)"

    def of_readers(self, masks: Tensor, read: Tensor, n: int, keys: list[str]) -> Samples:
        """Samples (B,R,H,W) of 0 and 1; of fewer than R readers the last ones weigh 0."""
        rank = torch.arange(1, masks.shape[1] + 1)
        levels = masks.sum(1, keepdim=True) >= rank[:, None, None]
        return Samples(levels.float(), _equal(rank <= read.sum(1, keepdim=True)), "support")


class Human(_AllReaders):
    """The readers' own masks; each reader is scored against the others."""

    name = "human"
    description = "the other readers against one reader, each in turn (so its GED is not a floor)"
    leave_one_out = True

    def of_readers(self, masks: Tensor, read: Tensor, n: int, keys: list[str]) -> Samples:
        """The readers' own masks, to be looked at; `leave_one_out` scores them."""
        return Samples(masks.float(), _equal(read), "support")


def _equal(counted: Tensor) -> Tensor:
    """Weights (B,S) that are equal over the samples that count."""
    return counted / counted.sum(1, keepdim=True)


_CLASSES: tuple[type[Yardstick], ...] = (Background, Prevalence, Consensus, Oracle, Nested, Human)
YARDSTICKS = {cls.name: cls for cls in _CLASSES}


def build(name: str, train: AnnotatedSet) -> Yardstick:
    """The yardstick `name`. Raises UsageError for an unknown one."""
    if name not in YARDSTICKS:
        raise unknown("yardstick", name, YARDSTICKS)
    return YARDSTICKS[name](train)
