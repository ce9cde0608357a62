"""What methods share: drawing noise, choosing a reader, and the losses against a reader's mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uqseg.methods.method import Noise


def uniform(shape: tuple[int, ...], noise: Noise, device: torch.device) -> Tensor:
    """Uniform float32 of `shape` (B,...) in [0,1); with one generator an image, each fills its own row."""
    if noise is None or isinstance(noise, torch.Generator):
        return torch.rand(shape, generator=noise, device=device)
    check_generators(noise, shape[0])
    return torch.stack([torch.rand(shape[1:], generator=g, device=device) for g in noise])


def normal(shape: tuple[int, ...], noise: Noise, device: torch.device) -> Tensor:
    """Standard normal float32 of `shape` (B,...); with one generator an image, each fills its own row."""
    if noise is None or isinstance(noise, torch.Generator):
        return torch.randn(shape, generator=noise, device=device)
    check_generators(noise, shape[0])
    return torch.stack([torch.randn(shape[1:], generator=g, device=device) for g in noise])


def check_generators(noise: object, images: int) -> None:
    """Raise ValueError unless there is one generator an image."""
    if len(noise) != images:  # type: ignore[arg-type]
        raise ValueError(f"generator: expected one generator or one for each of {images} images, got {len(noise)}")  # type: ignore[arg-type]


def random_reader(read: Tensor, generator: torch.Generator) -> Tensor:
    """For each image (B,) the slot of a random reader among those who read it, from read bool (B,R).

    Raises ValueError where nobody read an image.
    """
    if not bool(read.any(1).all()):
        raise ValueError("read: expected at least one reader for every image, got an image that nobody read")
    return torch.multinomial(read.float(), 1, generator=generator).squeeze(1)


def cross_entropy(logits: Tensor, target: Tensor, *, pos_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy (B,H,W) of logits against target, the positive class weighted by `pos_weight`."""
    weight = None if pos_weight == 1.0 else torch.tensor(pos_weight, device=logits.device)
    return F.binary_cross_entropy_with_logits(logits.float(), target.float(), pos_weight=weight, reduction="none")
