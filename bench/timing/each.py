"""What every method costs: a step of training and the samples of a batch, beside plain and the machine's limit."""

from __future__ import annotations

import torch

from bench.runs import spec
from bench.timing.measure import Work, operations, profile
from bench.timing.outcome import Measured, Setting
from bench.timing.works import (
    PLAIN_SAMPLES,
    channels_first,
    drawing_operations,
    noise_set,
    plain_sampling_work,
    plain_training_work,
    sampling_work,
    training_work,
)
from uqseg import methods

STEPS, SAMPLES = 10, 16


def section(at: Setting) -> Measured:
    """Every method with the options of recipe cpu64 at 64×64, batch 12: a training step, of ten, so that what a
    training does once weighs little; and 16 samples of each image of a batch. (--quick: 32×32, batch 4, of eight steps,
    since SWAG collects from the last quarter; 2 samples.) A method without a plain way stands beside the machine's
    limit alone."""
    measured, (size, batch, steps, samples) = Measured(), (32, 4, 8, 2) if at.quick else (64, 12, STEPS, SAMPLES)
    data, options = noise_set(batch, size), spec.recipe("cpu64").options
    for name in methods.names():
        method = methods.build(name, seed=0, **options.get(name, {}))
        step = training_work(method, data, steps, batch, at.device)
        plain_step = plain_training_work(channels_first(method, at.device).train(), data, steps, batch, at.device)
        what = f"training step, {name}, batch {batch}, {size}²"
        _measure(measured, at, what, step, plain_step, steps, operations(step) // steps)
        method.to(at.device).eval()
        slow = channels_first(method, at.device).eval()
        plain_draw = plain_sampling_work(slow, data.images, samples) if name in PLAIN_SAMPLES else None
        draw = sampling_work(method.to(memory_format=torch.channels_last), data.images, samples)  # type: ignore[call-overload]
        what = f"{samples} samples an image, {name}, {batch} images, {size}²"
        _measure(measured, at, what, draw, plain_draw, 1, drawing_operations(method, data.images, samples))
    return measured


def _measure(
    measured: Measured, at: Setting, what: str, ours: Work, plainly: Work | None, steps: int, flops: int
) -> None:
    """What a work and its plain way, if there is one, take for one of its `steps`, which does `flops` operations."""
    works = ({} if plainly is None else {"plain": plainly}) | {"ours": ours}
    middle = measured.add(what, works, 1 if at.quick else 3, {"ours": 1}, repeats=steps)
    measured.computed(what, middle["ours"], flops, at.precision, at)
    if plainly is not None:
        measured.profiles[what] = profile(ours)
