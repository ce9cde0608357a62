"""lidc-slices: the public PNG tree of LIDC-IDRI slices, one folder a nodule, one mask folder a reader slot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.cache import Content, Row, open_or_build
from uqseg.data.source import Request, key_of, select, source
from uqseg.data.split import split_of
from uqseg.errors import FileError, UsageError

VERSION = 1
READERS = 4
PIXELS = 128
AT_ONCE = 512  # slices decoded ahead, which bounds the memory


@source(
    "lidc-slices", path=True, description="real CT: PNG tree LIDC-IDRI-XXXX/nodule-N/{images,mask-0..3}/slice-K.png"
)
def lidc_slices(path: Path | None, request: Request) -> AnnotatedSet:
    """All slices of the tree; slots shuffled per nodule; split 60/20/20 by patient; centre crop to the size asked for.

    An image that no reader marked stays in: an empty mask is an answer. Spacing is not recorded: NaN.
    """
    assert path is not None
    if request.size > PIXELS or request.size % 2:
        raise UsageError(
            f"size: lidc-slices are {PIXELS}×{PIXELS}; expected an even size up to {PIXELS}, got {request.size}."
        )
    files = sorted(path.glob("*/nodule-*/*/slice-*.png"))
    if not files:
        raise UsageError(f"lidc-slices: no <patient>/nodule-N/images/slice-K.png below '{path}'; give the tree's root.")
    stats = [(str(f.relative_to(path)), s.st_size, s.st_mtime_ns) for f in files for s in (f.stat(),)]
    key = key_of("lidc-slices", VERSION, request.size, stats)
    names = [name for name, _, _ in stats]
    whole = open_or_build(
        request.cache, "lidc-slices", key, lambda: _find(path, names, request.size), progress=request.progress
    )
    return select(whole, request)


def _find(path: Path, names: list[str], size: int) -> Content:
    """The tree's table and rows, in the order patient, nodule, slice."""
    present = set(names)
    cases = sorted((n for n in names if n.split("/")[2] == "images"), key=_order)
    table = pd.DataFrame(
        {
            "patient": [n.split("/")[0] for n in cases],
            "case": [n.replace("/images", "").removesuffix(".png") for n in cases],
            "nodule": ["/".join(n.split("/")[:2]) for n in cases],
            "slice": [_order(n)[2] for n in cases],
        }
    )
    table["split"] = table["patient"].map(split_of)
    problems = [
        f"mask without an image: {name}"
        for name in names
        if "/mask-" in name and "/".join([*name.split("/")[:2], "images", name.split("/")[3]]) not in present
    ]
    return Content(table, _rows(path, cases, present, size, problems), problems)


def _order(name: str) -> tuple[str, int, int]:
    patient, nodule, _, file = name.split("/")
    return patient, int(nodule.removeprefix("nodule-")), int(file.removeprefix("slice-").removesuffix(".png"))


def slots_of(nodule: str) -> NDArray[np.intp]:
    """The order of the reader slots of a nodule: masks are filled from slot 0, so as stored, slot 0 is no reader."""
    seed = int.from_bytes(hashlib.sha256(f"slots\x1f{nodule}".encode()).digest()[:8], "big")
    return np.random.default_rng(seed).permutation(READERS)


def _rows(path: Path, cases: list[str], present: set[str], size: int, problems: list[str]) -> Iterator[Row]:
    seen: dict[bytes, str] = {}
    low = (PIXELS - size) // 2
    crop = slice(low, low + size)
    spacing = np.full(2, np.nan, np.float32)

    def decode(case: str) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8] | None]]:
        patient, nodule, _, file = case.split("/")
        slots = [f"{patient}/{nodule}/mask-{r}/{file}" for r in range(READERS)]
        return _read(path / case), [_read(path / name) if name in present else None for name in slots]

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(cases), AT_ONCE):
            part = cases[start : start + AT_ONCE]
            for case, (image, slots) in zip(part, pool.map(decode, part), strict=True):
                first = seen.setdefault(hashlib.sha256(image.tobytes()).digest(), case)
                if first != case:
                    problems.append(f"duplicate image: {case} is {first}")
                order = slots_of("/".join(case.split("/")[:2]))
                masks = np.zeros((READERS, size, size), bool)
                read = np.zeros(READERS, bool)
                for place, r in enumerate(order):
                    mask = slots[r]
                    if mask is None:
                        problems.append(f"mask missing, reader taken as absent: {case}, slot {r}")
                        continue
                    if not set(np.unique(mask)) <= {0, 255} and not set(np.unique(mask)) <= {0, 1}:
                        problems.append(f"mask not binary, taken as marked where not 0: {case}, slot {r}")
                    masks[place], read[place] = mask[crop, crop] > 0, True
                yield Row(np.ascontiguousarray(image[None, crop, crop]), masks, read, spacing)


def _read(file: Path) -> NDArray[np.uint8]:
    """A grey 8-bit PNG of 128×128. Raises FileError naming the file for anything else."""
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise FileError(f"cannot read {file}: {' '.join(str(error).split())}; replace or remove this slice") from error
    if pixels.shape != (PIXELS, PIXELS) or pixels.dtype not in (np.uint8, np.bool_):
        raise FileError(
            f"{file}: expected grey 8 bit {PIXELS}×{PIXELS}, got {pixels.dtype} {pixels.shape}; remove this slice"
        )
    return pixels.astype(np.uint8)
