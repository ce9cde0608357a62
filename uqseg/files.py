"""Files that are complete or absent: atomic, durable, checksummed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from uqseg.errors import FileError


def write(path: str | Path, data: bytes) -> None:
    """Write a file completely or not at all, and durably. Raises FileError where the disk refuses."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> FileError:
    return FileError(f"cannot write {path}: {error.strerror or error}; free the disk or choose another folder")


def _sync(path: Path) -> None:
    """Have the disk hold what was written to a file or folder (folders not on Windows, which has no such call)."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(partial: Path, final: Path, valid: Callable[[Path], bool] | None = None) -> None:
    """Make the complete folder `partial` appear as `final`, durably.

    A final folder that is valid is kept and `partial` removed; one that is not is moved aside. valid: says so of a
    folder; by default it has a file for each file of `partial`. Raises FileError where the disk refuses.
    """
    names = {p.relative_to(partial) for p in partial.rglob("*")}
    complete = valid or (lambda folder: all((folder / name).exists() for name in names))
    try:
        for path in (*(partial / name for name in names), partial):
            _sync(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.exists() and not complete(final):
            os.replace(final, final.with_name(f"{final.name}.broken-{time.time_ns()}"))
        try:
            # Not onto an existing folder, even an empty one, which some systems would replace.
            if final.exists():
                raise FileExistsError
            os.replace(partial, final)
        except OSError:  # somebody else published the same in the meantime
            if not (final.exists() and complete(final)):
                raise
            shutil.rmtree(partial)
        _sync(final.parent)
    except OSError as error:
        raise _unwritable(final, error) from error


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises FileError where it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error


def read_json(path: str | Path) -> Any:
    """The value that a JSON file holds. Raises FileError naming the file where it is missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read {path}: {' '.join(str(error).split())}") from error
