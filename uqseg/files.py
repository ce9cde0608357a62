"""Files that are complete or absent: atomic, durable, checksummed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from uqseg.errors import DamagedError, FileError

REMEDY = "free the disk or choose another folder"


def write(path: str | Path, data: bytes, remedy: str = REMEDY) -> None:
    """Write a file completely or not at all, and durably. Raises FileError with the remedy where the disk refuses."""
    path = Path(path)
    try:
        make_folder(path.parent)
        partial = beside(path)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            with suppress(OSError):
                partial.unlink()
        _sync(path.parent)
    except OSError as error:
        raise unwritable(path, error, remedy) from error


def unwritable(path: Path, error: OSError, remedy: str = REMEDY) -> FileError:
    """The error for a file or folder that the disk refuses."""
    return FileError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, durably."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        _sync(folder.parent)


def is_taken(path: Path) -> bool:
    """Whether a file is in this place, or a folder that is not empty."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def beside(path: Path) -> Path:
    """A hidden name beside `path` that no other process writes to; what killed processes left there is removed."""
    host = platform.node()
    for old in path.parent.glob(f".*.{host}.*.*"):
        pid, token = old.name.split(".")[-2:]
        if not is_running(pid) and token.partition("-")[2] in ("", _container()):
            shutil.rmtree(old, ignore_errors=True)
            with suppress(OSError):
                old.unlink()
    return path.with_name(f".{path.name}.{host}.{os.getpid()}.{secrets.token_hex(4)}-{_container()}")


@cache
def _container() -> str:
    """On Linux, tells apart the containers of a machine, whose numbers of processes mean other processes."""
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def is_running(pid: str) -> bool:
    """Whether a process of this machine runs; taken to where the system cannot be asked without harm (Windows)."""
    if os.name != "posix" or not pid.isdecimal():
        return True
    with suppress(PermissionError):  # it runs, for somebody else
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, OverflowError):
            return False
    return True


def _sync(path: Path) -> None:
    """Have the disk hold what was written to a file or folder (folders not on Windows, which has no such call)."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP)):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def publish(partial: Path, final: Path, valid: Callable[[Path], bool] | None = None, remedy: str = REMEDY) -> None:
    """Make the complete folder `partial` appear as `final`, durably.

    A final folder that is valid is kept and `partial` removed; one that is not is moved aside. valid: says so of a
    folder; by default it has a file for each file of `partial`. Raises FileError with the remedy where the disk
    refuses.
    """
    names = {p.relative_to(partial) for p in partial.rglob("*")}
    complete = valid or (lambda folder: all((folder / name).exists() for name in names))
    try:
        for path in (*(partial / name for name in names), partial):
            _sync(path)
        make_folder(final.parent)
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
        for folder in {final.parent, partial.parent}:
            _sync(folder)
    except OSError as error:
        raise unwritable(final, error, remedy) from error


def mend(partial: Path, final: Path, valid: Callable[[Path], bool], remedy: str = REMEDY) -> None:
    """`publish`, after which nothing is left of a folder that was not valid: what it held has been made anew."""
    publish(partial, final, valid, remedy)
    for replaced in final.parent.glob(f"{final.name}.broken-*"):
        shutil.rmtree(replaced, ignore_errors=True)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file. Raises FileError where it cannot be read, DamagedError where it is missing."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def read_json(path: str | Path) -> Any:
    """The value that a JSON file holds. Raises FileError naming it where it cannot be read, DamagedError where it is
    missing or broken."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str | Path, error: Exception, advice: str = "") -> FileError:
    """The error for a file that cannot be read: damaged, unless the system keeps it from being read."""
    kept = isinstance(error, OSError) and error.errno and error.errno not in (errno.ENOENT, errno.EISDIR, errno.ENOTDIR)
    kind = FileError if kept else DamagedError
    return kind(f"cannot read {path}: {' '.join(str(error).split())[:300]}" + (f"; {advice}" if advice else ""))
