"""The one training loop: any method, any device, exactly resumable.

Every step's batch and noise are functions of (seed, step), so a checkpoint needs weights, optimiser state and the
step's number, and a resumed training ends in the same weights as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.split import evenly
from uqseg.device import peak_memory, pick_device, uses_bf16
from uqseg.errors import FileError, UsageError
from uqseg.files import read_json, write
from uqseg.methods import Method, source_hash
from uqseg.methods.method import normalise
from uqseg.noise import Noise
from uqseg.prediction import predict_batches
from uqseg.samples import Sampler
from uqseg.seeds import seed_of
from uqseg.training.augment import augment
from uqseg.training.batches import Arrays, one_pass, resident, rows_of
from uqseg.training.checkpoint import load_weights, not_finite, read_tensors, save_method, write_tensors
from uqseg.training.recipe import TRAINING_VERSION, Training, rate

LOG_EVERY = 10  # steps between readings of the loss: each one waits for the device
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    TextColumn("{task.completed}/{task.total}"),
    TextColumn("{task.fields[state]}"),
    TimeRemainingColumn(),
)


class DivergenceError(RuntimeError):
    """The loss, the gradient or a weight is no longer a finite number."""


@dataclass
class State:
    """Where a training stands."""

    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)


def fit(
    method: Method[Any],
    train: AnnotatedSet,
    *,
    val: AnnotatedSet | None = None,
    recipe: Training,
    device: str = "auto",
    out: str | Path | None = None,
    resume: bool = True,
    progress: bool = True,
    seed: int = 0,
) -> Method[Any]:
    """Train `method` on `train` and return it on its device, ready to sample.

    out: folder for weights.safetensors, model.json, fit.json (cost), history.jsonl and the checkpoint of an
    unfinished training; with `resume`, a finished one is loaded and an unfinished one goes on where it stopped.
    seed: of batches, augmentation and the method's noise.
    Raises UsageError where the method declines the data, DivergenceError where the loss is no longer finite, FileError
    where `out` holds another training or cannot be written.
    """
    if reason := method.declines(channels=train.images.shape[1], readers=train.readers, size=train.images.shape[2:]):
        raise UsageError(f"method '{method.label()}' declines the data: {reason}")
    folder, key = Path(out) if out is not None else None, _key(method, train, val, recipe, seed)
    method.to(pick_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    if folder and resume and (folder / "fit.json").exists():
        _same(read_json(folder / "fit.json")["key"], key, folder)
        load_weights(method, folder)
        return method.eval()
    method.input = _facts(train)
    if val is not None:
        val = val.take(evenly(val.table["patient"].tolist(), recipe.validate_images, 0))
    run = _Run(method, train, val, recipe, seed, key, folder)
    with ExitStack() as stack:
        if folder:
            run.resume(resume)
            run.log = stack.enter_context((folder / "history.jsonl").open("a", encoding="utf-8"))
        bar = Progress(*COLUMNS, console=Console(stderr=True), disable=not progress, transient=True)
        run.take_steps(stack.enter_context(bar))
    run.finish()
    if name := not_finite(method.state_dict()):
        raise DivergenceError(
            f"training diverged: '{name}' holds numbers that are not finite. {_advice(recipe, False)}"
        )
    if folder:
        save_method(method, folder)
        write(folder / "fit.json", json.dumps(run.cost() | {"key": key}, indent=1).encode())
        run.checkpoint.unlink(missing_ok=True)
    return method.eval()


def _key(method: Method[Any], train: AnnotatedSet, val: AnnotatedSet | None, recipe: Training, seed: int) -> int:
    """What a folder's training is told apart by."""
    code = (method.label(), method.version, source_hash(type(method)), TRAINING_VERSION)
    return seed_of(*code, method.options, train.key, val.key if val else None, recipe, seed)


def _same(stored: int, key: int, path: Path) -> None:
    if stored != key:
        raise FileError(f"{path} holds another training (method, data, recipe or seed); choose another folder")


def _facts(train: AnnotatedSet) -> dict[str, Any]:
    """What a trained method knows of its images; spacing: the median in mm, null where unknown."""
    known = train.spacing[np.isfinite(train.spacing).all(1)]
    return {
        "source": train.name,
        "key": train.key,
        "simulated": train.simulated,
        "channels": train.images.shape[1],
        "size": list(train.images.shape[2:]),
        "spacing": np.median(known, 0).tolist() if len(known) else None,
    }


def validate(sampler: Sampler, val: AnnotatedSet, recipe: Training) -> float:
    """Cross-entropy in nats per pixel of the mean of the samples, averaged over readers and images: a proper score."""
    total, count = 0.0, 0
    for part, samples in predict_batches(sampler, val, recipe.validate_samples, precision=recipe.precision):
        p = samples.mean().clamp(1e-6, 1 - 1e-6)[:, None]
        masks, read = (torch.from_numpy(np.array(a[part])).to(p.device) for a in (val.masks, val.read))
        entropy = -torch.where(masks, p.log(), (1 - p).log()).mean((2, 3))
        total, count = total + float(entropy[read].sum()), count + int(read.sum())
    return total / count


