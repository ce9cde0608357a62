"""folder: any images with the masks of any readers, as files in two folders.

images/<case>.<png, tif, jpg, nii.gz, npy, dcm, ...: see `EXTENSIONS`>
readers/<reader>/<case>.<the same>     a reader without a file for a case has not read it;
                                       a file of zeros: read it and drew nothing
cases.csv       optional: case, and any of patient, split (train, val, test), spacing_x, spacing_y (mm);
                other columns are kept in the table
dataset.toml    optional, the keys of `uqseg.data.datasetfile.Settings`; a key that is not there is an error
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from uqseg.data.cache import Content, Lost, Row
from uqseg.data.casefile import COLUMNS, alike, read_cases, shared_beginnings
from uqseg.data.datasetfile import Settings, read_settings
from uqseg.data.decoding import GEOMETRY, Files, Notes, decode
from uqseg.data.formats import Outline, is_dicom, outline
from uqseg.data.images import or_channels, stream
from uqseg.data.load import SIZES, source
from uqseg.data.names import COMPANIONS, EXTENSIONS, ignored, plain, stem
from uqseg.data.split import refuse_leaks, split_of
from uqseg.data.stamps import Stamp, stamps
from uqseg.errors import FileError, UsageError

FILE, LINE = " file", " line"  # columns that cases.csv cannot have: its names begin with no blank


def stamp(path: Path) -> list[Stamp]:
    """Names, sizes and times of the images, the readers' masks, cases.csv and dataset.toml."""
    images, readers = _entries(path / "images"), [_listed(reader) or [reader] for reader in _readers(path).values()]
    if not images or not readers:
        raise UsageError(
            f"folder: expected images/<case>.<ext> and readers/<reader>/<case>.<ext> below '{path}', "
            f"with <ext> one of {', '.join(e[1:] for e in EXTENSIONS)}; put the files there."
        )
    extra = [file for name in ("cases.csv", "dataset.toml") if (file := _named(path, name)) is not None]
    return stamps(path, [*images, *(f for files in readers for f in files), *extra])


@source(
    "folder",
    "any images/<case>.<ext> and readers/<reader>/<case>.<ext>",
    stamp=stamp,
    version=4,
    readers_are_persons=True,
)
def read(path: Path, size: int) -> Content:
    """All cases of a folder as this module describes it, cropped or padded (or, if dataset.toml asks, resized).

    Cases are in the order of their names. Without cases.csv each image is a patient of its own; patients without a
    split are split 60/20/20 by name.
    Images of more than 8 bits are scaled to 8 bits by dataset.toml's window or by their file's minimum and maximum.
    A mask that cannot be used takes away that reading; an image that cannot, or no reading left, the case; both are
    listed. Raises FileError for a cases.csv or dataset.toml that cannot be understood, for a patient in two splits, and
    where the crop loses most lesions unasked; UsageError where there are no images or no readers.
    """
    settings = read_settings(_named(path, "dataset.toml"))
    problems: list[str] = []
    lost = Lost()
    images = _by_case(path, path / "images", problems)
    by_reader = {}
    for name, folder in _readers(path).items():
        # A folder that cannot be read may have held a mask of every image.
        unreadable = _listed(folder) is None
        masks = {name_: [folder] for name_ in images} if unreadable else _by_case(path, folder, problems)
        if masks:
            by_reader[name] = masks
    problems += [f"taken as different readers: {names}" for names in alike(by_reader)]
    readers = list(by_reader.values())
    problems += [f"not a reader's folder: {f.relative_to(path)}" for f in _entries(path / "readers") if f.is_file()]
    problems += [
        f"mask without an image: {file.relative_to(path)}"
        for masks in readers
        for case in sorted(masks.keys() - images.keys())
        for file in masks[case]
    ]
    usable = _usable(path, images, readers, settings, problems, lost)
    slices = {name: _cases_of(name, shape) for name, shape in usable.items()}
    table = _table(_named(path, "cases.csv"), slices, problems)
    everything = []
    for key, part in table.groupby(FILE, sort=False):
        name = str(key)
        of_readers = tuple(tuple(masks.get(name, ())) for masks in readers)
        places = [slices[name].index(case) for case in part["case"]]
        spacing = part[["spacing_y", "spacing_x"]].to_numpy(np.float32)
        shape = usable[name]
        # Numbers of the image and of a mask of up to 8 bytes, what readers marked, and the rows that come of it.
        weight = shape.slices * shape.pixels * (16 * shape.channels + len(readers))
        weight += len(part) * size**2 * (shape.channels + len(readers))
        everything.append(Files(name, images[name][0], of_readers, tuple(part["case"]), places, spacing, weight))
    table = table.drop(columns=[FILE, "spacing_y", "spacing_x"])
    rows = _rows(path, everything, list(by_reader), settings, size, table, problems, lost)
    return Content(table, rows, problems, list(by_reader), lost)


