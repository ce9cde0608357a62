"""Decoding: one image file of a folder with the masks of its readers, as cases of one size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from uqseg.data.annotated import sha256_of
from uqseg.data.cache import Row
from uqseg.data.datasetfile import Settings
from uqseg.data.formats import read_volume
from uqseg.data.images import Decoded, aligned, binary, crop_or_pad, eight_bits, shrunk
from uqseg.data.volume import Volume
from uqseg.errors import FileError

INVERTED = 0.5  # share of marked pixels from which masks look inverted
OUTSIDE = 0.5  # share of a lesion's pixels beyond the crop from which on it is lost
GEOMETRY = ("original_height", "original_width", "fit", "window", "affine")
REMEDY = "set mask_threshold, or label and ignore, in dataset.toml"


class Files(NamedTuple):
    """One image file and what belongs to it.

    name:    of the case; of its slices: name_z000 and on
    masks:   the files of each reader: none where a reader has not read it, one, or too many
    cases:   the names of its slices' cases; places: the slices; spacing: mm (N,2: rows, columns), NaN where cases.csv
             says nothing
    weight:  about how many bytes decoding it takes
    """

    name: str
    image: Path
    masks: tuple[tuple[Path, ...], ...]
    cases: tuple[str, ...]
    places: list[int]
    spacing: NDArray[np.float32]
    weight: int


class Notes:
    """What is odd about many cases: lines of text with the cases or masks that they are about. Threads add to it.

    lesions: of each case with marked pixels, whether fitting loses more than OUTSIDE of them; sides: of the images;
    geometry: GEOMETRY of each case
    """

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], list[str]] = {}
        self.lesions: list[bool] = []
        self.sides: set[int] = set()
        self.geometry: dict[str, tuple[float, float, str | None, str | None, str | None]] = {}

    def add(self, text: str, name: str, unit: str = "cases") -> None:
        """Note `text` of the case or mask called `name`."""
        self.names.setdefault((text, unit), []).append(name)

    def lines(self) -> list[str]:
        """A line for each text: how many it is about, and the first of them by name."""
        return [f"{len(n)} {unit} ({min(n)}, …): {text}" for (text, unit), n in sorted(self.names.items())]


def decode(files: Files, readers: list[str], settings: Settings, size: int, notes: Notes) -> list[Decoded]:
    """The cases of one image file, in the order of its slices."""
    problems: list[str] = []
    masks: list[NDArray[np.bool_] | None] = []
    readings = sum(map(bool, files.masks))
    try:
        image = read_volume(files.image)
        if max(files.places) >= len(image.array):
            raise FileError(f"{files.image}: has changed while it was read; load again")
        low, high = _range(image.array, files, settings, notes)
        for reader, several in zip(readers, files.masks, strict=True):
            masks.append(None)
            try:
                if several:
                    masks[-1] = _mask(several, image, settings, f"{files.name} by {reader}", notes)
            except FileError as error:
                problems.append(f"reading lost: {files.name}, reader {reader}: {error}")
        if len(problems) == readings:
            raise FileError(f"{files.image}: no reading is left")
    except FileError as error:
        left_out = Decoded(files.name, None, problems=[*problems, f"left out: {error}"], lost=readings)
        return [left_out, *(left_out._replace(problems=()) for _ in files.cases[1:])]
    decoded, lost = [], len(problems)
    for case, place, spacing in zip(files.cases, files.places, files.spacing, strict=True):
        grey = image.array[place] if low is None else eight_bits(image.array[place].astype(np.float64), low, high)
        drawn = [None if mask is None else mask[place] for mask in masks]
        if low is not None and grey.min() == grey.max():
            notes.add("all pixels look alike" + ("; look at window in dataset.toml" if settings.window else ""), case)
        row = Row(
            np.moveaxis(_fitted(grey[..., None] if grey.ndim == 2 else grey, size, settings), -1, 0),
            _fit_masks(drawn, case, readers, size, settings, notes),
            np.array([mask is not None for mask in drawn]),
            _spacing(image, spacing, size, settings),
        )
        affine = None if image.affine is None or len(image.array) > 1 else json.dumps(image.affine.tolist())
        window = None if low is None else json.dumps([low, high] if settings.window else "own")
        notes.geometry[case] = (*image.array.shape[1:3], settings.fit, window, affine)
        decoded.append(Decoded(case, row, sha256_of(image.array[place]), problems, lost))
        problems = []
        unscaled = (image.unscaled,) if image.unscaled and np.isnan(row.spacing).any() else ()
        for note in (*image.notes, *unscaled):
            notes.add(note, case)
    return decoded


def _spacing(image: Volume, known: NDArray[np.float32], size: int, settings: Settings) -> NDArray[np.float32]:
    """mm (rows, columns) of a case: of cases.csv, else of the file; of the stretched image where it is stretched."""
    spacing = np.where(np.isnan(known), image.spacing, known)
    if settings.fit == "resize":
        spacing = spacing * np.array(image.array.shape[1:3]) / size
    with np.errstate(over="ignore"):
        return spacing.astype(np.float32)


def _mask(several: tuple[Path, ...], image: Volume, settings: Settings, name: str, notes: Notes) -> NDArray[np.bool_]:
    """Where a reader marked, (Z,H,W), before any crop: what is padded afterwards is never marked, inverted or not."""
    file = several[0]
    if len(several) > 1:
        raise FileError(f"several files for one case, {' and '.join(map(str, several))}; keep one")
    numbers = settings.label is not None or settings.ignore is not None
    volume = read_volume(file, numbers=numbers)
    array = aligned(volume, image, str(file))
    if (volume.affine is None) != (image.affine is None) and (reason := volume.unplaced or image.unplaced):
        notes.add(f"{reason} where image or mask has one: taken to lie alike", name, "masks")
    if array.shape[:3] != image.array.shape[:3]:
        raise FileError(f"{file}: expected {_by(image.array.shape)} like its image, got {_by(array.shape)}")
    if array.dtype.kind == "f" and settings.ignore is None and not np.isfinite(array).all():
        raise FileError(f"{file}: expected finite numbers, got NaN or infinity")
    void = np.zeros(array.shape, bool) if settings.ignore is None else array == settings.ignore
    array = np.where(void, array.dtype.type(0), array)
    if settings.label is not None:
        array = array == settings.label
    elif settings.mask_threshold is not None:
        array = array >= settings.mask_threshold
    marked = binary(array, str(file), REMEDY, colours=array.ndim == 4) ^ settings.invert
    return marked & ~(void.all(-1) if void.ndim == 4 else void)


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape[1:3] if shape[0] == 1 else shape[:3]))


def _range(array: NDArray[Any], files: Files, settings: Settings, notes: Notes) -> tuple[float | None, float]:
    """The numbers that become 0 and 255; None for a file of 8 bits, which stay as they are."""
    if array.dtype == np.uint8:
        if settings.window is not None:
            notes.add("8 bits, to which the window of dataset.toml is not applied", files.name)
        return None, 255.0
    if array.dtype == np.bool_:
        return 0.0, 1.0
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all() or high - low == np.inf:
        raise FileError(f"{files.image}: expected finite numbers, got NaN or infinity")
    if settings.window is not None:
        return settings.window
    notes.add(
        "more than 8 bits, each scaled from its own minimum to its own maximum; set window in dataset.toml",
        files.name,
    )
    return low, high


def _fit_masks(
    drawn: list[NDArray[np.bool_] | None], case: str, readers: list[str], size: int, settings: Settings, notes: Notes
) -> NDArray[np.bool_]:
    """The readers' masks bool (R,size,size); what fitting does to them, and what looks wrong, is noted."""
    masks = np.zeros((len(drawn), size, size), bool)
    before = after = 0
    share = 0.0
    for r, mask in enumerate(drawn):
        if mask is None:
            continue
        masks[r] = _fitted(mask, size, settings)
        marked, kept = int(mask.sum()), int(masks[r].sum())
        before, after, share = before + marked, after + kept, max(share, marked / mask.size)
        if marked and not kept:
            notes.add(f"marked something, and nothing in the centre {size}×{size}", f"{case} by {readers[r]}", "masks")
        if settings.fit == "resize" and kept == 1 and marked * size**2 < mask.size / 2:
            notes.add(
                f"too small for {size}×{size} pixels, kept as their best-covered pixel; ask for a larger size",
                f"{case} by {readers[r]}",
                "masks",
            )
        notes.sides.update(mask.shape)
    if settings.fit == "crop" and after < before:
        notes.add(
            f"marked pixels lie outside the centre {size}×{size}; ask for a larger size or set fit in dataset.toml",
            case,
        )
    if share > INVERTED:
        notes.add("a mask marks most of the image; if that is the background, set invert in dataset.toml", case)
    if before:
        notes.lesions.append(settings.fit == "crop" and after < before * (1 - OUTSIDE))
    return masks


def _fitted(array: NDArray[Any], size: int, settings: Settings) -> NDArray[Any]:
    """An array (H,W,...) as size×size: cropped and padded, or stretched; a stretched mask goes by the area covered."""
    if settings.fit == "crop":
        return crop_or_pad(array, size)
    if array.dtype == np.bool_:
        return shrunk(array, size)
    stored = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    stretched = np.asarray(Image.fromarray(stored).resize((size, size), Image.Resampling.BILINEAR))
    return stretched.reshape(size, size, *array.shape[2:]).astype(array.dtype)
