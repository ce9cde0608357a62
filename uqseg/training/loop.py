"""The one training loop: any method, any device, exactly resumable.

Every step's batch and noise are functions of (seed, step), so a checkpoint needs weights, optimiser state and the
step's number, and a resumed training ends in the same weights as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
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
from uqseg.errors import DamagedError, FileError
from uqseg.files import read_json, sha256, write
from uqseg.interrupts import Interrupts
from uqseg.methods import Method, source_hash
from uqseg.methods.method import normalise
from uqseg.noise import Noise
from uqseg.prediction import predict_batches
from uqseg.samples import Sampler
from uqseg.seeds import seed_of
from uqseg.training.augment import augment
from uqseg.training.batches import Arrays, one_pass, resident, rows_of
from uqseg.training.checkpoint import (
    COST,
    HISTORY,
    MODEL,
    check_fit,
    entry,
    load_weights,
    not_finite,
    read_tensors,
    save_method,
    write_tensors,
)
from uqseg.training.facts import facts_of
from uqseg.training.parallel import Ranks, together
from uqseg.training.recipe import TRAINING_VERSION, Training, rate
from uqseg.training.refusals import check_arguments, one_for_each, refuse, try_drawing

Watch = Callable[[Mapping[str, Any]], None]
LOG_EVERY = 10  # steps between readings of the loss: each one waits for the device
COLUMNS = (
    TextColumn("{task.description}", markup=False),  # the brackets of a label are no markup
    BarColumn(),
    TextColumn("{task.completed}/{task.total}"),
    TextColumn("{task.fields[state]}"),
    TimeRemainingColumn(),
)


NUMBERS = ("step", "seconds", "cpu_seconds", "best", "best_step", "unread")  # of State, kept in a checkpoint


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
    unread: dict[str, Any] | None = None  # the history's line of a step that is taken and checked, but not validated
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
    watch: Watch | None = None,
) -> Method[Any]:
    """Train `method` on `train` and return it on its device, ready to sample.

    out: folder for weights.safetensors, model.json, fit.json (cost), history.jsonl and the checkpoint of an
    unfinished training; with `resume`, a finished one is loaded and an unfinished one goes on where it stopped.
    seed: of batches, augmentation and the method's noise.
    watch: called with each line of the history (step, loss, lr, val, ...) when it is written, for example to draw it.
    Processes of one group of torch.distributed, as torchrun starts them, train together: each calls this alike, takes
    its rows of each batch, and gets the same weights; the first one validates and writes.
    Ctrl-C and SIGTERM end it after the step that is under way, with a checkpoint; a second one ends it at once.
    Raises UsageError where the method declines the data, DivergenceError where the loss is no longer finite, FileError
    where `out` holds another training or cannot be written, DamagedError where a file in it is not as it was written.
    """
    ranks = Ranks.current()
    check_arguments(method, train, val, recipe, seed, out)
    refuse(method, train, val, recipe, ranks)
    folder, key = Path(out) if out is not None else None, _key(method, train, val, recipe, seed)
    method.to(pick_device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    if folder and resume and (folder / COST).exists():
        _same(entry(read_json(folder / COST), "key", folder / COST), key, folder)
        check_fit(folder)
        load_weights(method, folder)
        return method.eval()
    method.input = facts_of(train)
    if source_hash(type(method)):  # somebody's method: this project's own keep their promises in its tests
        try_drawing(method, train, recipe)
    if val is not None:
        val = val.take(evenly(val.table["patient"].tolist(), recipe.validate_images, 0))
    run = _Run(method, train, val, recipe, seed, key, folder, ranks)
    run.watch = watch
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts(shared=ranks.size > 1))
        if folder:
            run.resume(resume)
            if run.first:
                run.log = stack.enter_context((folder / HISTORY).open("a", encoding="utf-8"))
        bar = Progress(*COLUMNS, console=Console(stderr=True), disable=not (progress and run.first), transient=True)
        with together(method, ranks) as run.losses:
            run.take_steps(stack.enter_context(bar), interrupts)
        with interrupts.deferred():
            run.end()
    return method.eval()


def _key(method: Method[Any], train: AnnotatedSet, val: AnnotatedSet | None, recipe: Training, seed: int) -> int:
    """What a folder's training is told apart by."""
    code = (method.label(), method.version, source_hash(type(method)), TRAINING_VERSION)
    return seed_of(*code, method.options, train.key, val.key if val else None, recipe, seed)


def _same(stored: int, key: int, path: Path) -> None:
    if stored != key:
        raise FileError(f"{path} holds another training (method, data, recipe or seed); choose another folder")


