"""Formats: the numbers in one image file, whatever its format, recognised by its content and not by its name."""

from __future__ import annotations

import gzip
import io
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from uqseg.data.quiet import quiet
from uqseg.errors import FileError

MAX_PIXELS = 2**26  # of one picture, rows times columns: a larger claim is refused before any memory is taken
MAX_VOXELS = 2**28  # numbers in one file, slices and channels included
# All that Pillow decodes by itself and without loss of depth; some others of its formats start programs (EPS).
PICTURES = ("PNG", "TIFF", "JPEG", "JPEG2000", "BMP", "DIB", "GIF", "WEBP", "PPM", "TGA", "PCX", "SGI", "QOI")
ARRAY = b"\x93NUMPY"
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of one channel
POINTERS = (b"version https://git-lfs.github.com/spec", b"/annex/objects/")
UPRIGHT, ORIENTATION = 1, 274  # the EXIF tag of a picture that a viewer would turn
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # the TIFF tag of what numbers look like
BITS = 258  # the TIFF tag of each channel's
SAMPLE_FORMAT, UNSIGNED, SIGNED = 339, 1, 2  # the TIFF tag of how numbers are stored
SAMPLES = {UNSIGNED: "whole", SIGNED: "signed whole", 3: "floating-point"}
AT_ONCE = 2**20  # bytes
HEAD = 544  # bytes that tell the formats apart, and hold the header of a NIfTI file
MILLIMETRES = {"mm": 1.0, "micron": 1e-3, "meter": 1e3}  # the units of NIfTI
PNM = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")
META_IMAGE = re.compile(rb"\s*(ObjectType|NDims|Comment|ID)\s*=")
LPS_TO_RAS = np.diag([-1.0, -1, 1, 1])
UNKNOWN = (np.nan, np.nan)


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
    if _reader(file) is not _read_nifti:
        return [read_volume(file, numbers=True)]
    with _decoding(file):
        image, sizes = _open_nifti(file, MAX_VOXELS)
        steps = [image.slicer[..., k : k + 1] for k in range(image.shape[3])] if len(image.shape) == 4 else [image]
        return [_checked(file, _of_nibabel(step, sizes)) for step in steps]


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
    if reader not in (_read_picture, _read_png):
        shape = read_volume(file).array.shape
        return Outline(shape[0], 3 if len(shape) == 4 else 1, shape[1] * shape[2])
    with _decoding(file), _open(file) as image:
        return Outline(_count_frames(image), 1 if _is_grey(image) else 3, image.height * image.width)


def claimed(file: Path) -> int:
    """About how many bytes the numbers in a file take, by its header; where that does not tell, 8 * MAX_VOXELS."""
    most = 8 * MAX_VOXELS
    try:
        reader = _reader(file)
        if reader in (_read_picture, _read_png):
            return 8 * int(np.prod(outline(file)))
        if reader is _read_npy:
            return int(np.load(file, mmap_mode="r", allow_pickle=False).nbytes)
        if reader is _read_npz:
            with zipfile.ZipFile(file) as archive:
                return sum(member.file_size for member in archive.infolist())
        if reader is _read_nifti:
            with quiet(), _unpacked(file) as stream:
                head = stream.read(HEAD)
            return _claimed(file, _header(head), MAX_VOXELS) if _is_single(head) else most
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
        return _too_large(file, "more pixels than Pillow opens")
    if isinstance(error, struct.error):  # whose words are of buffers
        return FileError(f"cannot read {file}: is damaged, or ends too early; copy or save it anew")
    return FileError(f"cannot read {file}: {' '.join(str(error).split()) or type(error).__name__}")


def _too_large(file: Path, claim: str, most: int = MAX_VOXELS) -> FileError:
    bounds = f"MAX_PIXELS = {MAX_PIXELS} a slice and MAX_VOXELS = {MAX_VOXELS} in all (uqseg.data.formats)"
    if most < MAX_VOXELS:
        bounds = f"{most} numbers"
    return FileError(f"{file}: claims {claim}, expected at most {bounds}; cut it to what is needed")


