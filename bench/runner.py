"""One cell: fit → sample → score → write; and the yardsticks, which need no fit."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from baselines.reference import YARDSTICKS, frequency_of, samples_of
from bench import store
from bench.spec import Cell, Run
from bench.store import Store, slug
from uqseg import checkpoint, methods
from uqseg.data import AnnotatedSet, load
from uqseg.device import pick_device
from uqseg.methods import Method
from uqseg.metrics import score
from uqseg.prediction import predict_batches
from uqseg.seeds import generator
from uqseg.train import fit

BATCH = 64  # images scored at once
SHOWN = 1000  # images of train and of val that are scored at most: they are there to show overfitting
CODE = 1  # part of the fit key: raise it when training changes so that old weights no longer stand for it

Draw = Callable[[], Iterator[tuple[slice, Tensor, Tensor | None]]]


@dataclass(frozen=True)
class Data:
    """The three splits of one run. Train and val are scored on half as many images as test, and SHOWN, at most."""

    train: AnnotatedSet
    val: AnnotatedSet
    test: AnnotatedSet

    def scored(self, split: str) -> AnnotatedSet:
        """The images of a split that are scored: all of test; of train and val an even spread."""
        whole: AnnotatedSet = getattr(self, split)
        most = min(max(len(self.test) // 2, 1), SHOWN)
        if split == "test" or len(whole) <= most:
            return whole
        return whole.take(np.linspace(0, len(whole) - 1, most).astype(np.intp))


def data_of(run: Run, progress: bool = False) -> Data:
    """The three splits that a run asks for."""

    def part(split: str) -> AnnotatedSet:
        return load(run.data, split=split, size=run.size, limit=getattr(run.limit, split), progress=progress)

    return Data(part("train"), part("val"), part("test"))


@cache
def metric_version() -> str:
    """A hash of the metrics' source text: when it changes, scores are computed anew and weights are kept."""
    digest = hashlib.sha256()
    for package in ("uqseg", "uqseg.metrics"):
        for file in sorted(files(package).iterdir(), key=lambda f: f.name):
            if file.name.endswith(".py") and (package.endswith("metrics") or file.name == "prediction.py"):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _key(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:12]


def fit_name(cell: Cell, data: Data) -> str:
    """The folder of a cell's weights: readable, and unique by its fit key (data, method, recipe, repetition)."""
    key = _key(CODE, data.train.key, data.val.key, cell.text)
    return slug(data.train.name, cell.label, f"r{cell.repetition}", key)


def score_name(name: str, data: AnnotatedSet, split: str, n: int) -> str:
    """The folder of scores: unique by its score key (fit key, split, samples, metric version)."""
    return slug(name, split, f"s{n}", _key(name, data.key, len(data), split, n, metric_version()))


def fitted(cell: Cell, data: Data, where: Store, device: str, progress: bool) -> Method:
    """The trained method of a cell, from its folder or trained now; an interrupted training goes on."""
    name = fit_name(cell, data)
    final, partial = where.fit(name), where.partial(name)
    if not final.exists():
        seed = cell.seed(data.train.key)
        method = new_method(cell, data)
        fit(
            method,
            data.train,
            val=data.val,
            recipe=cell.training,
            device=device,
            out=partial,
            progress=progress,
            seed=seed,
        )
        described = {"label": cell.label, "repetition": cell.repetition, "data": data.train.name, "cell": cell.text}
        checkpoint.write(partial / "cell.json", json.dumps(described, indent=1).encode())
        store.publish(partial, final)
    return checkpoint.load(final, pick_device(device))


def new_method(cell: Cell, data: Data) -> Method:
    """The cell's method, untrained."""
    return methods.build(
        cell.method,
        channels=data.train.images.shape[1],
        readers=data.train.readers,
        seed=cell.seed(data.train.key),
        **cell.options.model_dump(),
    )


def declines(cell: Cell, data: Data) -> str | None:
    """Why the cell's method cannot be used on these data, or None."""
    size = data.train.images.shape[2:]
    return new_method(cell, data).declines(
        channels=data.train.images.shape[1], readers=data.train.readers, size=(size[0], size[1])
    )


