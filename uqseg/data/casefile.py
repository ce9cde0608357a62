"""cases.csv: what somebody knows of the cases of a folder; reading it without a guess, and a first one to fill in."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.names import plain
from uqseg.data.split import SPLITS, split_named, split_of
from uqseg.errors import FileError
from uqseg.seeds import seed_of

COLUMNS = ("case", "patient", "split", "spacing_x", "spacing_y")
SEPARATORS = (",", ";", "\t")
DECLARED = re.compile(r"\A\s*\"?sep=.\"?[ \t]*(?=\n)", re.IGNORECASE)  # Excel's own line in front of the header
NO_NUMBERS = ("nan", "+nan", "-nan")
QUOTED = 10
ENOUGH = 20  # cases read by two readers from which on a split says something about their disagreement
SHARE = 0.2  # of the patients, for val and for test
PREFIX = re.compile(r"(?P<patient>[^-_. ]+)[-_. ]")  # what a name begins with, up to the first separator


def read_cases(file: Path) -> pd.DataFrame:
    """cases.csv, checked: text, except numbers in spacing and in columns of nothing but numbers.

    Separated by commas, semicolons or tabs; UTF-8 with or without a mark at its front; blank lines are passed over.
    Raises FileError naming the file, the line and what is wrong with it.
    """
    header, rows, lines = _cells(file)
    table = pd.DataFrame(rows, columns=pd.Index(header), dtype=str)
    if doubled := sorted(set(table["case"][table["case"].duplicated()])):
        raise FileError(
            f"{file}: expected one line for each case, got several for {', '.join(doubled[:QUOTED])}; keep one each"
        )
    if "split" in table:
        for line, name in zip(lines, table["split"], strict=True):
            if name and not split_named(name):
                raise FileError(f"{file}: line {line}: split: expected train, val, test or nothing, got {name}")
        table["split"] = table["split"].map(split_named)
    for column in table.columns.difference(list(COLUMNS[:3])):
        table[column] = _numbers(file, table[column], lines)
    return table


def _cells(file: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """The columns' names, the cells of each line that is not blank, and that line's number."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        text = DECLARED.sub("", text)
        first = next((line for line in text.splitlines() if line.strip()), "")
        separator = max(SEPARATORS, key=first.count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
        read = [(reader.line_num, [plain(cell.strip()) for cell in row]) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise FileError(f"cannot read {file}: {' '.join(str(error).split())}; write it as CSV in UTF-8") from error
    full = [(line, row) for line, row in read if any(row)]
    header = [name.lower() if name.lower() in COLUMNS else name for name in full[0][1]] if full else []
    while header and not header[-1]:  # a separator at the end
        header.pop()
    if "case" not in header or len(set(header)) < len(header) or "" in header:
        raise FileError(f"{file}: expected a column case and each column once, got {', '.join(header)}")
    for line, row in full[1:]:
        if any(row[len(header) :]) or (len(row) > len(header) and len(full[0][1]) == len(header)):
            raise FileError(
                f"{file}: line {line}: expected {len(header)} cells, got {len(row)}; remove the '{separator}' "
                f"too many, or quote the text that holds it"
            )
    cells = [row[: len(header)] + [""] * (len(header) - len(row)) for _, row in full[1:]]
    return header, cells, [line for line, _ in full[1:]]


def _numbers(file: Path, column: pd.Series, lines: Sequence[int]) -> pd.Series:
    """A column of nothing but finite numbers as numbers; any other one is text, except spacing, which has to be mm."""
    numbers = pd.to_numeric(column.replace("", "nan"), errors="coerce")
    words = column.str.lower()
    text = numbers.isna() & ~words.isin(["", *NO_NUMBERS])
    infinite = np.isinf(numbers) | words.isin(NO_NUMBERS)
    if column.name in COLUMNS:
        with np.errstate(over="ignore"):
            kept = numbers.astype(np.float32)  # the type that it is kept in
        wrong, expected = text | infinite | (kept <= 0) | np.isinf(kept), "mm above 0 or nothing"
    elif text.any():
        return column
    else:
        wrong, expected = infinite, "a finite number or nothing"
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise FileError(f"{file}: line {lines[row]}: {column.name}: expected {expected}, got '{column.iloc[row]}'")
    return numbers


def shared_beginnings(names: Iterable[str]) -> dict[str, list[str]]:
    """The names that begin alike up to their first separator, as P01_left and P01-right do, by that beginning.

    Empty where nothing hints at patients with several images: all begin alike, or no two.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_beginning(name), []).append(name)
    return groups if 1 < len(groups) < sum(map(len, groups.values())) else {}


def alike(names: Iterable[str]) -> list[str]:
    """Names that differ by no more than capitals, or by how a number is written, as "P1" and "p1", "1" and "01.0"."""
    groups: dict[object, list[str]] = {}
    for name in dict.fromkeys(names):
        try:
            key: object = float(name)
        except ValueError:
            key = name.casefold()
        groups.setdefault(key, []).append(name)
    return [" and ".join(group) for group in groups.values() if len(group) > 1]


def _beginning(name: str) -> str:
    parts = PREFIX.match(name)
    return parts["patient"] if parts else name


def propose(data: AnnotatedSet, *, guess: bool) -> pd.DataFrame:
    """A cases.csv to look through and fill in: case, patient, split, spacing_x, spacing_y.

    guess: whether patients are guessed from the beginnings of names
    Splits are empty, so that the patients' names decide, unless some split would be empty or too small to say
    something about two readers' disagreement: then patients are dealt out, those whose cases two have read first.
    """
    patients = data.table["patient"].astype(str)
    if guess and shared_beginnings(patients.unique()):
        patients = patients.map(_beginning)
    by_name = patients.map(split_of)
    enough = all((data.read[by_name == split].sum(1) > 1).sum() >= ENOUGH for split in SPLITS)
    splits = "" if enough else dealt(patients, data.read)
    spacing = [["" if np.isnan(mm) else f"{mm:g}" for mm in axis] for axis in data.spacing.T]
    return pd.DataFrame(
        {
            "case": data.table["case"],
            "patient": patients,
            "split": splits,
            "spacing_x": spacing[1],
            "spacing_y": spacing[0],
        }
    )


def dealt(patients: pd.Series, read: NDArray[np.bool_]) -> pd.Series:
    """A split for each case by its patient, those whose cases two have read first; read: bool (N,R)."""
    double = pd.Series(read.sum(1) > 1).groupby(patients.to_numpy()).sum()
    split: dict[str, str] = {}
    for with_two in (True, False):
        part = double[(double > 0) == with_two]
        order = sorted(part.index, key=lambda patient: seed_of("split", patient))
        share = max(SHARE, min(1 / 3, ENOUGH / max(1, int(part.sum())))) if with_two else SHARE
        few = max(1, round(share * len(order))) if len(order) > 2 else 0
        split |= {p: "test" if i < few else "val" if i < 2 * few else "train" for i, p in enumerate(order)}
    return patients.map(split)


def read_by_two(read: NDArray[np.bool_]) -> int:
    """How many cases at least two readers have read; read: bool (N,R)."""
    return int((read.sum(1) > 1).sum())
