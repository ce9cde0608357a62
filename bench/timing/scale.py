"""How time and memory grow with images, samples, readers and image size: each point in a process of its own."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench.report import figures
from bench.timing.sections import blob_samples, noise_set
from uqseg import methods
from uqseg.data import AnnotatedSet
from uqseg.metrics import score
from uqseg.prediction import predict_batches
from uqseg.train import resident, rows_of

LONGEST = 120.0
"""Seconds: a curve ends before the first point that would take longer."""
READERS = 4
Point = Callable[[int], float]


def sparse_set(n: int, size: int, folder: Path) -> AnnotatedSet:
    """n images and masks in memory-mapped files full of holes: as large as a real cache, but no room on the disk."""
    shapes = {"images": (np.uint8, (n, 1, size, size)), "masks": (np.bool_, (n, READERS, size, size))}
    arrays: dict[str, Any] = {}
    for name, (dtype, shape) in shapes.items():
        file = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype=dtype, shape=shape)
        del file
        arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
    cases = np.arange(n).astype(str)
    table = pd.DataFrame({"patient": cases, "case": cases, "split": "train"})
    spacing = np.full((n, 2), np.nan, np.float32)
    return AnnotatedSet(
        arrays["images"], arrays["masks"], np.ones((n, READERS), bool), table, spacing, "sparse", "sparse"
    )


def batches_of_training(n: int) -> float:
    """Seconds of 100 shuffled batches of 24 images at 128² from a memory-mapped set."""
    with tempfile.TemporaryDirectory() as folder:
        data = sparse_set(n, 128, Path(folder))
        gather = resident(data, torch.device("cpu"))
        started = time.perf_counter()
        for step in range(100):
            gather(rows_of(step, n, 24, 0))
        return time.perf_counter() - started


def sampled_and_scored(n: int) -> float:
    """Seconds of sampling (a narrow U-Net, 64²) and scoring a memory-mapped set, batch by batch."""
    with tempfile.TemporaryDirectory() as folder:
        data = sparse_set(n, 64, Path(folder))
        method = methods.build("unet", width=4, depth=2)
        started = time.perf_counter()
        for part, samples in predict_batches(method, data.images, 1):
            score(samples, np.array(data.masks[part]), groups=["threshold"])
        return time.perf_counter() - started


def _sampling(name: str, n: int, size: int) -> float:
    method, images = methods.build(name), noise_set(1, size).images
    started = time.perf_counter()
    for _ in predict_batches(method, images, n):
        pass
    return time.perf_counter() - started


def _scoring(samples: int, readers: int, size: int) -> float:
    maps, masks = blob_samples(1, samples, size), noise_set(1, size, readers).masks
    started = time.perf_counter()
    score(maps, masks)
    return time.perf_counter() - started


def drawing(n: int) -> float:
    """Seconds of n samples of one image at 128², probabilistic U-Net."""
    return _sampling("probunet", n, 128)


def scoring_samples(n: int) -> float:
    """Seconds of all figures of one image at 128² with n samples and four readers."""
    return _scoring(n, READERS, 128)


def scoring_readers(n: int) -> float:
    """Seconds of all figures of one image at 128² with 16 samples and n readers."""
    return _scoring(16, n, 128)


def scoring_size(n: int) -> float:
    """Seconds of all figures of one image at n² with 16 samples and four readers."""
    return _scoring(16, READERS, n)


def scoring_large(n: int) -> float:
    """Seconds of all figures of one image at 1,024² with n samples and four readers."""
    return _scoring(n, READERS, 1024)


def drawing_size(n: int) -> float:
    """Seconds of 16 samples of one image at n², probabilistic U-Net."""
    return _sampling("probunet", 16, n)


CURVES: dict[str, tuple[str, Point, tuple[int, ...]]] = {
    "100 training batches, 128²": ("images", batches_of_training, (1_000, 10_000, 100_000, 1_000_000)),
    "sampling and scoring, 64²": ("images", sampled_and_scored, (1_000, 4_000, 16_000, 64_000, 1_000_000)),
    "drawing, 128²": ("samples", drawing, (1, 10, 100, 1_000)),
    "all figures, 128²": ("samples", scoring_samples, (1, 10, 100, 1_000)),
    "all figures, 1,024²": ("samples", scoring_large, (1, 10, 100, 1_000)),
    "all figures, 16 samples": ("readers", scoring_readers, (1, 4, 10, 30, 100)),
    "all figures, 16 samples, 4 readers": ("pixels a side", scoring_size, (64, 128, 256, 512, 1024)),
    "drawing 16 samples": ("pixels a side", drawing_size, (64, 128, 256, 512, 1024)),
}


def own_memory() -> int:
    """Bytes of memory that belong to this process alone: pages of mapped files, which the system takes back when it
    needs them, do not count. 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def _child(point: Point, value: int, answer: Any) -> None:
    """Send seconds, and the largest growth of memory while the point was measured."""
    point(min(value, 16))  # what is loaded and allocated once
    before, peak, done = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], own_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    seconds = point(value)
    done.set()
    thread.join()
    answer.send((seconds, max(0, peak[0] - before)))


def measured(point: Point, value: int) -> tuple[float, int] | None:
    """Seconds and bytes of one point, from a process of its own; None where that process was ended or failed."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(point, value, sender))
    child.start()
    sender.close()
    try:
        found: tuple[float, int] | None = receiver.recv() if receiver.poll(3 * LONGEST) else None
    except EOFError:
        found = None
    if child.is_alive() and found is None:
        child.terminate()
    child.join()
    return found


def curves(quick: bool) -> pd.DataFrame:
    """curve, axis, value, seconds, bytes; NaN where a point is expected to take longer than LONGEST or failed."""
    rows: list[dict[str, Any]] = []
    for name, (axis, point, values) in CURVES.items():
        before: tuple[int, float] | None = None
        for value in values[:3] if quick else values:
            expected = before[1] * value / before[0] if before else 0.0
            found = measured(point, value) if expected < LONGEST else None
            rows.append({"curve": name, "axis": axis, "value": value,
                         "seconds": found[0] if found else np.nan, "bytes": found[1] if found else np.nan})  # fmt: skip
            if found is None:
                break
            before = (value, found[0])
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame, folder: Path) -> list[str]:
    """One picture an axis, time beside memory; the files' names."""
    made = []
    for axis, part in table.groupby("axis", sort=False):
        figure, axes = figures.canvas(2, 9.0, 3.6)
        style = figures.styles(part["curve"].unique().tolist())
        for name, curve in part.groupby("curve", sort=False):
            for ax, column, unit in zip(axes, ("seconds", "bytes"), (1.0, 1e6), strict=True):
                ax.plot(curve["value"], curve[column] / unit, label=str(name), **style[str(name)])
        for ax, title in zip(axes, ("seconds", "memory of its own at most, MB"), strict=True):
            ax.set(xlabel=str(axis), ylabel=title, xscale="log", yscale="log")
        axes[0].legend(frameon=False, fontsize=8)
        made.append(f"scale-{str(axis).replace(' ', '-')}.png")
        figures.save(figure, folder / made[-1])
    return made
