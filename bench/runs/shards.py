"""Scoring of a large set in shards: ranges of its cases, which any workers may score, and their joining.

STORE/partial/NAME/: a file for each shard that is scored, with every statistic of its cases in double precision, so
that sums over patients and figures over all cases are those of one piece to the last digit.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from bench.runs.keys import key_of
from bench.runs.store import Store
from uqseg.files import write
from uqseg.locks import BusyError
from uqseg.metrics import Scores, statistics
from uqseg.metrics.registry import Floats
from uqseg.metrics.scores import as_stored

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

    To bound the memory, statistics are of the types that they are stored in, and of what is kept only as sums per
    patient AT_ONCE numbers are summed at a time.
    """
    shards = [np.load(_file(store, name, names, part)) for part in parts(cases)]
    first: Any = shards[0]
    kind = first["samples"].item(), first["drawn"].item()
    owners, ids = (np.concatenate([shard[key] for shard in shards]) for key in ("patients", "cases"))
    summed = {s.name for s in statistics().values() if s.summed}
    values, sums = {}, {}
    for key in (key for key in first.files if key.startswith(STATISTIC)):
        statistic = key.removeprefix(STATISTIC)
        if statistic in summed:
            sums[statistic] = _summed(shards, key, Scores(ids, owners, {}, *kind))
        else:
            values[statistic] = as_stored(np.concatenate([shard[key] for shard in shards]))
    scores = Scores(ids, owners, values, *kind, sums, bool(first["averaged"]))
    return scores, float(np.median([float(shard["milliseconds"]) for shard in shards]))


def _summed(shards: Sequence[Any], key: str, of: Scores) -> tuple[Floats, Floats]:
    """Sums of a statistic over the cases of each patient, and how many are defined: as many of each of its numbers."""
    shape = shards[0][key].shape[1:]
    count, width = int(np.prod(shape)), max(1, AT_ONCE // len(of))
    total, defined = np.empty((len(of.patient_names), count)), np.zeros((len(of.patient_names), 1))
    for part in (slice(start, start + width) for start in range(0, count, width)):
        numbers = np.concatenate([shard[key].reshape(-1, count)[:, part].copy() for shard in shards])
        sums, counts = replace(of, values={key: numbers}).sums([key])
        total[:, part] = sums[key]
        defined = np.maximum(defined, counts[key].max(1, keepdims=True))
    return total.reshape(-1, *shape), np.broadcast_to(defined, total.shape).reshape(-1, *shape)


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
