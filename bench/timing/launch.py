"""What a grid costs beyond the work of its cells: planned, locked, collected; and two workers beside two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.launchers import Settings
from bench.runs import plan, record, results, spec
from bench.runs.sharing import take
from bench.runs.splits import load_splits
from bench.runs.work import Job, wanted
from bench.timing.measure import in_turns
from bench.timing.outcome import Budget, Curve, Measured, Point, Setting
from uqseg.files import write
from uqseg.metrics import score

GRID = ["--recipe", "toy", "--data", "toy", "--size", "32", "--limit", "60", "--samples", "4", "--device", "cpu",
        "--no-gallery", "--no-report", "--threads", "1", "--set", "unet.width=8", "--set", "unet.depth=3",
        "--methods", "unet"]  # fmt: skip
OVERHEAD = {"processes": 2.0, "Ray": 5.0}  # seconds that a cell may take beyond its work


def section(at: Setting) -> Measured:
    """Grids of cells that are done, so that nothing is left but planning, locks and reading; then trained grids, each a
    command of its own: two workers beside two plain processes, and what a launcher adds to each cell of two steps."""
    measured = Measured()
    counts = (10, 100) if at.quick else (10, 100, 1000)
    _grid(1)  # converts the data, and imports what is imported once
    parts = [_grid(count) for count in counts]
    for name in parts[0]:
        points = [Point(n, part[name], None) for n, part in zip(counts, parts, strict=True)]
        measured.curves.append(Curve(f"{name} of a grid without training", "cells", 1, 1, points))
    rounds = 1 if at.quick else 3
    _beside(measured, 20 if at.quick else 600, rounds)
    _overhead(measured, 4 if at.quick else 12, rounds)
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
        plan.plan(Job(folder, entry, request, splits), "cpu")
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


def _command(root: str, seeds: str, steps: int, *words: str) -> subprocess.Popen[bytes]:
    """A grid of trainings, one for each of the seeds, begun as a process of its own."""
    command = [sys.executable, "-m", "bench", "run", *GRID, "--set", f"training.steps={steps}", "--seeds", seeds,
               "--out", root, *words]  # fmt: skip
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)


def _ended(*processes: subprocess.Popen[bytes]) -> None:
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError("a grid could not be measured: its command failed, see above")


def _beside(measured: Measured, steps: int, rounds: int) -> None:
    """A grid of four trainings by --jobs 2, and as two plain processes of two each that share nothing, in turns."""

    def jobs() -> None:
        with tempfile.TemporaryDirectory() as root:
            _ended(_command(root, "0-3", steps, "--jobs", "2"))

    def plain() -> None:
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            _ended(_command(one, "0,1", steps), _command(other, "2,3", steps))

    goals, what = {"--jobs 2": 0.9}, f"four trainings of {steps} steps on two cores"
    measured.add(what, {"two plain processes": plain, "--jobs 2": jobs}, rounds, goals)


def _overhead(measured: Measured, cells: int, rounds: int) -> None:
    """What each cell of a grid takes more by one worker that is started for it than in the command's own process."""

    def grid(*words: str) -> None:
        with tempfile.TemporaryDirectory() as root:
            _ended(_command(root, f"0-{cells - 1}", 2, *words))

    works = {"alone": grid, "processes": lambda: grid("--launcher", "processes")}
    if find_spec("ray"):
        works["Ray"] = lambda: grid("--ray")
    seconds = {name: float(np.median(each)) for name, each in in_turns(works, rounds).items()}
    for name, goal in OVERHEAD.items():
        if name in seconds:
            more = (seconds[name] - seconds["alone"]) / cells
            measured.budgets.append(Budget(f"overhead of a cell by {name}, start of the worker included", more, goal))
            measured.notes.append(
                f"By {name} {cells} cells took {seconds[name]:.1f} s, in the command's own process "
                f"{seconds['alone']:.1f} s."
            )
        else:
            measured.notes.append(f"Overhead of a cell by {name}: not measured, it is not installed.")
