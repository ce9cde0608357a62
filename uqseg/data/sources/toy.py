"""toy: discs with rim and satellite, whose readers' masks follow a distribution that is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.cache import Content, Row
from uqseg.data.load import source
from uqseg.data.split import split_of
from uqseg.seeds import seed_of

PATIENTS, IMAGES = 1000, 2  # images of each patient
READERS = 4
KINDS = ("nothing", "core", "disc", "disc + satellite")
BACKGROUND, FAINTEST, RANGE, NOISE = 40.0, 30.0, 130.0, 4.0  # grey levels
AT_ONCE = 100  # images drawn at once
Masks = NDArray[np.bool_]
Truth = Callable[[pd.DataFrame, int], tuple[Masks, NDArray[np.float64]]]
Light = Callable[[pd.DataFrame, Masks], NDArray[np.float64]]


@source(
    "toy",
    "simulated discs whose readers follow an exactly known distribution (embedded)",
    largest=128,
    even=True,
    simulated=True,
)
def read(path: None, size: int) -> Content:
    """2,000 images of 1,000 patients with four readers, drawn from `truth`; any even size up to 128.

    The same scenes and readers' choices at every size; spacing NaN, since a pixel has no size in mm.
    """
    table = cases()
    return Content(table, rows("toy", table, size, choices(table), truth, light))


def cases() -> pd.DataFrame:
    """The table of all 2,000 scenes: patient, case, split, and what the image shows.

    row, column, radius: of the disc, as shares of the image's side; angle: where the satellite lies, in radians
    contrast, rim, satellite: brightness of the core between faintest and brightest, and of rim and satellite relative
    to the core, all in [0,1]; satellite is 0 in half of the images
    """
    table = patients("toy")
    u = np.random.default_rng(seed_of("toy", "scenes")).random((len(table), 8))
    return table.assign(
        row=0.42 + 0.16 * u[:, 0],
        column=0.42 + 0.16 * u[:, 1],
        radius=0.15 + 0.05 * u[:, 2],
        angle=2 * np.pi * u[:, 3],
        contrast=u[:, 4],
        rim=u[:, 5],
        satellite=np.where(u[:, 6] < 0.5, 0.0, 0.2 + 0.8 * u[:, 7]),
    )


def patients(source: str) -> pd.DataFrame:
    """The patient, case and split of all 2,000 images of a source of this kind."""
    patient = [f"{source}-{i // IMAGES:04d}" for i in range(PATIENTS * IMAGES)]
    case = [f"{p}/{i % IMAGES}" for i, p in enumerate(patient)]
    return pd.DataFrame({"patient": patient, "case": case, "split": [split_of(p) for p in patient]})


def probabilities(table: pd.DataFrame) -> NDArray[np.float64]:
    """How likely a reader is to draw each of KINDS: float64 (N,4), rows summing to 1.

    A reader decides three times: misses the faint disc with probability 0.6 (1 − contrast); else counts the rim in
    with probability rim; if so, marks the satellite too with probability 0.8 satellite.
    """
    seen = 1 - 0.6 * (1 - table["contrast"].to_numpy(np.float64))
    rim, second = table["rim"].to_numpy(np.float64), 0.8 * table["satellite"].to_numpy(np.float64)
    return np.stack([1 - seen, seen * (1 - rim), seen * rim * (1 - second), seen * rim * second], 1)


def truth(table: pd.DataFrame, size: int) -> tuple[Masks, NDArray[np.float64]]:
    """The exact distribution of a reader's mask: masks bool (N,4,size,size) in the order of KINDS, probabilities (N,4).

    table: rows of the table of a loaded set; size: of its images.
    """
    row, column, radius, angle = (table[c].to_numpy()[:, None, None] for c in ("row", "column", "radius", "angle"))
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    distance = np.hypot(y - row, x - column)
    away = np.hypot(y - row - 1.7 * radius * np.sin(angle), x - column - 1.7 * radius * np.cos(angle))
    core, disc, satellite = distance < 0.55 * radius, distance < radius, away < 0.4 * radius
    return np.stack([np.zeros_like(disc), core, disc, disc | satellite], 1), probabilities(table)


def light(table: pd.DataFrame, masks: Masks) -> NDArray[np.float64]:
    """Core, rim and satellite in their brightness: grey levels above the background, (N,H,W)."""
    _, core, disc, both = masks.swapaxes(0, 1)
    contrast, rim, satellite = (table[c].to_numpy()[:, None, None] for c in ("contrast", "rim", "satellite"))
    brightness = core + rim * (disc & ~core) + satellite * (both & ~disc)
    return np.asarray((FAINTEST + RANGE * contrast) * brightness)


def choices(table: pd.DataFrame) -> NDArray[np.intp]:
    """Which of KINDS each reader draws: (N,4) for the table of all cases."""
    return draws("toy", probabilities(table))


def draws(source: str, p: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which of K masks each reader draws, independently of the others: (N,4), for their probabilities (N,K)."""
    u = np.random.default_rng(seed_of(source, "readers")).random((len(p), READERS))
    steps = np.cumsum(p, 1)[:, None, :-1]
    return np.asarray((u[:, :, None] >= steps).sum(2), np.intp)


def rows(
    source: str, table: pd.DataFrame, size: int, chosen: NDArray[np.intp], truth: Truth, light: Light
) -> Iterator[Row]:
    """The images of a source, bright on a dark ground with white noise, with the masks that the readers have chosen."""
    read, spacing = np.ones(READERS, bool), np.full(2, np.nan, np.float32)
    for start in range(0, len(table), AT_ONCE):
        part = table.iloc[start : start + AT_ONCE]
        masks, _ = truth(part, size)
        grey = BACKGROUND + light(part, masks)
        for case, clean, kinds, drawn in zip(part["case"], grey, masks, chosen[start:], strict=False):
            noise = np.random.default_rng(seed_of(source, "noise", size, case)).standard_normal((size, size))
            image = (clean + NOISE * noise).round().clip(0, 255).astype(np.uint8)
            yield Row(image[None], kinds[drawn], read, spacing)
