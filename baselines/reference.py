"""Yardsticks: predictors that need no training, the ends of the scale every method is read on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from uqseg.data import AnnotatedSet
from uqseg.errors import unknown
from uqseg.metrics import figures, score

Noise = Sequence[torch.Generator]


@dataclass(frozen=True)
class Yardstick:
    """exact: the samples are its whole support, not draws. draw: see `samples_of`. rate: how they are scored.

    count: samples that a score looks at, of n asked for and R readers.
    """

    description: str
    exact: bool
    draw: Callable[[Tensor, Tensor, int, Noise, Tensor], Tensor]
    rate: Callable[..., pd.DataFrame] = score
    count: Callable[[int, int], int] = lambda n, readers: 1


def _background(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    return torch.zeros_like(masks[:, :1], dtype=torch.float32)


def _prevalence(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    return frequency.expand(len(masks), 1, *masks.shape[2:])


def _consensus(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    marked = (masks & read[..., None, None]).sum(1, keepdim=True)
    return (2 * marked >= read.sum(1)[:, None, None, None]).float()


def _oracle(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    drawn = [
        torch.multinomial(present.float(), n, replacement=True, generator=g)
        for present, g in zip(read, noise, strict=True)
    ]
    return torch.stack([mask[slots] for mask, slots in zip(masks, drawn, strict=True)]).float()


def _readers(masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    return masks.float()


def leave_one_out(
    samples: Tensor,
    masks: Tensor,
    read: Tensor,
    weights: Tensor | None = None,
    groups: Sequence[str] | None = None,
    exact: bool = False,
    spacing: Tensor | None = None,
) -> pd.DataFrame:
    """Columns as of `score`, float64: each reader in turn against the other readers' masks, mean over the readers.

    samples: float (B,R,H,W), sample r the mask of reader r; weights are not used: the other readers count the same.
    Every figure compares the R − 1 others with ONE reader, so those of two sets (GED, HM-IoU, validity, NCC of
    samples) do not reach what they would against all readers. Left out, NaN, is what one reader cannot tell:
    figures against the majority, figures across images (there a mean over the readers would put every reader on both
    sides), and what is measured by the readers' variance. `_first` stands for reader 0 alone. An image that fewer than
    two readers read is NaN in every column.
    """
    tables = []
    for r in range(masks.shape[1]):
        only, others = torch.zeros_like(read), read.clone()
        only[:, r], others[:, r] = True, False
        usable = read[:, r] & others.any(1)
        share = torch.where(usable[:, None], others, True).double()  # unusable rows are scored too, then blanked
        table = score(samples, masks, only, share / share.sum(1, keepdim=True), groups, exact, spacing).astype(float)
        table[~usable.cpu().numpy()] = np.nan
        # The one reader is reader 0 of that comparison only where r is 0.
        blank = [c for c in map(str, table) if c in BLANK or "_majority" in c or ("_first" in c and r > 0)]
        table[blank] = np.nan
        tables.append(table)
    values = np.stack([t.to_numpy() for t in tables])
    defined = np.isfinite(values).sum(0)
    mean = np.where(defined > 0, np.nansum(values, 0) / np.maximum(defined, 1), np.nan)
    return pd.DataFrame(mean, columns=tables[0].columns)


BLANK = {f.columns[0] for f in figures() if f.kind == "across"} - {
    c for f in figures() if f.kind != "across" for c in f.columns
}
"""Columns of samples that only figures across images read: without them these figures are undefined."""

YARDSTICKS = {
    "background": Yardstick("all zero", True, _background),
    "prevalence": Yardstick("the training set's pixel-wise frequency of foreground", True, _prevalence),
    "consensus": Yardstick("the readers' own majority mask, the best a single mask could do", True, _consensus),
    "oracle": Yardstick(
        "draws from the readers themselves, the floor of GED at that number of samples",
        False,
        _oracle,
        count=lambda n, readers: n,
    ),
    "human": Yardstick(
        "the other readers against one reader, each in turn (so its GED is not a floor)",
        False,
        _readers,
        leave_one_out,
        lambda n, readers: readers - 1,
    ),
}


def frequency_of(train: AnnotatedSet) -> Tensor:
    """How often readers marked each pixel of the training images: float32 (H,W) in [0,1], over who read them."""
    marked = np.zeros(train.masks.shape[2:], np.int64)
    for masks in train.masks:  # row by row: the masks may be larger than memory
        marked += masks.sum(0)
    return torch.from_numpy((marked / train.read.sum()).astype(np.float32))


def samples_of(name: str, masks: Tensor, read: Tensor, n: int, noise: Noise, frequency: Tensor) -> Tensor:
    """Samples float32 (B,S,H,W) of the yardstick `name`; S = n for the oracle, R for human, otherwise 1.

    masks: bool (B,R,H,W); read: bool (B,R); noise: one generator an image; frequency: (H,W) from `frequency_of`.
    """
    if name not in YARDSTICKS:
        raise unknown("yardstick", name, YARDSTICKS)
    return YARDSTICKS[name].draw(masks, read, n, noise, frequency)
