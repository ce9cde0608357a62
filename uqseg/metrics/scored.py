"""Scored: the samples and readers of a batch of images, checked, with the parts that many statistics share.

Space is flattened to P pixels here; only `shape` remembers it.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uqseg.metrics import maps
from uqseg.metrics.bins import FINEST
from uqseg.metrics.logs import Logs, logs
from uqseg.metrics.scores import EXACT
from uqseg.metrics.threshold import THRESHOLDS

Array = Tensor | NDArray[np.generic]
RUN = 16
PART = 2**22
"""Numbers of a temporary array at most, where samples times pixels may be many more."""


class Scored:
    """Samples of B images against their readers, every shared part computed once and only when asked for.

    samples: float (B,S,H,W) in [0,1], or bool hypotheses; masks: bool (B,R,H,W)
    read: bool (B,R), who read the image (default: everybody); an absent reader's mask is ignored
    weights: (B,S) of the samples, not negative, each row of sum 1; default equal
    reader_weights: (B,R), not negative, of any sum: scaled to sum to 1 over who read the image; default equal
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
        spacing: Array | None = None,
    ) -> None:
        given = _samples(samples)
        device = given.device
        self.B, self.S = given.shape[:2]
        self.shape = tuple(given.shape[2:])
        drawn = _masks(masks, given)
        self.R = drawn.shape[1]
        self.read = _read(read, (self.B, self.R), device)
        self.equal = weights is None
        self.weights = _weights("weights", weights, torch.ones(self.B, self.S, dtype=torch.bool, device=device))
        self.reader_weights = _weights("reader_weights", reader_weights, self.read)
        self._given = given.flatten(2)
        counts = self.reader_weights > 0
        self.masks = drawn.flatten(2) if bool(counts.all()) else drawn.flatten(2) & counts[:, :, None]
        self.spacing = torch.full((self.B, 2), torch.nan, dtype=torch.float64, device=device)
        if spacing is not None:
            self.spacing = tensor("spacing", spacing, device).double()
            _shape("spacing", self.spacing, (self.B, 2))
            wrong = (self.spacing < 1e-6) | (self.spacing > 1e6)  # their product is then far from what float32 ends at
            if bool(wrong.any()):
                got = float(self.spacing[wrong][0])
                raise ValueError(f"spacing: expected mm above 0 (1e-6 to 1e6), NaN where unknown, got {got}")

    def part(self, rows: slice) -> Scored:
        """Some of the images, which need no second check."""
        part = object.__new__(Scored)
        part.shape, part.S, part.R, part.equal = self.shape, self.S, self.R, self.equal
        for name in ("_given", "masks", "read", "weights", "reader_weights", "spacing"):
            setattr(part, name, getattr(self, name)[rows])
        part.B = len(part.read)
        return part

    @property
    def pixels(self) -> int:
        """Pixels of an image, H·W."""
        return self._given.shape[2]

    @cached_property
    def samples(self) -> Tensor:
        """The samples as probabilities: float32 (B,S,P)."""
        return self._given.float()

    @cached_property
    def prob(self) -> Tensor:
        """Weighted mean of the samples: float32 (B,P)."""
        return maps.mean(self.samples, None if self.equal else self.weights).float()

    @cached_property
    def fraction(self) -> Tensor:
        """Reader fraction: float32 (B,P), the weighted share of readers who marked a pixel."""
        scale = self.reader_weights.amax(1)  # equal weights become 1 exactly, so that k of R readers is k/R
        relative = self.reader_weights / scale[:, None]
        total = torch.bmm(relative[:, None], _numbers(self.masks).double())[:, 0]
        return (total / relative.sum(1)[:, None]).float()

    @cached_property
    def reader_variance(self) -> Tensor:
        """ȳ(1 − ȳ): float64 (B,P)."""
        fraction = self.fraction.double()
        return fraction * (1 - fraction)

    @cached_property
    def misfit(self) -> Tensor:
        """Mean over pixels of (p̄ − ȳ)²: float64 (B,)."""
        return (self.prob.double() - self.fraction).square_().mean(1)

    @property
    def _counting(self) -> torch.dtype:
        """A type of numbers in which all pixels of an image can be counted."""
        return torch.float32 if self.pixels <= EXACT else torch.float64

    def _cut(self, map_: Tensor) -> Tensor:
        cuts = map_.new_empty(self.B, len(THRESHOLDS), self.pixels)
        torch.ge(map_[:, None], map_.new_tensor(THRESHOLDS)[:, None], out=cuts)  # numbers much faster than bool
        return cuts.to(self._counting)

    @cached_property
    def cuts(self) -> Tensor:
        """[p̄ ≥ t] at the five thresholds: 0 or 1, (B,T,P)."""
        return self._cut(self.prob)

    @cached_property
    def reader_cuts(self) -> Tensor:
        """[ȳ ≥ t] at the five thresholds: 0 or 1, (B,T,P)."""
        return self._cut(self.fraction)

    @cached_property
    def above(self) -> Tensor:
        """Pixels whose mean probability is at least one half: bool (B,P)."""
        return self.prob >= 0.5

    @cached_property
    def majority(self) -> Tensor:
        """Pixels that at least half of the readers marked: bool (B,P)."""
        return self.fraction >= 0.5

    @cached_property
    def references(self) -> Tensor:
        """The readers' masks and last the majority: 0 or 1, (B,R+1,P)."""
        return _numbers(torch.cat([self.masks, self.majority[:, None]], 1)).to(self._counting)

    @cached_property
    def overlaps(self) -> Tensor:
        """Pixels in common of [p̄ ≥ t] with each reader, and last with the majority: float64 (B,T,R+1)."""
        return torch.bmm(self.cuts, self.references.transpose(1, 2)).double()

    def absent_as_nan(self, values: Tensor) -> Tensor:
        """values (B,...,R+1), of the readers and last of the majority, with NaN for those who did not read."""
        absent = torch.cat([self.reader_weights <= 0, self.read.new_zeros(self.B, 1)], 1)
        return values.masked_fill(absent[:, None], torch.nan)

    @cached_property
    def touches(self) -> Tensor:
        """Whether each hypothesis has a pixel in common with the majority: bool (B,S)."""
        return self._in_common[:, : self.S, -1] > 0

    @cached_property
    def _in_common(self) -> Tensor:
        """Pixels in common of all pairs of hypotheses, then readers, and last the majority: float64 (B,S+R+1,S+R+1)."""
        sets = [_numbers(x) for x in (self._given, torch.cat([self.masks, self.majority[:, None]], 1))]
        marked = _numbers((sets[0].amax(1) >= 0.5) | (sets[1].amax(1) > 0))
        run = gcd(RUN, self.pixels)
        used = marked.view(self.B, -1, run).amax(2)
        runs = (x.view(*x.shape[:2], -1, run) for x in sets)
        return torch.stack([_in_common(*x) for x in zip(*runs, used, strict=True)])

    @property
    def intersections(self) -> Tensor:
        """Pixels in common of all pairs of hypotheses, then readers: float64 (B,S+R,S+R), areas on the diagonal."""
        return self._in_common[:, :-1, :-1]

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
        """Standard deviation over samples: float32 (B,P)."""
        return maps.std(self.samples, None if self.equal else self.weights, self.prob)

    @cached_property
    def entropy(self) -> Tensor:
        """Total uncertainty, the entropy of the mean in nats: float32 (B,P)."""
        return maps.binary_entropy(self.prob)

    @cached_property
    def ascending(self) -> Tensor:
        """The entropies of each image in ascending order: float32 (B,P)."""
        return maps.ascending(self.entropy)

    @cached_property
    def logs(self) -> Logs:
        """What figures need of log p and log(1 - p)."""
        return logs(self.samples, self.masks, self.weights, self.entropy)

    def histogram(self, edges: Tensor) -> Tensor:
        """Pixels, Σ p̄ and Σ ȳ in the bins of p̄ between the ascending edges float32 (E,): float64 (B,3,E+1).

        An edge belongs to the bin above it. p̄ and ȳ are added as whole numbers below 2^53 in all: so the sums are exact
        in any order and the same on every device and in every run, which CUDA's bincount of fractions does not promise.
        A value is rounded by at most 2^-42 in an image of 64×64.
        """
        bins, scale = len(edges) + 1, 2.0 ** (53 - self.pixels.bit_length())
        index = torch.bucketize(self.prob, edges.to(self.prob.device), right=True)
        flat = index.add_(bins * torch.arange(self.B, device=index.device)[:, None]).flatten()
        parts = [torch.bincount(flat, minlength=self.B * bins).double()]
        for x in (self.prob, self.fraction):
            scaled = x.double().mul_(scale).round_().flatten()
            parts.append(torch.bincount(flat, scaled, minlength=self.B * bins) / scale)
        return torch.stack([part.view(self.B, bins) for part in parts], 1)

    @cached_property
    def fine_histogram(self) -> Tensor:
        """The histogram of all bins that statistics ask for, to be merged: float64 (B,3,len(FINEST)+1)."""
        return self.histogram(FINEST)


