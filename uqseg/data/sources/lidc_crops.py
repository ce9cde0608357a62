"""lidc-crops: the LIDC-IDRI crops published with the hierarchical probabilistic U-Net, PNGs in three split folders."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from uqseg.data.cache import Content
from uqseg.data.lidc.database import READERS
from uqseg.data.lidc.slots import Slots, rows
from uqseg.data.load import source
from uqseg.data.split import SPLITS, refuse_leaks
from uqseg.data.stamps import Stamp, stamps_below
from uqseg.errors import FileError, UsageError

PIXELS = 180
SPACING = 0.5  # mm, to which the published crops were resampled
IMAGE = re.compile(r"z-(?P<z>-?[\d.]+)_c(?P<crop>\d+)")
MASK = re.compile(r"(?P<image>z-.+)_l(?P<reader>\d+)")


def stamp(path: Path) -> list[Stamp]:
    below = stamps_below(path, "*/*/*/*.png") if path.is_dir() else []
    files = [s for s in below if (parts := s.name.split("/"))[0] in SPLITS and parts[1] in ("images", "gt")]
    if not files:
        raise UsageError(
            f"lidc-crops: no {{train,val,test}}/images/<patient>/z-<z>_c<k>.png below '{path}'; give the tree's root."
        )
    return files


@source(
    "lidc-crops",
    "real CT: {train,val,test}/{images,gt}/<patient>/z-<z>_c<k>[_l<i>].png, 0.5 mm",
    stamp=stamp,
    largest=PIXELS,
    even=True,
)
def read(path: Path, size: int) -> Content:
    """All crops with their published splits, cut to the centre size×size; the spacing is 0.5 mm.

    The readers' files count from l0 or from l1, throughout; slots are shuffled per patient and crop number.
    A crop with a file that cannot be read, is not 180×180 or is no binary mask is left out and listed.
    Cases are in the order patient, z, crop.
    Raises FileError where a patient lies in two splits: what was learnt from would be scored.
    """
    names = [file.name for file in stamp(path)]
    problems: list[str] = []
    masks = _masks(names, problems)
    lines = []
    for name in names:
        split, kind, patient, file = name.split("/")
        if kind != "images":
            continue
        parts = IMAGE.fullmatch(file.removesuffix(".png"))
        if parts is None or parts["z"].count(".") > 1 or not any(c.isdecimal() for c in parts["z"]):
            problems.append(f"file name not understood, left out: {name}")
            continue
        case = f"{split}/{patient}/{file.removesuffix('.png')}"
        lines.append((patient, float(parts["z"]), int(parts["crop"]), case, split, name))
    lines.sort()
    columns = ["patient", "z", "crop", "case", "split", "file"]
    table = pd.DataFrame(lines, columns=pd.Index(columns))
    refuse_leaks(table, f"lidc-crops: {path}")
    present = set(table["file"])
    problems += [
        f"mask without an image: {m}" for image, slots in masks.items() if image not in present for m in slots.values()
    ]
    cases = [
        Slots(case, f"{patient}/c{crop}", name, [masks.get(name, {}).get(r) for r in range(READERS)])
        for patient, _, crop, case, _, name in lines
    ]
    return Content(table.drop(columns="file"), rows(path, cases, PIXELS, size, SPACING, problems), problems)


def _masks(names: list[str], problems: list[str]) -> dict[str, dict[int, str]]:
    """The masks of the four slots, by the name of their image; files may count slots from 0 or from 1."""
    by_image: dict[str, dict[int, str]] = {}
    for name in names:
        split, kind, patient, file = name.split("/")
        if kind != "gt":
            continue
        parts = MASK.fullmatch(file.removesuffix(".png"))
        if parts is None or int(parts["reader"]) > READERS:
            problems.append(f"file name not understood, left out: {name}")
            continue
        by_image.setdefault(f"{split}/images/{patient}/{parts['image']}.png", {})[int(parts["reader"])] = name
    numbers = {r for slots in by_image.values() for r in slots}
    if {0, READERS} <= numbers:
        raise FileError(
            f"lidc-crops: masks are named both _l0 and _l{READERS}; expected _l0 to _l{READERS - 1} or _l1 to "
            f"_l{READERS} throughout; remove the files of another release"
        )
    first = 1 if READERS in numbers else 0
    return {image: {r - first: name for r, name in slots.items()} for image, slots in by_image.items()}
