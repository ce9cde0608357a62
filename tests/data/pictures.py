"""Small files of every format, written by the tests themselves where no library writes them."""

import gzip
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # the colour type of so many channels


def block(low: int = 10, size: int = 32) -> NDArray[np.bool_]:
    mask = np.zeros((size, size), bool)
    mask[low:20, 12:20] = True
    return mask


def noise(case: int, *shape: int, top: int = 256) -> NDArray[Any]:
    kind = np.uint8 if top <= 256 else np.uint16
    return np.random.default_rng(case).integers(0, top, shape or (32, 32), dtype=kind)


def save(file: Path, array: NDArray[Any], **options: Any) -> None:
    """Write a picture in the format of the file's ending."""
    file.parent.mkdir(parents=True, exist_ok=True)
    ending = file.name.lower().partition(".")[2]
    if ending == "npy":
        np.save(file, array)
    elif ending == "npz":
        with file.open("wb") as opened:
            np.savez_compressed(opened, array)
    elif ending in ("nii", "nii.gz"):
        nifti(file, array[None] if array.ndim == 2 else array, **options)
    elif ending == "dcm":
        dicom(file, array)
    elif ending == "jp2":
        Image.fromarray(array).save(file, format="JPEG2000", irreversible=False)
    elif ending == "webp":
        Image.fromarray(array).save(file, lossless=True)
    else:
        Image.fromarray(array).save(file, **options)


def nifti(file: Path, volume: NDArray[Any], affine: NDArray[np.float64] | None = None, unit: str | None = "mm") -> None:
    """A volume (Z,H,W); without an affine, one that says nothing but the spacing, 0.7 (columns) by 0.9 (rows)."""
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([0.7, 0.9, 1, 1]) if affine is None else affine)
    image.header.set_xyzt_units(unit)
    file.parent.mkdir(parents=True, exist_ok=True)
    data = bytearray(image.to_bytes())
    if affine is None:
        data[252:256] = bytes(4)  # qform_code and sform_code, which nibabel would set again
    file.write_bytes(gzip.compress(data, mtime=0) if file.name.lower().endswith(".gz") else data)


def png16(file: Path, array: NDArray[np.uint16]) -> None:
    """A PNG of 16 bits (H,W,C) with 2 to 4 channels, which Pillow does not write; its lines are filtered as usual."""
    height, width, channels = array.shape
    lines = array.astype(">u2").reshape(height, -1).view(np.uint8)
    step = 2 * channels
    filtered = lines.copy()
    filtered[1:, step:] -= lines[1:, :-step]
    kinds = np.minimum(np.arange(height), 1).astype(np.uint8)[:, None]
    data = np.hstack([kinds, filtered]).tobytes()
    write_png(file, (width, height), 16, PNG_COLOURS[channels], data)


def png2(file: Path, numbers: NDArray[np.uint8]) -> None:
    """A grey PNG of 2 bits, of numbers from 0 to 3; its width is a multiple of 4."""
    height, width = numbers.shape
    four = numbers.reshape(height, width // 4, 4) << np.array([6, 4, 2, 0], np.uint8)
    lines = np.hstack([np.zeros((height, 1), np.uint8), np.bitwise_or.reduce(four, axis=2)])
    write_png(file, (width, height), 2, PNG_COLOURS[1], lines.tobytes())


def write_png(
    file: Path, size: tuple[int, int], depth: int, colours: int, data: bytes, transparent: bytes = b""
) -> None:
    """A PNG (width, height) of these filtered lines; transparent: the grey or colour that stands for it."""
    header = struct.pack(">IIBBBBB", *size, depth, colours, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
            for n, d in chunks
            if d or n == b"IEND"
        )
    )


def tiff(file: Path, array: NDArray[Any]) -> None:
    """A grey TIFF, as it is written for numbers of any kind."""
    height, width = array.shape
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags = {256: width, 257: height, 258: 8 * array.dtype.itemsize, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags |= {279: array.nbytes, 339: kind}
    file.parent.mkdir(parents=True, exist_ok=True)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in tags.items())
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    file.write_bytes(
        b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    )


def dicom(file: Path, array: NDArray[Any], **tags: Any) -> None:
    """A single DICOM file, grey."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[file.name])
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    data.Rows, data.Columns = array.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    bits = 8 * array.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelData = array.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    file.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(file, enforce_file_format=True)
