"""Scoring of a large set in shards: ranges of its cases, which any workers may score, and their joining.

STORE/partial/NAME/: a file for each shard that is scored, with every statistic of its cases in double precision, so
that sums over patients and figures over all cases are those of one piece to the last digit.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from bench.runs.keys import key_of
from bench.runs.store import Store
from uqseg.files import write
from uqseg.locks import BusyError
from uqseg.metrics import Scores, statistics

SHARD = 2**14  # cases: a multiple of every batch, so that batches are those of one piece
AT_ONCE = 2**22  # numbers that are summed at once
STATISTIC = "statistic/"  # before a statistic's name in a shard's file
Score = Callable[[slice], tuple[Scores, float]]


def parts(cases: int) -> list[slice]:
    """The ranges of `cases` cases."""
    return [slice(start, min(start + SHARD, cases)) for start in range(0, cases, SHARD)]


def score_free(store: Store, name: str, cases: int, names: Sequence[str], score: Score) -> list[slice]:
    """Score the shards of the scores `name` that nobody else is at; the others."""
    busy = []
    for part in parts(cases):
        file = _file(store, name, names, part)
        try:
            with store.locked(f"{name}-{part.start}", wait=False):
                if not _is_readable(file):
                    _write(file, *score(part))
        except BusyError:
            busy.append(part)
    return busy


def joined(store: Store, name: str, cases: int, names: Sequence[str]) -> tuple[Scores, float]:
    """The scores of all cases in their order, and the milliseconds of an image.

    What is kept only as sums per patient is summed here, AT_ONCE numbers at a time, to bound the memory.
    """
    shards = [np.load(_file(store, name, names, part)) for part in parts(cases)]
    first: Any = shards[0]
    kind = first["samples"].item(), first["drawn"].item()
    owners, ids = (np.concatenate([shard[key] for shard in shards]) for key in ("patients", "cases"))
    summed = {s.name for s in statistics().values() if s.summed}
    values, sums = {}, {}
    for key in (key for key in first.files if key.startswith(STATISTIC)):
        statistic, shape = key.removeprefix(STATISTIC), first[key].shape[1:]
        if statistic not in summed:
            values[statistic] = np.concatenate([shard[key] for shard in shards])
            continue
        width, pairs = max(1, AT_ONCE // cases), []
        for start in range(0, int(np.prod(shape)), width):
            numbers = [shard[key].reshape(len(shard[key]), -1)[:, start : start + width] for shard in shards]
            totals, counts = Scores(ids, owners, {statistic: np.concatenate(numbers)}, *kind).sums([statistic])
            pairs.append((totals[statistic], counts[statistic]))
        total, count = (np.concatenate(part, 1) for part in zip(*pairs, strict=True))
        sums[statistic] = total.reshape(-1, *shape), count.reshape(-1, *shape)
    scores = Scores(ids, owners, values, *kind, sums, bool(first["averaged"]))
    return scores, float(np.median([float(shard["milliseconds"]) for shard in shards]))


def free(store: Store, name: str) -> None:
    """Remove the shards of scores that are joined and stored."""
    shutil.rmtree(store.partial(name), ignore_errors=True)


def _file(store: Store, name: str, names: Sequence[str], part: slice) -> Path:
    return store.partial(name) / f"{key_of(sorted(names))[:8]}-{part.start}-{part.stop}.npz"


def _is_readable(file: Path) -> bool:
    try:
        with np.load(file) as shard:
            return all(shard[key] is not None for key in shard.files)  # each is checked against its CRC
    except (OSError, ValueError, BadZipFile, KeyError):
        return False


def _write(file: Path, scores: Scores, milliseconds: float) -> None:
    arrays: dict[str, Any] = {f"{STATISTIC}{name}": x for name, x in scores.values.items()}
    buffer = io.BytesIO()
    np.savez(buffer, cases=scores.cases, patients=scores.patients, samples=scores.samples, drawn=scores.drawn,
             averaged=scores.averaged, milliseconds=milliseconds, **arrays)  # fmt: skip
    write(file, buffer.getvalue())
