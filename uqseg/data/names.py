"""Names of files: which are passed over, what case one stands for, and how one is written down."""

from __future__ import annotations

import unicodedata

VOLUMES = (".nii.gz", ".nii", ".hdr", ".mgh", ".mgz", ".nrrd", ".nhdr", ".mha", ".mhd", ".dcm", ".dicom", ".ima")
PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".webp", ".tga", ".pcx")
FURTHER = (".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".sgi", ".qoi")
EXTENSIONS = (*VOLUMES, ".npy", ".npz", *PICTURES, *FURTHER)
COMPANIONS = {".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz"), ".hdr": (".img", ".img.gz")}
LEFT_BY_SYSTEMS = {"thumbs.db", "desktop.ini", "@eadir", "__macosx"}


def ignored(name: str) -> bool:
    """Whether a file or folder is none of the user's: hidden, or left there by a file system or an archive program."""
    return name.startswith(".") or name.lower() in LEFT_BY_SYSTEMS


def stem(name: str) -> tuple[str, str]:
    """A file name without its extension, and that extension in lower case; ("name", "") for one that is not read."""
    for extension in EXTENSIONS:
        if name.lower().endswith(extension) and len(name) > len(extension):
            return name[: -len(extension)], extension
    return name, ""


def printable(text: str) -> str:
    """Text that can be printed and stored: bytes of a file name that are no UTF-8 are written as \\udce9."""
    return text.encode("utf-8", "backslashreplace").decode()


def plain(name: str) -> str:
    """A name as it is compared and stored: printable, and an accented letter always the same one character (NFC)."""
    return unicodedata.normalize("NFC", printable(name))
