"""What a grid costs beyond the work of its cells: planned, locked, collected; and two workers beside two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.launchers import Settings
from bench.runs import record, results, spec
from bench.runs.sharing import take
from bench.runs.splits import load_splits
from bench.runs.work import wanted
from bench.timing.sections import Curve, Measured, Point, Setting
from uqseg.files import write
from uqseg.metrics import score

GRID = ["--recipe", "toy", "--data", "toy", "--size", "32", "--limit", "60", "--samples", "4", "--device", "cpu",
        "--no-gallery", "--threads", "1", "--set", "unet.width=8", "--set", "unet.depth=3",
        "--methods", "unet"]  # fmt: skip


def section(at: Setting) -> Measured:
    """Grids of cells that are done, so that nothing is left but planning, locks and reading; then a trained grid."""
    measured = Measured()
    counts = (10, 100) if at.quick else (10, 100, 1000)
    parts = [_grid(count) for count in counts]
    for name in parts[0]:
        points = [Point(n, part[name], None) for n, part in zip(counts, parts, strict=True)]
        measured.curves.append(Curve(f"{name} of a grid without training", "cells", 1, 1, points))
    if not at.quick:
        _beside(measured, at)
    return measured


def _grid(count: int) -> dict[str, float]:
    """Seconds of each part, for `count` cells whose scores are copies of one."""
    seconds = {}
    with tempfile.TemporaryDirectory() as root:
        started = time.perf_counter()
        request = spec.make_run(data="toy", recipe_name="toy", labels=["unet"], seeds=range(count), size=16, limit=20)
        splits = load_splits(request)
        entry = record.make_record(request, splits, "grid", "", "")
        folder = Path(root) / "grid"
        record.write(folder, entry, splits)
        seconds["plan"] = time.perf_counter() - started
        _put_cells(folder, entry, splits)
        started = time.perf_counter()
        take(folder, [cell["folder"] for cell in entry["cells"]], Settings("cpu", log=lambda line: None))
        seconds["lock"] = time.perf_counter() - started
        started = time.perf_counter()
        results.read_results(folder)
        seconds["collect"] = time.perf_counter() - started
        started = time.perf_counter()
        for number in range(count):
            write(folder / "synced" / str(number), b"x")
        seconds["one durable write for each cell (fsync)"] = time.perf_counter() - started
    return seconds


def _put_cells(folder: Path, entry: dict[str, Any], splits: Any) -> None:
    """Finished cells in the results folder, all with the same scores."""
    first, *others = entry["cells"]
    scores = {}
    for split in results.SPLITS:
        data = splits.scored(split)
        samples = np.zeros((len(data), 1, *data.masks.shape[2:]), np.float32)
        patients = data.table["patient"].tolist()
        scores[split] = score(samples, np.array(data.masks), np.array(data.read), drawn="support", patients=patients,
                              statistics=list(wanted(split, first)), cases=data.cases.tolist())  # fmt: skip
    info = {"label": "unet", "repetition": 0, "scores": first["scores"], "statistics": wanted("test", first)}
    results.write_cell(folder / "cells" / first["folder"], scores, info)
    files = {file.name: file.read_bytes() for file in (folder / "cells" / first["folder"]).iterdir()}
    for cell in others:
        path = folder / "cells" / cell["folder"]
        path.mkdir()
        own = json.loads(files["cell.json"]) | {"repetition": cell["repetition"], "scores": cell["scores"]}
        for name, content in (files | {"cell.json": json.dumps(own).encode()}).items():
            (path / name).write_bytes(content)


def _beside(measured: Measured, at: Setting) -> None:
    """A grid of four trainings by --jobs 2, and as two plain processes of two each that share nothing, in turns."""

    def run(root: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "bench", "run", *GRID, "--set", "training.steps=600", "--out", root, *words]
        alone = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, env=alone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def jobs() -> None:
        with tempfile.TemporaryDirectory() as root:
            run(root, "--seeds", "0-3", "--jobs", "2").wait()

    def plain() -> None:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            for process in [run(one, "--seeds", "0,1"), run(other, "--seeds", "2,3")]:
                process.wait()

    measured.add("four trainings on two cores", {"two plain processes": plain, "--jobs 2": jobs}, 3, {"--jobs 2": 0.9})
