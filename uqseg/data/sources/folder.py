"""folder: any images with the masks of any readers, as files in two folders.

images/<case>.<png|tif|jpg|bmp|pgm|npy|nii.gz>
readers/<reader>/<case>.<the same>     a reader without a file for a case has not read it;
                                       a file of zeros: read it and drew nothing
cases.csv       optional: case, and any of patient, split (train, val, test), spacing_x, spacing_y (mm);
                other columns are kept in the table
dataset.toml    optional, the keys of `Settings`; a key that is not there is an error
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from uqseg.data.annotated import sha256_of
from uqseg.data.cache import Content, Row
from uqseg.data.images import (
    EXTENSIONS,
    Decoded,
    binary,
    count_channels,
    crop_or_pad,
    eight_bits,
    read_pixels,
    stem,
    stream,
)
from uqseg.data.load import source
from uqseg.data.split import SPLITS, refuse_leaks, split_of
from uqseg.data.stamps import Stamp, stamps
from uqseg.errors import FileError, UsageError

KNOWN = ("case", "patient", "split", "spacing_x", "spacing_y")
INVERTED = 0.5  # share of marked pixels from which masks look inverted


class Settings(BaseModel):
    """What dataset.toml may say."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    invert: bool = Field(False, description="masks are 0 where the reader marked")
    mask_threshold: float | None = Field(
        None, description="marked where a mask is at least this; none: only 0/1 or 0/255 masks are taken"
    )
    fit: Literal["crop", "resize"] = Field(
        "crop", description="crop: centre crop or zero padding, nothing is stretched; resize: stretched to the square"
    )
    window: tuple[float, float] | None = Field(
        None, description="values shown as 0 and 255 of images of more than 8 bits; none: each image's own extremes"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Settings:
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"window: expected two ascending numbers, got {list(self.window)}")
        return self


class Case(NamedTuple):
    """One case: its name, its image, the mask of each reader (None: has not read it), spacing in mm (rows, columns)."""

    name: str
    image: Path
    masks: tuple[Path | None, ...]
    spacing: NDArray[np.float32]


def stamp(path: Path) -> list[Stamp]:
    images, readers = _files(path / "images"), [_files(reader) for reader in _folders(path / "readers")]
    if not images or not any(readers):
        raise UsageError(
            f"folder: expected images/<case>.<ext> and readers/<reader>/<case>.<ext> below '{path}', "
            f"with <ext> one of {', '.join(e[1:] for e in EXTENSIONS)}; put the files there."
        )
    extra = [f for f in (path / "cases.csv", path / "dataset.toml") if f.exists()]
    return stamps(path, [*images, *(f for files in readers for f in files), *extra])


@source("folder", "any images/<case>.<ext> and readers/<reader>/<case>.<ext>", stamp=stamp, readers_are_persons=True)
def read(path: Path, size: int) -> Content:
    """All cases of a folder as this module describes it, cropped or padded (or, if dataset.toml asks, resized).

    Cases are in the order of their names. Without cases.csv each case is a patient of its own; patients without a
    split are split 60/20/20 by name.
    Images of more than 8 bits are scaled to 8 bits by dataset.toml's window or by their own minimum and maximum.
    A case that cannot be used is left out and listed. Raises FileError for a cases.csv or dataset.toml that cannot be
    understood and for a patient in two splits, UsageError where there are no images or no readers.
    """
    settings = _settings(path / "dataset.toml")
    problems: list[str] = []
    images = _by_case(path, path / "images", problems)
    by_reader = {reader.name: _by_case(path, reader, problems) for reader in _folders(path / "readers")}
    by_reader = {name: masks for name, masks in by_reader.items() if masks}
    readers = list(by_reader.values())
    problems += [
        f"mask without an image: {file.relative_to(path)}"
        for masks in readers
        for case in sorted(masks.keys() - images.keys())
        for file in masks[case]
    ]
    names = _of_one_kind(path, images, _clear(path, images, readers, problems), problems)
    table = _table(path / "cases.csv", names, problems)
    spacing = table[["spacing_y", "spacing_x"]].to_numpy(np.float32)
    cases = [
        Case(name, images[name][0], tuple(masks[name][0] if name in masks else None for masks in readers), both)
        for name, both in zip(table["case"], spacing, strict=True)
    ]
    rows = _rows(path, cases, settings, size, problems)
    return Content(table.drop(columns=["spacing_y", "spacing_x"]), rows, problems, list(by_reader))


def _folders(path: Path) -> list[Path]:
    return sorted(d for d in path.iterdir() if d.is_dir() and not d.name.startswith(".")) if path.is_dir() else []


