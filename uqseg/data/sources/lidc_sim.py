"""lidc-sim, the embedded default: the real outlines of LIDC-IDRI's readers over simulated CT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg import files
from uqseg.data.cache import REMEDY, Content, Row
from uqseg.data.lidc import database, nodules
from uqseg.data.lidc.database import READERS, Outline
from uqseg.data.lidc.raster import rasterise
from uqseg.data.lidc.slots import slot_of
from uqseg.data.load import Request, source
from uqseg.data.processes import count_for, in_order
from uqseg.data.simulation import ct
from uqseg.data.split import split_of
from uqseg.seeds import digest_of, seed_of

SEED = 0
VERSION = (1, ct.VERSION, SEED, database.SHA256)  # the first to be raised whenever a pixel or a column changes
PIXELS = ct.PIXELS
GRID = 512
FEW = 200  # images below which starting processes costs more than it saves
AT_ONCE = 48  # images a task
RATINGS = (*database.RATINGS, "calcified")


@dataclass(frozen=True)
class Job:
    """Slices of one nodule to render: z in mm, and for each slice the outlines of each reader slot."""

    nodule: ct.Nodule
    corner: tuple[int, int]
    middle: float
    slices: list[tuple[float, list[list[Outline]]]]


@source(
    "lidc-sim",
    "simulated CT under the real outlines of four LIDC-IDRI readers (embedded)",
    version=VERSION,
    largest=PIXELS,
    even=True,
    centred=True,
    window=ct.WINDOW,
    simulated=True,
    by_request=True,
    partial=True,
)
def read(path: None, request: Request) -> Content:
    """Every nodule-slice that a reader outlined, over simulated CT; only what is asked for is rendered.

    128×128 at the scan's own spacing, the nodule in the middle (the same crop for all its slices); a smaller size is
    the centre of that. Four reader slots, shuffled per nodule; who did not outline the slice has an empty mask.
    """
    file = database.locate()
    table = _kept_cases(file, request.cache)
    table = table.iloc[request.rows(table)].reset_index(drop=True)
    ids = table[[f"annotation_{r}" for r in range(READERS)]].to_numpy()
    jobs = _jobs(table, database.read_contours(file, np.unique(ids[ids >= 0]).tolist()))
    problems: list[str] = []
    return Content(table, render_all(jobs, request.size, len(table), problems), problems)


def _kept_cases(file: Path, cache: Path) -> pd.DataFrame:
    """The table of all cases: from the cache, where grouping all annotations has been done before."""
    kept = cache / f"lidc-sim-cases-{digest_of(*VERSION).hex()[:12]}.parquet"
    try:
        return pd.read_parquet(kept, page_checksum_verification=True)
    except (OSError, ValueError):
        table: pd.DataFrame = cases(file)
    files.write(kept, table.to_parquet(index=False, write_page_checksum=True), REMEDY)
    return table


def cases(file: Path) -> pd.DataFrame:
    """Every nodule-slice with an outline, ordered by patient, nodule and z.

    Columns: patient, case, split, nodule, scan, z and middle_z (mm), n_marked (readers who outlined this slice),
    nodule_readers (who outlined the nodule at all), annotation_0..3 (id of the outline in each slot, -1 none),
    outline_area (mm², mean of the outlines' polygons), slice_thickness, spacing (mm), contrast, the mean ratings
    (calcified: share of readers who saw calcium), corner_row and corner_column of the 128 crop on the scan's grid,
    half_y, half_x, half_z (mm).
    """
    scans, annotations = database.read_scans(file), database.read_annotations(file)
    contours = database.read_contours(file)
    nodule_of = nodules.group(scans, annotations, contours)
    annotations["nodule"] = annotations["annotation"].map(nodule_of)
    drawn = contours.table.assign(nodule=contours.table["annotation"].map(nodule_of), area=_areas(contours))
    drawn[["low_y", "low_x"]] = np.minimum.reduceat(contours.points, contours.starts[:-1])
    drawn[["high_y", "high_x"]] = np.maximum.reduceat(contours.points, contours.starts[:-1])
    table = _slices(drawn[drawn["inclusion"]], annotations)
    table = table.merge(_about_nodules(drawn, annotations), on="nodule").merge(scans, on="scan")
    table = table.rename(columns={"pixel_spacing": "spacing", "contrast_used": "contrast"})
    table["contrast"] = table["contrast"].astype(bool)
    table["outline_area"] *= table["spacing"] ** 2
    for axis, step in (("y", table["spacing"]), ("x", table["spacing"]), ("z", 1.0)):
        table[f"half_{axis}"] *= step
    table["split"] = table["patient"].map(split_of)
    table["case"] = [f"{n}/z{z:+.2f}" for n, z in zip(table["nodule"], table["z"], strict=True)]
    number = table["nodule"].str.rpartition("-")[2].astype(int)
    order = np.lexsort((table["z"].to_numpy(), number.to_numpy(), table["patient"].to_numpy(str)))
    first = ["patient", "case", "split", "nodule", "z", "n_marked"]
    return table.iloc[order].reset_index(drop=True)[[*first, *(c for c in table.columns if c not in first)]]


def _areas(contours: database.Contours) -> NDArray[np.float64]:
    """Area in pixels of each contour's polygon, negative where it cuts a hole."""
    points = contours.points.astype(np.int64)
    following = np.arange(1, len(points) + 1)
    following[contours.starts[1:] - 1] = contours.starts[:-1]
    cross = points[:, 0] * points[following, 1] - points[following, 0] * points[:, 1]
    area = np.abs(np.add.reduceat(cross, contours.starts[:-1])) / 2
    return np.asarray(np.where(contours.table["inclusion"], area, -area), np.float64)


def _slices(drawn: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """One row per nodule-slice: nodule, z, n_marked, outline_area in pixels, annotation_0..3."""
    slot = slot_of(annotations, slots_of)
    one = drawn.groupby(["nodule", "z", "annotation"], as_index=False)["area"].sum()
    one["slot"] = one["annotation"].map(slot)
    table = one.groupby(["nodule", "z"]).agg(n_marked=("annotation", "size"), outline_area=("area", "mean"))
    wide = one.pivot_table(index=["nodule", "z"], columns="slot", values="annotation").reindex(columns=range(READERS))
    wide = wide.fillna(-1).astype(np.int64).add_prefix("annotation_")
    joined: pd.DataFrame = table.join(wide).reset_index()
    return joined


def _about_nodules(drawn: pd.DataFrame, annotations: pd.DataFrame) -> pd.DataFrame:
    """One row per nodule: scan, readers, mean ratings, crop, extent (in-plane in pixels)."""
    rated = annotations.assign(calcified=annotations["calcification"] < 6)
    table = rated.groupby("nodule").agg(
        scan=("scan", "first"), nodule_readers=("annotation", "size"), **{r: (r, "mean") for r in RATINGS}
    )
    box = drawn.groupby("nodule")[["low_y", "low_x", "z"]].min()
    box[["high_y", "high_x", "high_z"]] = drawn.groupby("nodule")[["high_y", "high_x", "z"]].max()
    table["middle_z"], table["half_z"] = (box["z"] + box["high_z"]) / 2, (box["high_z"] - box["z"]) / 2
    for axis, name in (("y", "row"), ("x", "column")):
        middle = (box[f"low_{axis}"] + box[f"high_{axis}"]) / 2
        table[f"middle_{name}"] = middle
        table[f"corner_{name}"] = (middle.round().astype(int) - PIXELS // 2).clip(0, GRID - PIXELS)
        table[f"half_{axis}"] = (box[f"high_{axis}"] - box[f"low_{axis}"]) / 2
    return table.reset_index()


def slots_of(nodule: str) -> NDArray[np.intp]:
    """The slots of a nodule's annotations: their order in the database is not a reader's identity."""
    return np.random.default_rng(seed_of("lidc-sim", "slots", nodule)).permutation(READERS)


def _jobs(table: pd.DataFrame, contours: database.Contours) -> list[Job]:
    """What each nodule's images need, in the table's order."""
    outlines = contours.outlines()
    jobs: list[Job] = []
    for row in table.to_dict("records"):
        if not jobs or jobs[-1].nodule.name != row["nodule"]:
            corner = (int(row["corner_row"]), int(row["corner_column"]))
            jobs.append(Job(_nodule(row), corner, float(row["middle_z"]), []))
        by_slot = [outlines.get((row[f"annotation_{r}"], row["z"]), []) for r in range(READERS)]
        jobs[-1].slices.append((float(row["z"]), by_slot))
    return jobs


def _nodule(row: Mapping[Any, Any]) -> ct.Nodule:
    """What the renderer needs of a line of the table."""
    value = {str(name): float(v) for name, v in row.items() if isinstance(v, int | float)}
    middle = np.array([value["middle_row"], value["middle_column"]])
    outward = middle - (GRID - 1) / 2
    outward /= max(float(np.hypot(*outward)), 1.0)
    return ct.Nodule(
        scan=str(row["series"]),
        name=str(row["nodule"]),
        spacing=value["spacing"],
        thickness=value["slice_thickness"],
        contrast=bool(row["contrast"]),
        centre=(float(middle[0] - value["corner_row"]), float(middle[1] - value["corner_column"])),
        outward=(float(outward[0]), float(outward[1])),
        reach=(value["half_y"], value["half_x"], value["half_z"] + value["slice_thickness"] / 2),
        ratings={name: value[name] for name in RATINGS},
        readers=int(value["nodule_readers"]),
    )


def render_job(job: Job) -> tuple[NDArray[np.uint8], NDArray[np.bool_], int]:
    """Images uint8 (n,128,128) and masks bool (n,4,128,128) of a job's slices; mask pixels outside the crop."""
    scene = ct.scene(job.nodule, SEED)
    images = np.zeros((len(job.slices), PIXELS, PIXELS), np.uint8)
    masks = np.zeros((len(job.slices), READERS, PIXELS, PIXELS), bool)
    lost = 0
    for k, (z, readers) in enumerate(job.slices):
        for r, outlines in enumerate(readers):
            if outlines:
                masks[k, r], outside = rasterise(outlines, job.corner, PIXELS)
                lost += outside
        images[k] = ct.render(scene, z - job.middle, masks[k])
    return images, masks, lost


def _render_some(jobs: list[Job]) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_], int]]:
    return [render_job(job) for job in jobs]


