"""Volume: the numbers of one file, and the bounds that a file's header may not pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uqseg.errors import FileError

MAX_PIXELS = 2**26  # of one picture, rows times columns: a larger claim is refused before any memory is taken
MAX_VOXELS = 2**28  # numbers in one file, slices and channels included
UNKNOWN = (np.nan, np.nan)
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])


class Volume(NamedTuple):
    """The numbers of one file.

    array:   (Z,H,W) or in colours (Z,H,W,3), Z slices; as stored, or as scaled by the file's own slope and intercept
    spacing: mm (rows, columns), NaN where unknown
    affine:  (4,4), from (column, row, slice) to mm towards right, front and head; None where unknown
    notes:   what is odd about the file, worded so that many files share a note
    unscaled: why the spacing is unknown although the file has one, "" where that is not so
    unplaced: why the affine is unknown although the format has one, "" where that is not so
    """

    array: NDArray[Any]
    spacing: tuple[float, float] = UNKNOWN
    affine: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    unscaled: str = ""
    unplaced: str = ""


class Wanted(NamedTuple):
    """What is wanted of a file: stored numbers or what they look like, and how many numbers it may hold at most."""

    numbers: bool = False
    most: int = MAX_VOXELS


def too_large(file: Path, claim: str, most: int = MAX_VOXELS) -> FileError:
    """The error for a file that claims more than the bounds, or than `most` numbers."""
    bounds = f"MAX_PIXELS = {MAX_PIXELS} a slice and MAX_VOXELS = {MAX_VOXELS} in all (uqseg.data.volume)"
    if most < MAX_VOXELS:
        bounds = f"{most} numbers"
    return FileError(f"{file}: claims {claim}, expected at most {bounds}; cut it to what is needed")


def bounded(file: Path, most: int, slices: int, height: int, width: int, channels: int = 1) -> None:
    """FileError where a header claims more than the bounds, or less than one pixel."""
    if min(slices, height, width, channels) < 1:
        raise FileError(f"{file}: expected at least one pixel, got {slices} × {height}×{width} × {channels}")
    if height * width > MAX_PIXELS or slices * height * width * channels > most:
        raise too_large(file, f"{slices} × {height}×{width} × {channels} pixels", most)
