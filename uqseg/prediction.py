"""Samples of any sampler for many images, streamed in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set, Sized
from dataclasses import replace
from numbers import Integral
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from uqseg.data.annotated import AnnotatedSet
from uqseg.device import Precision, uses_bf16
from uqseg.noise import Noise
from uqseg.samples import Batch, Sampler, Samples

MOST = 10_000  # samples of an image: more only fill the memory
Images = NDArray[np.uint8] | AnnotatedSet


def predict_batches(
    sampler: Sampler,
    data: Images,
    n: int = 16,
    *,
    seed: int = 0,
    batch: int = 64,
    keys: Sequence[object] | None = None,
    precision: Precision = "auto",
    with_readers: bool = False,
) -> Iterator[tuple[slice, Samples]]:
    """Slices of the N cases with their samples, on the sampler's device.

    data: uint8 (N,C,H,W) or a set; n: samples asked for; keys: names of the images, default those of the set's cases or
    their numbers. An image's noise comes from (seed, key) alone, so its samples depend neither on `batch` nor on the
    images around it (but for the rounding of a CUDA device's convolutions, which may choose another algorithm for
    another batch). with_readers: show the sampler masks and read of a set, as those with `needs_readers` always see.
    precision: bf16 rounds what passes between the layers to three digits; single probabilities move by a few hundredths
    at most (SegNet's by more, where two pixels of a pooling window come out equal), their mean by less than 0.001.
    """
    _check(sampler, data, n, batch, keys, precision, seed)
    with_readers = with_readers or getattr(sampler, "needs_readers", False)
    device = getattr(sampler, "device", torch.device("cpu"))
    bf16 = uses_bf16(precision, device)
    for start in range(0, len(data), batch):
        part = slice(start, min(start + batch, len(data)))
        cases = _batch(data, part, keys)
        cases = cases if with_readers else cases.without_readers()
        noise = Noise.for_cases(cases.keys, "sample", seed, device=device)
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            samples = sampler.sample(cases, n, noise)
        yield part, samples


def _check(
    sampler: object, data: object, n: object, batch: object, keys: object, precision: object, seed: object
) -> None:
    """Raise ValueError naming the first argument of `predict_batches` that is not what it should be."""
    if not hasattr(sampler, "sample") or isinstance(sampler, type):
        raise ValueError(f"sampler: expected a trained method or another sampler, got {sampler!r}")
    if not isinstance(data, AnnotatedSet | np.ndarray):
        raise ValueError(f"images: expected a uint8 array (N,C,H,W) or a set, got {type(data).__name__}")
    if isinstance(data, np.ma.MaskedArray):
        raise ValueError("images: expected a plain array, got a masked array, whose mask would be ignored")
    if isinstance(data, np.ndarray) and (data.dtype != np.uint8 or data.ndim != 4 or 0 in data.shape[1:]):
        raise ValueError(f"images: expected uint8 (N,C,H,W) with no side of 0, got {data.dtype} {data.shape}")
    for name, value in (("n", n), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= int(value) <= MOST:
            raise ValueError(f"{name}: expected a whole number from 1 to {MOST}, got {value!r}")
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise ValueError(f"seed: expected a whole number, got {seed!r}")
    if isinstance(keys, str | bytes | Mapping | Set) or not isinstance(keys, Sized | None):
        raise ValueError(f"keys: expected one for each of {len(data)} images, got {keys!r}")
    if keys is not None and len(keys) != len(data):
        raise ValueError(f"keys: expected one for each of {len(data)} images, got {len(keys)}")
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected one of {', '.join(get_args(Precision))}, got {precision!r}")


def _batch(data: Images, part: slice, keys: Sequence[object] | None) -> Batch:
    if isinstance(data, np.ndarray):
        names = [str(key) for key in (range(len(data)) if keys is None else keys)[part]]
        images = torch.from_numpy(np.array(data[part], order="C"))  # convolutions round differently in another order
        return Batch(images, names, None, None, torch.full((len(images), 2), torch.nan))
    batch = data.batch(part)
    return batch if keys is None else replace(batch, keys=[str(key) for key in keys[part]])


def predict(
    sampler: Sampler,
    data: Images,
    n: int = 16,
    *,
    seed: int = 0,
    batch: int = 64,
    keys: Sequence[object] | None = None,
    precision: Precision = "auto",
) -> Samples:
    """The samples of all images at once, float32 (N,S,H,W) with their weights, in memory; see `predict_batches`."""
    batches = predict_batches(sampler, data, n, seed=seed, batch=batch, keys=keys, precision=precision)
    parts = [samples.to("cpu") for _, samples in batches]
    if not parts:
        raise ValueError("images: expected at least one image, got none")
    return Samples.concatenate(parts)