def validate(sampler: Sampler, val: AnnotatedSet, recipe: Training) -> float:
    """Cross-entropy in nats per pixel of the mean of the samples, averaged over readers and images: a proper score."""
    total, count = 0.0, 0
    for part, samples in predict_batches(sampler, val, recipe.validate_samples, precision=recipe.precision):
        p = samples.mean().clamp(1e-6, 1 - 1e-6)[:, None]
        masks, read = (torch.from_numpy(np.array(a[part])).to(p.device) for a in (val.masks, val.read))
        entropy = -torch.where(masks, p.log(), (1 - p).log()).mean((2, 3))
        total, count = total + float(entropy[read].sum()), count + int(read.sum())
    return total / count


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
        ranks: Ranks,
    ) -> None:
        self.ranks, self.first = ranks, ranks.rank == 0
        self.losses: Callable[..., Tensor] = method.loss
        self.method, self.train, self.val, self.recipe, self.seed = method, train, val, recipe, seed
        self.key, self.folder, self.checkpoint = key, folder, (folder or Path()) / "checkpoint.safetensors"
        self.device, self.total = method.device, recipe.total_steps(len(train))
        self.dtype = next(method.parameters()).dtype
        self.bf16 = uses_bf16(recipe.precision, self.device)
        self.gather = resident(train, self.device)
        optimizer = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
        self.optimizer = optimizer(method.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        self.state, self.warned = State(), False
        self.torn = False  # whether weights, state and history are between two of their states: no checkpoint then
        self.log: TextIO | None = None
        self.watch: Watch | None = None

    def take_steps(self, bar: Progress, interrupts: Interrupts) -> None:
        """Take the remaining steps, each with its check, validation and line of history, and write checkpoints.

        An interruption waits for the end of such a step, and leaves a checkpoint behind. A second one stops at once;
        what is done again then begins at the last checkpoint that holds a complete step.
        """
        state, first = self.state, self.state.step
        task = bar.add_task(f"train {self.method.label()}", total=self.total, completed=first, state="")
        started = saved = time.perf_counter()
        before = state.seconds - started, state.cpu_seconds - time.process_time()
        self.method.train()
        self.method.before_steps(len(self.train), self.total)
        try:
            while state.step < self.total or state.unread:
                with interrupts.deferred():
                    if interrupts.shared and self.ranks.any(bool(interrupts.received), self.device):
                        raise KeyboardInterrupt  # in all processes at the same step
                    if state.unread is None:
                        lr = rate(self.recipe, state.step, self.total)
                        loss, norm = self.step(lr)
                        state.seconds = before[0] + time.perf_counter()
                        state.cpu_seconds = before[1] + time.process_time()
                        state.unread, self.torn = self.reading(loss, norm, lr), False
                    if state.unread:
                        loss_text = f"loss {state.unread['loss']:.4g}"
                        self.write_line()
                        speed = (state.step - first) * self.recipe.batch / (time.perf_counter() - started)
                        bar.update(task, completed=state.step, state=f"{loss_text}, {speed:.0f} images/s")
                    if state.step < self.total and time.perf_counter() - saved > self.recipe.checkpoint_every:
                        self.save()
                        saved = time.perf_counter()
        except (KeyboardInterrupt, SystemExit):
            if not self.torn:
                self.save()
            raise

    def step(self, lr: float) -> tuple[Tensor, Tensor]:
        """One optimiser step; the loss and the gradient's norm, still on the device."""
        self.torn = True
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        rows, B = self.ranks.rows(self.recipe.batch), self.recipe.batch
        batch = self.gather(rows_of(self.state.step, len(self.train), B, self.seed)[rows])
        noise = Noise.for_step(B, "step", self.seed, self.state.step, rows=rows, device=self.device)
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

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The method with the average of its weights. Until its own are back, no checkpoint may be written."""
        torn, self.torn = self.torn, True
        self.swap()
        try:
            yield
        finally:
            self.swap()
            self.torn = torn

    def end(self) -> None:
        """Finish and publish in the first process, and give all of them its weights."""
        error: Exception | None = None
        try:
            if self.first:
                self.finish()
                self.publish()
        except Exception as reason:
            error = reason
        if self.ranks.any(error is not None, self.device):
            raise error or DivergenceError("the first process could not finish the training")
        self.ranks.share(self.method.state_dict().values())

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
        """Mean loss of a batch, augmented as the recipe says; of a part, such that the mean over processes is that."""
        images, masks, read = batch
        x = normalise(images)
        if self.recipe.augment:
            x, masks = augment(x, masks, noise)
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            losses = one_for_each(self.losses(x, masks, read, noise), len(x))
        losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
        return losses.mean() if self.ranks.size == 1 else losses.sum() * (self.ranks.size / self.recipe.batch)

    def reading(self, loss: Tensor, norm: Tensor, lr: float) -> dict[str, Any] | None:
        """The beginning of the history's line of this step, checked, if the step is one to be read."""
        step = self.state.step
        if not (step == self.total or self.validates() or step % LOG_EVERY == 0):
            return None
        watched = self.method.watch()
        means = self.ranks.mean(
            torch.tensor([float(loss), *watched.values()], dtype=torch.float64, device=self.device)
        ).tolist()
        line: dict[str, Any] = {
            "step": step,
            "loss": means[0],
            "lr": lr,
            **dict(zip(watched, means[1:], strict=True)),
        }
        if not (math.isfinite(line["loss"]) and math.isfinite(norm)):
            numbers = f"loss {line['loss']}, gradient norm {float(norm)}"
            raise DivergenceError(f"training diverged at step {step}: {numbers}. {_advice(self.recipe, self.bf16)}")
        return line

    def validates(self) -> bool:
        """Whether the step that was just taken is followed by a validation."""
        step = self.state.step
        return self.val is not None and (step == self.total or step % self.recipe.validate_every == 0)

    def write_line(self) -> None:
        """Validate, if it is time to, and write the line of a step that was read."""
        assert self.state.unread is not None
        line, score = self.state.unread, None
        if self.validates() and self.first:
            score = self.validated()
            line = line | {"val": score}
            if not self.warned and (text := self.method.warning()):
                warnings.warn(f"{self.method.label()}: {text}", stacklevel=2)
                self.warned = True
        self.torn = True
        if score is not None:
            self.keep(score)
        if self.log:
            self.log.write(json.dumps(line) + "\n")
            self.log.flush()
        self.state.unread, self.torn = None, False
        if self.watch:
            self.watch(line)

    def validated(self) -> float:
        """The validation score of the present weights."""
        assert self.val is not None
        with self.averaged():
            score = validate(self.method, self.val, self.recipe)
        self.method.train()
        return score

    def keep(self, score: float) -> None:
        """Keep the weights if their validation score is the best so far, and that is wanted."""
        state = self.state
        if self.recipe.keep == "best" and (state.best is None or score < state.best):
            state.best, state.best_step = score, state.step
            with self.averaged():
                state.best_weights = {n: t.detach().clone() for n, t in self.method.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint, if there is a folder for it."""
        if self.folder is None or self.log is None:
            return
        tensors = {f"weights/{n}": t for n, t in self.method.state_dict().items()}
        tensors |= {f"best/{n}": t for n, t in self.state.best_weights.items()}
        tensors |= {f"average/{n}": t for n, t in self.state.average.items()}
        for k, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{k}/{n}": t for n, t in values.items()}
        self.log.flush()
        os.fsync(self.log.fileno())  # a checkpoint never knows of a line that the disk does not hold
        history = (self.folder / HISTORY).read_bytes()
        numbers = {n: getattr(self.state, n) for n in NUMBERS}
        numbers |= {"key": self.key, "history": [len(history), hashlib.sha256(history).hexdigest()]}
        write_tensors(self.checkpoint, tensors, numbers)

    def resume(self, wanted: bool) -> None:
        """Go on from the folder's checkpoint if there is one and it is wanted; forget what will be repeated."""
        assert self.folder is not None
        history = self.restore() if wanted and self.checkpoint.exists() else b""
        self.ranks.any(False, self.device)  # all have read it before the first goes on writing
        if self.first:
            write(self.folder / HISTORY, history)

    def restore(self) -> bytes:
        """Take weights, optimiser state and step from the checkpoint; the history up to it."""
        assert self.folder is not None
        tensors, numbers = read_tensors(self.checkpoint)
        _same(numbers.pop("key"), self.key, self.checkpoint)
        length, digest = numbers.pop("history")
        path = self.folder / HISTORY
        history = path.read_bytes()[:length] if path.exists() else b""
        if hashlib.sha256(history).hexdigest() != digest:
            raise DamagedError(f"{path} is not what was written; delete {self.checkpoint.name} to train anew")

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
        return history

    def publish(self) -> None:
        """Check the weights, and write the results, if there is a folder for them."""
        method, folder = self.method, self.folder
        if name := not_finite(method.state_dict()):
            raise DivergenceError(
                f"training diverged: '{name}' holds numbers that are not finite. {_advice(self.recipe, False)}"
            )
        if folder:
            save_method(method, folder)
            digests = {"sha256": {file: sha256(folder / file) for file in (MODEL, HISTORY)}}
            write(folder / COST, json.dumps(self.cost() | {"key": self.key} | digests, indent=1).encode())
            self.checkpoint.unlink(missing_ok=True)

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
            "processes": self.ranks.size,
            "threads": torch.get_num_threads(),  # another number of them rounds sums in another order
            "steps": state.step,
            "best_step": state.best_step,
            "best_score": state.best,
        }


def _advice(recipe: Training, bf16: bool) -> str:
    return (
        f"Lower training.lr (now {recipe.lr})"
        f"{'' if recipe.clip else ', set training.clip'}{', or set training.precision to fp32' if bf16 else ''}"
    )
