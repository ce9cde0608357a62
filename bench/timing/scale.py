"""How time and memory grow with images, samples, readers, image size and methods: each point in its own process."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from bench import stats
from bench.report.tables import of_figures
from bench.timing.outcome import Curve, Measured, Point, Setting
from bench.timing.works import blob_samples, noise_set
from uqseg import methods
from uqseg.data import AnnotatedSet
from uqseg.metrics import THRESHOLD_STATISTICS, Scores, figures, score
from uqseg.prediction import predict_batches
from uqseg.training.batches import resident, rows_of

LONGEST = 120.0
"""Seconds: a curve ends before the first point that would take longer."""
SHORTEST = 1.0
"""Seconds over which a point is repeated."""
READERS = 4
Work = Callable[[int], float]


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
    return AnnotatedSet(arrays["images"], arrays["masks"], np.ones((n, READERS), bool), table, spacing, "sparse")


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
            score(samples, np.array(data.masks[part]), statistics=THRESHOLD_STATISTICS)
        return time.perf_counter() - started


def drawing(n: int, size: int) -> float:
    """Seconds of n samples of one image, probabilistic U-Net."""
    method, images = methods.build("probunet"), noise_set(1, size).images
    started = time.perf_counter()
    for _ in predict_batches(method, images, n):
        pass
    return time.perf_counter() - started


def scoring(samples: int, readers: int, size: int) -> float:
    """Seconds of all figures of one image."""
    maps, masks = blob_samples(1, samples, size), noise_set(1, size, readers).masks
    started = time.perf_counter()
    score(maps, masks)
    return time.perf_counter() - started


def repeated_scores(n: int) -> Scores:
    """Scores of 30 images, repeated until they are n of n/10 patients."""
    few = score(blob_samples(30, 4, 32), noise_set(30, 32).masks)
    many = few.take(np.arange(n) % len(few))
    cases, patients = (np.array([f"{letter}{i // size}" for i in range(n)]) for letter, size in (("c", 1), ("p", 10)))
    return replace(many, cases=cases, patients=patients)


def comparing(n: int) -> float:
    """Seconds of resampling, intervals and a table of 60 figures of n methods on 3,000 images of 300 patients."""
    every = figures()
    some = every[:: len(every) // 60][:60]
    scores = repeated_scores(3000)
    started = time.perf_counter()
    boot = stats.bootstrap({f"m{k}": [scores] for k in range(n)}, some)
    boot.summary()
    of_figures(boot, some[:5], boot.labels)
    return time.perf_counter() - started


@dataclass(frozen=True)
class Plan:
    """A curve to measure; power and allowed as in Curve."""

    axis: str
    work: Work
    values: tuple[int, ...]
    power: int = 1
    allowed: int = 1


MILLION = (1_000, 10_000, 100_000, 1_000_000)
SIDES = (64, 128, 256, 512, 1024)
PLANS = {
    "100 training batches, 128²": Plan("images", batches_of_training, MILLION),
    "sampling and scoring, 64²": Plan("images", sampled_and_scored, (1_000, 4_000, 16_000, 64_000, 1_000_000)),
    "drawing, 128²": Plan("samples", partial(drawing, size=128), (1, 10, 100, 1_000)),
    "all figures, 128²": Plan("samples", partial(scoring, readers=READERS, size=128), (1, 10, 100, 1_000), allowed=2),
    "all figures, 1,024²": Plan(
        "samples", partial(scoring, readers=READERS, size=1024), (1, 10, 100, 1_000), allowed=2
    ),
    "all figures, 16 samples": Plan("readers", partial(scoring, 16, size=128), (1, 4, 10, 30, 100)),
    "all figures, 16 samples, 4 readers": Plan("pixels a side", partial(scoring, 16, READERS), SIDES, power=2),
    "drawing 16 samples": Plan("pixels a side", partial(drawing, 16), SIDES, power=2),
    "comparing, 60 figures, 3,000 images": Plan("methods", comparing, (1, 2, 5, 10, 20)),
}


def own_memory() -> int:
    """Bytes of memory that belong to this process alone: pages of mapped files, which the system takes back when it
    needs them, do not count. 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def _child(work: Work, smallest: int, value: int, answer: Any) -> None:
    """Send the least seconds of repetitions, and the largest growth of memory meanwhile."""
    work(smallest)  # what is loaded and allocated once
    before, peak, done = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], own_memory())

    thread = threading.Thread(target=watch)
    thread.start()
    started, seconds = time.perf_counter(), np.inf
    while np.isinf(seconds) or time.perf_counter() - started < SHORTEST:
        seconds = min(seconds, work(value))
    done.set()
    thread.join()
    answer.send(Point(value, seconds, max(0, peak[0] - before)))


def measured(work: Work, smallest: int, value: int) -> Point | None:
    """One point, from a process of its own; None where that process was ended, failed or took far too long."""
    context = multiprocessing.get_context("forkserver")  # which has imported, but never computed: it has no threads
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(work, smallest, value, sender))
    child.start()
    sender.close()
    try:
        point: Point | None = receiver.recv() if receiver.poll(3 * LONGEST) else None
    except EOFError:
        point = None
    if child.is_alive() and point is None:
        child.terminate()
    child.join()
    return point


def curve(name: str, plan: Plan, most: int | None = None) -> Curve:
    """The points of a plan, at most so many; those after one that is expected to take longer than LONGEST, or that
    failed, are left empty."""
    points: list[Point] = []
    expected: float | None = 0.0
    for value in plan.values[:most]:
        if points and points[-1].seconds is not None:
            expected = points[-1].seconds * (value / points[-1].value) ** plan.power
        point = measured(plan.work, plan.values[0], value) if expected is not None and expected < LONGEST else None
        if point is None:
            expected = None
        points.append(point or Point(value, None, None))
    return Curve(name, plan.axis, plan.power, plan.allowed, points)


def section(at: Setting) -> Measured:
    """How cost grows: on the processor, each point in a process of its own, the fastest of as many repetitions as start
    within 1 s; one image unless stated otherwise. MB: growth of the memory that belongs to the process; pages of
    the memory-mapped cache do not count, the system takes them back when it needs them (a million images at 128² with
    four masks are 82 GB, full of holes so that they need no disk). One step may show as
    faster growth where the arrays outgrow the processor's caches: 16 samples of 1,024² are 67 MB."""
    measurements = Measured(curves=[curve(name, plan, 2 if at.quick else None) for name, plan in PLANS.items()])
    skipped = [f"{c.what} at {p.value:,} {c.axis}" for c in measurements.curves for p in c.points if p.seconds is None]
    if skipped:
        measurements.notes.append(
            f"Left out, expected to take more than {LONGEST:.0f} s, or failed: {'; '.join(skipped)}."
        )
    return measurements
