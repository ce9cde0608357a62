"""Run folders: what is finished is renamed into place, what is half done is never read.

out/fits/NAME/            weights, cost and history of a trained cell; NAME ends in the fit key
out/partial/NAME/         a training that goes on here until it is finished
out/scores/NAME/          images.parquet and meta.json of one cell and split; NAME ends in the score key
out/failures/NAME.json    the error of the last attempt at a cell
out/reports/NAME/         run.json, report.md, tables and pictures
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from uqseg import checkpoint
from uqseg.errors import FileError


@dataclass(frozen=True)
class Store:
    """The folder of all runs."""

    out: Path

    def fit(self, name: str) -> Path:
        return self.out / "fits" / name

    def partial(self, name: str) -> Path:
        return self.out / "partial" / name

    def score(self, name: str) -> Path:
        return self.out / "scores" / name

    def failure(self, name: str) -> Path:
        return self.out / "failures" / f"{name}.json"

    def report(self, name: str) -> Path:
        return self.out / "reports" / name

    @contextmanager
    def locked(self, name: str) -> Iterator[bool]:
        """Hold the cell `name`; another process that wants it waits. Yields whether it had to wait.

        The lock goes with the process, however it ends.
        """
        file = self.out / "locks" / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle = file.open("w")
        except OSError as error:
            raise _refused(file, error) from error
        with handle:
            waited = False
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield waited


def slug(*parts: object) -> str:
    """A folder's name from the parts, readable and safe on every file system."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", "-".join(map(str, parts))).strip("-")


def publish(partial: Path, final: Path) -> None:
    """Rename a finished folder into place. Raises FileError where the disk refuses."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
    except OSError as error:
        raise _refused(final, error) from error


def write_scores(folder: Path, images: pd.DataFrame, meta: dict[str, Any]) -> None:
    """The per-image scores of a cell and what they belong to, whole or not at all. The caller holds the cell's lock."""
    partial = folder.with_name(f".{folder.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        images.to_parquet(partial / "images.parquet", index=False)
        (partial / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        publish(partial, folder)
    except OSError as error:
        raise _refused(folder, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_scores(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What `write_scores` wrote. Raises FileError where it is missing or corrupt."""
    try:
        meta: dict[str, Any] = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return pd.read_parquet(folder / "images.parquet"), meta
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"cannot read the scores {folder}: {reason}; delete this folder to score anew") from error


def record_failure(file: Path, label: str, error: Exception) -> None:
    """Keep what went wrong with a cell, with its traceback."""
    text = {"label": label, "error": one_line(error), "traceback": traceback.format_exception(error)}
    checkpoint.write(file, json.dumps(text, indent=1).encode())


def one_line(error: BaseException) -> str:
    """An error as one line: its kind, unless it is a user's to mend, and its message."""
    message = " ".join(str(error).split())
    return message if isinstance(error, FileError) else f"{type(error).__name__}: {message}"


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object on disk; FileError naming the file where it cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"expected a JSON object, got {type(found).__name__}")
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {file}: {' '.join(str(error).split())[:200]}") from error
    return found


def _refused(path: Path, error: OSError) -> FileError:
    return FileError(f"cannot write {path}: {error.strerror or error}; free the disk or choose another --out")
