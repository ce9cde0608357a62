"""What a report was made of, as one key, so that it is left alone where nothing of it has changed."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import baselines
import bench
import uqseg
from uqseg.files import sha256

CODE = (".py", ".toml", ".csv", ".css", ".js")
HEAD = 4096  # bytes of the page, in which its key stands


def key_of(folder: Path, pictures: str) -> str:
    """Of the results in `folder`, the other files of their report, the code and the kind of pictures: 64 hex digits."""
    names = ("run.json", "cases.parquet", "gallery.npz", "finished.json", "report.md")
    results = [folder / name for name in names]
    results += sorted(file for part in ("cells/*/*", "tables/*", "pictures/*") for file in folder.glob(part))
    key = hashlib.sha256(f"{pictures} {uqseg.__version__}".encode())
    for file in filter(Path.is_file, results):
        key.update(f"{file.relative_to(folder)} {sha256(file)}\n".encode())
    for package in (baselines, bench, uqseg):
        root = Path(package.__path__[0])
        for file in sorted(path for path in root.rglob("*") if path.suffix in CODE):
            key.update(f"{file.relative_to(root)} {sha256(file)}\n".encode())
    return key.hexdigest()


def is_up_to_date(folder: Path, pictures: str) -> bool:
    """Whether the report in `folder` was made of what its results and the code are now."""
    file = folder / "report.html"
    page = file.read_bytes() if file.exists() else b""
    written = re.search(rb'name="origin" content="(\w+)"', page[:HEAD])
    return written is not None and page.endswith(b"</html>\n") and written[1].decode() == key_of(folder, pictures)
