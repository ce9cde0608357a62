"""Stamps: names, sizes and times of files, by which the converted copy of a data set is found without reading them."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Stamp(NamedTuple):
    """A file's name below the root, its size in bytes, and when its content and its entry changed, in ns."""

    name: str
    size: int
    mtime: int
    ctime: int


def stamp_of(name: str, stat: os.stat_result) -> Stamp:
    return Stamp(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def stamps(root: Path, paths: Sequence[Path]) -> list[Stamp]:
    """The stamp of each file, named below `root`."""
    return [stamp_of(path.relative_to(root).as_posix(), path.stat()) for path in paths]


def stamps_below(root: Path, pattern: str) -> list[Stamp]:
    """`stamps` of the files at root/pattern, by the parts of their names; several times faster than Path.glob."""
    below: list[Stamp] = []
    _walk(str(root), "", [re.compile(fnmatch.translate(part)).match for part in pattern.split("/")], below)
    return below


def _walk(folder: str, prefix: str, patterns: list[Callable[[str], object]], below: list[Stamp]) -> None:
    """Add the stamps below `folder`; sorted folder by folder, which is the order of the names' parts."""
    matches, *further = patterns
    with os.scandir(folder) as opened:
        entries = sorted((entry.name, entry) for entry in opened if matches(entry.name))
    for name, entry in entries:
        if not further:
            below.append(stamp_of(prefix + name, entry.stat()))
        elif entry.is_dir():
            _walk(entry.path, f"{prefix}{name}/", further, below)
