"""Which images a step sees, and how they are read and augmented."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uqseg.data.annotated import AnnotatedSet
from uqseg.methods.method import normalise
from uqseg.samples import Batch
from uqseg.seeds import generator

Arrays = tuple[Tensor, Tensor, Tensor]
"""Images, masks bool (B,R,H,W) and read bool (B,R)."""
Gather = Callable[[Tensor], Arrays]
READ_AHEAD = 2**31  # bytes of a memory-mapped array that reading ahead soon has in memory


def resident(data: AnnotatedSet, device: torch.device) -> Gather:
    """A function from row numbers to (images uint8, masks, read) on `device`, where the whole set lies on CUDA."""
    if device.type == "cpu":
        for array in (data.images, data.masks):
            _without_reading_ahead(array)

        return lambda rows: _arrays(data.batch(rows.numpy()))
    images, masks, read = _arrays(data.batch(slice(None)).to(device))

    def gather_on_device(rows: Tensor) -> Arrays:
        rows = rows.to(device)
        return images[rows], masks[rows], read[rows]

    return gather_on_device


def _arrays(batch: Batch) -> Arrays:
    assert batch.masks is not None
    assert batch.read is not None
    return batch.images, batch.masks, batch.read


def _without_reading_ahead(array: NDArray[Any]) -> None:
    """Tell the system that a large memory-mapped array is read in no order: it would read megabytes around each row,
    which pays only where the whole is soon in memory."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and array.nbytes > READ_AHEAD and hasattr(mmap, "MADV_RANDOM"):
        base.madvise(mmap.MADV_RANDOM)


def rows_of(step: int, images: int, batch: int, seed: int) -> Tensor:
    """Row numbers of a step's batch: consecutive pieces of an endless sequence of shuffled passes over the images."""
    first = step * batch
    passes = range(first // images, (first + batch - 1) // images + 1)
    order = torch.cat([_order(images, seed, p) for p in passes])
    return order[first - passes[0] * images :][:batch]


@lru_cache(maxsize=2)
def _order(images: int, seed: int, number: int) -> Tensor:
    """The shuffled row numbers of one pass, kept while its steps are taken: shuffling a million takes its time."""
    return torch.randperm(images, generator=generator("order", seed, number))


def one_pass(gather: Gather, images: int, batch: int, seed: int) -> Iterator[Arrays]:
    """All images once, shuffled and not augmented, normalised as methods see them."""
    for rows in torch.split(torch.randperm(images, generator=generator("last pass", seed)), batch):
        pixels, masks, read = gather(rows)
        yield normalise(pixels).contiguous(memory_format=torch.channels_last), masks, read
