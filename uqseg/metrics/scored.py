"""Scored: samples and readers of a batch, checked once, with the parts that metrics share computed once."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

EXACT = 2**24
"""Float32 counts pixels exactly up to here."""


def _check(name: str, ok: bool, expected: str, got: object) -> None:
    if not ok:
        raise ValueError(f"{name}: expected {expected}, got {got}")


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Pixels in common of every pair, float64 (B,I,J), from bool (B,I,H,W) and (B,J,H,W): one matrix product."""
    kind = torch.float32 if a.shape[-2] * a.shape[-1] <= EXACT else torch.float64
    return torch.bmm(a.flatten(2).to(kind), b.flatten(2).to(kind).transpose(1, 2)).double()


def iou_of(common: Tensor, area_a: Tensor, area_b: Tensor) -> Tensor:
    """Jaccard index of every pair (B,I,J); two empty masks agree: 1."""
    union = area_a[:, :, None] + area_b[:, None] - common
    return torch.where(union == 0, 1.0, common / union)


def dice_of(common: Tensor, area_a: Tensor, area_b: Tensor) -> Tensor:
    """Dice of every pair (B,I,J); two empty masks agree: 1."""
    total = area_a[:, :, None] + area_b[:, None]
    return torch.where(total == 0, 1.0, 2 * common / total)


class Scored:
    """Samples float (B,S,H,W) and masks bool (B,R,H,W) with read bool (B,R) and sample weights (B,S).

    Raises ValueError for shapes that do not match, values that are not probabilities, weights that do not sum to 1,
    and an image that nobody read.
    """

    def __init__(
        self,
        samples: Tensor,
        masks: Tensor,
        read: Tensor | None = None,
        weights: Tensor | None = None,
        *,
        exact: bool = False,
    ) -> None:
        _check(
            "samples",
            samples.ndim == 4 and samples.is_floating_point(),
            "float (B,S,H,W)",
            f"{samples.dtype} {tuple(samples.shape)}",
        )
        B, S, H, W = samples.shape
        _check("samples", B > 0 and S > 0, "at least one image and one sample", tuple(samples.shape))
        _check(
            "masks",
            masks.ndim == 4 and masks.dtype == torch.bool,
            "bool (B,R,H,W)",
            f"{masks.dtype} {tuple(masks.shape)}",
        )
        R = masks.shape[1]
        _check(
            "masks",
            masks.shape == (B, R, H, W) and R > 0,
            f"shape ({B}, R≥1, {H}, {W}) as samples have",
            tuple(masks.shape),
        )
        _check("samples", bool(samples.isfinite().all()), "finite probabilities", "NaN or infinity")
        low, high = float(samples.min()), float(samples.max())
        _check("samples", low >= 0 and high <= 1, "probabilities in [0,1]", f"values from {low:g} to {high:g}")
        read = torch.ones(B, R, dtype=torch.bool, device=masks.device) if read is None else read
        _check(
            "read",
            read.shape == (B, R) and read.dtype == torch.bool,
            f"bool ({B}, {R})",
            f"{read.dtype} {tuple(read.shape)}",
        )
        _check("read", bool(read.any(1).all()), "at least one reader for every image", "an image that nobody read")
        if weights is None:
            weights = torch.full((B, S), 1 / S, dtype=torch.float64, device=samples.device)
        _check("weights", weights.shape == (B, S), f"shape ({B}, {S})", tuple(weights.shape))
        sound = bool((weights >= 0).all()) and bool(
            torch.isclose(weights.double().sum(1), weights.new_ones(()).double()).all()
        )
        _check("weights", sound, "no negative weight and a sum of 1 for every image", weights.sum(1).tolist()[:3])
        self.samples, self.masks, self.read, self.exact = samples, masks & read[..., None, None], read, exact
        self.w = weights.double()
        self.v = read.double() / read.double().sum(1, keepdim=True)

    @cached_property
    def mean(self) -> Tensor:
        """p̄ (B,H,W) in float64."""
        return torch.einsum("bs,bshw->bhw", self.w, self.samples.double())

    @cached_property
    def fraction(self) -> Tensor:
        """ȳ (B,H,W) in float64: the weight of the readers who marked each pixel."""
        return torch.einsum("br,brhw->bhw", self.v, self.masks.double())

    @cached_property
    def hypotheses(self) -> Tensor:
        """bool (B,S,H,W)."""
        return self.samples >= 0.5

    @cached_property
    def area_h(self) -> Tensor:
        return self.hypotheses.sum((2, 3)).double()

    @cached_property
    def area_y(self) -> Tensor:
        return self.masks.sum((2, 3)).double()

    @cached_property
    def common(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels in common of hypotheses and readers (B,S,R), hypotheses (B,S,S), readers (B,R,R): one product."""
        both = torch.cat([self.hypotheses, self.masks], 1)
        pairs, S = overlaps(both, both), self.samples.shape[1]
        return pairs[:, :S, S:], pairs[:, :S, :S], pairs[:, S:, S:]

    @cached_property
    def iou(self) -> tuple[Tensor, Tensor, Tensor]:
        """Jaccard of hypotheses and readers (B,S,R), hypotheses (B,S,S), readers (B,R,R)."""
        hy, hh, yy = self.common
        h, y = self.area_h, self.area_y
        return iou_of(hy, h, y), iou_of(hh, h, h), iou_of(yy, y, y)

    @cached_property
    def dice(self) -> Tensor:
        """Dice of hypotheses and readers (B,S,R)."""
        return dice_of(self.common[0], self.area_h, self.area_y)

    def expected_distance(self) -> tuple[Tensor, Tensor, Tensor]:
        """E d(h,y), E d(h,h'), E d(y,y'), each (B,), diagonal terms included."""
        hy, hh, yy = (1 - iou for iou in self.iou)
        return (
            torch.einsum("bs,br,bsr->b", self.w, self.v, hy),
            torch.einsum("bs,bt,bst->b", self.w, self.w, hh),
            torch.einsum("br,bq,brq->b", self.v, self.v, yy),
        )
