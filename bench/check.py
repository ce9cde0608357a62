"""The contract of a method, checked in seconds on invented images: what is wrong is said in one line."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from uqseg import methods
from uqseg.data import AnnotatedSet
from uqseg.errors import FileError, message_of
from uqseg.methods.method import Method, normalise
from uqseg.noise import Noise
from uqseg.prediction import predict
from uqseg.samples import Samples
from uqseg.trained import load_model, save_model
from uqseg.training import Training, fit

SIZE, CASES, SAMPLES = 64, 2, 4
SIZES = (32, 64, 96)
CLOSE = 1e-5  # by which a sample may move with its batch: other sizes are summed in another order


class BrokenError(Exception):
    """What a method does not keep of the contract."""


def check(label: str) -> Iterator[str]:
    """Yield a line for each part of the contract that the method keeps, and at the end its size and speed.

    Raises UsageError where there is no such method, FileError saying what it does not keep.
    """
    cls = methods.concrete(label)
    for part in (_builds, _loss, _gradients, _readers, _samples, _sizes, _batches, _training, _disk, _speed):
        try:
            yield part(label, cls)
        except BrokenError as error:
            raise FileError(f"{label}: {error}") from error
        except Exception as error:  # whatever the author's code raises
            raise FileError(f"{label}: {_told(error)}") from error


def images(cases: int = CASES, size: int = SIZE) -> AnnotatedSet:
    """Bright discs on noise in one channel, which four readers draw larger or smaller, or not at all."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    distance = np.hypot(y - size / 2, x - size / 2) / size
    radii = rng.uniform(0.1, 0.3, (cases, 4, 1, 1))
    masks = distance < radii
    masks[::2, -1] = False
    light = 60 + 80 * (distance < 0.2) + rng.normal(0, 15, (cases, 1, size, size))
    table = pd.DataFrame({name: [f"{name}{i}" for i in range(cases)] for name in ("case", "patient")})
    spacing = np.full((cases, 2), np.nan, np.float32)
    read = np.ones((cases, 4), bool)
    return AnnotatedSet(light.clip(0, 255).astype(np.uint8), masks, read, table.assign(split="train"), spacing, "discs")


def _told(error: BaseException) -> str:
    """An error in one line, with the place in the author's file."""
    message = message_of(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "uqseg" not in Path(f.filename).parts and "site-packages" not in Path(f.filename).parts]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno}, {own[-1].name})" if own else ""
    kind = (
        "" if isinstance(error, ValueError) and message.startswith(("draw:", "loss:")) else f"{type(error).__name__}: "
    )
    return f"{kind}{message}{place if kind else ''}"


def _new(label: str, cls: type[Method[Any]], **given: Any) -> Method[Any]:
    return methods.build(label, cls.small, **given)


def _arrays(cases: int = CASES) -> tuple[Tensor, Tensor, Tensor]:
    batch = images(cases).batch(slice(None))
    assert batch.masks is not None
    assert batch.read is not None
    return normalise(batch.images), batch.masks, batch.read


def _builds(label: str, cls: type[Method[Any]]) -> str:
    one, again, other = (_new(label, cls, seed=seed).state_dict() for seed in (0, 0, 1))
    if any(not torch.equal(one[name], again[name]) for name in one):
        raise BrokenError("__init__: the same seed gives other weights; draw from torch's own functions alone")
    if one and all(torch.equal(one[name], other[name]) for name in one):
        raise BrokenError("__init__: another seed gives the same weights; do not seed them yourself")
    _new(label, cls, channels=3, readers=2)
    return "builds: for one and three channels, for two and four readers"


def _loss(label: str, cls: type[Method[Any]]) -> str:
    method, arrays, state = _new(label, cls), _arrays(), torch.random.get_rng_state()
    loss = method.loss(*arrays, Noise.for_step(CASES, "check"))
    if not isinstance(loss, Tensor) or loss.shape != (CASES,):
        got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise BrokenError(f"loss: expected one value for each image, ({CASES},), got {got}; the loop averages")
    if not bool(loss.isfinite().all()):
        raise BrokenError(f"loss: expected finite numbers, got {loss.tolist()}")
    if not torch.equal(loss, method.loss(*arrays, Noise.for_step(CASES, "check"))):
        raise BrokenError("loss: differs for the same images and noise; take all random numbers from `noise`")
    if not torch.equal(state, torch.random.get_rng_state()):
        raise BrokenError("loss: uses torch's global random numbers; take them from `noise`")
    if not cls.couples_cases:
        parts, method = [], method.eval()
        for rows in (slice(k, k + 1) for k in range(CASES)):
            given, masks, read = (array[rows] for array in arrays)
            parts.append(method.loss(given, masks, read, Noise.for_step(CASES, "check", rows=rows)))
        together = method.loss(*arrays, Noise.for_step(CASES, "check"))
        if not torch.allclose(torch.cat(parts), together, rtol=1e-3, atol=1e-6):
            raise BrokenError("loss: of an image depends on the other images of its batch; set couples_cases = True, "
                              "or average over pixels and draws alone")  # fmt: skip
    return "loss: one finite value an image, which noise and image alone decide"


