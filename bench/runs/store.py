"""The store of weights and scores, shared by all runs: what is finished is renamed into place.

OUT/store/fits/NAME/      weights, cost and history of a training; NAME ends in the fit key
OUT/store/partial/NAME/   a training that goes on there until it is finished
OUT/store/scores/NAME/    scores of one split; NAME ends in the score key
OUT/store/locks/NAME      locks, which only save work: every writer writes into a folder of its own and renames it
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.runs import results
from uqseg.errors import FileError
from uqseg.files import publish, read_json
from uqseg.metrics import Scores

LONGEST = 120  # letters of a folder's name, of the 255 that file systems allow


@dataclass(frozen=True)
class Store:
    """The folder of weights and scores below the folder of all runs."""

    root: Path

    def fit(self, name: str) -> Path:
        return self.root / "fits" / name

    def partial(self, name: str) -> Path:
        return self.root / "partial" / name

    def scores(self, name: str) -> Path:
        return self.root / "scores" / name

    @contextmanager
    def locked(self, name: str) -> Iterator[bool]:
        """Hold `name` while another process that wants it waits. Yields False where the file system cannot lock."""
        file = self.root / "locks" / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"cannot write {file}: {error.strerror or error}; choose another --out") from error
        lock = FileLock(file)
        try:
            lock.acquire()
        except (OSError, NotImplementedError):
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def slug(*parts: object) -> str:
    """A folder's name from the parts, readable and safe on every file system."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", "-".join(map(str, parts))).strip("-.")


def named(key: str, *parts: object) -> str:
    """The name of a folder in the store: readable, and unique by the beginning of its key."""
    return f"{slug(*parts)[:LONGEST]}-{key[:12]}"


def own(folder: Path) -> Path:
    """Beside `folder` one that no other process writes into; readers pass over names that begin with a dot."""
    return folder.with_name(f".{folder.name}.{socket.gethostname()}-{os.getpid()}")


def write_scores(folder: Path, split: str, scores: Scores, info: Mapping[str, Any]) -> None:
    """Publish the scores of a split; those of older statistics in their place are replaced."""
    partial, versions = own(folder), info["statistics"]
    try:
        results.write_cell(partial, {split: scores}, info)
        publish(partial, folder, valid=lambda final: read_json(final / "cell.json")["statistics"] == versions)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for replaced in folder.parent.glob(f"{folder.name}.broken-*"):
        shutil.rmtree(replaced, ignore_errors=True)


def read_scores(folder: Path, split: str) -> tuple[Scores, dict[str, Any]]:
    """What `write_scores` wrote. Raises FileError where a file is missing or damaged."""
    try:
        cell = results.read_cell(folder)
        return cell.scores[split], cell.info
    except (FileError, KeyError, TypeError) as error:
        raise FileError(f"cannot read the scores {folder}: {error}; delete this folder to score anew") from error
