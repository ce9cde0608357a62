"""CT slices as DICOM files: where a file lies along the scan, its pixels in Hounsfield units, and resampling them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from scipy import ndimage

from uqseg.data.quiet import quiet
from uqseg.errors import FileError

GRID = 512  # rows and columns of the scans, on which outlines are given
AIR = -1000.0  # HU of what lies outside the scan
TAGS = ["Modality", "SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient", "SliceLocation"]
NEEDED = ("RescaleSlope", "RescaleIntercept", "PixelSpacing")


class Header(NamedTuple):
    """What is said of a file's place: z and location (SliceLocation) in mm, None where the file does not say."""

    modality: str
    series: str
    number: int
    z: float | None
    location: float | None


def read_header(file: Path) -> Header:
    """The header of a DICOM file, its pixels not read. Raises FileError that gives the reason, not the file."""
    with _any_damage():
        data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
        position, location = data.get("ImagePositionPatient"), data.get("SliceLocation")
        return Header(
            modality=str(data.get("Modality", "unknown")),
            series=str(data.get("SeriesInstanceUID", "")),
            number=int(data.get("InstanceNumber") or 0),
            z=None if not position else float(position[2]),
            location=None if location is None else float(location),
        )


def hounsfield(file: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The pixels in HU, float32 (512,512), and the spacing in mm, (2,): rows, columns.

    Raises FileError saying what is wrong, not with which file, so that many files can be counted under one reason.
    """
    with _any_damage():
        data = pydicom.dcmread(file)
        syntax = data.file_meta.TransferSyntaxUID
        if missing := [name for name in NEEDED if data.get(name) is None]:
            raise FileError(f"without {', '.join(missing)}")
        if (data.Rows, data.Columns) != (GRID, GRID):
            raise FileError(f"{data.Rows}×{data.Columns} pixels, expected {GRID}×{GRID}")
        numbers = np.array([data.RescaleSlope, data.RescaleIntercept, *data.PixelSpacing], np.float64)
        stored = _stored(data, syntax.name if syntax.is_compressed else "")
    slope, intercept, *spacing = numbers.tolist()
    if len(spacing) != 2 or not np.isfinite(numbers).all() or min(slope, *spacing) <= 0:
        raise FileError(f"with slope {slope}, intercept {intercept} and PixelSpacing {spacing}, expected sound numbers")
    if stored.shape != (GRID, GRID):
        raise FileError(f"pixels of the shape {stored.shape}, expected {GRID}×{GRID}")
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept), numbers[2:]


def _stored(data: pydicom.Dataset, compressed: str) -> NDArray[Any]:
    """The pixels as stored; `compressed` names the compression, if there is one."""
    try:
        return np.asarray(data.pixel_array)
    except Exception as error:
        if not compressed:
            raise
        raise FileError(
            f"compressed as {compressed} and cannot be decoded; decompress the files, as 'gdcmconv --raw' does"
        ) from error


@contextmanager
def _any_damage() -> Iterator[None]:
    """One FileError for whatever pydicom raises on a damaged file: it parses late and has no error of its own."""
    try:
        with quiet():
            yield
    except FileError:
        raise
    except InvalidDicomError as error:
        raise FileError("no DICOM file") from error
    except Exception as error:
        raise FileError(f"not readable ({' '.join(str(error).split()) or type(error).__name__})") from error


def resample(
    image: NDArray[np.float32],
    spacing: NDArray[np.float64],
    first: NDArray[np.float64],
    step: float,
    size: int,
    *,
    outside: float,
) -> NDArray[np.float32]:
    """A window of an image (H,W) on another grid, (size,size), by linear interpolation.

    spacing: of the image, mm (rows, columns);  step: of the window, mm
    first:   where the window's first pixel has its centre, (2,), mm from the centre of the image's first pixel
    outside: the value beyond the image
    """
    window = ndimage.affine_transform(
        image, np.diag(step / spacing), first / spacing, (size, size), order=1, mode="constant", cval=outside
    )
    return np.asarray(window, np.float32)
