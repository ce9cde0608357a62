"""lidc-crops: the LIDC-IDRI crops published with the hierarchical probabilistic U-Net, PNGs in three split folders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from uqseg.data.cache import Content, Lost
from uqseg.data.lidc.database import READERS
from uqseg.data.lidc.slots import Slots, first_of_each, rows
from uqseg.data.load import source
from uqseg.data.names import plain, stem
from uqseg.data.split import refuse_leaks, split_named
from uqseg.data.stamps import Stamp, reason_of, stamps_below
from uqseg.errors import FileError, UsageError

PIXELS = 180
SPACING = 0.5  # mm, to which the published crops were resampled
DEPTH = 3  # folders between the root and a file
NAME = re.compile(r"(?P<crop>z-(?P<z>-?\d*\.?\d+\.?)_c(?P<number>\d+))(_l(?P<reader>\d+))?")


class _Crop(NamedTuple):
    """One crop, as cases are ordered: patient, z in mm, number, and split ("val" or "valid") and name as written."""

    patient: str
    z: float
    number: int
    split: str
    name: str


def stamp(path: Path) -> list[Stamp]:
    """Names, sizes and times of the files of images and masks below `path`."""
    below = stamps_below(path, "*/*/*/*") if path.is_dir() else []
    files = [s for s in below if _is_of_crops(s.name.split("/"))]
    if not any(file.name.count("/") == DEPTH for file in files):
        raise UsageError(
            f"lidc-crops: no {{train,val,test}}/images/<patient>/z-<z>_c<k>.png below '{path}'; give the tree's root."
        )
    return files


@source(
    "lidc-crops",
    "real CT: {train,val,test}/{images,gt}/<patient>/z-<z>_c<k>[_l<i>].png, 0.5 mm",
    stamp=stamp,
    version=2,
    largest=PIXELS,
    even=True,
    centred=True,
)
def read(path: Path, size: int) -> Content:
    """All crops with their published splits, cut to the centre size×size; the spacing is 0.5 mm.

    The readers' files count from l0 or from l1, throughout; slots are shuffled per patient and crop number.
    A mask that cannot be read, is not 180×180 or not binary takes away that reading; such an image, or no reading left,
    the crop; both are listed. Cases are in the order patient, z, crop. The folders valid and validation are val.
    Raises FileError where a patient lies in two splits: what was learnt from would be scored.
    """
    problems: list[str] = []
    names = [file.name for file in stamp(path)]
    images, masks = _sorted_out([name for name in names if name.count("/") == DEPTH], problems)
    lost = Lost()
    for name in names:
        if name.count("/") < DEPTH:  # a folder that cannot be read
            _stand_in(name, path, images, masks, problems, lost)
    crops = sorted(images)
    table = pd.DataFrame(
        [
            (c.patient, c.z, c.number, f"{split_named(c.split)}/{c.patient}/{c.name}", split_named(c.split))
            for c in crops
        ],
        columns=pd.Index(["patient", "z", "crop", "case", "split"]),
    )
    refuse_leaks(table, f"lidc-crops: {path}")
    problems += [f"mask without an image: {m}" for crop in masks if crop not in images for m in masks[crop].values()]
    cases = [
        Slots(
            case, f"{crop.patient}/c{crop.number}", images[crop], [masks.get(crop, {}).get(r) for r in range(READERS)]
        )
        for crop, case in zip(crops, table["case"], strict=True)
    ]
    return Content(table, rows(path, cases, PIXELS, size, SPACING, problems, lost), problems, lost=lost)


def _is_of_crops(parts: list[str]) -> bool:
    return bool(split_named(parts[0])) and (len(parts) == 1 or parts[1] in ("images", "gt"))


def _stand_in(
    name: str,
    root: Path,
    images: dict[_Crop, str],
    masks: dict[_Crop, dict[int, str]],
    problems: list[str],
    lost: Lost,
) -> None:
    """Let a folder that cannot be read stand for the masks of its crops; what else is in it is lost."""
    split, kind, patient, *_ = *name.split("/"), "", ""
    of_folder = [crop for crop in images if crop.split == split and plain(patient) in ("", crop.patient)]
    if kind == "gt":
        masks.update((crop, dict.fromkeys(range(READERS), name)) for crop in of_folder)
    else:
        of_masks = [crop for crop in masks if crop.split == split and plain(patient) in ("", crop.patient)]
        lost.left_out += max(READERS, sum(len(masks[crop]) for crop in of_masks))
        problems.append(f"left out: cannot read {name}: {reason_of(root / name)}")


def _sorted_out(names: list[str], problems: list[str]) -> tuple[dict[_Crop, str], dict[_Crop, dict[int, str]]]:
    """The image of each crop, and the masks of its slots; files may count readers from 0 or from 1."""
    files = first_of_each(_understood(names, problems), problems)
    numbers = {reader for _, reader in files if reader is not None}
    if {0, READERS} <= numbers:
        raise FileError(
            f"lidc-crops: masks are named both _l0 and _l{READERS}; expected _l0 to _l{READERS - 1} or _l1 to "
            f"_l{READERS} throughout; remove the files of another release"
        )
    first = 1 if READERS in numbers else 0
    masks: dict[_Crop, dict[int, str]] = {}
    for (crop, reader), name in files.items():
        if reader is not None:
            masks.setdefault(crop, {})[reader - first] = name
    return {crop: name for (crop, reader), name in files.items() if reader is None}, masks


def _understood(names: list[str], problems: list[str]) -> Iterator[tuple[tuple[_Crop, int | None], str]]:
    """Crop and reader (None: the image) of each file; one whose name is not understood is listed."""
    for name in names:
        split, kind, patient, file = name.split("/")
        parts = NAME.fullmatch(stem(file)[0]) if stem(file)[1] else None
        reader = None if parts is None or parts["reader"] is None else int(parts["reader"])
        if parts is None or (reader is None) != (kind == "images") or (reader or 0) > READERS:
            problems.append(f"file name not understood, left out: {name}")
            continue
        yield (_Crop(plain(patient), float(parts["z"]), int(parts["number"]), split, parts["crop"]), reader), name