def _entries(folder: Path) -> list[Path]:
    """The user's files and folders in a folder, by name, links to nothing included. FileError if it cannot be read."""
    try:
        if not folder.exists() and not folder.is_symlink():
            return []
        return sorted(f for f in folder.iterdir() if not ignored(f.name))
    except OSError as error:
        raise FileError(f"cannot read {folder}: {error.strerror}; mend it or remove it") from error


def _listed(reader: Path) -> list[Path] | None:
    """What is in a reader's folder, None where that cannot be read."""
    try:
        return _entries(reader)
    except FileError:
        return None


def _readers(path: Path) -> dict[str, Path]:
    """The folder of each reader, by the reader's name."""
    folders: dict[str, Path] = {}
    for entry in _entries(path / "readers"):
        is_folder = entry.is_dir() or not entry.exists()  # a link to nothing stands for a folder
        if is_folder and folders.setdefault(plain(entry.name), entry) != entry:
            raise FileError(f"{entry}: expected one folder for the reader {plain(entry.name)}; put both into one")
    return folders


def _named(path: Path, name: str) -> Path | None:
    """The file of this name, in capitals or not."""
    files = [entry for entry in _entries(path) if entry.name.lower() == name]
    if len(files) > 1:
        raise FileError(f"{path}: expected one {name}, got {' and '.join(f.name for f in files)}; keep one")
    return files[0] if files else None


def _by_case(root: Path, directory: Path, problems: list[str]) -> dict[str, list[Path]]:
    """The files of each case; one that is not an image by its name is listed."""
    by_case: dict[str, list[Path]] = {}
    entries = _entries(directory)
    stems = [stem(entry.name) for entry in entries]
    companions = {name + ending for name, extension in stems for ending in COMPANIONS.get(extension, ())}
    for file, (name, extension) in zip(entries, stems, strict=True):
        if extension or is_dicom(file):
            by_case.setdefault(plain(name), []).append(file)
        elif file.is_dir():
            problems.append(f"folder not looked into: {file.relative_to(root)}")
        elif file.name not in companions:
            problems.append(f"not an image by its name, left out: {file.relative_to(root)}")
    if not by_case:
        problems.append(f"no file in {directory.relative_to(root)}")
    return by_case


def _usable(
    root: Path,
    images: dict[str, list[Path]],
    readers: list[dict[str, list[Path]]],
    settings: Settings,
    problems: list[str],
    lost: Lost,
) -> dict[str, Outline]:
    """The image files that can be used, by their names. The others are listed.

    All are grey or all in colours, whichever are more.
    """
    shapes: dict[str, Outline] = {}
    for name, files in sorted(images.items()):
        readings = sum(name in masks for masks in readers)
        try:
            if len(files) > 1:
                raise FileError(f"several files for one case, {' and '.join(map(str, files))}; keep one")
            if not readings:
                problems.append(f"left out: no reader has read {files[0].relative_to(root)}")
                continue
            shape = outline(files[0])
            if shape.slices > 1 and not settings.slices:
                raise FileError(
                    f"{files[0]}: expected one picture, got {shape.slices} slices; set slices = true in dataset.toml "
                    f"to use each as a case of this patient{or_channels(shape.slices)}"
                )
            shapes[name] = shape
        except FileError as error:
            lost.left_out += readings
            problems.append(f"left out: {error}".replace(f"{root}{os.sep}", ""))
    counts = Counter(shape.channels for shape in shapes.values())
    most = max(counts, key=lambda channels: (counts[channels], -channels), default=1)
    problems += [
        f"left out: {images[name][0].relative_to(root)}: {shape.channels} channels where {counts[most]} images have "
        f"{most}"
        for name, shape in shapes.items()
        if shape.channels != most
    ]
    return {name: shape for name, shape in shapes.items() if shape.channels == most}


def _cases_of(name: str, shape: Outline) -> list[str]:
    """The cases of an image file: its name, or its slices' names."""
    return [name] if shape.slices == 1 else [f"{name}_z{k:03d}" for k in range(shape.slices)]


