"""Figures from the literature: the CSV files of this folder, checked, each figure with its source and protocol."""

from __future__ import annotations

import csv
import io
import math
from importlib.resources import files

import pandas as pd

from uqseg.errors import FileError

COLUMNS = ["source", "data", "protocol", "samples", "method", "split", "threshold", "metric", "value", "known"]
KNOWN = ("code", "paper", "readme", "report", "second-hand")
"""How a figure is known: read in the source's code, paper or README, in the seed report, or quoted by others."""
SPLITS = ("train", "val", "test")
LARGEST = {
    "accuracy": 1.0, "sensitivity": 1.0, "specificity": 1.0, "iou": 1.0, "dice": 1.0,
    "ged": 2.0, "hm_iou": 1.0, "soft_dice": 1.0, "ece": 1.0, "seconds_per_image": math.inf,
}  # fmt: skip
"""The metrics that may stand in the files and the largest value of each; the smallest is 0."""


def published() -> pd.DataFrame:
    """All figures. Columns COLUMNS; threshold "0.1" … "mean" or ""."""
    folder = files("baselines") / "published"
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".csv"))
    parts = [read((folder / n).read_text(encoding="utf-8"), f"baselines/published/{n}") for n in names]
    return pd.concat(parts, ignore_index=True)


def read(text: str, file: str) -> pd.DataFrame:
    """The figures written as CSV in `text`; FileError names `file`, line and what is wrong."""
    reader = csv.DictReader(io.StringIO(text), strict=True)
    if reader.fieldnames != COLUMNS:
        raise FileError(f"{file}, line 1: expected the columns {','.join(COLUMNS)}, got {reader.fieldnames}")
    seen: dict[tuple[str, ...], int] = {}
    rows = []
    for row in reader:
        place = f"{file}, line {reader.line_num}"
        if None in row or None in row.values():
            raise FileError(f"{place}: expected {len(COLUMNS)} fields; quote a field that holds a comma")
        rows.append(_checked(row, place))
        key = tuple(row[c] for c in COLUMNS if c not in ("value", "known"))
        if key in seen:
            raise FileError(f"{place}: the same figure as in line {seen[key]}; keep one")
        seen[key] = reader.line_num
    return pd.DataFrame(rows, columns=COLUMNS)


def _checked(row: dict[str, str], place: str) -> dict[str, str | int | float]:
    for name, allowed in (("known", KNOWN), ("split", SPLITS), ("metric", tuple(LARGEST))):
        if row[name] not in allowed:
            raise FileError(f"{place}: {name}: expected one of {', '.join(allowed)}, got '{row[name]}'")
    for name in ("source", "data", "protocol", "method"):
        if not row[name].strip():
            raise FileError(f"{place}: {name}: expected a text, got nothing")
    if not row["samples"].isdecimal() or int(row["samples"]) < 1:
        raise FileError(f"{place}: samples: expected a whole number of at least 1, got '{row['samples']}'")
    if row["threshold"] not in ("", "mean") and not 0 <= _number(row, "threshold", place) <= 1:
        raise FileError(f"{place}: threshold: expected 0 to 1, mean or nothing, got '{row['threshold']}'")
    value, most = _number(row, "value", place), LARGEST[row["metric"]]
    if not (0 <= value <= most and math.isfinite(value)):
        raise FileError(f"{place}: value: expected 0 to {most:g} for {row['metric']}, got '{row['value']}'")
    return row | {"samples": int(row["samples"]), "value": value}


def _number(row: dict[str, str], name: str, place: str) -> float:
    try:
        return float(row[name])
    except ValueError as error:
        raise FileError(f"{place}: {name}: expected a number, got '{row[name]}'") from error
