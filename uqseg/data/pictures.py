"""Pictures: the numbers that Pillow decodes, as they are stored and not as they are shown."""

from __future__ import annotations

import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from uqseg.data.volume import MAX_VOXELS, Volume, Wanted, bounded
from uqseg.errors import FileError

# All that Pillow decodes by itself and without loss of depth; some others of its formats start programs (EPS).
PICTURES = ("PNG", "TIFF", "JPEG", "JPEG2000", "BMP", "DIB", "GIF", "WEBP", "PPM", "TGA", "PCX", "SGI", "QOI")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of one channel
UPRIGHT, ORIENTATION = 1, 274  # the EXIF tag of a picture that a viewer would turn
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0  # the TIFF tag of what numbers look like
BITS = 258  # the TIFF tag of each channel's
SAMPLE_FORMAT, UNSIGNED, SIGNED = 339, 1, 2  # the TIFF tag of how numbers are stored
SAMPLES = {UNSIGNED: "whole", SIGNED: "signed whole", 3: "floating-point"}
PNM = re.compile(rb"P([2356])" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")


def open_picture(file: Path, most: int = MAX_VOXELS) -> Image.Image:
    """The file as Pillow opens it, nothing decoded yet. FileError where it does not, or the header claims too much."""
    try:
        image = Image.open(file, formats=PICTURES)
    except UnidentifiedImageError as error:
        raise FileError(f"cannot read {file}: {_kind_of_tiff(file) or error}") from error
    bounded(file, most, 1, image.height, image.width)
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


def count_frames(image: Image.Image) -> int:
    """How many pictures the file holds."""
    return int(getattr(image, "n_frames", 1))


def _raw_mode(image: Image.Image) -> str:
    """How Pillow's decoder calls the numbers in the file, "" where it does not say."""
    tiles: Any = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def is_grey(image: Image.Image) -> bool:
    """Whether the picture has one channel, opacity aside, or a palette of a GIF's greys."""
    if image.mode == "P" and image.format == "GIF":  # a GIF has a palette even where it is grey
        colours = np.array(image.getpalette() or [0, 0, 0]).reshape(-1, 3)
        return bool((colours == colours[:, :1]).all())
    return image.mode in (*GREY, "LA") or _raw_mode(image) == "LA;16B"


def read_png(file: Path, wanted: Wanted) -> Volume:
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
    return read_pillow(file, wanted)


def read_pillow(file: Path, wanted: Wanted) -> Volume:
    """All pictures of a file that Pillow decodes, as slices of one size and kind."""
    with open_picture(file, wanted.most) as image:
        if image.format == "PPM" and (array := _read_pnm(file, wanted)) is not None:
            return Volume(array[None])
        frames = count_frames(image)
        bounded(file, wanted.most, frames, image.height, image.width)
        grey, arrays, tags = is_grey(image), [], dict(getattr(image, "tag_v2", {}))
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
    bounded(file, wanted.most, 1, image.height, image.width)
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
    with open_picture(file) as image:
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
    bounded(file, wanted.most, 1, height, width, channels)
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