def _weight(jobs: list[Job]) -> int:
    """The bytes of the images of these jobs and of their masks."""
    return sum(len(job.slices) for job in jobs) * PIXELS**2 * (1 + READERS)


def render_all(
    jobs: list[Job], size: int, images: int, problems: list[str], processes: int | None = None
) -> Iterator[Row]:
    """The rows of all jobs in order, the same whatever the number of processes; ends by adding to `problems`."""
    parts = _parts(jobs)
    done = in_order(_render_some, parts, processes or count_for(images, FEW), _weight)
    low = (PIXELS - size) // 2
    crop = slice(low, low + size)
    read = np.ones(READERS, bool)
    lost = 0
    for part, results in zip(parts, done, strict=True):
        for job, (pictures, masks, outside) in zip(part, results, strict=True):
            spacing = np.full(2, job.nodule.spacing, np.float32)
            lost += outside
            for image, four in zip(pictures, masks, strict=True):
                yield Row(image[None, crop, crop], four[:, crop, crop], read, spacing)
    if lost:
        problems.append(f"outlines beyond the {PIXELS}×{PIXELS} crop: {lost} mask pixels cut off")


def _parts(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs in order, in parts of about AT_ONCE images; a large nodule makes several jobs."""
    parts: list[list[Job]] = [[]]
    filled = 0
    for job in jobs:
        if filled >= AT_ONCE:
            parts.append([])
            filled = 0
        parts[-1].append(job)
        filled += len(job.slices)
    return parts