def _table(file: Path | None, slices: dict[str, list[str]], problems: list[str]) -> pd.DataFrame:
    """case, patient, split, spacing_x, spacing_y (NaN where unknown), cases.csv's other columns, and the image file.

    cases.csv may name a case or, for all of its slices, a file, with or without its extension.
    """
    own = pd.DataFrame(
        [(case, name) for name, cases in slices.items() for case in cases], columns=pd.Index(["case", FILE])
    )
    known = read_cases(file) if file is not None else pd.DataFrame({"case": pd.Series([], dtype=str)})
    if taken := sorted(set(GEOMETRY) & set(known)):
        raise FileError(
            f"{file}: {', '.join(taken)}: is for what loading says of an image; give the column another name"
        )
    names = {*own["case"], *own[FILE]}
    known["case"] = [case if case in names else stem(case)[0] for case in known["case"]]
    if (doubled := known["case"].duplicated()).any():
        raise FileError(
            f"{file}: expected one line for each case, got several for {known['case'][doubled].iloc[0]}; keep one"
        )
    problems += [f"cases.csv: case '{case}' has no usable image" for case in sorted(set(known["case"]) - names)]
    given = set(known["case"])
    own[LINE] = [case if case in given else name for case, name in zip(own["case"], own[FILE], strict=True)]
    table = own.merge(known.rename(columns={"case": LINE}), on=LINE, how="left").drop(columns=LINE)
    if "patient" in table:
        nobody = table["patient"].fillna("") == ""
        problems += [f"left out: case '{case}' has no patient in cases.csv" for case in table.loc[nobody, "case"]]
        table = table[~nobody].reset_index(drop=True)
        problems += [f"taken as different patients: {names}" for names in alike(table["patient"])]
    else:
        table["patient"] = table[FILE]
        if groups := shared_beginnings(slices):
            most = max(groups, key=lambda beginning: len(groups[beginning]))
            problems.insert(
                0,
                f"EVERY IMAGE COUNTS AS A PATIENT OF ITS OWN, though names begin alike ({len(groups[most])} with "
                f"'{most}'): images of one patient may lie in several splits; `uqseg data folder:… --write-cases` "
                f"writes the cases.csv to fill in",
            )
    splits = table["split"].fillna("") if "split" in table else pd.Series("", index=table.index, dtype=str)
    # A case without a split goes where its patient's other cases are.
    of_patient = {p: s for p, s in zip(table["patient"], splits, strict=True) if s}
    table["split"] = [s or of_patient.get(p) or split_of(p) for p, s in zip(table["patient"], splits, strict=True)]
    refuse_leaks(table, str(file))
    for axis in ("spacing_x", "spacing_y"):
        table[axis] = table[axis].astype(float) if axis in table else np.nan
    order = [*(c for c in ("patient", "case", "split") if c in table), *(c for c in table if c not in COLUMNS[:3])]
    return table.loc[:, order]


def _rows(
    root: Path,
    everything: list[Files],
    readers: list[str],
    settings: Settings,
    size: int,
    table: pd.DataFrame,
    problems: list[str],
    lost: Lost,
) -> Iterator[Row | None]:
    """The row of each case, and at the end what many cases have in common; the table gets what became of each image:
    original_height, original_width, fit, and as JSON the window of images of more than 8 bits ("own": their file's
    extremes) and the affine of single NIfTI slices.

    Raises FileError where the crop, which nobody has asked for, loses most lesions.
    """
    notes = Notes()
    yield from stream(
        everything,
        lambda files: decode(files, readers, settings, size, notes),
        root,
        problems,
        lost,
        lambda files: files.weight,
    )
    problems += notes.lines()
    geometry = [notes.geometry.get(case, (np.nan, np.nan, None, None, None)) for case in table["case"]]
    for k, column in enumerate(GEOMETRY):
        if any(each[k] is not None for each in geometry):
            table[column] = [each[k] for each in geometry]
    lesions, off_centre = len(notes.lesions), sum(notes.lesions)
    if everything and not lesions:
        problems.insert(0, "NO MASK MARKS ANYTHING; look at the masks, and at label, ignore and invert in dataset.toml")
    if off_centre > lesions / 2 and "fit" not in settings.model_fields_set:
        largest = max(notes.sides)
        larger = f"ask for --size {largest + largest % 2}" if largest <= SIZES[1] else "cut the images"
        raise FileError(
            f"{root}: the centre {size}×{size} of the images loses most of the lesion in {off_centre} of "
            f"{lesions} cases; write into dataset.toml\n"
            f'fit = "resize"  # all of each image, made smaller\n'
            f'or {larger}; to have the centre all the same, write fit = "crop"'
        )
