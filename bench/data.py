"""What a data set holds, on one screen: images, readers, how far they agree, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uqseg import files
from uqseg.data import AnnotatedSet
from uqseg.data.casefile import ENOUGH, dealt, propose, read_by_two
from uqseg.data.split import SPLITS
from uqseg.errors import FileError, UsageError

QUOTED = 3  # problems of a kind
MOST_LOST = 0.01  # share of the readings that a run may do without unasked
HARDLY_ANY = 0.1  # share of the test cases read by two readers, below which figures of ambiguity mean nothing
WRITE_CASES = "uqseg data folder:PATH --write-cases writes a cases.csv with other splits"


def summary(data: AnnotatedSet, common: NDArray[np.float64]) -> list[tuple[str, str]]:
    """Lines of a title and a text about the whole set; common: the `readers.overlaps` of its readers."""
    height, width = data.images.shape[2:]
    areas = np.where(data.read, np.diagonal(common, axis1=1, axis2=2), 0)
    each = areas.sum(1) / data.read.sum(1) / (height * width)
    lines = [("data", f"{data.name} {data.folder}".strip() + (" (the images are simulated)" if data.simulated else ""))]
    lines.append(("images", _cases(data, np.ones(len(data), bool))))
    lines += [
        (f"  {split}", _cases(data, rows))
        for split in SPLITS
        if (rows := (data.table["split"] == split).to_numpy()).any()
    ]
    lines += [
        ("size", f"{height}×{width} pixels, {data.images.shape[1]} channel{'s' * (data.images.shape[1] > 1)}"),
        ("spacing", _spacing(data.spacing)),
        ("readings", _readings(data)),
        ("readers", f"{data.readers}"),
        *_readers(areas > 0, data),
        ("marked by", _marked_by(areas > 0, data.read)),
        ("foreground", f"{100 * each.mean():.3g} % of pixels, mean over readers"),
        (
            "disagreement",
            f"E d(y,y') = {_apart(common, data.read):.3f}: distance 1 − IoU of two readers, each with itself included",
        ),
        ("problems", f"{len(data.problems)}"),
    ]
    return lines


def _apart(common: NDArray[np.float64], read: NDArray[np.bool_]) -> float:
    """Mean over cases of the mean distance of two readers who read them, 0 of two empty masks."""
    areas = np.diagonal(common, axis1=1, axis2=2)
    union = areas[:, :, None] + areas[:, None] - common
    distance = np.where(union > 0, 1 - common / np.where(union > 0, union, 1), 0)
    both = read[:, :, None] & read[:, None]
    return float(((distance * both).sum((1, 2)) / both.sum((1, 2))).mean())


def _cases(data: AnnotatedSet, rows: NDArray[np.bool_]) -> str:
    return f"{rows.sum():,} from {data.table.loc[rows, 'patient'].nunique():,} patients"


def _spacing(spacing: NDArray[np.float32]) -> str:
    known = np.isfinite(spacing).all(1)
    if not known.any():
        return "unknown"
    low, high = float(spacing[known].min()), float(spacing[known].max())
    size = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return f"{size} mm" + ("" if known.all() else f", unknown for {np.count_nonzero(~known):,} images")


def _readers(marked: NDArray[np.bool_], data: AnnotatedSet) -> list[tuple[str, str]]:
    return [
        (f"  {name}", f"read {read.sum():,}, absent {(~read).sum():,}, marked {drawn.sum():,}")
        for name, read, drawn in zip(data.reader_names, data.read.T, marked.T, strict=True)
    ]


def _readings(data: AnnotatedSet) -> str:
    """Of the source's readings in all splits: those that are there, that have been lost, and that nobody has."""
    kept, lost, absent = data.readings or (int(data.read.sum()), 0, int((~data.read).sum()))
    return f"{kept:,}, {lost:,} lost to files that cannot be used, {absent:,} without a file"


def refuse_losses(data: AnnotatedSet, allow_missing: bool = False) -> None:
    """FileError where more than MOST_LOST of the readings have a file that cannot be used, unless that is allowed."""
    if allow_missing or data.readings is None:
        return
    kept, lost, _ = data.readings
    if lost > MOST_LOST * (kept + lost):
        quoted = [problem for problem in data.problems if problem.startswith(("reading lost", "left out"))][:QUOTED]
        raise FileError(
            f"{data.name} {data.folder}: {lost:,} of {kept + lost:,} readings are lost to files that cannot be used "
            f"({'; '.join(quoted)}{'; …' if lost > len(quoted) else ''}); mend them, or ask with --allow-missing"
        )


