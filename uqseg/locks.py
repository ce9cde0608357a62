"""Locks between processes, and leases where a file system has no locks.

They only save work: whoever writes publishes by rename, so that without them nothing is wrong, only done twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLease, Timeout

from uqseg.files import REMEDY, unwritable

LEASE = 300.0  # seconds after which a lease that its holder has not renewed is taken over


class BusyError(RuntimeError):
    """Another process works on what is wanted, and it was not to be waited for."""


@contextmanager
def locked(file: Path, wait: bool = True, remedy: str = REMEDY) -> Iterator[None]:
    """Hold the lock `file`. Where another process holds it, wait for that, or else raise BusyError.

    Raises FileError with the remedy where the disk refuses it.
    """
    lock = _acquired(file, wait, remedy)
    try:
        yield
    finally:
        lock.release()


def _acquired(file: Path, wait: bool, remedy: str) -> BaseFileLock:
    seconds = -1 if wait else 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock: BaseFileLock = FileLock(file, fallback_to_soft=False)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise
        except (OSError, NotImplementedError):  # a file system without locks
            lock = _lease(file.with_name(f"{file.name}.lease"))
            lock.acquire(timeout=seconds)
    except Timeout as error:
        raise BusyError(f"another process works on {file.name}") from error
    except OSError as error:
        raise unwritable(file, error, remedy) from error
    return lock


@cache
def _lease(file: Path) -> SoftFileLease:
    """The one lease of this process on a file: it remembers since when another's has not been renewed."""
    return SoftFileLease(file, lease_duration=LEASE)
