"""What losses share: which readers teach, cross-entropies, the KL of Gaussians, and the number of readers who drew."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from uqseg.noise import Noise

Readers = Literal["one", "all"]


def random_reader(read: Tensor, noise: Noise) -> Tensor:
    """For each image (B,) the slot of a random reader among those who read it, from read bool (B,R).

    One uniform number per image decides. Raises ValueError where nobody read an image.
    """
    _refuse_unread(read)
    rank = (noise.of_cases((), "uniform") * read.sum(1)).long()  # among the readers present
    return (read.cumsum(1) <= rank[:, None]).sum(1)


def reader_weights(read: Tensor, noise: Noise, readers: Readers = "all") -> Tensor:
    """Weights float (B,R) of the readers in the loss, each row of sum 1: a random one of those who read the image, or
    all of them alike. Raises ValueError where nobody read an image."""
    if readers == "one":
        return F.one_hot(random_reader(read, noise), read.shape[1]).float()
    _refuse_unread(read)
    return read / read.sum(1, keepdim=True)


def reader_fraction(masks: Tensor, weights: Tensor) -> Tensor:
    """Weighted share of the readers who marked each pixel: float (B,H,W) of masks (B,R,H,W) and weights (B,R)."""
    return (masks * weights[..., None, None]).sum(1)  # no product of matrices: autocast would round it


def _refuse_unread(read: Tensor) -> None:
    if not bool(read.any(1).all()):
        raise ValueError("read: expected at least one reader for every image, got an image that nobody read")


def cross_entropy(logits: Tensor, target: Tensor, *, pos_weight: float = 1.0) -> Tensor:
    """Binary cross-entropy (B,H,W) of logits against target, the positive class weighted by `pos_weight`."""
    weight = None if pos_weight == 1.0 else torch.tensor(pos_weight, device=logits.device)
    return F.binary_cross_entropy_with_logits(logits.float(), target.float(), pos_weight=weight, reduction="none")


def gaussian_kl(mean: Tensor, log_variance: Tensor, prior_mean: Tensor, prior_log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp log_variance) ‖ N(prior_mean, exp prior_log_variance)) in nats, one number per dimension."""
    gap = (mean - prior_mean).square() / prior_log_variance.exp()
    return 0.5 * (prior_log_variance - log_variance + (log_variance - prior_log_variance).exp() + gap - 1)


def readers_who_drew(masks: Tensor, read: Tensor) -> Tensor:
    """Share of the readers of an image who marked anything: float (B,)."""
    return (masks.flatten(2).any(2) & read).sum(1) / read.sum(1)


def count_entropy(logits: Tensor, masks: Tensor, read: Tensor) -> Tensor:
    """Cross-entropy (B,) of logits (B,R+1) against the number of readers who drew, 0 … R.

    Where fewer than R readers read an image, their number is scaled to R and shared by its two neighbours.
    """
    classes = torch.arange(logits.shape[1], device=logits.device)
    scaled = readers_who_drew(masks, read) * (logits.shape[1] - 1)
    target = (1 - (scaled[:, None] - classes).abs()).clamp_min(0)
    return F.cross_entropy(logits.float(), target, reduction="none")


def expected_share(logits: Tensor) -> Tensor:
    """Expected share (B,) of readers who draw, from logits (B,R+1) of their number."""
    shares = torch.linspace(0, 1, logits.shape[1], device=logits.device)
    return (logits.float().softmax(1) * shares).sum(1)