def remarks(train: AnnotatedSet, val: AnnotatedSet, test: AnnotatedSet) -> list[str]:
    """What a reader of the figures has to know about the readers of the three splits, a line each."""
    double = {name: read_by_two(part.read) for name, part in zip(SPLITS, (train, val, test), strict=True)}
    lines = []
    if double["test"] < HARDLY_ANY * len(test):
        lines.append(
            f"figures of ambiguity (GED, HM-IoU, ...) MEAN NOTHING here: {double['test']:,} of {len(test):,} test "
            f"cases were read by two readers"
        )
    filled = [name for name, part in zip(SPLITS, (train, val, test), strict=True) if len(part)]
    few = [name for name in filled if double[name] < ENOUGH and train.readers > 1]
    if few:
        counts = ", ".join(f"{name} {double[name]}" for name in few)
        lines.append(f"fewer than {ENOUGH} cases read by two readers: {counts}{_of_few((train, val, test))}")
    lines += [
        f"reader {train.reader_names[r]} has read no training image"
        for r in np.flatnonzero(~train.read.any(axis=0)).tolist()
        if len(train)
    ]
    return lines


def _of_few(parts: Sequence[AnnotatedSet]) -> str:
    """What to do about splits with few cases read by two: write others, where that would help."""
    double = sum(read_by_two(part.read) for part in parts)
    if double < ENOUGH * len(SPLITS):
        return f"; these data have too few for {ENOUGH} in each split, {double} in all"
    if parts[0].name != "folder":
        return ""
    table = pd.concat([part.table for part in parts], ignore_index=True)
    if table["split"].equals(dealt(table["patient"], np.concatenate([part.read for part in parts]))):
        return "; these patients have too few for other splits"
    return f"; {WRITE_CASES}"


def of_splits(data: AnnotatedSet) -> list[str]:
    """`remarks` of a set that holds all splits. Raises FileError naming the split that is empty, and what to do."""
    parts = [data.take(np.flatnonzero((data.table["split"] == split).to_numpy())) for split in SPLITS]
    empty = [split for split, part in zip(SPLITS, parts, strict=True) if not len(part)]
    if empty:
        patients = data.table["patient"].nunique()
        remedy = "see its source"
        if patients < len(SPLITS):
            remedy = "three splits need three"
        elif data.name == "folder":
            remedy = f"{WRITE_CASES}, or name them in its column split"
        raise FileError(f"no image is in {' and '.join(empty)} ({patients} patients in all); {remedy}")
    return remarks(*parts)


def write_cases(data: AnnotatedSet, source: str) -> Path:
    """Write a cases.csv to look through into the data folder, or, where it has one, cases-proposed.csv beside it."""
    name, _, folder = source.partition(":")
    if name != "folder":
        raise UsageError(f"--write-cases: only folder:PATH reads a cases.csv, got '{source}'; leave it out.")
    root = Path(folder).expanduser()
    exists = any(entry.name.lower() == "cases.csv" for entry in root.iterdir())
    file = root / ("cases-proposed.csv" if exists else "cases.csv")
    cases = propose(data, guess=not exists).sort_values(["patient", "case"])
    files.write(file, cases.to_csv(index=False).encode())
    return file


def _marked_by(marked: NDArray[np.bool_], read: NDArray[np.bool_]) -> str:
    counts = np.bincount(marked.sum(1), minlength=read.shape[1] + 1)
    return ", ".join(f"{k}: {n:,}" for k, n in enumerate(counts.tolist())) + " images"


def by_kind(problems: Sequence[str], every: bool) -> list[str]:
    """Problems grouped by what their line begins with, most frequent first: a count, then a few or `every` one.

    One alone is its line."""
    kinds = [_kind(problem) for problem in problems]
    lines = []
    for kind, count in Counter(kinds).most_common():
        these = [p for p, k in zip(problems, kinds, strict=True) if k == kind]
        if count == 1:
            lines += these
            continue
        lines.append(f"{count} × {kind}")
        lines += [f"  {problem}" for problem in (these if every else these[:QUOTED])]
        if not every and count > QUOTED:
            lines.append(f"  … and {count - QUOTED} more: --problems lists all")
    return lines


def _kind(problem: str) -> str:
    """ "duplicate image" of "duplicate image: a is b"; of a line that counts cases, what it says of them."""
    first, _, rest = problem.partition(": ")
    return rest if first[:1].isdigit() else first
