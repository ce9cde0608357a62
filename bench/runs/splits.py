"""The data of a run: three splits, and which of their images are scored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench.runs.spec import Run, predicted
from uqseg.data import AnnotatedSet, load
from uqseg.errors import UsageError

MOST_SCORED = 1000  # images of train and of val: they are there to show overfitting


@dataclass(frozen=True)
class Splits:
    """Train and val are scored on half as many images as test, and MOST_SCORED, at most."""

    train: AnnotatedSet
    val: AnnotatedSet
    test: AnnotatedSet

    def count(self, split: str) -> int:
        """How many images of a split are scored."""
        images = len(getattr(self, split))
        return images if split == "test" else min(images, max(len(self.test) // 2, 1), MOST_SCORED)

    def scored(self, split: str) -> AnnotatedSet:
        """The images of a split that are scored, all of test; of train and val an even spread, which is copied."""
        images: AnnotatedSet = getattr(self, split)
        if (count := self.count(split)) == len(images):
            return images
        return images.take(np.linspace(0, len(images) - 1, count).astype(np.intp))

    @cached_property
    def keys(self) -> dict[str, str]:
        """The key of what is scored of each split."""
        return {split: self.scored(split).key for split in ("train", "val", "test")}


def load_splits(run: Run, progress: bool = False) -> Splits:
    """The three splits that a run asks for; where nothing is trained, train and val may be empty."""

    def part(split: str) -> AnnotatedSet:
        return load(run.data, split=split, size=run.size, limit=getattr(run.limit, split), progress=progress)

    test = part("test")

    def other(split: str) -> AnnotatedSet:
        try:
            return part(split)
        except UsageError:  # the test set has shown that nothing else is wrong: no image of this split
            if not all(map(predicted, run.methods)):
                raise
            return test.take(slice(0, 0))

    return Splits(other("train"), other("val"), test)
