"""Works to measure: data of noise, steps of training and samples, as a run makes them and the plain way."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from baselines.peers import plain
from bench.timing.measure import Work, operations
from uqseg.data import AnnotatedSet
from uqseg.device import Precision
from uqseg.methods import Method
from uqseg.methods.method import normalise
from uqseg.noise import Noise
from uqseg.prediction import predict_batches
from uqseg.samples import Sampler
from uqseg.training import Training, fit


def noise_set(n: int, size: int, readers: int = 4) -> AnnotatedSet:
    """n images of noise; each reader draws a disc of his own size, about as large as nodules are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] - size / 2
    radius = size * rng.uniform(0.04, 0.16, (n, readers))
    masks = np.hypot(y, x) < radius[..., None, None]
    images = rng.integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    cases = [f"c{i}" for i in range(n)]
    table = pd.DataFrame({"patient": cases, "case": cases, "split": "train"})
    spacing = np.full((n, 2), np.nan, np.float32)
    return AnnotatedSet(images, masks, np.ones((n, readers), bool), table, spacing, "noise")


def blob_samples(n: int, samples: int, size: int) -> torch.Tensor:
    """Probability maps float32 (n,samples,size,size): smooth discs whose centres and sizes vary."""
    rng = np.random.default_rng(0)
    grid = np.arange(size, dtype=np.float32) - size / 2
    shift = (rng.normal(0, 0.03, (n, samples, 2)) * size).astype(np.float32)
    radius = (size * rng.uniform(0.04, 0.16, (n, samples))).astype(np.float32)
    y, x = grid - shift[..., :1], grid - shift[..., 1:]
    away = torch.from_numpy(np.hypot(y[..., :, None], x[..., None, :]) - radius[..., None, None])
    return (-away).sigmoid_()


def channels_first(method: Method[Any], device: torch.device) -> Method[Any]:
    """A copy of `method` with weights as they come, for the plain way."""
    return copy.deepcopy(method).to(device).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload,no-any-return]


def training_work(
    method: Method[Any], data: AnnotatedSet, steps: int, batch: int, device: torch.device, precision: Precision = "auto"
) -> Work:
    """Steps of training without augmentation, the way a run does them."""
    recipe = Training(steps=steps, batch=batch, augment=False, precision=precision)
    return lambda: fit(method, data, recipe=recipe, device=str(device), progress=False)


def plain_training_work(
    slow: Method[Any], data: AnnotatedSet, steps: int, batch: int, device: torch.device
) -> Work | None:
    """The same steps the plain way; None for a method that has none."""
    of: Any = slow

    def probunet() -> None:
        draw = Noise.for_step(batch, "z", device=device).of_cases((6,))
        plain.train(of.parameters(), data, lambda x, y: plain.probunet_loss(of, x, y, draw), steps, batch, device)

    def ensemble() -> None:
        for slot, member in enumerate(of.members):
            plain.train(member.parameters(), data, partial(plain.member_loss, of, slot), steps, batch, device)

    return {"probunet": probunet, "ensemble": ensemble}.get(slow.name)


PLAIN_SAMPLES = {
    "probunet": plain.probunet_samples,
    "mcdropout": plain.mcdropout_samples,
    "ensemble": plain.ensemble_samples,
}


def sampling_work(sampler: Sampler, images: Any, n: int, precision: Precision = "auto") -> Work:
    """n samples of uint8 images, the way scoring draws them."""
    return lambda: list(predict_batches(sampler, images, n, precision=precision))


def plain_sampling_work(method: Method[Any], images: Any, n: int) -> Work:
    """The same samples the plain way."""

    def work() -> None:
        device = next(method.parameters()).device
        noise = Noise.for_cases(range(len(images)), "sample", 0, device=device)
        with torch.inference_mode():
            x = normalise(torch.from_numpy(images).to(device))
            PLAIN_SAMPLES[method.name](method, x, n, noise)

    return work


def drawing_operations(method: Method[Any], images: Any, n: int) -> int:
    """Operations of n samples of uint8 images."""
    device = next(method.parameters()).device
    noise = Noise.for_cases(range(len(images)), "count", device=device)
    with torch.no_grad():
        return operations(partial(method.draw, normalise(torch.from_numpy(images).to(device)), n, noise))
