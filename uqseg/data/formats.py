"""Formats: the numbers in one image file, whatever its format, recognised by its content and not by its name."""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uqseg.data import pictures, scans
from uqseg.data.quiet import quiet
from uqseg.data.volume import MAX_VOXELS, Volume, Wanted, bounded, too_large
from uqseg.errors import FileError

ARRAY = b"\x93NUMPY"
HEADER = 2**20  # bytes of an array's header at most
POINTERS = (b"version https://git-lfs.github.com/spec", b"/annex/objects/")
META_IMAGE = re.compile(rb"\s*(ObjectType|NDims|Comment|ID)\s*=")


def read_volume(file: Path, *, numbers: bool = False, most: int = MAX_VOXELS) -> Volume:
    """All that `file` shows. Raises FileError naming the file and what is wrong with it, whatever its decoder raises.

    numbers: the stored numbers, for labels; otherwise what they look like: the colours of a palette, and numbers of
    fewer than 8 bits spread over 0 to 255
    most: numbers that it may hold: a file whose header claims more is refused before any memory is taken
    NIfTI stores x first: it is turned to (slices, rows, columns); its affine is handed on, not applied.
    """
    with _decoding(file):
        return _checked(file, _reader(file)(file, Wanted(numbers, most)))


def _checked(file: Path, volume: Volume) -> Volume:
    """The volume, if it holds numbers of pictures or slices; FileError otherwise."""
    array = volume.array
    if (
        array.ndim not in (3, 4)
        or not array.size
        or array.dtype.kind not in "buif"
        or array.shape[3:] not in ((), (3,))
    ):
        raise FileError(f"{file}: expected numbers (H,W) or (H,W,3), got {array.dtype} {array.shape[1:]}")
    return volume


def read_series(file: Path) -> list[Volume]:
    """The volumes in `file`, numbers as stored: of NIfTI one a step of the fourth axis (x, y, z, t), of others one.

    Raises FileError as `read_volume` does.
    """
    if _reader(file) is not scans.read_nifti:
        return [read_volume(file, numbers=True)]
    with _decoding(file):
        return [_checked(file, step) for step in scans.nifti_steps(file)]


@contextmanager
def _decoding(file: Path) -> Iterator[None]:
    """Quiet, and a FileError for whatever a decoder raises: of one damaged file, that is almost anything."""
    try:
        with quiet():
            yield
    except FileError:
        raise
    except Exception as error:
        raise unreadable(file, error) from error


class Outline(NamedTuple):
    """How many slices a file has, of how many channels (1 or 3), and of how many pixels each."""

    slices: int
    channels: int
    pixels: int


def outline(file: Path) -> Outline:
    """What a file claims to hold, mostly by its header alone. Raises FileError as `read_volume` does."""
    reader = _reader(file)
    if reader not in (pictures.read_pillow, pictures.read_png):
        shape = read_volume(file).array.shape
        return Outline(shape[0], 3 if len(shape) == 4 else 1, shape[1] * shape[2])
    with _decoding(file), pictures.open_picture(file) as image:
        return Outline(pictures.count_frames(image), 1 if pictures.is_grey(image) else 3, image.height * image.width)


def claimed(file: Path) -> int:
    """About how many bytes the numbers in a file take, by its header; where that does not tell, 8 * MAX_VOXELS."""
    most = 8 * MAX_VOXELS
    try:
        reader = _reader(file)
        if reader in (pictures.read_pillow, pictures.read_png):
            return 8 * int(np.prod(outline(file)))
        if reader is _read_npy:
            return int(np.load(file, mmap_mode="r", allow_pickle=False).nbytes)
        if reader is _read_npz:
            with zipfile.ZipFile(file) as archive:
                return sum(member.file_size for member in archive.infolist())
        if reader is scans.read_nifti:
            return scans.nifti_bytes(file) or most
    except Exception:  # whoever reads it says what is wrong
        return most
    return most


def is_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its content: scanners give it any name."""
    try:
        if not file.is_file():  # a pipe would be waited for
            return False
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError:
        return False


def unreadable(file: Path, error: BaseException) -> FileError:
    """The error for a file that is not what it seems to be."""
    if isinstance(error, Image.DecompressionBombError):
        return too_large(file, "more pixels than Pillow opens")
    if isinstance(error, struct.error):  # whose words are of buffers
        return FileError(f"cannot read {file}: is damaged, or ends too early; copy or save it anew")
    return FileError(f"cannot read {file}: {' '.join(str(error).split()) or type(error).__name__}")


def _reader(file: Path) -> Callable[[Path, Wanted], Volume]:
    """The function that reads the file's format."""
    try:
        if not file.is_file():  # a pipe would be waited for
            gone = file.is_symlink() and not file.exists()
            kind = "a folder" if file.is_dir() else "a link to nothing" if gone else "no file"
            raise FileError(f"cannot read {file}: is {kind}")
        with file.open("rb") as opened:
            head = opened.read(scans.HEAD)
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror or error}") from error
    if not head:
        raise FileError(f"cannot read {file}: is empty")
    if head.startswith(POINTERS):
        raise FileError(f"cannot read {file}: is a pointer of Git LFS or git-annex; fetch what it stands for")
    if head.startswith(pictures.SIGNATURE):
        return pictures.read_png
    if head.startswith(ARRAY):
        return _read_npy
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # the second is an archive of nothing
        return _read_npz
    if head[128:132] == b"DICM":
        return scans.read_dicom
    if head.startswith(b"NRRD"):
        return scans.read_nrrd
    if META_IMAGE.match(head):
        return scans.read_itk
    if head.startswith(b"\x1f\x8b") or scans.header_size(head) is not None:
        return scans.read_nifti
    if head.startswith(b"\0\0\0\1") and file.suffix.lower() == ".mgh":
        return scans.read_nibabel
    return pictures.read_pillow


def _read_npy(file: Path, wanted: Wanted) -> Volume:
    stored = np.load(file, mmap_mode="r", allow_pickle=False)
    return _of_array(file, stored, wanted.most)


def _read_npz(file: Path, wanted: Wanted) -> Volume:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) != 1:
            raise FileError(f"{file}: expected one array, got {', '.join(m.filename for m in members) or 'none'}")
        if members[0].file_size > 8 * wanted.most + HEADER:
            raise too_large(file, f"{members[0].file_size} bytes", wanted.most)
        data = archive.read(members[0])  # to the end, where its checksum is
    if not data.startswith(ARRAY):  # NumPy's words would tempt to run it
        raise FileError(f"{file}: expected an array, got {members[0].filename}, which is none")
    return _of_array(file, np.load(io.BytesIO(data), allow_pickle=False), wanted.most)


def _of_array(file: Path, stored: NDArray[Any], most: int) -> Volume:
    """A picture (H,W), (H,W,1) or (H,W,3), or slices (Z,H,W) or (Z,H,W,3)."""
    shape = stored.shape
    if len(shape) not in (2, 3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        raise FileError(f"{file}: expected (H,W), in colours (H,W,3), or slices (Z,H,W), got {shape}")
    picture = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    if not picture and len(shape) == 3 and shape[2] < min(shape[:2]):
        raise FileError(
            f"{file}: expected slices first, (Z,H,W), got {shape}; save it so, or in colours with three channels"
        )
    shape = (1, *shape) if picture else shape
    bounded(file, most, *shape[:3], *shape[3:])
    # A copy: the file is closed again, and a short file is an error here rather than later.
    return Volume(np.array(stored).reshape(shape[:3] if shape[3:] == (1,) else shape))