def _bounded(file: Path, most: int, slices: int, height: int, width: int, channels: int = 1) -> None:
    """FileError where a header claims more than the bounds, or less than one pixel."""
    if min(slices, height, width, channels) < 1:
        raise FileError(f"{file}: expected at least one pixel, got {slices} × {height}×{width} × {channels}")
    if height * width > MAX_PIXELS or slices * height * width * channels > most:
        raise _too_large(file, f"{slices} × {height}×{width} × {channels} pixels", most)


def _reader(file: Path) -> Callable[[Path, Wanted], Volume]:
    """The function that reads the file's format."""
    try:
        if not file.is_file():  # a pipe would be waited for
            gone = file.is_symlink() and not file.exists()
            kind = "a folder" if file.is_dir() else "a link to nothing" if gone else "no file"
            raise FileError(f"cannot read {file}: is {kind}")
        with file.open("rb") as opened:
            head = opened.read(HEAD)
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror or error}") from error
    if not head:
        raise FileError(f"cannot read {file}: is empty")
    if head.startswith(POINTERS):
        raise FileError(f"cannot read {file}: is a pointer of Git LFS or git-annex; fetch what it stands for")
    if head.startswith(SIGNATURE):
        return _read_png
    if head.startswith(ARRAY):
        return _read_npy
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):  # the second is an archive of nothing
        return _read_npz
    if head[128:132] == b"DICM":
        return _read_dicom
    if head.startswith(b"NRRD"):
        return _read_nrrd
    if META_IMAGE.match(head):
        return _read_itk
    if head.startswith(b"\x1f\x8b") or _header_size(head) is not None:
        return _read_nifti
    if head.startswith(b"\0\0\0\1") and file.suffix.lower() == ".mgh":
        return _read_nibabel
    return _read_picture


# Pictures: Pillow.


def _open(file: Path, most: int = MAX_VOXELS) -> Image.Image:
    try:
        image = Image.open(file, formats=PICTURES)
    except UnidentifiedImageError as error:
        raise FileError(f"cannot read {file}: {_kind_of_tiff(file) or error}") from error
    _bounded(file, most, 1, image.height, image.width)
    return image


def _kind_of_tiff(file: Path) -> str:
    """What numbers a TIFF holds that Pillow does not read; "" for another file."""
    try:
        with file.open("rb") as opened:
            tags = TiffImagePlugin.ImageFileDirectory_v2(opened.read(8))
            opened.seek(tags.next)
            tags.load(opened)
        bits, kind = tags[BITS], SAMPLES[tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0]]
    except Exception:
        return ""
    return (
        f"is a TIFF of {len(bits)} channels of {bits[0]} bits ({kind} numbers), which is not read; save it with 8 or "
        f"16 bits, or as floating point of 32"
    )


