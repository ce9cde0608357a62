"""lidc-slices: the public PNG tree of LIDC-IDRI slices, one folder a nodule, one mask folder a reader slot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.cache import Content, open_or_build
from uqseg.data.files import stamps
from uqseg.data.slots import READERS, Slots, check_size, rows
from uqseg.data.source import Request, key_of, select, source
from uqseg.data.split import split_of
from uqseg.errors import UsageError

VERSION = 2
PIXELS = 128


@source(
    "lidc-slices", path=True, description="real CT: PNG tree LIDC-IDRI-XXXX/nodule-N/{images,mask-0..3}/slice-K.png"
)
def lidc_slices(path: Path | None, request: Request) -> AnnotatedSet:
    """All slices of the tree; slots shuffled per nodule; split 60/20/20 by patient; centre crop to the size asked for.

    An image that no reader marked stays in: an empty mask is an answer. Spacing is not recorded: NaN.
    A slice with a file that cannot be read, is not 128×128 or is no binary mask is left out and listed.
    """
    assert path is not None
    check_size(request, "lidc-slices", PIXELS)
    files = sorted(path.glob("*/nodule-*/*/slice-*.png"))
    if not files:
        raise UsageError(f"lidc-slices: no <patient>/nodule-N/images/slice-K.png below '{path}'; give the tree's root.")
    stats = stamps(path, files)
    key = key_of("lidc-slices", VERSION, request.size, stats)
    names = [name for name, _, _ in stats]
    whole = open_or_build(
        request.cache, "lidc-slices", key, lambda: _find(path, names, request.size), progress=request.progress
    )
    return select(whole, request)


def _find(path: Path, names: list[str], size: int) -> Content:
    """The tree's table and rows, in the order patient, nodule, slice."""
    present = set(names)
    problems = [f"file name not understood, left out: {name}" for name in names if _order(name) is None]
    ordered = sorted((order, n) for n in names if n.split("/")[2] == "images" and (order := _order(n)))
    cases = [_slots(name, present) for _, name in ordered]
    table = pd.DataFrame(
        {
            "patient": [patient for (patient, _, _), _ in ordered],
            "case": [case.case for case in cases],
            "nodule": [case.lesion for case in cases],
            "slice": [number for (_, _, number), _ in ordered],
        }
    )
    table["split"] = table["patient"].map(split_of)
    problems += [
        f"mask without an image: {name}"
        for name in names
        if "/mask-" in name and "/".join([*name.split("/")[:2], "images", name.split("/")[3]]) not in present
    ]
    return Content(table, rows(path, cases, PIXELS, size, np.nan, problems), problems)


def _order(name: str) -> tuple[str, int, int] | None:
    patient, nodule, _, file = name.split("/")
    number, slice_number = nodule.removeprefix("nodule-"), file.removeprefix("slice-").removesuffix(".png")
    return (patient, int(number), int(slice_number)) if number.isdecimal() and slice_number.isdecimal() else None


def _slots(name: str, present: set[str]) -> Slots:
    patient, nodule, _, file = name.split("/")
    lesion = f"{patient}/{nodule}"
    masks = [f"{lesion}/mask-{r}/{file}" for r in range(READERS)]
    return Slots(f"{lesion}/{file.removesuffix('.png')}", lesion, name, [m if m in present else None for m in masks])
