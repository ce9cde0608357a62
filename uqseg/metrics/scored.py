"""Scored: the samples and readers of a batch of images, checked, with the parts that many metrics share."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from uqseg.metrics import maps

Array = Tensor | NDArray[np.generic]
PART = 2**22
"""Numbers of a temporary array at most, where samples times pixels may be many more."""


class Logs(NamedTuple):
    """Σ w_s log p_s and Σ w_s log(1 - p_s), float32 (B,H*W) each; log Π_pixels p_s(y_r), float64 (B,S,R)."""

    yes: Tensor
    no: Tensor
    likelihood: Tensor


class Scored:
    """Samples of B images against their readers, every shared part computed once and only when asked for.

    samples: float (B,S,H,W) in [0,1], or bool hypotheses; masks: bool (B,R,H,W)
    read: bool (B,R), who read the image (default: everybody); an absent reader's mask is ignored
    weights: (B,S) of the samples, not negative, each row of sum 1; default equal
    reader_weights: (B,R), not negative, of any sum: scaled to sum to 1 over who read the image; default equal
    exact: the samples are the whole distribution (finite support), not draws from it
    spacing: float (B,2), mm per pixel, above 0, NaN where unknown
    ValueError naming the argument, what was expected and what came, for anything else.
    """

    def __init__(
        self,
        samples: Array,
        masks: Array,
        read: Array | None = None,
        weights: Array | None = None,
        *,
        reader_weights: Array | None = None,
        exact: bool = False,
        spacing: Array | None = None,
    ) -> None:
        self._given = _samples(samples)
        device = self._given.device
        self.masks = _masks(masks, self._given)
        self.B, self.S, self.H, self.W = self._given.shape
        self.R = self.masks.shape[1]
        self.exact = exact
        self.read = _read(read, (self.B, self.R), device)
        self.equal = weights is None
        self.weights = _weights("weights", weights, torch.ones(self.B, self.S, dtype=torch.bool, device=device))
        self.reader_weights = _weights("reader_weights", reader_weights, self.read)
        self.masks = self.masks & (self.reader_weights > 0)[:, :, None, None]
        self.spacing = torch.full((self.B, 2), torch.nan, dtype=torch.float64, device=device)
        if spacing is not None:
            self.spacing = torch.as_tensor(spacing, dtype=torch.float64, device=device)
            _shape("spacing", self.spacing, (self.B, 2))
            wrong = self.spacing.isinf() | (self.spacing <= 0)
            if bool(wrong.any()):
                raise ValueError(
                    f"spacing: expected mm above 0, NaN where unknown, got {float(self.spacing[wrong][0])}"
                )

    @property
    def pixels(self) -> int:
        return self.H * self.W

    @cached_property
    def samples(self) -> Tensor:
        """The samples as probabilities: float32 (B,S,H,W)."""
        return self._given.float()

    @cached_property
    def prob(self) -> Tensor:
        """Weighted mean of the samples: float32 (B,H,W). Equal weights: sum, then one division, so k of S is k/S."""
        return maps.mean(self.samples, None if self.equal else self.weights).float()

    @cached_property
    def fraction(self) -> Tensor:
        """Reader fraction: float32 (B,H,W), the weighted share of readers who marked a pixel."""
        scale = self.reader_weights.amax(1)  # equal weights become 1 exactly, so that k of R readers is k/R
        relative = self.reader_weights / scale[:, None]
        total = torch.einsum("br,brhw->bhw", relative, self.masks.double())
        return (total / relative.sum(1)[:, None, None]).float()

    @cached_property
    def majority(self) -> Tensor:
        """Pixels that at least half of the readers marked: bool (B,H,W)."""
        return self.fraction >= 0.5

    @cached_property
    def hypotheses(self) -> Tensor:
        """Samples thresholded at 0.5: bool (B,S,H,W)."""
        return self._given if self._given.dtype == torch.bool else self._given >= 0.5

    @cached_property
    def intersections(self) -> Tensor:
        """Pixels in common of all pairs of hypotheses, then readers: float64 (B,S+R,S+R), areas on the diagonal."""
        return torch.stack([_in_common(h, y) for h, y in zip(self.hypotheses, self.masks, strict=True)])

    @cached_property
    def areas(self) -> Tensor:
        """Areas of hypotheses, then readers, in pixels: float64 (B,S+R)."""
        return self.intersections.diagonal(dim1=1, dim2=2)

    @cached_property
    def distances(self) -> Tensor:
        """Set distances 1 - |A∩B|/|A∪B|, 0 for two empty sets: float64 (B,S+R,S+R)."""
        union = self.areas[:, :, None] + self.areas[:, None, :] - self.intersections
        return torch.where(union > 0, 1 - self.intersections / union, 0.0)

    @cached_property
    def dice(self) -> Tensor:
        """Dice of each hypothesis with each reader, 1 for two empty sets: float64 (B,S,R)."""
        total = self.areas[:, : self.S, None] + self.areas[:, None, self.S :]
        return torch.where(total > 0, 2 * self.intersections[:, : self.S, self.S :] / total, 1.0)

    @cached_property
    def to_readers(self) -> Tensor:
        """Expected distance of a hypothesis to a reader: float64 (B,)."""
        d = self.distances[:, : self.S, self.S :]
        return torch.einsum("bs,bsr,br->b", self.weights, d, self.reader_weights)

    @cached_property
    def among_samples(self) -> Tensor:
        """Expected distance of two hypotheses, the diagonal included: float64 (B,)."""
        d = self.distances[:, : self.S, : self.S]
        return torch.einsum("bs,bst,bt->b", self.weights, d, self.weights)

    @cached_property
    def among_readers(self) -> Tensor:
        """Expected distance of two readers, the diagonal included: float64 (B,)."""
        d = self.distances[:, self.S :, self.S :]
        return torch.einsum("br,brq,bq->b", self.reader_weights, d, self.reader_weights)

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation over samples: float32 (B,H,W)."""
        return maps.std(self.samples, None if self.equal else self.weights)

    @cached_property
    def entropy(self) -> Tensor:
        """Total uncertainty, the entropy of the mean in nats: float32 (B,H,W)."""
        return maps.binary_entropy(self.prob)

    @cached_property
    def logs(self) -> Logs:
        """What figures need of log p and log(1 - p), p clipped to [1e-6, 1 - 1e-6]; a part of the pixels at a time, so
        that memory does not grow with their number times that of the samples."""
        samples, masks, weights = self.samples.flatten(2), self.masks.flatten(2), self.weights.float()
        means: list[tuple[Tensor, Tensor]] = []
        likelihood = self.weights.new_zeros(self.B, self.S, self.R)
        step = max(1, PART // (self.B * self.S))
        for p, drawn in zip(torch.split(samples, step, 2), torch.split(masks, step, 2), strict=True):
            yes, no = p.clamp(1e-6, 1 - 1e-6).log(), (1 - p).clamp(1e-6, 1 - 1e-6).log()
            means.append((torch.einsum("bs,bsp->bp", weights, yes), torch.einsum("bs,bsp->bp", weights, no)))
            likelihood += torch.bmm((yes - no).double(), drawn.transpose(1, 2).double())
            likelihood += no.sum(2, dtype=torch.float64)[:, :, None]
        yes, no = (torch.cat(parts, 1) for parts in zip(*means, strict=True))
        return Logs(yes, no, likelihood)


def _in_common(hypotheses: Tensor, masks: Tensor) -> Tensor:
    """Pixels in common of all pairs among hypotheses bool (S,H,W), then masks bool (R,H,W): float64 (S+R,S+R).

    Only the box that holds them all is multiplied, and a few of its rows at a time: what one product counts is exact in
    float32."""
    sets = hypotheses.view(torch.uint8), masks.view(torch.uint8)  # converted to numbers much faster than bool
    used = sets[0].amax(0) | sets[1].amax(0)
    n, device = len(hypotheses) + len(masks), masks.device
    total = torch.zeros(n, n, dtype=torch.float64, device=device)
    rows, columns = used.amax(1).nonzero(), used.amax(0).nonzero()
    if not len(rows):
        return total
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    for part in range(top, bottom, step := max(1, PART // (n * (right - left)))):
        box = slice(part, min(part + step, bottom)), slice(left, right)
        numbers = torch.cat([s[:, *box] for s in sets]).flatten(1).float()
        total += numbers @ numbers.T
    return total


def _shape(name: str, got: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(got.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(got.shape)}")


def _samples(samples: Array) -> Tensor:
    given = torch.as_tensor(samples)
    if given.dim() != 4 or 0 in given.shape:
        raise ValueError(f"samples: expected shape (B,S,H,W) with nothing empty, got {tuple(given.shape)}")
    if given.dtype == torch.bool:
        return given
    if not given.is_floating_point():
        raise ValueError(f"samples: expected probabilities (floating point) or bool, got {given.dtype}")
    low, high = (float(v) for v in given.aminmax())
    if not (low >= 0 and high <= 1):  # NaN fails as well
        raise ValueError(f"samples: expected finite probabilities in [0, 1], got values from {low} to {high}")
    return given.float()


def _masks(masks: Array, samples: Tensor) -> Tensor:
    given = torch.as_tensor(masks, device=samples.device)
    if given.dim() != 4 or given.shape[1] == 0:
        raise ValueError(f"masks: expected shape (B,R,H,W) with at least one reader, got {tuple(given.shape)}")
    if given.dtype != torch.bool:
        raise ValueError(f"masks: expected bool, got {given.dtype}; compare with a threshold first")
    _shape("masks", given, (samples.shape[0], given.shape[1], *samples.shape[2:]))
    return given


def _read(read: ArrayLike | Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    if read is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    given = torch.as_tensor(read, device=device)
    if given.dtype != torch.bool:
        raise ValueError(f"read: expected bool, got {given.dtype}")
    _shape("read", given, shape)
    return given


def _weights(name: str, weights: Array | None, present: Tensor) -> Tensor:
    """Weights (B,n) float64 that sum to 1 over what is present."""
    given = present.double()
    if weights is not None:
        given = torch.as_tensor(weights, dtype=torch.float64, device=present.device)
        _shape(name, given, tuple(present.shape))
        if not bool(torch.isfinite(given).all()) or bool((given < 0).any()):
            raise ValueError(f"{name}: expected finite values of at least 0, got {float(given.min())} at least")
        off = (given.sum(1) - 1).abs()
        if name == "weights" and bool((off > 1e-6).any()):
            image = int(off.argmax())
            got = f"{float(given[image].sum()):g} in image {image}"
            raise ValueError(f"weights: expected rows that sum to 1, got {got}; divide them by their sum")
        given = given * present
    total = given.sum(1, keepdim=True)
    if bool((total <= 0).any()):
        image = int((total[:, 0] <= 0).nonzero()[0, 0])
        what = "read" if name == "reader_weights" else name
        raise ValueError(
            f"{what}: expected at least one reader or sample that counts in every image, got none in {image}"
        )
    return given / total