def _count_frames(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _raw_mode(image: Image.Image) -> str:
    """How Pillow's decoder calls the numbers in the file, "" where it does not say."""
    tiles: Any = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "P" and image.format == "GIF":  # a GIF has a palette even where it is grey
        colours = np.array(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in (*GREY, "LA") or _raw_mode(image) == "LA;16B"


def _read_png(file: Path, wanted: Wanted) -> Volume:
    """A PNG whose checksums are right, which decoding alone leaves out."""
    data = file.read_bytes()
    place, kind = len(SIGNATURE), b""
    ends_early = "is no readable PNG, it ends too early; copy or save it anew"
    while kind != b"IEND":
        if len(data) < place + 8:
            raise ValueError(ends_early)
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + length
        if len(data) < end + 4:
            raise ValueError(ends_early)
        if struct.unpack_from(">I", data, end) != (zlib.crc32(memoryview(data)[place + 4 : end]),):
            raise ValueError(f"is no readable PNG, its part {kind!r} has a wrong checksum; save it anew")
        place = end + 4
    return _read_picture(file, wanted)


def _read_picture(file: Path, wanted: Wanted) -> Volume:
    with _open(file, wanted.most) as image:
        if image.format == "PPM" and (array := _read_pnm(file, wanted)) is not None:
            return Volume(array[None])
        frames = _count_frames(image)
        _bounded(file, wanted.most, frames, image.height, image.width)
        grey, arrays, tags = _is_grey(image), [], dict(getattr(image, "tag_v2", {}))
        for frame in range(frames):
            image.seek(frame)
            arrays.append(_read_frame(file, image, frame, grey, wanted))
    if any(array.shape != arrays[0].shape or array.dtype != arrays[0].dtype for array in arrays):
        raise FileError(f"{file}: expected pages of one size and kind, got {', '.join(str(a.shape) for a in arrays)}")
    notes: tuple[str, ...] = ()
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO and arrays[0].dtype.itemsize > 1:  # those of 8 bits Pillow turns
        notes = ("TIFF whose high values are dark (WhiteIsZero): values are kept as stored",)
    return Volume(np.stack(arrays) if frames > 1 else arrays[0][None], notes=notes)


def _read_frame(file: Path, image: Image.Image, frame: int, grey: bool, wanted: Wanted) -> NDArray[Any]:
    """One picture (H,W) or (H,W,3). grey: whether the first picture of the file is."""
    _bounded(file, wanted.most, 1, image.height, image.width)
    raw = _raw_mode(image)  # asking for EXIF decodes, after which it is gone
    if image.getexif().get(ORIENTATION, UPRIGHT) != UPRIGHT:
        raise FileError(f"{file}: is stored turned (EXIF orientation); save it upright")
    if image.mode == "P" and wanted.numbers:  # grey levels where the palette is grey
        colours = np.asarray(image.convert("RGB"))
        if (colours != colours[..., :1]).any():
            return np.asarray(image)
    if "transparency" in image.info:  # one grey, or some colours, stand for transparent
        if raw in ("L;2", "L;4") or ";16" in raw.removeprefix("I"):  # of which Pillow compares other numbers
            raise FileError(f"{file}: has a grey or colour that stands for transparent; save it without transparency")
        _opaque(file, np.asarray(image.convert("RGBA")))
    if image.mode in ("RGB", "RGBA") and ";16" in raw:
        return _opaque(file, _read_deep(file, frame, raw))
    if image.format == "JPEG2000":
        return _read_jpeg2000(file, image, wanted.numbers)
    if image.format == "SGI" and raw == "SGI16":
        raise FileError(f"{file}: SGI of 16 bits is not read; save it as PNG or TIFF")
    if image.mode in ("LA", "PA", "RGBA"):
        return _opaque(file, np.asarray(image if image.mode == "LA" else image.convert("RGBA")))
    if image.mode == "P" and wanted.numbers:
        return np.asarray(image.convert("RGB"))[..., 0]
    if raw in ("L;2", "L;4") and wanted.numbers:
        return _decode_as(file, frame, "P", raw.replace("L", "P"))
    if image.format == "GIF" and grey:  # pictures after the first have no palette
        return np.asarray(image.convert("L"))
    if image.mode not in GREY:
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    stored = getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, ())
    if image.mode == "L" and stored == (SIGNED,):  # Pillow reads both as if they were of the other sign
        return array.view(np.int8)
    if image.mode == "I" and stored in ((), (UNSIGNED,)) and raw.startswith("I;32") and image.format == "TIFF":
        return array.view(np.uint32)
    return array


def _opaque(file: Path, array: NDArray[Any]) -> NDArray[Any]:
    """A picture without its last channel, opacity. Raises FileError where it is transparent in places."""
    if array.shape[-1] in (2, 4):
        if (array[..., -1] != np.iinfo(array.dtype).max).any():
            raise FileError(f"{file}: is transparent in places; save it without transparency")
        array = array[..., :-1]
    return array[..., 0] if array.shape[-1] == 1 else array


def _read_deep(file: Path, frame: int, raw: str) -> NDArray[Any]:
    """A picture in colours of 16 bits, uint16 (H,W,C). Pillow knows only its higher bytes, so it is decoded twice: as
    if its numbers were stored in one order of bytes and in the other."""
    kind, _, order = raw.partition(";")
    if kind == "LA":  # has no second order, but each of its pixels has as many bytes as one of RGBA
        four = _decode_as(file, frame, "RGBA", "RGBA").astype(np.uint16)
        return four[..., 0::2] << 8 | four[..., 1::2]
    first = "B" if order == "16B" or (order == "16N" and sys.byteorder == "big") else "L"
    high, low = (_decode_as(file, frame, kind, f"{kind};16{end}") for end in (first, "L" if first == "B" else "B"))
    return high.astype(np.uint16) << 8 | low


def _decode_as(file: Path, frame: int, mode: str, raw: str) -> NDArray[np.uint8]:
    """A picture decoded into Pillow's `mode` as if it were stored as `raw`, which has as many bits."""
    with _open(file) as image:
        image.seek(frame)
        opened: Any = image
        opened._mode = mode
        opened.tile = [
            tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:])) for tile in opened.tile
        ]
        return np.asarray(image)


