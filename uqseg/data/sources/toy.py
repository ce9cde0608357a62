"""toy: discs with rim and satellite, whose readers' masks follow a distribution that is known exactly."""

from __future__ import annotations

from collections.abc import Iterator

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
    return Content(table, _rows(table, size))


def cases() -> pd.DataFrame:
    """The table of all 2,000 scenes: patient, case, split, and what the image shows.

    row, column, radius: of the disc, as shares of the image's side; angle: where the satellite lies, in radians
    contrast, rim, satellite: brightness of the core between faintest and brightest, and of rim and satellite relative
    to the core, all in [0,1]; satellite is 0 in half of the images
    """
    n = PATIENTS * IMAGES
    u = np.random.default_rng(seed_of("toy", "scenes")).random((n, 8))
    patient = [f"toy-{i // IMAGES:04d}" for i in range(n)]
    return pd.DataFrame(
        {
            "patient": patient,
            "case": [f"{p}/{i % IMAGES}" for i, p in enumerate(patient)],
            "split": [split_of(p) for p in patient],
            "row": 0.42 + 0.16 * u[:, 0],
            "column": 0.42 + 0.16 * u[:, 1],
            "radius": 0.15 + 0.05 * u[:, 2],
            "angle": 2 * np.pi * u[:, 3],
            "contrast": u[:, 4],
            "rim": u[:, 5],
            "satellite": np.where(u[:, 6] < 0.5, 0.0, 0.2 + 0.8 * u[:, 7]),
        }
    )


def probabilities(table: pd.DataFrame) -> NDArray[np.float64]:
    """How likely a reader is to draw each of KINDS: float64 (N,4), rows summing to 1.

    A reader decides three times: misses the faint disc with probability 0.6 (1 − contrast); else counts the rim in
    with probability rim; if so, marks the satellite too with probability 0.8 satellite.
    """
    seen = 1 - 0.6 * (1 - table["contrast"].to_numpy(np.float64))
    rim, second = table["rim"].to_numpy(np.float64), 0.8 * table["satellite"].to_numpy(np.float64)
    return np.stack([1 - seen, seen * (1 - rim), seen * rim * (1 - second), seen * rim * second], 1)


def truth(table: pd.DataFrame, size: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The exact distribution of a reader's mask: masks bool (N,4,size,size) in the order of KINDS, probabilities (N,4).

    table: rows of the table of a loaded set; size: of its images.
    """
    row, column, radius, angle = (table[c].to_numpy()[:, None, None] for c in ("row", "column", "radius", "angle"))
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    distance = np.hypot(y - row, x - column)
    away = np.hypot(y - row - 1.7 * radius * np.sin(angle), x - column - 1.7 * radius * np.cos(angle))
    core, disc, satellite = distance < 0.55 * radius, distance < radius, away < 0.4 * radius
    return np.stack([np.zeros_like(disc), core, disc, disc | satellite], 1), probabilities(table)


def choices(table: pd.DataFrame) -> NDArray[np.intp]:
    """Which of KINDS each reader draws, independently of the others: (N,4) for the table of all cases."""
    u = np.random.default_rng(seed_of("toy", "readers")).random((len(table), READERS))
    steps = np.cumsum(probabilities(table), 1)[:, None, :-1]
    return np.asarray((u[:, :, None] >= steps).sum(2), np.intp)


def _rows(table: pd.DataFrame, size: int) -> Iterator[Row]:
    chosen = choices(table)
    read, spacing = np.ones(READERS, bool), np.full(2, np.nan, np.float32)
    for start in range(0, len(table), AT_ONCE):
        part = table.iloc[start : start + AT_ONCE]
        masks, _ = truth(part, size)
        images = _images(part, masks)
        for image, kinds, drawn in zip(images, masks, chosen[start:], strict=False):
            yield Row(image[None], kinds[drawn], read, spacing)


def _images(table: pd.DataFrame, masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Core, rim and satellite in their brightness on a dark ground, with white noise: uint8 (N,H,W)."""
    _, core, disc, both = masks.swapaxes(0, 1)
    contrast, rim, satellite = (table[c].to_numpy()[:, None, None] for c in ("contrast", "rim", "satellite"))
    brightness = core + rim * (disc & ~core) + satellite * (both & ~disc)
    size = masks.shape[-1]
    noise = [
        np.random.default_rng(seed_of("toy", "noise", size, c)).standard_normal((size, size)) for c in table["case"]
    ]
    light = BACKGROUND + (FAINTEST + RANGE * contrast) * brightness + NOISE * np.array(noise)
    return np.asarray(light.round().clip(0, 255), np.uint8)
