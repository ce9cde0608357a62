"""The store of weights and scores, shared by all runs: what is finished is renamed into place.

OUT/store/fits/NAME/      weights, cost and history of a training; NAME ends in the fit key
OUT/store/partial/NAME/   a training that goes on there until it is finished
OUT/store/scores/NAME/    scores of one split; NAME ends in the score key
OUT/store/locks/NAME      locks, which only save work: every writer writes into a folder of its own and renames it;
                          NAME.lease where the file system has no locks
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.runs import results
from uqseg import locks
from uqseg.errors import DamagedError
from uqseg.files import beside, mend
from uqseg.metrics import Scores

STORE = "store"  # the one name below --out that is no run's
LONGEST = 120  # letters of a folder's name, of the 255 that file systems allow
REMEDY = "choose another folder for --out"


@dataclass(frozen=True)
class Store:
    """The folder of weights and scores below the folder of all runs."""

    root: Path

    def fit(self, name: str) -> Path:
        """Folder of a training's weights."""
        return self.root / "fits" / name

    def partial(self, name: str) -> Path:
        """Folder of a training, or of scores, that are not complete."""
        return self.root / "partial" / name

    def scores(self, name: str) -> Path:
        """Folder of a sampler's scores of one split."""
        return self.root / "scores" / name

    def steps_done(self, fit_name: str) -> int:
        """The step that the history of an unfinished training has reached; 0 where there is none that can be read."""
        lines = results.history_so_far(self.partial(fit_name) / "history.jsonl")
        return int(lines[-1]["step"]) if lines else 0

    @contextmanager
    def locked(self, name: str, wait: bool = True) -> Iterator[None]:
        """Hold `name`. Where another process holds it, wait for that, or else raise BusyError."""
        with locks.locked(self.root / "locks" / name, wait, REMEDY):
            yield


def slug(*parts: object) -> str:
    """A folder's name from the parts, readable and safe on every file system."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", "-".join(map(str, parts))).strip("-.")


def named(key: str, *parts: object) -> str:
    """The name of a folder in the store: readable, and unique by the beginning of its key."""
    return f"{slug(*parts)[:LONGEST]}-{key[:12]}"


def write_scores(folder: Path, split: str, scores: Scores, info: Mapping[str, Any]) -> None:
    """Publish the scores of a split; damaged ones and those of older statistics in their place are replaced."""
    partial = beside(folder)

    def same(final: Path) -> bool:
        try:
            return bool(read_scores(final, split)[1]["statistics"] == info["statistics"])
        except DamagedError:
            return False

    try:
        results.write_cell(partial, {split: scores}, info)
        mend(partial, folder, valid=same)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_scores(folder: Path, split: str) -> tuple[Scores, dict[str, Any]]:
    """What `write_scores` wrote. Raises DamagedError where a file is missing or not as it was written."""
    cell = results.read_cell(folder)
    if split not in cell.scores or "statistics" not in cell.info:
        raise DamagedError(f"cannot read the scores {folder}: nothing of the split '{split}'; delete this folder")
    return cell.scores[split], cell.info