def _read_jpeg2000(file: Path, image: Image.Image, numbers: bool) -> NDArray[Any]:
    """Pillow moves the bits of each number to the top of 8 or 16; here they are moved back."""
    data = file.read_bytes()
    size = data.find(b"\xff\x4f\xff\x51")  # the header of the code stream: 42 bytes on, the depth of the first channel
    depth, signed = (data[size + 42] & 0x7F) + 1, data[size + 42] & 0x80
    if signed or (depth > 8 and image.mode not in GREY) or depth > 16:
        raise FileError(f"{file}: JPEG 2000 with signed numbers or colours of {depth} bits is not read; save it as PNG")
    if image.mode not in GREY:
        return _opaque(file, np.asarray(image if image.mode in ("LA", "RGBA") else image.convert("RGB")))
    array = np.asarray(image)
    if depth > 8:
        return array >> (16 - depth)
    if depth == 8:
        return array
    stored = array >> (8 - depth)
    return stored if numbers else (stored * (255 // (2**depth - 1))).astype(np.uint8)


def _read_pnm(file: Path, wanted: Wanted) -> NDArray[Any] | None:
    """A grey or colour map whose stored numbers Pillow would stretch to 8 or 16 bits; None where that is right."""
    data = file.read_bytes()
    header = PNM.match(data)
    if header is None:
        return None
    kind, width, height, top = (int(number) for number in header.groups())
    if not (top > 255 or wanted.numbers) or top > 65535:
        return None
    channels = 3 if kind in (3, 6) else 1
    _bounded(file, wanted.most, 1, height, width, channels)
    count, dtype = height * width * channels, np.uint16 if top > 255 else np.uint8
    if kind in (2, 3):
        words = re.sub(rb"#[^\n]*", b"", data[header.end() :]).split(None, count)
        values = np.array(words[:count], np.int64)
        if len(values) < count or values.min() < 0 or values.max() > top:
            raise ValueError(f"expected {count} numbers from 0 to {top}")
        array = values.astype(dtype)
    else:
        array = np.frombuffer(data, np.dtype(dtype).newbyteorder(">"), count, header.end()).astype(dtype)
    return array.reshape((height, width, 3) if channels == 3 else (height, width))


# Arrays: NumPy.


def _read_npy(file: Path, wanted: Wanted) -> Volume:
    stored = np.load(file, mmap_mode="r", allow_pickle=False)
    return _of_array(file, stored, wanted.most)


def _read_npz(file: Path, wanted: Wanted) -> Volume:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) != 1:
            raise FileError(f"{file}: expected one array, got {', '.join(m.filename for m in members) or 'none'}")
        if members[0].file_size > 8 * wanted.most + AT_ONCE:
            raise _too_large(file, f"{members[0].file_size} bytes", wanted.most)
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
    _bounded(file, most, *shape[:3], *shape[3:])
    # A copy: the file is closed again, and a short file is an error here rather than later.
    return Volume(np.array(stored).reshape(shape[:3] if shape[3:] == (1,) else shape))


# Volumes: nibabel, pydicom, SimpleITK, pynrrd.


def _header_size(head: bytes) -> int | None:
    """348 for a header of NIfTI-1 or Analyze, 540 for one of NIfTI-2; None for anything else."""
    return next((n for n in (348, 540) for order in ("little", "big") if head[:4] == n.to_bytes(4, order)), None)


def _read_nifti(file: Path, wanted: Wanted) -> Volume:
    return _of_nibabel(*_open_nifti(file, wanted.most))


def _open_nifti(file: Path, most: int) -> tuple[Any, Sequence[float]]:
    """nibabel's image of a file that is as long as its header says, and the sizes of its voxels."""
    import nibabel  # here: it takes about as long as opening a whole data set that needs no NIfTI

    with _unpacked(file) as stream:
        head = stream.read(HEAD)
        packed = isinstance(stream, gzip.GzipFile)
        if _header_size(head) is None and not (packed and head.startswith(b"\0\0\0\1")):
            raise ValueError("is no NIfTI file")
        if _header_size(head) is None or not _is_single(head):
            for count, _ in enumerate(iter(lambda: stream.read(AT_ONCE), b"")):  # to the end, where the checksum is
                if count * AT_ONCE > 8 * most:
                    raise _too_large(file, f"more than {count * AT_ONCE} bytes", most)
            return _open_nibabel(file, most)
        header = _header(head)
        size = _claimed(file, header, most)
        # To the end, where the checksum is; and no further than there can be something.
        data = head + stream.read(max(0, size - len(head)))
        if len(data) < size:
            raise ValueError(f"expected {size} bytes, got {len(data)}")
        if stream.read(AT_ONCE) and stream.read(1):
            raise ValueError("holds more than its header says")
    kind: Any = nibabel.Nifti2Image if _header_size(head) == 540 else nibabel.Nifti1Image
    return kind.from_bytes(data), header.get_zooms()


def _unpacked(file: Path) -> gzip.GzipFile | BufferedReader:
    with file.open("rb") as opened:
        packed = opened.read(2) == b"\x1f\x8b"
    return gzip.open(file) if packed else file.open("rb")


def _header(head: bytes) -> Any:
    """The header of a NIfTI file; a check would mend it without a word."""
    import nibabel

    kind: Any = nibabel.Nifti2Header if _header_size(head) == 540 else nibabel.Nifti1Header
    return kind(head[: _header_size(head)], check=False)


def _is_single(head: bytes) -> bool:
    return b"n+1" in head[344:348] or b"n+2" in head[4:8]


def _claimed(file: Path, header: Any, most: int) -> int:
    """How many bytes a file with this header has."""
    shape = header.get_data_shape()
    count = int(np.prod(shape, dtype=object))
    if not shape or min(shape) < 1 or count > most:
        raise _too_large(file, f"{' × '.join(map(str, shape))} voxels", most)
    return int(header.get_data_offset()) + count * int(header.get_data_dtype().itemsize)


def _read_nibabel(file: Path, wanted: Wanted) -> Volume:
    return _of_nibabel(*_open_nibabel(file, wanted.most))


def _open_nibabel(file: Path, most: int) -> tuple[Any, Sequence[float]]:
    import nibabel

    image: Any = nibabel.load(file)
    shape = image.shape
    if int(np.prod(shape, dtype=object)) > most:
        raise _too_large(file, f"{' × '.join(map(str, shape))} voxels", most)
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


def _read_dicom(file: Path, wanted: Wanted) -> Volume:
    import pydicom
    from pydicom.pixels.processing import apply_color_lut, apply_rescale

    data = pydicom.dcmread(file)
    frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
    _bounded(file, wanted.most, frames, int(data.Rows), int(data.Columns), samples)
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


def _read_nrrd(file: Path, wanted: Wanted) -> Volume:
    try:
        import nrrd
    except ImportError:
        return _read_itk(file, wanted)
    sizes = [int(size) for size in nrrd.read_header(str(file))["sizes"]]
    _bounded(file, wanted.most, 1, 1, 1, int(np.prod(sizes, dtype=object)))
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
    _bounded(file, wanted.most, *volume.shape[:3])
    return Volume(volume, (steps[1], steps[0]), affine)


def _read_itk(file: Path, wanted: Wanted) -> Volume:
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
    _bounded(file, wanted.most, size[2] if len(size) == 3 else 1, size[1], size[0], channels)
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
