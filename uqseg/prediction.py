"""Samples of a trained method for many images, streamed in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uqseg.device import Precision, uses_bf16
from uqseg.methods import Method
from uqseg.seeds import generator

CACHED = 2**16
"""Pixels that a processor samples at a time: more in one piece only fill memory instead of its caches."""


def normalise(images: Tensor) -> Tensor:
    """uint8 images as the float32 that methods see: 0…255 becomes −1…1."""
    return images.float() / 127.5 - 1


def predict_batches(
    method: Method,
    images: NDArray[np.uint8],
    n: int = 16,
    seed: int = 0,
    batch: int = 64,
    keys: Sequence[object] | None = None,
    precision: Precision = "auto",
) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the N images with their samples, float32 (b,S,H,W) on the method's device.

    images: uint8 (N,C,H,W); n: samples asked for; keys: names of the images, default their numbers. An image's noise
    comes from (seed, key) alone, so its samples depend neither on `batch` nor on the images around it (but for the
    rounding of a CUDA device's convolutions, which may choose another algorithm for another batch).
    precision: bf16 rounds what passes between the layers to three digits; single probabilities move by a few hundredths
    at most (SegNet's by more, where two pixels of a pooling window come out equal), their mean by less than 0.001.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"images: expected uint8 (N,C,H,W), got {images.dtype} {images.shape}")
    if n < 1 or batch < 1:
        raise ValueError(f"n and batch: expected at least 1, got n={n}, batch={batch}")
    names = range(len(images)) if keys is None else keys
    if len(names) != len(images):
        raise ValueError(f"keys: expected one for each of {len(images)} images, got {len(names)}")
    device = next(method.parameters()).device
    bf16 = uses_bf16(precision, device)
    method.eval()
    for start in range(0, len(images), batch):
        part = slice(start, min(start + batch, len(images)))
        noise = [generator("sample", seed, name, device=device) for name in names[part]]
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            x = normalise(torch.from_numpy(np.array(images[part])).to(device))
            x = x.contiguous(memory_format=torch.channels_last)
            few = len(x) if x.is_cuda else max(1, CACHED // (x.shape[2] * x.shape[3]))
            pieces = [method.sample(x[i : i + few], n, noise[i : i + few]) for i in range(0, len(x), few)]
        yield part, torch.cat(pieces).float()


def predict(
    method: Method,
    images: NDArray[np.uint8],
    n: int = 16,
    seed: int = 0,
    batch: int = 64,
    keys: Sequence[object] | None = None,
    precision: Precision = "auto",
) -> NDArray[np.float32]:
    """All samples at once: float32 (N,S,H,W); see `predict_batches`."""
    parts = [samples.cpu().numpy() for _, samples in predict_batches(method, images, n, seed, batch, keys, precision)]
    if not parts:
        raise ValueError("images: expected at least one image, got none")
    return np.concatenate(parts)
