"""The one training loop: any method, any device, exactly resumable.

Every step's batch and noise are functions of (seed, step), so a checkpoint needs weights, optimiser state and the
step's number, and a resumed training ends in the same weights as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import mmap
import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from uqseg import checkpoint
from uqseg.augment import augment
from uqseg.data.annotated import AnnotatedSet
from uqseg.data.split import evenly
from uqseg.device import Precision, pick_device, uses_bf16
from uqseg.errors import FileError, UsageError
from uqseg.methods import Method
from uqseg.prediction import normalise, predict_batches
from uqseg.seeds import generator, seed_of

LOG_EVERY = 10  # steps between readings of the loss: each one waits for the device


class Training(BaseModel):
    """How a method is trained. Exactly one of steps and epochs is set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = Field(None, ge=1, description="optimiser steps")
    epochs: float | None = Field(None, gt=0, description="passes over the training images")
    batch: int = Field(24, ge=1, description="images a step")
    optimizer: Literal["adam", "adamw"] = Field("adamw", description="optimiser")
    lr: float = Field(1e-3, gt=0, description="highest learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay")
    schedule: Literal["constant", "onecycle", "cosine", "steps"] = Field(
        "onecycle", description="course of the learning rate; steps: five equal falls to a hundredth"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; unset: no limit")
    augment: bool = Field(True, description="flips, rotations, small affine and intensity changes")
    precision: Precision = Field("auto", description="auto: bf16 where the device computes it")
    keep: Literal["best", "last"] = Field("last", description="weights kept: best validation score, or last")
    validate_every: int = Field(200, ge=1, description="steps between validations")
    validate_images: int = Field(200, ge=1, description="validation images looked at")
    validate_samples: int = Field(8, ge=1, description="samples an image in validation")
    checkpoint_every: float = Field(30.0, gt=0, description="seconds between checkpoints")

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"set exactly one of steps and epochs, got steps={self.steps}, epochs={self.epochs}")
        return self

    def total_steps(self, images: int) -> int:
        """Steps of the whole training on `images` images."""
        return self.steps or max(1, round((self.epochs or 0) * images / self.batch))


class DivergenceError(RuntimeError):
    """The loss or the gradient is no longer a finite number."""


def rate(recipe: Training, step: int, total: int) -> float:
    """Learning rate of `step` (0 … total−1)."""
    done = step / total
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "steps":
        return float(recipe.lr * 0.01 ** (min(int(done * 6), 5) / 5))
    warm = 0.15 if recipe.schedule == "onecycle" else 0.0
    if done < warm:
        return recipe.lr * (0.04 + 0.96 * done / warm)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


Batch = tuple[Tensor, Tensor, Tensor]
READ_WHOLE = 2**31  # bytes of a memory-mapped array that reading ahead soon has in memory


def resident(data: AnnotatedSet, device: torch.device) -> Callable[[Tensor], Batch]:
    """A function from row numbers to (images uint8, masks, read) on `device`, where the whole set lies on CUDA."""
    if device.type == "cpu":
        for array in (data.images, data.masks):
            _without_reading_ahead(array)

        def gather(rows: Tensor) -> Batch:
            index = rows.numpy()
            return tuple(torch.from_numpy(a[index]) for a in (data.images, data.masks, data.read))  # type: ignore[return-value]

        return gather
    images, masks, read = (torch.from_numpy(np.array(a)).to(device) for a in (data.images, data.masks, data.read))

    def gather_on_device(rows: Tensor) -> Batch:
        rows = rows.to(device)
        return images[rows], masks[rows], read[rows]

    return gather_on_device


