"""Scans: volumes and slices with their place in space, by nibabel, pydicom, pynrrd and SimpleITK."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uqseg.data.volume import LPS_TO_RAS, MAX_VOXELS, UNKNOWN, Volume, Wanted, bounded, too_large
from uqseg.errors import FileError

AT_ONCE = 2**20  # bytes
HEAD = 544  # bytes that tell the formats apart, and hold the header of a NIfTI file
MILLIMETRES = {"mm": 1.0, "micron": 1e-3, "meter": 1e3}  # the units of NIfTI


def header_size(head: bytes) -> int | None:
    """348 for a header of NIfTI-1 or Analyze, 540 for one of NIfTI-2; None for anything else."""
    return next((n for n in (348, 540) for order in ("little", "big") if head[:4] == n.to_bytes(4, order)), None)


def read_nifti(file: Path, wanted: Wanted) -> Volume:
    """A NIfTI or Analyze file of one volume, packed by gzip or not."""
    return _of_nibabel(*_open_nifti(file, wanted.most))


def nifti_steps(file: Path) -> list[Volume]:
    """The volumes of a NIfTI file, one for each step of its fourth axis (x, y, z, t)."""
    image, sizes = _open_nifti(file, MAX_VOXELS)
    steps = [image.slicer[..., k : k + 1] for k in range(image.shape[3])] if len(image.shape) == 4 else [image]
    return [_of_nibabel(step, sizes) for step in steps]


def nifti_bytes(file: Path) -> int | None:
    """How many bytes a NIfTI file has, by its header; None where its numbers lie in another file."""
    with _unpacked(file) as stream:
        head = stream.read(HEAD)
    return _claimed(file, _header(head), MAX_VOXELS) if _is_single(head) else None


def _open_nifti(file: Path, most: int) -> tuple[Any, Sequence[float]]:
    """nibabel's image of a file that is as long as its header says, and the sizes of its voxels."""
    import nibabel  # here: it takes about as long as opening a whole data set that needs no NIfTI

    with _unpacked(file) as stream:
        head = stream.read(HEAD)
        packed = isinstance(stream, gzip.GzipFile)
        if header_size(head) is None and not (packed and head.startswith(b"\0\0\0\1")):
            raise ValueError("is no NIfTI file")
        if header_size(head) is None or not _is_single(head):
            for count, _ in enumerate(iter(lambda: stream.read(AT_ONCE), b"")):  # to the end, where the checksum is
                if count * AT_ONCE > 8 * most:
                    raise too_large(file, f"more than {count * AT_ONCE} bytes", most)
            return _open_nibabel(file, most)
        header = _header(head)
        size = _claimed(file, header, most)
        # To the end, where the checksum is; and no further than there can be something.
        data = head + stream.read(max(0, size - len(head)))
        if len(data) < size:
            raise ValueError(f"expected {size} bytes, got {len(data)}")
        if stream.read(AT_ONCE) and stream.read(1):
            raise ValueError("holds more than its header says")
    kind: Any = nibabel.Nifti2Image if header_size(head) == 540 else nibabel.Nifti1Image
    return kind.from_bytes(data), header.get_zooms()


def _unpacked(file: Path) -> gzip.GzipFile | BufferedReader:
    with file.open("rb") as opened:
        packed = opened.read(2) == b"\x1f\x8b"
    return gzip.open(file) if packed else file.open("rb")


def _header(head: bytes) -> Any:
    """The header of a NIfTI file; a check would mend it without a word."""
    import nibabel

    kind: Any = nibabel.Nifti2Header if header_size(head) == 540 else nibabel.Nifti1Header
    return kind(head[: header_size(head)], check=False)


def _is_single(head: bytes) -> bool:
    return b"n+1" in head[344:348] or b"n+2" in head[4:8]


def _claimed(file: Path, header: Any, most: int) -> int:
    """How many bytes a file with this header has."""
    shape = header.get_data_shape()
    count = int(np.prod(shape, dtype=object))
    if not shape or min(shape) < 1 or count > most:
        raise too_large(file, f"{' × '.join(map(str, shape))} voxels", most)
    return int(header.get_data_offset()) + count * int(header.get_data_dtype().itemsize)


def read_nibabel(file: Path, wanted: Wanted) -> Volume:
    """A file of FreeSurfer (.mgh)."""
    return _of_nibabel(*_open_nibabel(file, wanted.most))


def _open_nibabel(file: Path, most: int) -> tuple[Any, Sequence[float]]:
    import nibabel

    image: Any = nibabel.load(file)
    shape = image.shape
    if int(np.prod(shape, dtype=object)) > most:
        raise too_large(file, f"{' × '.join(map(str, shape))} voxels", most)
    return image, image.header.get_zooms()


