"""The straightforward way to do each thing: float32, channels first, loops over samples, members and pairs.

Written from the methods' descriptions on the layers of a Method of this project, so that both ways share weights.
Every function is tested equal to the fast way; the timing report measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import lcm
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from uqseg.data import AnnotatedSet
from uqseg.methods.mcdropout import dropout
from uqseg.noise import Noise

Masks = NDArray[np.bool_]


class OneReader(Dataset[tuple[Tensor, Tensor]]):
    """Images float (C,H,W) in [-1,1], each with the mask float (H,W) of a random reader who read it."""

    def __init__(self, data: AnnotatedSet) -> None:
        self.data, self.rng = data, np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        reader = self.rng.choice(np.flatnonzero(self.data.read[row]))
        image = torch.from_numpy(self.data.images[row].astype(np.float32)) / 127.5 - 1
        return image, torch.from_numpy(self.data.masks[row, reader].astype(np.float32))


def layers(block: Iterable[nn.Module], x: Tensor) -> Tensor:
    """The layers of a block one after another."""
    for layer in block:
        x = layer(x)
    return x


def unet(network: Any, images: Tensor, drop: Callable[[Tensor], Tensor] = lambda x: x) -> Tensor:
    """Features (B,width,H,W): down, up, skip connections concatenated; dropout after the encoder's levels that have it,
    and after the decoder's."""
    skips: list[Tensor] = []
    x = images
    for level, block in enumerate(network.down):
        x = layers(block, F.max_pool2d(x, 2) if level else x)
        x = drop(x) if network.drops_at(level) else x
        skips.append(x)
    for level, block in zip(reversed(range(len(skips) - 1)), network.up, strict=True):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        x = layers(block, torch.cat([skips[level], x], 1))
        x = drop(x) if network.drops_at(level) else x
    return x


def gaussian(encoder: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance (B,latent) of a latent encoder."""
    x = images
    for level, block in enumerate(encoder.blocks):
        x = layers(block, F.avg_pool2d(x, 2) if level else x)
    mean, log_variance = encoder.head(x.mean((2, 3))).chunk(2, 1)
    return mean, log_variance.clamp(-10, 10)


def decode(method: Any, features: Tensor, z: Tensor) -> Tensor:
    """Logits (B,H,W) of one sample: the latent (B,latent) tiled to H×W, joined to the features, three 1×1 layers."""
    tiled = z[:, :, None, None].repeat(1, 1, *features.shape[2:])
    weight = torch.cat([method.of_features.weight, method.of_latent.weight[:, :, None, None]], 1)
    x = F.conv2d(torch.cat([features, tiled], 1), weight, method.of_features.bias)
    for layer in method.head:
        x = layer(F.relu(x))
    return x[:, 0]


def probunet_samples(method: Any, images: Tensor, n: int, noise: Noise) -> Tensor:
    """n samples (B,n,H,W) of a probabilistic U-Net, one after another; the features are computed once."""
    features = unet(method.network, images)
    mean, log_variance = gaussian(method.prior, images)
    draws = noise.of_cases((n, mean.shape[1]))
    samples = []
    for s in range(n):
        z = mean + draws[:, s] * torch.exp(0.5 * log_variance)
        samples.append(torch.sigmoid(decode(method, features, z)))
    return torch.stack(samples, 1)


def mcdropout_samples(method: Any, images: Tensor, n: int, noise: Noise) -> Tensor:
    """n samples (B,n,H,W): one pass of the network per sample."""
    passes = []
    for _ in range(n):
        features = unet(method.network, images, lambda x: dropout(x, method.options.rate, noise))
        passes.append(torch.sigmoid(method.head(features)[:, 0]))
    return torch.stack(passes, 1)


def ensemble_samples(method: Any, images: Tensor, n: int, noise: Noise) -> Tensor:
    """The members' maps (B,K,H,W), one after another; n and noise do not enter."""
    maps = [head(unet(network, images))[:, 0] for network, head in method.members]
    return torch.stack([torch.sigmoid(m) for m in maps], 1)


def probunet_loss(method: Any, images: Tensor, target: Tensor, draw: Tensor) -> Tensor:
    """Negative ELBO against target float (B,H,W) with the standard normal draw (B,latent), averaged over the batch."""
    of = torch.distributions.Normal
    prior, posterior = (
        of(mean, torch.exp(0.5 * log_variance))
        for mean, log_variance in (
            gaussian(method.prior, images),
            gaussian(method.posterior, torch.cat([images, target[:, None] - 0.5], 1)),
        )
    )
    logits = decode(method, unet(method.network, images), posterior.mean + draw * posterior.stddev)
    misfit = F.binary_cross_entropy_with_logits(logits, target, reduction="none").sum((1, 2))
    divergence = torch.distributions.kl_divergence(posterior, prior).sum(1)
    loss: Tensor = (misfit + method.options.beta * divergence).mean()
    return loss


def member_loss(method: Any, slot: int, images: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of member `slot` of an ensemble against target float (B,H,W)."""
    network, head = method.members[slot]
    return F.binary_cross_entropy_with_logits(head(unet(network, images))[:, 0], target)


def train(
    parameters: Iterable[nn.Parameter],
    data: AnnotatedSet,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    batch: int,
    device: torch.device,
) -> None:
    """Adam steps on batches from a data loader."""
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    order = torch.Generator().manual_seed(0)
    loader = DataLoader(OneReader(data), batch, shuffle=True, drop_last=True, generator=order)
    done = 0
    while done < steps:
        for images, target in loader:
            optimizer.zero_grad()
            loss = loss_of(images.to(device), target.to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
            if done == steps:
                break


def distance(a: Masks, b: Masks) -> float:
    """1 − IoU of two masks, 0 for two empty ones."""
    union = np.logical_or(a, b).sum()
    return 1 - float(np.logical_and(a, b).sum() / union) if union else 0.0


def ged(samples: Masks, readers: Masks) -> float:
    """GED² of hypotheses (S,H,W) and readers (R,H,W), a loop over all pairs."""
    cross = np.mean([distance(s, r) for s in samples for r in readers])
    among_samples = np.mean([distance(s, t) for s in samples for t in samples])
    among_readers = np.mean([distance(r, q) for r in readers for q in readers])
    return float(2 * cross - among_samples - among_readers)


def hm_iou(samples: Masks, readers: Masks) -> float:
    """Mean IoU of samples and readers, both repeated to lcm(S,R) and optimally assigned."""
    length = lcm(len(samples), len(readers))
    iou = np.array([[1 - distance(s, r) for r in readers] for s in samples])
    iou = np.repeat(np.repeat(iou, length // len(samples), 0), length // len(readers), 1)
    return float(iou[linear_sum_assignment(iou, maximize=True)].mean())


def dice(a: Masks, b: Masks) -> float:
    """Dice of two masks, 1 for two empty ones."""
    total = a.sum() + b.sum()
    return float(2 * np.logical_and(a, b).sum() / total) if total else 1.0


def coverage(samples: Masks, readers: Masks) -> float:
    """Mean over readers of the best Dice among samples."""
    return float(np.mean([max(dice(s, r) for s in samples) for r in readers]))


def pairwise(samples: Masks, readers: Masks) -> dict[str, list[float]]:
    """GED, HM-IoU and coverage of each image: hypotheses (B,S,H,W), readers (B,R,H,W)."""
    measures: Sequence[Callable[[Masks, Masks], float]] = (ged, hm_iou, coverage)
    return {m.__name__: [m(s, r) for s, r in zip(samples, readers, strict=True)] for m in measures}
