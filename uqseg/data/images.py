"""Images and masks from files: reading one of any format, fitting it to a size and to 8 bits, streaming many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uqseg.data.cache import Row
from uqseg.errors import FileError

T = TypeVar("T")
EXTENSIONS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".pgm", ".npy", ".nii.gz", ".nii")
NIFTI = (".nii.gz", ".nii")
GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of one channel
AT_ONCE = 512  # cases decoded ahead, which bounds the memory
UPRIGHT, ORIENTATION = 1, 274  # the EXIF tag of a picture that a viewer would turn
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, EOFError, Image.DecompressionBombError)


class Pixels(NamedTuple):
    """One file's pixels (H,W) or (H,W,C) as stored, and its spacing in mm (rows, columns), NaN where unknown."""

    array: NDArray[Any]
    spacing: tuple[float, float] = (np.nan, np.nan)


class Decoded(NamedTuple):
    """One case: its row, the SHA-256 of the whole image that it was cut from, and what is wrong with it."""

    row: Row
    digest: bytes
    problems: list[str]


def stem(name: str) -> tuple[str, str]:
    """A file name without its extension, and that extension in lower case; ("name", "") for one that is not read."""
    for extension in EXTENSIONS:
        if name.lower().endswith(extension) and len(name) > len(extension):
            return name[: -len(extension)], extension
    return name, ""


def read_pixels(file: Path, *, colours: bool = False) -> Pixels:
    """The one picture in `file`, whatever its format. Raises FileError naming the file and what is wrong with it.

    colours: give a picture with a palette its colours; otherwise its numbers, which is what a mask is made of.
    A NIfTI image is stored x first: it is turned to (rows, columns), its affine is not applied.
    """
    try:
        extension = stem(file.name)[1]
        if extension == ".npy":
            # A copy: the file is closed again, and a short file is an error here rather than later.
            pixels = Pixels(np.array(np.load(file, mmap_mode="r", allow_pickle=False)))
        else:
            pixels = _read_nifti(file) if extension in NIFTI else _read_picture(file, colours)
    except UNREADABLE as error:
        raise unreadable(file, error) from error
    array = pixels.array
    if array.ndim not in (2, 3) or not array.size or array.dtype.kind not in "buif":
        raise FileError(f"{file}: expected one picture (H,W) or (H,W,C) of numbers, got {array.dtype} {array.shape}")
    return pixels


def unreadable(file: Path, error: BaseException) -> FileError:
    """The error for a file that is not what its name says."""
    return FileError(f"cannot read {file}: {' '.join(str(error).split()) or type(error).__name__}")


def _read_picture(file: Path, colours: bool) -> Pixels:
    with Image.open(file) as image:
        if getattr(image, "n_frames", 1) != 1:
            raise FileError(f"{file}: expected one picture, got {getattr(image, 'n_frames', 0)} pages; save one a file")
        if image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:
            raise FileError(f"{file}: is stored turned (EXIF orientation); save it upright")
        plain: Image.Image = image
        if image.mode in ("LA", "PA", "RGBA"):
            if image.getchannel("A").getextrema() != (255, 255):
                raise FileError(f"{file}: is transparent in places; save it without transparency")
            plain = image.convert("L" if image.mode == "LA" else "RGB")
        elif colours and image.mode not in GREY:
            plain = image.convert("RGB")
        return Pixels(np.asarray(plain))


def count_channels(file: Path) -> int:
    """1 for a grey image, 3 for one in colours, by the file's header. Raises FileError for anything else."""
    try:
        extension = stem(file.name)[1]
        if extension == ".npy":
            shape = np.load(file, mmap_mode="r", allow_pickle=False).shape
        elif extension in NIFTI:
            shape = tuple(n for i, n in enumerate(_open_nifti(file).shape) if i < 2 or n > 1)
        else:
            with Image.open(file) as image:
                shape = (*image.size, 1 if image.mode in (*GREY, "LA") else 3)
    except UNREADABLE as error:
        raise unreadable(file, error) from error
    if len(shape) not in (2, 3) or (channels := shape[2] if len(shape) == 3 else 1) not in (1, 3):
        raise FileError(f"{file}: expected a picture (H,W), (H,W,1) or (H,W,3), got {shape}")
    return int(channels)


def _open_nifti(file: Path) -> Any:
    import nibabel  # here: it takes about as long as opening a whole data set that needs no NIfTI

    try:
        return nibabel.load(file)
    except nibabel.filebasedimages.ImageFileError as error:
        raise ValueError(str(error)) from error


def _read_nifti(file: Path) -> Pixels:
    image = _open_nifti(file)
    array = np.asanyarray(image.dataobj)
    array = array.reshape([n for i, n in enumerate(array.shape) if i < 2 or n > 1])
    x, y = (float(z) for z in image.header.get_zooms()[:2])
    known = image.header.get_xyzt_units()[0] == "mm"
    return Pixels(array.swapaxes(0, 1), (y, x) if known else (np.nan, np.nan))


def binary(array: NDArray[Any], name: str) -> NDArray[np.bool_]:
    """Where a mask (H,W), or (H,W,C) of equal channels, is not 0. Raises FileError unless it is 0/1, 0/255 or 0/65535.

    name: how the mask is called in the error.
    """
    if array.ndim == 3:
        if not (array == array[..., :1]).all():
            raise FileError(f"{name}: expected a mask of one channel, got {array.shape[2]} that differ")
        array = array[..., 0]
    if array.dtype == np.bool_:
        return array
    # A binary mask has few values: two comparisons are far faster than sorting all pixels.
    top = array.max()
    if not ((array == 0) | (array == top)).all() or float(top) not in (0.0, 1.0, 255.0, 65535.0):
        values = np.unique(array)
        listed = ", ".join(f"{v:g}" for v in values[:4].tolist()) + (", …" if len(values) > 4 else "")
        raise FileError(f"{name}: mask not binary, expected 0 and 1 or 0 and 255, got {len(values)} values ({listed})")
    return np.asarray(array != 0)


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


def eight_bits(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Numbers scaled so that `low` becomes 0 and `high` 255; what lies beyond is cut off."""
    scaled = (values - low) / max(high - low, np.finfo(float).tiny)
    return np.asarray(np.rint(scaled.clip(0, 1) * 255), np.uint8)


def stream(
    cases: Sequence[T], decode: Callable[[T], Decoded], name: Callable[[T], str], root: Path, problems: list[str]
) -> Iterator[Row | None]:
    """The row of each case in order, decoded by threads a few hundred ahead; None where `decode` raised FileError.

    What was wrong, images that are there twice included, is added to `problems`, paths given below `root`.
    """

    def attempt(case: T) -> Decoded | FileError:
        try:
            return decode(case)
        except FileError as error:
            return error

    def decoded() -> Iterator[tuple[str, Decoded | FileError]]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(cases), AT_ONCE):
                part = cases[start : start + AT_ONCE]
                yield from zip(map(name, part), pool.map(attempt, part), strict=True)

    return usable(decoded(), root, problems)


def usable(decoded: Iterable[tuple[str, Decoded | FileError]], root: Path, problems: list[str]) -> Iterator[Row | None]:
    """The row of each named case, None for one that cannot be used; what was wrong is added to `problems`."""
    seen: dict[bytes, str] = {}
    for name, case in decoded:
        if isinstance(case, FileError):
            problems.append(f"left out: {case}".replace(f"{root}{os.sep}", ""))
            yield None
            continue
        first = seen.setdefault(case.digest, name)
        if first != name:
            problems.append(f"duplicate image: {name} is {first}")
        problems.extend(case.problems)
        yield case.row