def _of_nibabel(image: Any, sizes: Sequence[float]) -> Volume:
    """A volume whose axes are x, y, z, then time, of which there may be one, and colours; sizes: of its voxels."""
    array = np.asanyarray(image.dataobj)
    colours = array.dtype.names is not None or (array.ndim == 5 and array.shape[3:] == (1, 3))
    if array.dtype.names is not None:
        array = np.stack([array[name] for name in array.dtype.names[:3]], -1)
    spatial = array.shape[:-1] if colours else array.shape
    if len(spatial) < 2 or any(n != 1 for n in spatial[3:]):
        raise ValueError(f"expected x, y and z, got the shape {array.shape}; save one volume a file")
    spatial = (*spatial[:3], 1)[:3]
    array = array.reshape((*spatial, 3) if colours else spatial)
    axes = [0, 1, 2]
    if spatial[2] > 1 and spatial.count(1) == 1:  # one slice, across another axis
        axes = [axis for axis in axes if spatial[axis] > 1] + [spatial.index(1)]
    unit = str(image.header.get_xyzt_units()[0]) if hasattr(image.header, "get_xyzt_units") else "mm"
    scale = MILLIMETRES.get(unit, 1.0)
    zooms = [abs(float(zoom)) * scale for zoom in (*sizes[:3], 1)[:3]]
    spacing, unscaled = (zooms[axes[1]], zooms[axes[0]]), ""
    if unit not in MILLIMETRES:
        spacing, unscaled = UNKNOWN, "NIfTI without a unit of length: spacing unknown, give it in cases.csv"
    elif not all(np.isfinite(spacing)) or min(spacing) <= 0:
        unscaled = f"NIfTI whose pixels are {spacing[0]:g} by {spacing[1]:g} mm: spacing unknown, give it in cases.csv"
        spacing = UNKNOWN
    # From (x, y, z) to (z, y, x): slices, rows, columns.
    turned = array.transpose([*reversed(axes), *range(3, array.ndim)])
    affine = _usable_affine(image, axes, scale)
    unplaced = "NIfTI without orientation (form codes 0)" if affine is None else ""
    return Volume(turned, spacing, affine, unscaled=unscaled, unplaced=unplaced)


def _usable_affine(image: Any, axes: list[int], scale: float) -> NDArray[np.float64] | None:
    """The affine of the axes in this order in mm, None where the file has none or it is no map of space."""
    header = image.header
    if "sform_code" in header and not (int(header["sform_code"]) or int(header["qform_code"])):
        return None
    affine = np.array(image.affine, np.float64)[:, [*axes, 3]]
    affine[:3] *= scale
    return affine if np.isfinite(affine).all() and abs(np.linalg.det(affine)) > 0 else None


def read_dicom(file: Path, wanted: Wanted) -> Volume:
    """A DICOM file of one slice or several frames, rescaled as it says (HU of CT)."""
    import pydicom
    from pydicom.pixels.processing import apply_color_lut, apply_rescale

    data = pydicom.dcmread(file)
    frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
    bounded(file, wanted.most, frames, int(data.Rows), int(data.Columns), samples)
    array = np.asarray(data.pixel_array)
    if data.get("PhotometricInterpretation") == "PALETTE COLOR" and not wanted.numbers:
        array, samples = apply_color_lut(array, data), 3
    if (data.get("RescaleSlope") or 1, data.get("RescaleIntercept") or 0) != (1, 0):
        array = apply_rescale(array, data)
    notes: tuple[str, ...] = ()
    if data.get("PhotometricInterpretation") == "MONOCHROME1":
        notes = ("DICOM whose high values are dark (MONOCHROME1): values are kept as stored",)
    spacing = data.get("PixelSpacing") or UNKNOWN
    shape = (frames, int(data.Rows), int(data.Columns), *((3,) if samples == 3 else ()))
    return Volume(array.reshape(shape), (float(spacing[0]), float(spacing[1])), None, notes)


def read_nrrd(file: Path, wanted: Wanted) -> Volume:
    """An NRRD file, by pynrrd, or where that is not installed by SimpleITK."""
    try:
        import nrrd
    except ImportError:
        return read_itk(file, wanted)
    sizes = [int(size) for size in nrrd.read_header(str(file))["sizes"]]
    bounded(file, wanted.most, 1, 1, 1, int(np.prod(sizes, dtype=object)))
    array, header = nrrd.read(str(file))
    colours = str((header.get("kinds") or [""])[0]).lower() in ("rgb-color", "3-color", "vector", "rgb")
    spatial = array.shape[1:] if colours else array.shape
    if len(spatial) not in (2, 3):
        raise ValueError(f"expected x, y and z, got the shape {array.shape}")
    directions = header.get("space directions")
    rows = np.array(directions, float)[-len(spatial) :] if directions is not None else None
    steps = np.linalg.norm(rows, axis=1) if rows is not None else header.get("spacings", [np.nan] * array.ndim)
    steps = [float(step) for step in steps][-len(spatial) :]
    affine = None
    if rows is not None and rows.shape == (3, 3) and np.isfinite(rows).all():
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = rows.T, header.get("space origin", [0.0] * 3)
        if "left-posterior" in str(header.get("space", "")).lower() or str(header.get("space")).upper() == "LPS":
            affine = LPS_TO_RAS @ affine
    ordered = array.transpose([*range(array.ndim - 1, int(colours) - 1, -1), *([0] if colours else [])])
    volume = ordered if len(spatial) == 3 else ordered[None]
    bounded(file, wanted.most, *volume.shape[:3])
    return Volume(volume, (steps[1], steps[0]), affine)


def read_itk(file: Path, wanted: Wanted) -> Volume:
    """A MetaImage or NRRD file. FileError naming the extra where SimpleITK is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        raise FileError(
            f"cannot read {file}: .nrrd, .mha and .mhd need SimpleITK; run 'pip install \"uqseg[formats]\"'"
        ) from error
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) not in (2, 3) or channels not in (1, 3):
        raise ValueError(f"expected x, y and z in grey or colours, got the shape {size} with {channels} channels")
    bounded(file, wanted.most, size[2] if len(size) == 3 else 1, size[1], size[0], channels)
    image = reader.Execute()
    array = SimpleITK.GetArrayFromImage(image)
    spacing = image.GetSpacing()
    affine = None
    if len(size) == 3:
        affine = np.eye(4)
        affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(spacing)
        affine[:3, 3] = image.GetOrigin()
        affine = LPS_TO_RAS @ affine
    return Volume(array if len(size) == 3 else array[None], (float(spacing[1]), float(spacing[0])), affine)