def _gradients(label: str, cls: type[Method[Any]]) -> str:
    method = _new(label, cls)
    for step in range(4):  # methods that train a part of themselves at each step
        method.loss(*_arrays(), Noise.for_step(CASES, "check")).mean().backward()  # type: ignore[no-untyped-call]
        method.after_step(step + 1, 4)
    lacking = [name for name, p in method.named_parameters() if p.grad is None]
    if lacking:
        raise BrokenError(f"loss: no gradient reaches {', '.join(lacking[:3])}; use it, or make it a buffer")
    if wrong := [n for n, p in method.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]:
        raise BrokenError(f"loss: the gradient of {wrong[0]} is not finite")
    return f"gradients: reach all {sum(1 for _ in method.parameters())} tensors of weights"


def _readers(label: str, cls: type[Method[Any]]) -> str:
    (given, masks, read), method = _arrays(), _new(label, cls)
    for reader in range(masks.shape[1]):
        absent, other = read.clone(), masks.clone()
        absent[:, reader] = False
        other[:, reader] = ~other[:, reader]
        losses = [method.loss(given, m, absent, Noise.for_step(CASES, "check")) for m in (masks, other)]
        if not torch.equal(*losses):
            raise BrokenError("loss: looks at the mask of a reader who has not read the image; use `read`")
    return "readers: who has not read an image teaches nothing"


def _drawn(method: Method[Any], size: int = SIZE, n: int = SAMPLES, **given: Any) -> Samples:
    return predict(method, images(size=size).images, n, precision="fp32", **given)


def _samples(label: str, cls: type[Method[Any]]) -> str:
    method, state = _new(label, cls), torch.random.get_rng_state()
    samples, again = _drawn(method), _drawn(method)
    if not torch.equal(samples.prob, again.prob):
        raise BrokenError("draw: differs for the same images and noise; take all random numbers from `noise`")
    if not torch.equal(state, torch.random.get_rng_state()):
        raise BrokenError("draw: uses torch's global random numbers; take them from `noise`")
    shape = "×".join(map(str, samples.prob.shape))
    return f"samples: {shape} in [0,1], {samples.drawn}, the same for the same seed"


def _sizes(label: str, cls: type[Method[Any]]) -> str:
    method = _new(label, cls)
    for size in SIZES:
        _drawn(method, size)
    return f"sizes: {', '.join(f'{size}×{size}' for size in SIZES)}"


def _batches(label: str, cls: type[Method[Any]]) -> str:
    method = _new(label, cls)
    together, alone = _drawn(method, batch=CASES).prob, _drawn(method, batch=1).prob
    off = float((together - alone).abs().max())
    if off > CLOSE:
        raise BrokenError(f"draw: samples of an image change by {off:.2g} with the other images of its batch")
    return "batches: an image's samples do not depend on its batch"


def _training(label: str, cls: type[Method[Any]]) -> str:
    data = images(6)
    recipe = Training(steps=6, batch=3, precision="fp32", validate_every=3)
    method = fit(_new(label, cls), data, val=data, recipe=recipe, device="cpu", progress=False)
    one, other = (_drawn(method, seed=seed) for seed in (0, 1))
    if one.drawn == "independent" and torch.equal(one.prob, other.prob):
        raise BrokenError("draw: another seed gives the same samples after training; use `noise`, or declare `support`")
    return "training: six steps with validation, after which other seeds give other samples"


def _disk(label: str, cls: type[Method[Any]]) -> str:
    method = _new(label, cls, seed=3)
    with tempfile.TemporaryDirectory() as folder:
        save_model(method, Path(folder))
        loaded = load_model(Path(folder), trust=label)
    if not torch.equal(_drawn(method).prob, predict(loaded, images().images, SAMPLES, precision="fp32").prob):
        raise BrokenError("draw: differs after saving and loading; keep what it needs in parameters or buffers")
    return "disk: the same samples after saving and loading"


def _speed(label: str, cls: type[Method[Any]]) -> str:
    method = methods.build(label)
    timed: Callable[[], Any] = lambda: _drawn(method, n=16)  # noqa: E731
    timed()
    started = time.perf_counter()
    timed()
    milliseconds = 1000 * (time.perf_counter() - started) / CASES
    weights = sum(p.numel() for p in method.parameters())
    return (
        f"speed: {milliseconds:.0f} ms for 16 samples of a {SIZE}×{SIZE} image, {weights:,} weights (default options)"
    )
