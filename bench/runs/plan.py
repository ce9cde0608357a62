"""What a run will do and about how long it will take, before it does it."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd

from bench.runner import Data, declines, fit_name, new_method, score_name
from bench.spec import Cell
from bench.store import Store
from uqseg.prediction import predict_batches
from uqseg.train import Training, fit

TRIAL = 6  # images in the trial step


def plan(cells: list[Cell], data: Data, where: Store, n: int, device: str) -> pd.DataFrame:
    """One row a cell: method, repetition, steps left, and the seconds expected for training and for sampling.

    Speeds come from a trial on a few images, so the seconds are a guide to the order of magnitude.
    """
    speeds: dict[tuple[str, str], tuple[float, float]] = {}
    rows = []
    for cell in cells:
        name = fit_name(cell, data)
        left = _steps_left(cell, data, where)
        images = sum(
            len(part)
            for split in ("train", "val", "test")
            for part in [data.scored(split)]
            if not where.score(score_name(name, part, split, n)).exists()
        )
        if not left and not images:
            rows.append((cell.label, cell.repetition, "done", 0.0))
            continue
        kind = (cell.label, cell.training.model_dump_json())
        try:
            if declines(cell, data):
                rows.append((cell.label, cell.repetition, "declines these data", 0.0))
                continue
            speeds[kind] = speeds.get(kind) or _speed(cell, data, n, device)
        except Exception:
            # What fails in a trial fails in its cell too, which records it and leaves the others alone.
            rows.append((cell.label, cell.repetition, "fails in a trial step", 0.0))
            continue
        train, sample = speeds[kind]
        what = f"{left} of {cell.training.total_steps(len(data.train))} steps" if left else "trained; score"
        rows.append((cell.label, cell.repetition, what, left * cell.training.batch * train + images * sample))
    return pd.DataFrame(rows, columns=["method", "repetition", "to do", "seconds"])


def lines(planned: pd.DataFrame, device: str) -> list[str]:
    """The plan as the lines to show: one a cell and the whole."""
    said = []
    for row in planned.to_dict("records"):
        about = f", about {in_words(row['seconds'])}" if row["seconds"] else ""
        said.append(f"  {row['method']} #{row['repetition']}: {row['to do']}{about}")
    return [*said, f"Expected: about {in_words(float(planned['seconds'].sum()))} on {device}, then the report."]


def _steps_left(cell: Cell, data: Data, where: Store) -> int:
    total = cell.training.total_steps(len(data.train))
    name = fit_name(cell, data)
    if (where.fit(name) / "fit.json").exists():
        return 0
    return total - steps_done(where, name)


def steps_done(where: Store, name: str) -> int:
    """The step that the history of an unfinished training has reached; 0 where there is none."""
    history = where.partial(name) / "history.jsonl"
    if not history.exists():
        return 0
    done = [line for line in history.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return int(json.loads(done[-1])["step"]) if done else 0


def _speed(cell: Cell, data: Data, n: int, device: str) -> tuple[float, float]:
    """Seconds an image of one training step, and of n samples, from a trial on a few images."""
    few = data.train.take(np.arange(min(TRIAL, len(data.train))))
    method = new_method(cell, data)
    trial = {"steps": 1, "epochs": None, "batch": TRIAL, "validate_every": 1}
    recipe = Training(**(cell.training.model_dump() | trial))
    seconds = []
    for _ in range(2):  # the first one also warms up
        started = time.perf_counter()
        fit(method, few, recipe=recipe, device=device, progress=False)
        seconds.append(time.perf_counter() - started)
    for _ in range(2):
        started = time.perf_counter()
        for _ in predict_batches(method, few.images, n):
            pass
        seconds.append(time.perf_counter() - started)
    return seconds[1] / TRIAL, seconds[3] / len(few)


def in_words(seconds: float) -> str:
    """About 40 s, 7 min, 3 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
