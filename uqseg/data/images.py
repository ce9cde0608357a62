"""Images and masks from files: the one decoder of every source, fitting to a size and to 8 bits, streaming many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uqseg.data.ahead import in_turn
from uqseg.data.cache import Lost, Row
from uqseg.data.formats import read_volume
from uqseg.data.volume import MAX_VOXELS, Volume
from uqseg.errors import FileError

T = TypeVar("T")
AT_ONCE = 16  # files decoded ahead
FLUSH = 1e-4  # numbers of a mask this near to a whole number are it: it was scaled and scaled back
APART = 0.1  # pixels by which the grids of an image and a mask may differ
COVERED = 0.5  # share of a pixel from which on it is marked, where a mask is made smaller


class Decoded(NamedTuple):
    """One case: its name, its row (None: left out), the SHA-256 of the whole image that it was cut from, what is wrong
    with it, and how many of its readings have a file that cannot be used."""

    name: str
    row: Row | None
    digest: bytes = b""
    problems: Sequence[str] = ()
    lost: int = 0


def read_picture(file: Path, *, numbers: bool = False, most: int = MAX_VOXELS) -> NDArray[Any]:
    """The one picture in `file`, (H,W) or (H,W,3). Raises FileError as `read_volume` does, and for several slices."""
    array = read_volume(file, numbers=numbers, most=most).array
    if len(array) != 1:
        raise FileError(
            f"{file}: expected one picture, got {len(array)} slices; save one a file{or_channels(len(array))}"
        )
    return np.asarray(array[0])


def or_channels(slices: int) -> str:
    """What to add for so many slices, which may be meant as channels."""
    return "; channels, if these are some, come last, (H,W,3)" if slices in (3, 4) else ""


def binary(
    array: NDArray[Any], name: str, remedy: str = "save it with 0 and 255 alone", *, colours: bool = False
) -> NDArray[np.bool_]:
    """Where a mask (...,H,W), or in colours (...,H,W,3), is not 0 or black.

    Raises FileError unless it is 0/1, 0/255 or 0/65535, or black and one colour.
    name: how the mask is called in the error; remedy: what to do about it
    """
    if colours:
        array = _one_channel(array, name)
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind == "f":
        whole_numbers = np.rint(array)
        array = np.where(np.abs(array - whole_numbers) <= FLUSH, whole_numbers, array)
    # A binary mask has few values: two comparisons are far faster than sorting all pixels.
    top = array.max()
    if not ((array == 0) | (array == top)).all() or float(top) not in (0.0, 1.0, 255.0, 65535.0):
        values = np.unique(array)
        listed = ", ".join(f"{v:g}" for v in values[:4].tolist()) + (", …" if len(values) > 4 else "")
        raise FileError(
            f"{name}: mask not binary, expected 0 and 1 or 0 and 255, got {len(values)} values ({listed}); {remedy}"
        )
    return np.asarray(array != 0)


def _one_channel(array: NDArray[Any], name: str) -> NDArray[Any]:
    """A grey picture stored as a coloured one in grey; where it is black and one colour, where it has that colour."""
    if (array == array[..., :1]).all():
        return np.asarray(array[..., 0])
    coloured = array.any(-1)
    if (array[coloured] == array[coloured][0]).all():
        return np.asarray(coloured)
    raise FileError(f"{name}: expected a mask of one channel, or black and one colour, got several colours")


def aligned(mask: Volume, image: Volume, name: str) -> NDArray[Any]:
    """The mask's array on the grid of the image: its axes are turned and exchanged as both affines say.

    Where one of them says nothing, it is taken as it is. Raises FileError naming the mask where grids do not fit.
    """
    if mask.affine is None or image.affine is None or np.allclose(mask.affine, image.affine, atol=1e-6):
        return mask.array
    import nibabel

    orientations: Any = nibabel.orientations
    # From the mask's (column, row, slice) to the image's.
    turn = np.linalg.solve(image.affine, mask.affine)
    axes = orientations.io_orientation(turn)
    if not np.isnan(axes).any():
        ordered = mask.array.transpose(2, 1, 0, *range(3, mask.array.ndim))
        rest = turn @ orientations.inv_ornt_aff(axes, ordered.shape[:3])
        turned = orientations.apply_orientation(ordered, axes)
        corners = np.array([[*corner, 1.0] for corner in np.ndindex(2, 2, 2)]) * [*np.array(turned.shape[:3]) - 1, 1]
        if np.abs(corners @ (rest - np.eye(4)).T).max() <= APART:
            return np.asarray(turned.transpose(2, 1, 0, *range(3, turned.ndim)))
    raise FileError(
        f"{name}: lies on another grid than its image (their affines differ by more than turned axes); "
        f"resample it to the image, or save it with the image's affine"
    )


def crop_or_pad(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The centre size×size of an array (H,W,...), zeros where it is smaller; nothing is stretched."""
    out = np.zeros((size, size, *array.shape[2:]), array.dtype)
    source, target = [], []
    for n in array.shape[:2]:
        kept = min(n, size)
        source.append(slice((n - kept) // 2, (n - kept) // 2 + kept))
        target.append(slice((size - kept) // 2, (size - kept) // 2 + kept))
    out[tuple(target)] = array[tuple(source)]
    return out


def shrunk(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """A mask (H,W) stretched to size×size: marked where at least half of a pixel is covered.

    One that is not empty keeps at least its best-covered pixel.
    """
    share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize((size, size), Image.Resampling.BOX))
    marked = share >= COVERED
    if mask.any() and not marked.any():
        marked.flat[share.argmax()] = True
    return marked


def eight_bits(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Numbers scaled so that `low` becomes 0 and `high` 255; what lies beyond is cut off."""
    scaled = (values - low) / max(high - low, np.finfo(float).tiny)
    return np.asarray(np.rint(scaled.clip(0, 1) * 255), np.uint8)


def stream(
    jobs: Iterable[T],
    decode: Callable[[T], Sequence[Decoded]],
    root: Path,
    problems: list[str],
    lost: Lost,
    weigh: Callable[[T], int],
) -> Iterator[Row | None]:
    """The rows of the cases of each job in order, decoded by threads a few jobs ahead; None for a case left out.

    weigh: the bytes that a job takes while it is decoded, see `in_turn`
    What was wrong, images that are there twice included, is added to `problems`, paths given below `root`.
    """

    def decoded() -> Iterator[Decoded]:
        with ThreadPoolExecutor() as pool:
            for cases in in_turn(lambda job: pool.submit(decode, job), jobs, weigh, AT_ONCE):
                yield from cases

    return usable(decoded(), root, problems, lost)


def usable(decoded: Iterable[Decoded], root: Path, problems: list[str], lost: Lost) -> Iterator[Row | None]:
    """The row of each case, None for one that is left out; adds to `problems` and `lost` what was wrong."""
    seen: dict[bytes, str] = {}
    for case in decoded:
        problems += [problem.replace(f"{root}{os.sep}", "") for problem in case.problems]
        if case.row is None:
            lost.left_out += case.lost
            yield None
            continue
        lost.kept += case.lost
        first = seen.setdefault(case.digest, case.name)
        if first != case.name:
            problems.append(f"duplicate image: {case.name} is {first}")
        yield case.row._replace(spacing=_sound(case, problems))


def _sound(case: Decoded, problems: list[str]) -> NDArray[np.float32]:
    """The case's spacing; where it is no number above 0 in the type that it is kept in, it is unknown."""
    assert case.row is not None
    spacing = case.row.spacing
    wrong = ~(np.isnan(spacing) | (np.isfinite(spacing) & (spacing > 0)))
    if wrong.any():
        problems.append(f"spacing unusable, taken as unknown: {case.name}: {spacing[0]:g} by {spacing[1]:g} mm")
    return np.where(wrong, np.float32(np.nan), spacing)
