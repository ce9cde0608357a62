"""toy-crossing: a reader draws one of two bars that cross, each equally likely: no nested masks can stand for them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.cache import Content
from uqseg.data.load import source
from uqseg.data.sources.toy import FAINTEST, RANGE, Masks, draws, patients, rows
from uqseg.seeds import seed_of

NAME = "toy-crossing"
KINDS = ("lying bar", "standing bar")


@source(
    NAME,
    "simulated crosses, of which each reader draws one bar: exactly known and not nested (embedded)",
    largest=128,
    even=True,
    simulated=True,
)
def read(path: None, size: int) -> Content:
    """2,000 images of 1,000 patients with four readers, drawn from `truth`; any even size up to 128.

    The same scenes and readers' choices at every size; spacing NaN, since a pixel has no size in mm.
    """
    table = cases()
    return Content(table, rows(NAME, table, size, draws(NAME, probabilities(table)), truth, light))


def cases() -> pd.DataFrame:
    """The table of all 2,000 scenes: patient, case, split, and what the image shows.

    row, column: of the middle of the cross, thickness: of its bars, as shares of the image's side
    contrast: brightness between faintest and brightest, in [0,1]
    """
    table = patients(NAME)
    u = np.random.default_rng(seed_of(NAME, "scenes")).random((len(table), 4))
    return table.assign(
        row=0.42 + 0.16 * u[:, 0],
        column=0.42 + 0.16 * u[:, 1],
        thickness=0.09 + 0.09 * u[:, 2],
        contrast=u[:, 3],
    )


def probabilities(table: pd.DataFrame) -> NDArray[np.float64]:
    """How likely a reader is to draw each of KINDS: float64 (N,2), all ½."""
    return np.full((len(table), 2), 0.5)


def truth(table: pd.DataFrame, size: int) -> tuple[Masks, NDArray[np.float64]]:
    """The exact distribution of a reader's mask: masks bool (N,2,size,size) in the order of KINDS, probabilities (N,2).

    The bars have t×3t whole pixels and share t×t: of the pixels that either has, a fifth, in every image at every size.
    table: rows of the table of a loaded set; size: of its images.
    """
    row, column, thickness = (size * table[c].to_numpy()[:, None, None] for c in ("row", "column", "thickness"))
    t = thickness.round()
    y, x = np.mgrid[:size, :size]
    down, right = (
        (y - (row - t / 2).round()) // t,
        (x - (column - t / 2).round()) // t,
    )  # in squares from the middle one
    lying, standing = (down == 0) & (abs(right) <= 1), (right == 0) & (abs(down) <= 1)
    return np.stack([lying, standing], 1), probabilities(table)


def light(table: pd.DataFrame, masks: Masks) -> NDArray[np.float64]:
    """Both bars alike, so that the image does not say which one a reader draws: grey levels, (N,H,W)."""
    contrast = table["contrast"].to_numpy()[:, None, None]
    return np.asarray((FAINTEST + RANGE * contrast) * masks.any(1))