@contextmanager
def defer_sigint() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done: half a step leaves running averages that no checkpoint may hold."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if received:
        raise KeyboardInterrupt


class _Run:
    """One training: what it works on, and where it stands."""

    def __init__(
        self,
        method: Method[Any],
        train: AnnotatedSet,
        val: AnnotatedSet | None,
        recipe: Training,
        seed: int,
        key: int,
        folder: Path | None,
    ) -> None:
        self.method, self.train, self.val, self.recipe, self.seed = method, train, val, recipe, seed
        self.key, self.folder, self.checkpoint = key, folder, (folder or Path()) / "checkpoint.safetensors"
        self.device, self.total = method.device, recipe.total_steps(len(train))
        self.bf16 = uses_bf16(recipe.precision, self.device)
        self.gather = resident(train, self.device)
        optimizer = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = optimizer(method.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        self.state, self.warned = State(), False
        self.log: TextIO | None = None

    def take_steps(self, bar: Progress) -> None:
        """Take the remaining steps, writing history and checkpoints; an interruption leaves a checkpoint behind."""
        state, first = self.state, self.state.step
        task = bar.add_task(f"train {self.method.label()}", total=self.total, completed=first, state="")
        started = saved = time.perf_counter()
        before = state.seconds - started, state.cpu_seconds - time.process_time()
        self.method.train()
        self.method.before_steps(len(self.train), self.total)
        try:
            while state.step < self.total:
                with defer_sigint():
                    lr = rate(self.recipe, state.step, self.total)
                    loss, norm = self.step(lr)
                    state.seconds, state.cpu_seconds = before[0] + time.perf_counter(), before[1] + time.process_time()
                    if line := self.reading(loss, norm, lr):
                        speed = (state.step - first) * self.recipe.batch / (time.perf_counter() - started)
                        bar.update(task, completed=state.step, state=f"loss {line['loss']:.4g}, {speed:.0f} images/s")
                    if state.step < self.total and time.perf_counter() - saved > self.recipe.checkpoint_every:
                        self.save()
                        saved = time.perf_counter()
        except KeyboardInterrupt:
            self.save()
            raise

    def step(self, lr: float) -> tuple[Tensor, Tensor]:
        """One optimiser step; the loss and the gradient's norm, still on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        batch = self.gather(rows_of(self.state.step, len(self.train), self.recipe.batch, self.seed))
        noise = Noise.for_step(self.recipe.batch, "step", self.seed, self.state.step, device=self.device)
        loss = self.loss(batch, noise)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.method.parameters(), self.recipe.clip or math.inf)
        self.optimizer.step()
        self.state.step += 1
        self.average()
        self.method.after_step(self.state.step, self.total)
        return loss.detach(), norm

    @torch.no_grad()
    def average(self) -> None:
        """Take the weights, and the running statistics that belong to them, into their exponential average.

        Its decay rises to that of the recipe, so that the first weights are soon forgotten.
        """
        if self.recipe.ema is None:
            return
        decay, average = min(self.recipe.ema, self.state.step / (9 + self.state.step)), self.state.average
        for name, tensor in self.averaged_tensors().items():
            average.setdefault(name, tensor.clone()).lerp_(tensor, 1 - decay)

    def averaged_tensors(self) -> dict[str, Tensor]:
        """The method's own tensors that have an average: what is learned, and batch normalisation's statistics."""
        buffers = {n: t for n, t in self.method.named_buffers() if n.endswith(("running_mean", "running_var"))}
        return {n: p.detach() for n, p in self.method.named_parameters()} | buffers

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the method's weights and their average, if there is one."""
        tensors = self.averaged_tensors()
        for name, average in self.state.average.items():
            current = tensors[name].clone()
            tensors[name].copy_(average)
            average.copy_(current)

    def finish(self) -> None:
        """Give the method the weights that are kept, and its `finish` a pass over the training images."""
        self.swap()
        if self.recipe.keep == "best" and self.state.best_weights:
            self.method.load_state_dict(self.state.best_weights)
        started, cpu_started = time.perf_counter(), time.process_time()
        batches = one_pass(self.gather, len(self.train), self.recipe.batch, self.seed)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            self.method.finish(batches)
        self.state.seconds += time.perf_counter() - started
        self.state.cpu_seconds += time.process_time() - cpu_started

    def loss(self, batch: Arrays, noise: Noise) -> Tensor:
        """Mean loss of a batch, augmented as the recipe says."""
        images, masks, read = batch
        x = normalise(images)
        if self.recipe.augment:
            x, masks = augment(x, masks, noise)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            losses = self.method.loss(x, masks, read, noise)
        if losses.shape != (len(x),):
            raise ValueError(f"loss: expected one value for each of {len(x)} images, got shape {tuple(losses.shape)}")
        return losses.float().mean()

    def reading(self, loss: Tensor, norm: Tensor, lr: float) -> dict[str, Any] | None:
        """The history's line of this step, checked and written, if the step is one to be read."""
        step = self.state.step
        validating = self.val is not None and (step == self.total or step % self.recipe.validate_every == 0)
        if not (step == self.total or validating or step % LOG_EVERY == 0):
            return None
        line: dict[str, Any] = {"step": step, "loss": float(loss), "lr": lr, **self.method.watch()}
        if not (math.isfinite(line["loss"]) and math.isfinite(norm)):
            numbers = f"loss {line['loss']}, gradient norm {float(norm)}"
            raise DivergenceError(f"training diverged at step {step}: {numbers}. {_advice(self.recipe, self.bf16)}")
        if validating:
            line["val"] = self.validated()
            if not self.warned and (text := self.method.warning()):
                warnings.warn(f"{self.method.label()}: {text}", stacklevel=2)
                self.warned = True
        if self.log:
            self.log.write(json.dumps(line) + "\n")
            self.log.flush()
        return line

    def validated(self) -> float:
        """The validation score; the weights are kept if it is the best so far."""
        assert self.val is not None
        self.swap()
        score, state = validate(self.method, self.val, self.recipe), self.state
        if self.recipe.keep == "best" and (state.best is None or score < state.best):
            state.best, state.best_step = score, state.step
            state.best_weights = {n: t.detach().clone() for n, t in self.method.state_dict().items()}
        self.swap()
        self.method.train()
        return score

    def save(self) -> None:
        """Write the checkpoint, if there is a folder for it."""
        if self.folder is None:
            return
        tensors = {f"weights/{n}": t for n, t in self.method.state_dict().items()}
        tensors |= {f"best/{n}": t for n, t in self.state.best_weights.items()}
        tensors |= {f"average/{n}": t for n, t in self.state.average.items()}
        for k, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{k}/{n}": t for n, t in values.items()}
        numbers = {n: getattr(self.state, n) for n in ("step", "seconds", "cpu_seconds", "best", "best_step")}
        write_tensors(self.checkpoint, tensors, numbers | {"key": self.key})

    def resume(self, wanted: bool) -> None:
        """Go on from the folder's checkpoint if there is one and it is wanted; forget what will be repeated."""
        if wanted and self.checkpoint.exists():
            self.restore()
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        _trim(self.folder / "history.jsonl", self.state.step if wanted else -1)

    def restore(self) -> None:
        """Take weights, optimiser state and step from the checkpoint."""
        tensors, numbers = read_tensors(self.checkpoint)
        _same(numbers.pop("key"), self.key, self.checkpoint)

        def part(prefix: str) -> dict[str, Tensor]:
            return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

        self.method.load_state_dict(part("weights/"))
        values: dict[int, dict[str, Tensor]] = {}
        weights = self.optimizer.param_groups[0]["params"]
        for name, tensor in part("optimizer/").items():
            k, _, n = name.partition("/")
            like = weights[int(k)]
            # The fused kernel reads moments and weights as flat memory: the moments need the weights' memory layout.
            values.setdefault(int(k), {})[n] = torch.empty_like(like).copy_(tensor) if tensor.ndim else tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": values})
        best, average = ({n: t.to(self.device) for n, t in part(kind).items()} for kind in ("best/", "average/"))
        self.state = State(**numbers, best_weights=best, average=average)

    def cost(self) -> dict[str, Any]:
        """What the training took; peak memory is that of the process, null where the system does not tell."""
        state = self.state
        return {
            "parameters": sum(p.numel() for p in self.method.parameters()),
            "train_seconds": state.seconds,
            "cpu_seconds": state.cpu_seconds,  # of all threads: does not grow with other work on the machine
            "images_per_second": state.step * self.recipe.batch / state.seconds,
            "peak_memory_bytes": peak_memory(self.device),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "steps": state.step,
            "best_step": state.best_step,
            "best_score": state.best,
        }


def _advice(recipe: Training, bf16: bool) -> str:
    return (
        f"Lower training.lr (now {recipe.lr})"
        f"{'' if recipe.clip else ', set training.clip'}{', or set training.precision to fp32' if bf16 else ''}"
    )


def _trim(history: Path, upto: int) -> None:
    """Forget what a history says of steps after `upto`, which are about to be repeated."""
    if history.exists():
        # A full disk leaves half a line at the end.
        lines = [line for line in history.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        write(history, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= upto).encode())