def _in_common(samples: Tensor, masks: Tensor, used: Tensor) -> Tensor:
    """Pixels in common of all pairs among the hypotheses of samples (S,runs,RUN), then masks (R,runs,RUN): float64
    (S+R,S+R).

    Only the runs of pixels that are `used` (runs,), in which some set marks one, are multiplied, a part of them at a
    time.
    """
    chosen, step = used.nonzero()[:, 0], max(1, PART // (samples.shape[2] * (len(samples) + len(masks))))
    parts = [[x.index_select(1, some).flatten(1) for x in (samples, masks)] for some in torch.split(chosen, step)]
    products = [_products(torch.cat([_at_least_half(hypotheses), drawn])) for hypotheses, drawn in parts]
    return products[0] if len(products) == 1 else torch.stack(products).sum(0)


def _at_least_half(x: Tensor) -> Tensor:
    """Where probabilities, or 0 and 1 as bytes, are at least one half: 0 or 1 as bytes."""
    if x.dtype == torch.uint8:
        return x
    # NumPy compares into bytes several times faster than torch.
    marked = torch.from_numpy(x.numpy() >= np.float32(0.5)) if x.device.type == "cpu" else x >= 0.5
    return marked.view(torch.uint8)


def _products(sets: Tensor) -> Tensor:
    """Pixels in common of all pairs of sets, 0 or 1 as bytes (n,P): float64 (n,n), exact.

    Bytes are multiplied several times faster than float32, and need no conversion, where oneDNN has kernels for them.
    Of one pixel torch 2.13 misreads the layout and the memory beside it.
    """
    fast = sets.device.type == "cpu" and torch.backends.cpu.get_cpu_capability().startswith("AVX")
    if fast and sets.shape[1] > 1:
        numbers = sets.view(torch.int8)
        return torch._int_mm(numbers, numbers.T).double()
    numbers = sets.float()
    return (numbers @ numbers.T).double()


def _numbers(x: Tensor) -> Tensor:
    """The same as numbers, which are compared, added and copied much faster than bool."""
    return x.view(torch.uint8) if x.dtype == torch.bool else x


def tensor(name: str, given: object, device: torch.device | None = None) -> Tensor:
    """The argument `name` as a tensor; ValueError where it is no array of real numbers that torch can share."""
    expected = "expected a tensor or a plain array of real numbers"
    if isinstance(given, np.ma.MaskedArray):
        raise ValueError(f"{name}: {expected}, got a masked array, whose mask would be ignored")
    try:
        with warnings.catch_warnings(action="ignore"):  # an array that may not be written to: nobody does
            shared = torch.as_tensor(given, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = f"{given.dtype} array" if isinstance(given, np.ndarray) else type(given).__name__
        raise ValueError(f"{name}: {expected}, got {kind}: {' '.join(str(error).split())}") from error
    if shared.layout != torch.strided or shared.is_nested or shared.device.type == "meta" or shared.is_quantized:
        raise ValueError(f"{name}: {expected}, got a {shared.layout} tensor of {shared.dtype} on {shared.device}")
    if shared.is_complex() or (shared.is_floating_point() and shared.dtype.itemsize == 1):
        raise ValueError(f"{name}: {expected}, got {shared.dtype}")
    return shared.detach()


def _shape(name: str, got: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(got.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(got.shape)}")


def _samples(samples: Array) -> Tensor:
    given = tensor("samples", samples)
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
    given = tensor("masks", masks, samples.device)
    if given.dim() != 4 or given.shape[1] == 0:
        raise ValueError(f"masks: expected shape (B,R,H,W) with at least one reader, got {tuple(given.shape)}")
    if given.dtype != torch.bool:
        raise ValueError(f"masks: expected bool, got {given.dtype}; compare with a threshold first")
    _shape("masks", given, (samples.shape[0], given.shape[1], *samples.shape[2:]))
    return given


def _read(read: Array | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    if read is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    given = tensor("read", read, device)
    if given.dtype != torch.bool:
        raise ValueError(f"read: expected bool, got {given.dtype}")
    _shape("read", given, shape)
    return given


def _weights(name: str, weights: Array | None, present: Tensor) -> Tensor:
    """Weights (B,n) float64 that sum to 1 over what is present."""
    given = present.double()
    if weights is not None:
        given = tensor(name, weights, present.device).double()
        _shape(name, given, tuple(present.shape))
        if not bool(torch.isfinite(given).all()) or bool((given < 0).any()):
            raise ValueError(
                f"{name}: expected finite values of at least 0, got values from {float(given.min()):g} to "
                f"{float(given.max()):g}"
            )
        if not bool(torch.isfinite(given.sum(1)).all()):
            raise ValueError(f"{name}: expected rows of finite sum, got values up to {float(given.max()):g}")
        off = (given.sum(1) - 1).abs()
        if name == "weights" and bool((off > 1e-6).any()):
            image = int(off.argmax())
            got = f"{float(given[image].sum()):g} in image {image}"
            raise ValueError(f"weights: expected rows that sum to 1, got {got}; divide them by their sum")
        given = given * present
    total = given.sum(1, keepdim=True)
    if bool((total <= 0).any()):
        image = int((total[:, 0] <= 0).nonzero()[0, 0])
        argument = "read" if name == "reader_weights" else name
        raise ValueError(
            f"{argument}: expected at least one reader or sample that counts in every image, got none in {image}"
        )
    return given / total
