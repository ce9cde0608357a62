"""What each method costs: a training step, the samples of a batch, and the scoring of a batch.

Run with `pytest bench/timing --benchmark-only`. UQSEG_DEVICE names the device, default auto.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from uqseg import methods
from uqseg.data import AnnotatedSet
from uqseg.device import pick_device
from uqseg.metrics import score
from uqseg.prediction import predict_batches
from uqseg.training import Training, fit

SIZE, BATCH, SAMPLES, READERS = 64, 24, 16, 4
DEVICE = pick_device(os.environ.get("UQSEG_DEVICE", "auto"))


def batch(seed: int = 0) -> AnnotatedSet:
    """One batch of noise with four square masks an image: only the sizes matter here."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((BATCH, READERS, SIZE, SIZE), bool)
    masks[:, :, 24:40, 24:40] = True
    images = rng.integers(0, 256, (BATCH, 1, SIZE, SIZE), dtype=np.uint8)
    cases = [f"c{i}" for i in range(BATCH)]
    table = pd.DataFrame({"patient": cases, "case": cases, "split": "train"})
    spacing = np.full((BATCH, 2), np.nan, np.float32)
    return AnnotatedSet(images, masks, np.ones((BATCH, READERS), bool), table, spacing, "noise")


def synchronised(work: Callable[[], Any]) -> Callable[[], None]:
    """`work` that ends when the device has finished."""

    def timed() -> None:
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return timed


@pytest.mark.parametrize("name", methods.names())
def test_training_step(benchmark: Any, name: str) -> None:
    """Ten steps of training, so that what a training does once weighs little."""
    data, recipe = batch(), Training(steps=10, batch=BATCH)
    method = methods.build(name, seed=0)
    benchmark.extra_info["images"] = 10 * BATCH
    work = synchronised(lambda: fit(method, data, recipe=recipe, device=str(DEVICE), progress=False))
    benchmark.pedantic(work, rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("name", methods.names())
def test_samples(benchmark: Any, name: str) -> None:
    """16 samples of each image of a batch."""
    data, method = batch(), methods.build(name, seed=0).to(DEVICE)
    benchmark.extra_info["images"] = BATCH
    work = synchronised(lambda: list(predict_batches(method, data.images, SAMPLES)))
    benchmark.pedantic(work, rounds=5, warmup_rounds=1)


def test_scoring(benchmark: Any) -> None:
    """Every statistic of a batch, 16 samples against four readers."""
    data = batch()
    samples = torch.rand(BATCH, SAMPLES, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    benchmark.extra_info["images"] = BATCH
    benchmark.pedantic(lambda: score(samples, data.masks, data.read), rounds=5, warmup_rounds=1)
