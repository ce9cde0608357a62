"""AnnotatedSet: images, the masks of every reader, and what is known about each case."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class AnnotatedSet:
    """N images with the masks of R readers; arrays may be memory-mapped and are never written to.

    images:  uint8 (N,C,H,W)
    masks:   bool (N,R,H,W), all False where a reader drew nothing or did not read
    read:    bool (N,R), who read this image; an empty mask of a reader who read it is an answer
    table:   N rows: patient, case (unique), split ("train"/"val"/"test"), and whatever the source knows
    spacing: float32 (N,2), mm per pixel (rows, columns), NaN where unknown
    name:    the source's name; key: hash of content and parameters (part of every fit key)
    simulated: whether the images are simulated, to be said wherever they are shown
    problems: what the source found wrong, one line each, never silently fixed
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    read: NDArray[np.bool_]
    table: pd.DataFrame
    spacing: NDArray[np.float32]
    name: str
    key: str
    simulated: bool = False
    problems: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        n, _, height, width = self.images.shape
        expected = {
            "images": (self.images, np.uint8, self.images.shape),
            "masks": (self.masks, np.bool_, (n, self.masks.shape[1], height, width)),
            "read": (self.read, np.bool_, (n, self.masks.shape[1])),
            "spacing": (self.spacing, np.float32, (n, 2)),
        }
        for name, (array, dtype, shape) in expected.items():
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name}: expected {np.dtype(dtype)} {shape}, got {array.dtype} {array.shape}")
        if len(self.table) != n or not {"patient", "case", "split"} <= set(self.table.columns):
            raise ValueError(
                f"table: expected {n} rows with patient, case and split, got {len(self.table)} rows "
                f"with {list(self.table.columns)}"
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def readers(self) -> int:
        return int(self.masks.shape[1])

    def take(self, index: NDArray[np.intp] | slice) -> AnnotatedSet:
        """The cases at `index`, in that order; a slice copies nothing."""
        return replace(
            self,
            images=self.images[index],
            masks=self.masks[index],
            read=self.read[index],
            table=self.table.iloc[index].reset_index(drop=True),
            spacing=self.spacing[index],
        )
