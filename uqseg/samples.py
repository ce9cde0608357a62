"""The values that everything passes: a Batch of cases, the Samples of a Sampler, and Noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from uqseg.metrics import maps
from uqseg.metrics.registry import Drawn
from uqseg.noise import Noise

__all__ = ["Batch", "Description", "Drawn", "Noise", "Sampler", "Samples", "Varies"]

Varies = Literal["weights", "outcome", "both", "input"]


@dataclass(frozen=True)
class Batch:
    """B cases: what a sampler is shown; only yardsticks look at masks and read."""

    images: Tensor  # uint8 (B,C,H,W)
    keys: list[str]  # case names
    masks: Tensor | None  # bool (B,R,H,W)
    read: Tensor | None  # bool (B,R), who read the image
    spacing: Tensor  # float32 (B,2) mm, NaN where unknown

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: str | torch.device) -> Batch:
        """The batch on another device."""
        masks, read = (None if t is None else t.to(device) for t in (self.masks, self.read))
        return Batch(self.images.to(device), self.keys, masks, read, self.spacing.to(device))

    def rows(self, part: slice) -> Batch:
        """Some of the cases, as views."""
        masks, read = (None if t is None else t[part] for t in (self.masks, self.read))
        return Batch(self.images[part], self.keys[part], masks, read, self.spacing[part])

    def without_readers(self) -> Batch:
        """The batch as methods are shown it."""
        return replace(self, masks=None, read=None)


@dataclass(frozen=True)
class Samples:
    """S samples of each of B cases. ValueError where the shapes do not fit; the metrics check the values."""

    prob: Tensor  # float (B,S,H,W) in [0,1]
    weights: Tensor | None  # (B,S), each row of sum 1; None: equal
    drawn: Drawn

    def __post_init__(self) -> None:
        for name, given in (("samples", self.prob), ("weights", self.weights)):
            if not isinstance(given, Tensor) and (name == "samples" or given is not None):
                raise ValueError(f"{name}: expected a tensor, got {type(given).__name__}")
        if self.prob.ndim != 4 or not self.prob.shape[1]:
            raise ValueError(f"samples: expected (B,S,H,W) with S at least 1, got {tuple(self.prob.shape)}")
        if not self.prob.is_floating_point():
            raise ValueError(f"samples: expected floating point numbers in [0,1], got {self.prob.dtype}")
        if self.weights is not None and self.weights.shape != self.prob.shape[:2]:
            raise ValueError(f"weights: expected {tuple(self.prob.shape[:2])}, got {tuple(self.weights.shape)}")
        if self.drawn not in get_args(Drawn):
            raise ValueError(f"drawn: expected one of {', '.join(get_args(Drawn))}, got '{self.drawn}'")

    def __len__(self) -> int:
        return len(self.prob)

    def mean(self) -> Tensor:
        """Weighted mean of the samples: float64 (B,H,W). Equal weights: a sum, then one division, so k of S is k/S."""
        return maps.mean(self.prob, self.weights)

    def std(self) -> Tensor:
        """Standard deviation of the samples as the whole distribution (divisor S): (B,H,W) in [0, 0.5]."""
        return maps.std(self.prob, self.weights)

    def hypotheses(self) -> Tensor:
        """The masks that the samples stand for: bool (B,S,H,W), prob ≥ 0.5."""
        return self.prob >= 0.5

    def to(self, device: str | torch.device) -> Samples:
        """The samples on another device."""
        weights = None if self.weights is None else self.weights.to(device)
        return Samples(self.prob.to(device), weights, self.drawn)

    def rows(self, part: slice) -> Samples:
        """The samples of some of the cases, as views."""
        return Samples(self.prob[part], None if self.weights is None else self.weights[part], self.drawn)

    @staticmethod
    def concatenate(parts: Sequence[Samples]) -> Samples:
        """The samples of consecutive batches as one. Raises ValueError where they differ in S, drawn or weighting."""
        if not parts:
            raise ValueError("samples: expected at least one part, got none")
        kinds = {(part.prob.shape[1], part.drawn, part.weights is None) for part in parts}
        if len(kinds) != 1:
            raise ValueError(f"samples: expected parts of one kind (S, drawn, equal weights), got {sorted(kinds)}")
        weights = [part.weights for part in parts if part.weights is not None]
        prob = torch.cat([part.prob for part in parts])
        return Samples(prob, torch.cat(weights) if weights else None, parts[0].drawn)


class Description(NamedTuple):
    """What a sampler is: its name, what varies between samples, how many there are if their number is finite."""

    name: str
    varies: Varies
    support: int | None


class Sampler(Protocol):
    """Answers images with samples. One that computes elsewhere than on the processor has an attribute `device`; one
    that looks at the readers (a yardstick) has `needs_readers = True`."""

    @property
    def describes(self) -> Description:
        """Its name, what varies, and its support."""
        ...

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """n samples of each case, or the whole support where that is finite."""
        ...