def _without_reading_ahead(array: NDArray[Any]) -> None:
    """Tell the system that a large memory-mapped array is read in no order: it would read megabytes around each row,
    which pays only where the whole is soon in memory."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and array.nbytes > READ_WHOLE and hasattr(mmap, "MADV_RANDOM"):
        base.madvise(mmap.MADV_RANDOM)


def rows_of(step: int, images: int, batch: int, seed: int) -> Tensor:
    """Row numbers of a step's batch: consecutive pieces of an endless sequence of shuffled passes over the images."""
    first = step * batch
    passes = range(first // images, (first + batch - 1) // images + 1)
    order = torch.cat([_order(images, seed, p) for p in passes])
    return order[first - passes[0] * images :][:batch]


@lru_cache(maxsize=2)
def _order(images: int, seed: int, number: int) -> Tensor:
    """The shuffled row numbers of one pass, kept while its steps are taken: shuffling a million takes its time."""
    return torch.randperm(images, generator=generator("order", seed, number))


def validate(method: Method, val: AnnotatedSet, recipe: Training) -> float:
    """Cross-entropy in nats per pixel of the mean of the samples, averaged over readers and images: a proper score."""
    total, count = 0.0, 0
    keys = val.table["case"].tolist()
    for part, samples in predict_batches(
        method, val.images, recipe.validate_samples, keys=keys, precision=recipe.precision
    ):
        p = samples.mean(1, keepdim=True).double().clamp(1e-6, 1 - 1e-6)
        masks = torch.from_numpy(np.array(val.masks[part])).to(p.device)
        read = torch.from_numpy(val.read[part]).to(p.device)
        entropy = -torch.where(masks, p.log(), (1 - p).log()).mean((2, 3))
        total, count = total + float(entropy[read].sum()), count + int(read.sum())
    return total / count


@dataclass
class State:
    """Where a training stands."""

    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def _save(path: Path, method: Method, optimizer: torch.optim.Optimizer, state: State, key: int) -> None:
    tensors = {f"weights/{n}": t for n, t in method.state_dict().items()}
    tensors |= {f"best/{n}": t for n, t in state.best_weights.items()}
    for k, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{k}/{n}": t for n, t in values.items()}
    meta = {n: getattr(state, n) for n in ("step", "seconds", "cpu_seconds", "best", "best_step")} | {"key": key}
    checkpoint.write_tensors(path, tensors, meta)


def _restore(path: Path, method: Method, optimizer: torch.optim.Optimizer, key: int, device: torch.device) -> State:
    tensors, meta = checkpoint.read_tensors(path, device)
    if meta.pop("key") != key:
        raise FileError(f"{path} belongs to another training (method, data, recipe or seed); choose another folder")

    def part(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    method.load_state_dict(part("weights/"))
    values: dict[int, dict[str, Tensor]] = {}
    weights = optimizer.param_groups[0]["params"]
    for name, tensor in part("optimizer/").items():
        k, _, n = name.partition("/")
        like = weights[int(k)]
        # The fused kernel reads moments and weights as flat memory: the moments need the weights' memory layout.
        values.setdefault(int(k), {})[n] = torch.empty_like(like).copy_(tensor) if tensor.ndim else tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": values})
    return State(**meta, best_weights=part("best/"))


def _history(path: Path, upto: int) -> None:
    """Forget what the history says of steps after `upto`, which are about to be repeated."""
    if path.exists():
        # A full disk leaves half a line at the end.
        whole = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        lines = [line for line in whole if json.loads(line)["step"] <= upto]
        checkpoint.write(path, "".join(f"{line}\n" for line in lines).encode())


def _check(loss: float, norm: float, step: int, recipe: Training, bf16: bool) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise DivergenceError(
            f"training diverged at step {step}: loss {loss}, gradient norm {norm}. Lower training.lr (now {recipe.lr})"
            f"{'' if recipe.clip else ', set training.clip'}{', or set training.precision to fp32' if bf16 else ''}"
        )


def _make_optimizer(method: Method, recipe: Training) -> torch.optim.Optimizer:
    cls = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return cls(method.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def fit(
    method: Method,
    train: AnnotatedSet,
    *,
    val: AnnotatedSet | None = None,
    recipe: Training,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    seed: int = 0,
) -> Method:
    """Train `method` on `train` and return it on its device, ready to sample.

    out: folder for weights.safetensors, method.json, fit.json (cost), history.jsonl and the checkpoint of an
    unfinished training; with `resume`, a finished one is loaded and an unfinished one goes on where it stopped.
    seed: of batches, augmentation and the method's noise.
    Raises UsageError where the method declines the data, DivergenceError where the loss is no longer finite, FileError
    where `out` holds another training or cannot be written.
    """
    if reason := method.declines(channels=train.images.shape[1], readers=train.readers, size=train.images.shape[2:]):
        raise UsageError(f"method '{method.name or type(method).__name__}' declines the data: {reason}")
    where, folder = pick_device(device), Path(out) if out is not None else None
    key = seed_of(type(method).__name__, method.options, train.key, val.key if val else None, recipe, seed)
    if folder and resume and (folder / "fit.json").exists():
        found = json.loads((folder / "fit.json").read_text(encoding="utf-8"))["key"]
        if found != key:
            raise FileError(f"{folder} holds another training (method, data, recipe or seed); choose another folder")
        method.load_state_dict(checkpoint.load(folder, where).state_dict())
        return method.to(where).eval()
    method.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _make_optimizer(method, recipe)
    state, saved = State(), folder / "checkpoint.safetensors" if folder else None
    if saved and resume and saved.exists():
        state = _restore(saved, method, optimizer, key, where)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        _history(folder / "history.jsonl", state.step if resume else -1)
    if val is not None:
        val = val.take(evenly(val.table["patient"].tolist(), recipe.validate_images, 0))
    _run(method, train, val, recipe, optimizer, state, where, folder, key, progress, seed)
    if recipe.keep == "best" and state.best_weights:
        method.load_state_dict(state.best_weights)
    if folder and saved:
        checkpoint.save(method, folder)
        cost = _cost(method, state, recipe, where) | {"key": key}
        checkpoint.write(folder / "fit.json", json.dumps(cost, indent=1).encode())
        saved.unlink(missing_ok=True)
    return method.eval()


def _cost(method: Method, state: State, recipe: Training, device: torch.device) -> dict[str, Any]:
    cuda = device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "parameters": sum(p.numel() for p in method.parameters()),
        "train_seconds": state.seconds,
        "cpu_seconds": state.cpu_seconds,  # of all threads: does not grow with other work on the machine
        "images_per_second": state.step * recipe.batch / state.seconds,
        "peak_memory_bytes": memory,
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "steps": state.step,
        "best_step": state.best_step,
        "best_score": state.best,
    }


def _step(
    method: Method, batch: Batch, recipe: Training, optimizer: torch.optim.Optimizer, noise: torch.Generator, bf16: bool
) -> tuple[Tensor, Tensor]:
    """One optimiser step on (images uint8, masks, read); the loss and the gradient's norm, still on the device."""
    images, masks, read = batch
    x = normalise(images)
    if recipe.augment:
        x, masks = augment(x, masks, noise)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast(x.device.type, torch.bfloat16) if bf16 else nullcontext():
        loss = method.loss(x, masks, read, noise)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(method.parameters(), recipe.clip or math.inf)
    optimizer.step()
    return loss.detach(), norm


@contextmanager
def _whole() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done: half a step leaves running averages that no checkpoint may hold."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if came:
        raise KeyboardInterrupt


def _run(
    method: Method,
    train: AnnotatedSet,
    val: AnnotatedSet | None,
    recipe: Training,
    optimizer: torch.optim.Optimizer,
    state: State,
    device: torch.device,
    folder: Path | None,
    key: int,
    progress: bool,
    seed: int,
) -> None:
    """Take the remaining steps, writing history and checkpoints; an interruption leaves a checkpoint behind."""
    total, bf16 = recipe.total_steps(len(train)), uses_bf16(recipe.precision, device)
    gather, warned = resident(train, device), False
    before, started = state.seconds, time.perf_counter()
    cpu_before, cpu_started = state.cpu_seconds, time.process_time()
    last_saved, log = started, (folder / "history.jsonl").open("a", encoding="utf-8") if folder else None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=not progress, transient=True)
    try:
        with bar:
            task = bar.add_task(f"train {method.name}", total=total, completed=state.step, said="")
            first = state.step
            method.train()
            while state.step < total:
                lr = rate(recipe, state.step, total)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                rows = rows_of(state.step, len(train), recipe.batch, seed)
                noise = generator("step", seed, state.step, device=device)
                with _whole():
                    loss, norm = _step(method, gather(rows), recipe, optimizer, noise, bf16)
                    state.step += 1
                state.seconds = before + time.perf_counter() - started
                state.cpu_seconds = cpu_before + time.process_time() - cpu_started
                finished = state.step == total
                validating = val is not None and (finished or state.step % recipe.validate_every == 0)
                if finished or validating or state.step % LOG_EVERY == 0:
                    _check(float(loss), float(norm), state.step, recipe, bf16)
                    line: dict[str, Any] = {"step": state.step, "loss": float(loss), "lr": lr, **method.watch()}
                    if val is not None and validating:
                        line["val"] = _validated(method, val, recipe, state)
                        if not warned and (text := method.warning()):
                            warnings.warn(f"{method.name}: {text}", stacklevel=2)
                            warned = True
                    if log:
                        log.write(json.dumps(line) + "\n")
                        log.flush()
                    speed = (state.step - first) * recipe.batch / (time.perf_counter() - started)
                    bar.update(task, completed=state.step, said=f"loss {float(loss):.4g}, {speed:.0f} images/s")
                if folder and not finished and time.perf_counter() - last_saved > recipe.checkpoint_every:
                    _save(folder / "checkpoint.safetensors", method, optimizer, state, key)
                    last_saved = time.perf_counter()
    except KeyboardInterrupt:
        if folder:
            _save(folder / "checkpoint.safetensors", method, optimizer, state, key)
        raise
    finally:
        if log:
            log.close()


def _validated(method: Method, val: AnnotatedSet, recipe: Training, state: State) -> float:
    score = validate(method, val, recipe)
    method.train()
    if recipe.keep == "best" and (state.best is None or score < state.best):
        state.best, state.best_step = score, state.step
        state.best_weights = {n: t.detach().clone() for n, t in method.state_dict().items()}
    return score