def _files(path: Path) -> list[Path]:
    return sorted(f for f in path.iterdir() if f.is_file() and not f.name.startswith(".")) if path.is_dir() else []


def _settings(file: Path) -> Settings:
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        return Settings.model_validate(tomllib.loads(text))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'dataset'}: {e['msg']}" for e in error.errors())
        raise FileError(f"{file}: {wrong}; the keys are {', '.join(Settings.model_fields)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FileError(f"cannot read {file}: {error}; write it as TOML or remove it") from error


def _by_case(root: Path, directory: Path, problems: list[str]) -> dict[str, list[Path]]:
    """The files of each case; one that is not an image by its name is listed."""
    by_case: dict[str, list[Path]] = {}
    for file in _files(directory):
        case, extension = stem(file.name)
        if extension:
            by_case.setdefault(case, []).append(file)
        else:
            problems.append(f"not an image by its name, left out: {file.relative_to(root)}")
    problems += [f"folder not looked into: {d.relative_to(root)}" for d in _folders(directory)]
    if not by_case:
        problems.append(f"no file in {directory.relative_to(root)}")
    return by_case


def _clear(
    root: Path, images: dict[str, list[Path]], readers: list[dict[str, list[Path]]], problems: list[str]
) -> list[str]:
    """The cases with one image, at most one mask a reader, and at least one reader; the others are listed."""
    names = []
    for case, files in sorted(images.items()):
        masks = [masks[case] for masks in readers if case in masks]
        doubled = [files for files in (files, *masks) if len(files) > 1]
        for several in doubled:
            names_ = " and ".join(str(f.relative_to(root)) for f in several)
            problems.append(f"left out: several files for one case, {names_}; keep one")
        if not masks:
            problems.append(f"left out: no reader has read {files[0].relative_to(root)}")
        if masks and not doubled:
            names.append(case)
    return names


def _of_one_kind(root: Path, images: dict[str, list[Path]], names: list[str], problems: list[str]) -> list[str]:
    """The cases that are all grey or all in colours, whichever are more; the others are listed."""
    kinds: dict[str, int] = {}
    for name in names:
        try:
            kinds[name] = count_channels(images[name][0])
        except FileError as error:
            problems.append(f"left out: {error}".replace(f"{root}/", ""))
    counts = Counter(kinds.values())
    most = max(counts, key=lambda channels: (counts[channels], -channels), default=1)
    problems += [
        f"left out: {images[name][0].relative_to(root)}: {channels} channels where {counts[most]} images have {most}"
        for name, channels in kinds.items()
        if channels != most
    ]
    return [name for name, channels in kinds.items() if channels == most]


def _table(file: Path, names: list[str], problems: list[str]) -> pd.DataFrame:
    """case, patient, split, spacing_x, spacing_y (NaN where unknown) and cases.csv's other columns for these cases."""
    known = _read_csv(file) if file.exists() else pd.DataFrame({"case": pd.Series([], dtype=str)})
    unknown = sorted(set(known["case"]) - set(names))
    problems += [f"cases.csv: case '{case}' has no usable image" for case in unknown]
    table: pd.DataFrame = pd.DataFrame({"case": pd.Series(names, dtype=str)}).merge(known, on="case", how="left")
    if "patient" in table:
        nobody = table["patient"].fillna("") == ""
        problems += [f"left out: case '{case}' has no patient in cases.csv" for case in table.loc[nobody, "case"]]
        table = table[~nobody].reset_index(drop=True)
    else:
        table["patient"] = table["case"]
    given = table["split"].fillna("") if "split" in table else pd.Series("", index=table.index, dtype=str)
    # A case without a split goes where its patient's other cases are.
    of_patient = {p: s for p, s in zip(table["patient"], given, strict=True) if s}
    table["split"] = [s or of_patient.get(p) or split_of(p) for p, s in zip(table["patient"], given, strict=True)]
    refuse_leaks(table, str(file))
    for axis in ("spacing_x", "spacing_y"):
        table[axis] = table[axis].astype(float) if axis in table else np.nan
    order = [*(c for c in ("patient", "case", "split") if c in table), *(c for c in table if c not in KNOWN[:3])]
    return table.loc[:, order]


def _read_csv(file: Path) -> pd.DataFrame:
    """cases.csv, checked: text, except numbers in spacing and in columns of nothing but numbers."""
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {file}: {' '.join(str(error).split())}; write it as CSV in UTF-8") from error
    table.columns = table.columns.str.strip()
    if "case" not in table or not table.columns.is_unique:
        raise FileError(f"{file}: expected a column case and each column once, got {', '.join(table.columns)}")
    for column in table.columns:
        table[column] = table[column].str.strip()
    if doubled := sorted(set(table["case"][table["case"].duplicated()])):
        raise FileError(f"{file}: expected one line a case, got several for {', '.join(doubled[:10])}; keep one each")
    if "split" in table and (wrong := sorted(set(table["split"]) - {"", *SPLITS})):
        raise FileError(f"{file}: split: expected train, val, test or nothing, got {', '.join(wrong[:10])}")
    for column in table.columns.difference(["case", "patient", "split"]):
        numbers = pd.to_numeric(table[column].replace("", "nan"), errors="coerce")
        text = numbers.isna() & ~table[column].str.lower().isin(["", "nan"])
        if column in KNOWN and (text.any() or (numbers <= 0).any() or np.isinf(numbers).any()):
            line = int(np.flatnonzero(text | (numbers <= 0) | np.isinf(numbers))[0])
            raise FileError(
                f"{file}: {column}: expected mm above 0 or nothing, got '{table[column].iloc[line]}' "
                f"for case '{table['case'].iloc[line]}'"
            )
        if not text.any():
            table[column] = numbers
    return table


def _rows(root: Path, cases: list[Case], settings: Settings, size: int, problems: list[str]) -> Iterator[Row | None]:
    """The row of each case, and at the end what many cases have in common."""
    tally: dict[str, list[str]] = {}

    def decode(case: Case) -> Decoded:
        return _decode(case, settings, size, lambda text: tally.setdefault(text, []).append(case.name))

    yield from stream(cases, decode, lambda case: case.name, root, problems)
    problems += [f"{len(names)} cases ({min(names)}, …): {text}" for text, names in sorted(tally.items())]


def _decode(case: Case, settings: Settings, size: int, warn: Callable[[str], None]) -> Decoded:
    pixels = read_pixels(case.image, colours=True)
    image = pixels.array if pixels.array.ndim == 3 else pixels.array[..., None]
    grey = _eight_bits(image, case.image, settings, warn)
    shape = grey.shape[:2]
    masks = np.zeros((len(case.masks), size, size), bool)
    read = np.array([file is not None for file in case.masks])
    drawn, kept, share = 0, 0, 0.0
    for r, file in enumerate(case.masks):
        if file is None:
            continue
        mask = _mask(file, settings)
        if mask.shape != shape:
            raise FileError(f"{file}: expected {_by(shape)} like its image, got {_by(mask.shape)}")
        masks[r] = _fitted(mask, size, settings)
        drawn, kept = drawn + int(mask.sum()), kept + int(masks[r].sum())
        share = max(share, float(mask.mean()))
    if settings.fit == "crop" and kept < drawn:
        warn(f"marked pixels lie outside the centre {size}×{size}; ask for a larger size or set fit in dataset.toml")
    if share > INVERTED:
        warn("a mask marks most of the image; if that is the background, set invert in dataset.toml")
    known = np.where(np.isnan(case.spacing), pixels.spacing, case.spacing)
    if settings.fit == "resize":
        known = known * np.array(shape) / size
    row = Row(np.moveaxis(_fitted(grey, size, settings), -1, 0), masks, read, known.astype(np.float32))
    return Decoded(row, sha256_of(image), [])


def _by(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}×{shape[1]}"


def _mask(file: Path, settings: Settings) -> NDArray[np.bool_]:
    """Where a reader marked, before any crop: what is padded afterwards is never marked, inverted or not."""
    array = read_pixels(file).array
    if settings.mask_threshold is not None:
        array = array >= settings.mask_threshold
    return binary(array, str(file)) ^ settings.invert


def _eight_bits(image: NDArray[Any], file: Path, settings: Settings, warn: Callable[[str], None]) -> NDArray[np.uint8]:
    """An image (H,W,C) in 8 bits: as it is, or scaled by the window or from its own minimum to its own maximum."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * 255
    values = image.astype(np.float64)
    if not np.isfinite(values).all():
        raise FileError(f"{file}: expected finite numbers, got NaN or infinity")
    if settings.window is None:
        warn("more than 8 bits, each scaled from its own minimum to its own maximum; set window in dataset.toml")
    return eight_bits(values, *(settings.window or (values.min(), values.max())))


def _fitted(array: NDArray[Any], size: int, settings: Settings) -> NDArray[Any]:
    """An array (H,W,...) as size×size: cropped and padded, or stretched; a stretched mask keeps its values."""
    if settings.fit == "crop":
        return crop_or_pad(array, size)
    kind = Image.Resampling.NEAREST if array.dtype == np.bool_ else Image.Resampling.BILINEAR
    stored = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    stretched = np.asarray(Image.fromarray(stored).resize((size, size), kind))
    return stretched.reshape(size, size, *array.shape[2:]).astype(array.dtype)
