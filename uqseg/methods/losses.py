"""What losses share: choosing a reader, and the cross-entropy against a reader's mask."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from uqseg.noise import Noise


def random_reader(read: Tensor, noise: Noise) -> Tensor:
    """For each image (B,) the slot of a random reader among those who read it, from read bool (B,R).

    One uniform number per image decides. Raises ValueError where nobody read an image.
    """
    if not bool(read.any(1).all()):
        raise ValueError("read: expected at least one reader for every image, got an image that nobody read")
    rank = (noise.of_cases((), "uniform") * read.sum(1)).long()  # among the readers present
    return (read.cumsum(1) <= rank[:, None]).sum(1)


def cross_entropy(logits: Tensor, target: Tensor, *, pos_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy (B,H,W) of logits against target, the positive class weighted by `pos_weight`."""
    weight = None if pos_weight == 1.0 else torch.tensor(pos_weight, device=logits.device)
    return F.binary_cross_entropy_with_logits(logits.float(), target.float(), pos_weight=weight, reduction="none")
