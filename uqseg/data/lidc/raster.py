"""From the outline a reader drew to the mask it stands for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from uqseg.data.lidc.database import Outline


def inside(outline: NDArray[np.integer]) -> tuple[NDArray[np.bool_], tuple[int, int]]:
    """The interior of a closed polygon of pixels (P,2: row, column) without its border pixels.

    Readers of LIDC drew just outside the nodule: the outline itself is background.
    Returns the mask of the polygon's bounding box and the row and column of its first pixel.
    """
    low = outline.min(0)
    height, width = (int(n) for n in outline.max(0) - low + 1)
    box = Image.new("L", (width, height))
    ImageDraw.Draw(box).polygon((outline - low)[:, ::-1].ravel().tolist(), fill=1, outline=0)
    return np.asarray(box) > 0, (int(low[0]), int(low[1]))


def rasterise(outlines: Iterable[Outline], corner: tuple[int, int], size: int) -> tuple[NDArray[np.bool_], int]:
    """One reader's mask on one slice, in a crop of the scan's grid.

    corner: row and column of the crop's first pixel;  size: the crop is size×size
    Returns bool (size,size) and how many pixels of the mask lie outside the crop.
    """
    parts = [(*inside(points), includes) for points, includes in outlines]
    # Outlines are drawn in a window that holds all of them, so that holes are cut before pixels are counted.
    low = np.min([(*corner,), *(first for _, first, _ in parts)], axis=0)
    ends = [(first[0] + box.shape[0], first[1] + box.shape[1]) for box, first, _ in parts]
    high = np.max([(corner[0] + size, corner[1] + size), *ends], axis=0)
    drawn = np.zeros(high - low, bool)
    for box, first, includes in sorted(parts, key=lambda part: not part[2]):
        y, x = first - low
        window = drawn[y : y + box.shape[0], x : x + box.shape[1]]
        window |= box
        if not includes:
            window &= ~box
    y, x = corner - low
    mask = drawn[y : y + size, x : x + size].copy()
    return mask, int(np.count_nonzero(drawn)) - int(np.count_nonzero(mask))
