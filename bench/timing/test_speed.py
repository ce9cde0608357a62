"""What each method costs: a training step, the samples of a batch, and the scoring of a batch.

Run with `pytest bench/timing --benchmark-only`. UQSEG_DEVICE names the device, default auto.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.timing.each import SAMPLES, STEPS
from bench.timing.works import noise_set, sampling_work, training_work
from uqseg import methods
from uqseg.device import pick_device
from uqseg.metrics import score

SIZE, BATCH = 64, 24
DEVICE = pick_device(os.environ.get("UQSEG_DEVICE", "auto"))


def synchronised(work: Callable[[], Any]) -> Callable[[], None]:
    """`work` that ends when the device has finished."""

    def timed() -> None:
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    return timed


@pytest.mark.parametrize("name", methods.names())
def test_training_step(benchmark: Any, name: str) -> None:
    """Several steps of training, so that what a training does once weighs little."""
    benchmark.extra_info["images"] = STEPS * BATCH
    work = synchronised(training_work(methods.build(name, seed=0), noise_set(BATCH, SIZE), STEPS, BATCH, DEVICE))
    benchmark.pedantic(work, rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("name", methods.names())
def test_samples(benchmark: Any, name: str) -> None:
    """16 samples of each image of a batch."""
    method = methods.build(name, seed=0).to(DEVICE)
    benchmark.extra_info["images"] = BATCH
    work = synchronised(sampling_work(method, noise_set(BATCH, SIZE).images, SAMPLES))
    benchmark.pedantic(work, rounds=5, warmup_rounds=1)


def test_scoring(benchmark: Any) -> None:
    """Every statistic of a batch, 16 samples against four readers."""
    data = noise_set(BATCH, SIZE)
    samples = torch.rand(BATCH, SAMPLES, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    benchmark.extra_info["images"] = BATCH
    benchmark.pedantic(lambda: score(samples, data.masks, data.read), rounds=5, warmup_rounds=1)
