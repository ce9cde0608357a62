"""What a run will do and about how long it will take, before it does it."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch

from bench.console import in_words
from bench.runs import results
from bench.runs.record import new_method
from bench.runs.spec import Cell
from bench.runs.splits import Splits
from bench.runs.work import Job, is_done, missing, one_line
from uqseg.data import AnnotatedSet
from uqseg.device import pick_device
from uqseg.errors import UsageError
from uqseg.prediction import predict_batches
from uqseg.samples import Sampler
from uqseg.training import Training, fit

TRIAL = 12  # images in the trial step, as many as most recipes have in a batch
DECLINES, FAILS = "declines these data", "fails in a trial step: "
STEPS = 12  # of a trial where one does not do
SLOW = 0.2  # seconds of a sample from which on the trial draws no more


def plan(job: Job, device: str) -> pd.DataFrame:
    """One row per cell: label, repetition, steps left, and the seconds expected for training and for sampling.

    Speeds come from a trial on a few images with the threads that the cells will have, so the seconds are a guide to
    the order of magnitude. Raises UsageError with the first reason where every method fails in its trial.
    """
    torch.set_num_threads(job.record["threads"])
    speeds: dict[str, tuple[float, float]] = {}  # by training, which repetitions and wrappers share
    counted: set[str] = set()  # trainings that a row above does
    rows = []
    for name, cell in job.cells.items():
        entry = job.entries.get(name)
        if entry is None:
            rows.append((cell.label, cell.repetition, DECLINES, 0.0))
            continue
        if is_done(job.folder / "cells" / name, entry):
            rows.append((cell.label, cell.repetition, "done", 0.0))
            continue
        total = cell.training.total_steps(len(job.splits.train))
        left = 0 if job.store.fit(entry["fit"]).exists() else total - job.store.steps_done(entry["fit"])
        images = sum(job.splits.count(s) for s in results.SPLITS if missing(job.store, entry, s))
        try:
            kind = f"{cell.method} {cell.options!r} {cell.training!r}"
            speeds[kind] = speeds.get(kind) or _speed(cell, job.splits, job.run.samples, device)
        except Exception as error:
            # What fails in a trial fails in its cell too, which records it and leaves the others alone.
            rows.append((cell.label, cell.repetition, f"{FAILS}{one_line(error)}", 0.0))
            continue
        train, sample = speeds[kind]
        shared = left > 0 and entry["fit"] in counted
        counted.add(entry["fit"])
        left = 0 if shared else left
        trained = "shares a training" if shared else "trained"
        text = f"{left} of {total} steps" if left else f"{trained}; score" if images else "scored; collect"
        rows.append((cell.label, cell.repetition, text, left * cell.training.batch * train + images * sample))
    for name, entry in job.entries.items():
        if "predictions" in entry:
            done = is_done(job.folder / "cells" / name, entry)
            rows.append((entry["label"], 0, "done" if done else "score the files", 0.0))
    planned = pd.DataFrame(rows, columns=["method", "repetition", "to do", "seconds"])
    tried = planned[planned["to do"] != DECLINES]
    if len(tried) and tried["to do"].str.startswith(FAILS).all():
        raise UsageError(f"{tried['method'].iloc[0]} {tried['to do'].iloc[0]}")
    return planned


def lines(planned: pd.DataFrame, device: str, jobs: int = 1) -> list[str]:
    """The plan as text: one line per cell, and the total."""
    text = []
    for row in planned.to_dict("records"):
        about = f", about {in_words(row['seconds'])}" if row["seconds"] else ""
        text.append(f"  {row['method']} #{row['repetition']}: {row['to do']}{about}")
    seconds, by = float(planned["seconds"].sum()) / jobs, f" by {jobs} processes" if jobs > 1 else ""
    return [*text, f"Expected: about {in_words(seconds)} on {pick_device(device)}{by}, then the report."]


def _speed(cell: Cell, splits: Splits, n: int, device: str) -> tuple[float, float]:
    """Seconds per image of one training step, and of n samples, from a trial on a few images."""
    try:
        return _trial(cell, splits, n, device, 1)
    except UsageError:  # of a method that collects its last weights, one step is too little
        return _trial(cell, splits, n, device, STEPS)


def _trial(cell: Cell, splits: Splits, n: int, device: str, steps: int) -> tuple[float, float]:
    """The same from a trial of so many steps."""
    few = splits.train.take(np.arange(min(TRIAL, len(splits.train))))
    method = new_method(cell, splits)
    batch = min(TRIAL, cell.training.batch)  # a larger one might not fit into memory where the cell's does
    trial = {"steps": steps, "epochs": None, "batch": batch, "validate_every": 1, "keep": "last"}
    recipe = Training(**(cell.training.model_dump() | trial))
    seconds = []
    for _ in range(2):  # the first one also warms up
        started = time.perf_counter()
        fit(method, few, recipe=recipe, device=device, progress=False)
        seconds.append(time.perf_counter() - started)
    return seconds[1] / batch / steps, _sampling_speed(method, few, n)


def _sampling_speed(method: Sampler, few: AnnotatedSet, n: int) -> float:
    """Seconds per image of n samples; of a slow sampler from one sample of one image, which takes long enough."""
    one = few.take(slice(0, 1))
    for data, samples in ((one, 1), (one, 1), (few, n)):
        started = time.perf_counter()
        (_, drawn), *_ = predict_batches(method, data, samples)
        seconds = time.perf_counter() - started
        if seconds > SLOW:
            return seconds / len(data) * (1 if drawn.drawn == "support" else n / samples)
    return seconds / len(few)
