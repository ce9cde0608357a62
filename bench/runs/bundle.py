"""What a worker made of some cells, as bytes: for workers that do not see the folder of the run."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from bench.runs.results import entries_of, read_run
from bench.runs.store import STORE
from uqseg.files import beside, make_folder, mend


def pack(folder: Path, cells: Sequence[str]) -> bytes:
    """The results of the cells in `folder` with their weights and scores in its store."""
    run, buffer = read_run(folder), io.BytesIO()
    names = [folder / "cells" / cell for cell in cells]
    for cell, entry in entries_of(run).items():
        if cell in cells:
            names += [folder.parent / STORE / "scores" / name for name in entry["scores"].values()]
            names += [folder.parent / STORE / "fits" / entry["fit"]] if "fit" in entry else []
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in dict.fromkeys(names):
            if path.exists():
                archive.add(path, path.relative_to(folder.parent))
    return buffer.getvalue()


def unpack(data: bytes, folder: Path) -> None:
    """Put what `pack` took below the folder of runs that `folder` is in; what is there already stays."""
    make_folder(folder.parent)
    partial = beside(folder)
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(partial, filter="data")
        for parts in ("*/cells/*", f"{STORE}/*/*"):
            for path in sorted(partial.glob(parts)):
                _take_over(path, folder.parent / path.relative_to(partial))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _take_over(path: Path, final: Path) -> None:
    """Move a folder into place, unless one with all of its files is there."""
    names = {file.name for file in path.iterdir()}
    mend(path, final, valid=lambda kept: names <= {file.name for file in kept.iterdir()})