def run_cell(cell: Cell, data: Data, where: Store, n: int, device: str, progress: bool) -> None:
    """Train the cell and score it on the three splits, as far as that is not done."""
    name = fit_name(cell, data)
    with where.locked(name):
        method: Method | None = None
        for split in ("test", "val", "train"):
            part = data.scored(split)
            folder = where.score(score_name(name, part, split, n))
            if folder.exists():
                continue
            method = method or fitted(cell, data, where, device, progress)
            table, sampled = _scores(
                _draw(method, part, n), part, split, method.support is not None, f"score {cell.label} {split}", progress
            )
            cost = store.read_json(where.fit(name) / "fit.json")
            meta = {
                "label": cell.label,
                "method": cell.method,
                "repetition": cell.repetition,
                "split": split,
                "samples": method.support or n,
                "samples_are": method.samples_are,
                "support": method.support,
                "cost": cost | {"sample_ms": sampled},
                "machine": machine(method),
            }
            store.write_scores(folder, table, meta)
        where.failure(name).unlink(missing_ok=True)


def _draw(method: Method, data: AnnotatedSet, n: int) -> Draw:
    keys = data.table["case"].tolist()

    def draw() -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        for part, samples in predict_batches(method, data.images, n, batch=BATCH, keys=keys):
            weights = method.weights(torch.from_numpy(np.array(data.images[part])), n)
            yield part, samples, weights

    return draw


def run_yardstick(name: str, data: Data, where: Store, n: int, frequency: Tensor, progress: bool) -> None:
    """Score a yardstick on the three splits, as far as that is not done."""
    yardstick = YARDSTICKS[name]
    for split in ("test", "val", "train"):
        part = data.scored(split)
        scores = yardstick_score_name(name, data, split, n)
        with where.locked(scores):
            if where.score(scores).exists():
                continue
            draw, said = _yardstick(name, part, n, frequency), f"score {name} {split}"
            table, _ = _scores(draw, part, split, yardstick.exact, said, progress, yardstick.rate)
            samples = yardstick.count(n, part.readers)
            meta = {"label": name, "method": name, "repetition": None, "split": split, "samples": samples}
            meta |= {"support": samples if yardstick.exact else None, "samples_are": "aleatoric"}
            store.write_scores(where.score(scores), table, meta)


def yardstick_score_name(name: str, data: Data, split: str, n: int) -> str:
    """The folder of a yardstick's scores."""
    return score_name(slug(data.train.name, name, _key(data.train.key)), data.scored(split), split, n)


def _yardstick(name: str, data: AnnotatedSet, n: int, frequency: Tensor) -> Draw:
    cases = data.table["case"].tolist()

    def draw() -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        for start in range(0, len(data), BATCH):
            part = slice(start, min(start + BATCH, len(data)))
            noise = [generator(name, case) for case in cases[part]]
            masks, read = torch.from_numpy(np.array(data.masks[part])), torch.from_numpy(data.read[part])
            yield part, samples_of(name, masks, read, n, noise, frequency), None

    return draw


def _scores(
    draw: Draw,
    data: AnnotatedSet,
    split: str,
    exact: bool,
    said: str,
    progress: bool,
    rate: Callable[..., pd.DataFrame] = score,
) -> tuple[pd.DataFrame, float | None]:
    """Per-image scores, and the milliseconds that sampling took an image (without the first batch, if there are more).

    Train and val get the threshold figures only: they are there to show overfitting.
    """
    groups = None if split == "test" else ["threshold"]
    tables, seconds = [], []
    with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task(said, total=len(data))
        batches, started = draw(), time.perf_counter()
        while (batch := next(batches, None)) is not None:
            part, samples, weights = batch
            if samples.is_cuda:
                torch.cuda.synchronize()
            images = part.stop - part.start
            seconds.append((time.perf_counter() - started) / images)
            to = samples.device
            masks, read = (torch.from_numpy(np.array(a[part])).to(to) for a in (data.masks, data.read))
            spacing = torch.from_numpy(data.spacing[part])
            tables.append(rate(samples, masks, read, weights, groups, exact, spacing.to(to)))
            bar.advance(task, images)
            started = time.perf_counter()
    timed = seconds[1:] or seconds
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "case", data.table["case"].to_numpy())
    table.insert(1, "patient", data.table["patient"].to_numpy())
    return table, 1000 * float(np.median(timed))


def machine(method: Method | None = None) -> dict[str, Any]:
    """What computes here, in words and versions."""
    device = next(method.parameters()).device if method is not None else torch.device("cpu")
    chip = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        chip = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), chip)
    except OSError:
        chip = f"{chip} (model unknown)"
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else chip,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def frequency(data: Data) -> Tensor:
    """The training set's pixel-wise frequency of foreground, which the yardstick prevalence predicts."""
    return frequency_of(data.train)
