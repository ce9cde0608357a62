"""What is compared: training, sampling and scoring against the plain way, other packages and the machine's limits."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from baselines.peers import packages, plain, public
from bench.timing.measure import Clock, Limits, Ratio, Work, in_turns, operations, profile, ratio
from uqseg import methods
from uqseg.data import AnnotatedSet, load
from uqseg.device import Precision, uses_bf16
from uqseg.methods import Method
from uqseg.methods.method import normalise
from uqseg.metrics import Scored, calibration, maps, score
from uqseg.noise import Noise
from uqseg.prediction import predict_batches
from uqseg.samples import Sampler
from uqseg.training import Training, fit

WIDE = (32, 64, 128, 192)
DEEP = (*WIDE, 192)


@dataclass(frozen=True)
class Setting:
    """Where and how long to measure."""

    device: torch.device
    limits: Limits
    quick: bool

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 7

    @property
    def clock(self) -> Clock:
        """Of this process alone where the processor computes, so that what else runs counts little."""
        return "wall" if self.device.type == "cuda" else "processor"


@dataclass(frozen=True)
class Compared:
    """One line of the report: what took how many times longer than the project's own way."""

    what: str
    other: str
    ours: str
    seconds_other: float
    seconds_ours: float
    ratio: Ratio
    goal: float | None = None
    clock: Clock = "wall"


@dataclass(frozen=True)
class Budget:
    """One line of the report: what something costs in `unit`, and what it may cost at most."""

    what: str
    cost: float
    at_most: float
    unit: str = "s"


@dataclass(frozen=True)
class Share:
    """One line of the report: how near a work comes to the machine's limit."""

    what: str
    seconds: float
    work: str
    limit: str
    share: float
    goal: float | None = None


@dataclass(frozen=True)
class Point:
    """Seconds and bytes of memory at one value of a curve; None where it took too long or failed."""

    value: int
    seconds: float | None
    memory: int | None


@dataclass(frozen=True)
class Curve:
    """How time and memory grow with one thing; the data grow with its `power`, and the time may with the `allowed`
    power of the data: 2 where pairs are compared."""

    what: str
    axis: str
    power: int
    allowed: int
    points: list[Point]

    def exponent(self, of: Literal["seconds", "memory"], least: float = 0.0) -> float | None:
        """Power of the data with which time or memory grows between the last two points that have it; None where one
        of them is missing or not above `least`."""
        known = [(p.value, v) for p in self.points if (v := getattr(p, of)) is not None]
        if len(known) < 2 or min(v for _, v in known[-2:]) <= least:
            return None
        (a, first), (b, last) = known[-2:]
        return float(np.log(last / first) / (self.power * np.log(b / a)))


@dataclass
class Measured:
    """What a section measured."""

    compared: list[Compared] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)
    profiles: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)

    def add(
        self,
        what: str,
        works: Mapping[str, Work],
        rounds: int,
        goals: Mapping[str, float] | None = None,
        clock: Clock = "wall",
        repeats: int = 1,
    ) -> dict[str, float]:
        """Measure `works` in turns; the first is what the others are compared with. Median seconds of each, for one of
        the `repeats` times that a work does the same thing."""
        seconds = {name: s / repeats for name, s in in_turns(works, rounds, clock).items()}
        middle = {name: float(np.median(s)) for name, s in seconds.items()}
        first, *others = works
        for name in others:
            goal = (goals or {}).get(name)
            faster = ratio(seconds[first], seconds[name])
            self.compared.append(Compared(what, first, name, middle[first], middle[name], faster, goal, clock))
        return middle

    def computed(
        self, what: str, seconds: float, flops: int, limit: str, at: Setting, goal: float | None = None
    ) -> None:
        """The share of the limit ("fp32" or "bf16") of `flops` operations in `seconds`."""
        rate = getattr(at.limits, limit)
        share = flops / seconds / rate
        self.shares.append(Share(what, seconds, f"{flops / 1e9:.1f} GFLOP", f"{limit} matrix product", share, goal))

    def moved(self, what: str, seconds: float, size: int, at: Setting) -> None:
        """The share of the memory bandwidth of reading `size` bytes once in `seconds`."""
        share = size / seconds / at.limits.bandwidth
        self.shares.append(Share(what, seconds, f"{size / 1e6:.0f} MB read once", "memory bandwidth", share))


def noise_set(n: int, size: int, readers: int = 4, seed: int = 0) -> AnnotatedSet:
    """n images of noise; each reader draws a disc of his own size, about as large as nodules are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    radius = size * rng.uniform(0.04, 0.16, (n, readers))
    masks = np.hypot(y, x) < radius[..., None, None]
    images = rng.integers(0, 256, (n, 1, size, size), dtype=np.uint8)
    cases = [f"c{i}" for i in range(n)]
    table = pd.DataFrame({"patient": cases, "case": cases, "split": "train"})
    spacing = np.full((n, 2), np.nan, np.float32)
    return AnnotatedSet(images, masks, np.ones((n, readers), bool), table, spacing, "noise")


def blob_samples(n: int, samples: int, size: int, seed: int = 0) -> torch.Tensor:
    """Probability maps float32 (n,samples,size,size): smooth discs whose centres and sizes vary."""
    rng = np.random.default_rng(seed)
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


def training(at: Setting) -> Measured:
    """A step of training, of two steps that were measured and profiled: batch 12 at 128×128, without augmentation; the
    plain way loads, converts and trains alike."""
    measured, batch, steps = Measured(), 12, 2
    data = noise_set(2 * batch, 64 if at.quick else 128)
    for levels in ((8, 16),) if at.quick else (WIDE, DEEP):
        method = methods.build("probunet", levels=levels)
        plainly = plain_training_work(channels_first(method, at.device).train(), data, steps, batch, at.device)
        assert plainly is not None
        what = f"training step, probunet {levels}, batch {batch}, {data.images.shape[-1]}²"
        works = {
            "plain": plainly,
            "ours": training_work(method, data, steps, batch, at.device),
            "ours in fp32": training_work(method, data, steps, batch, at.device, "fp32"),
        }
        middle = measured.add(what, works, at.rounds - 2 if at.rounds > 3 else 3, {"ours": 2.5}, repeats=steps)
        flops = operations(works["ours"]) // steps
        kind = "bf16" if uses_bf16("auto", at.device) else "fp32"
        measured.computed(what, middle["ours"], flops, kind, at, 0.7)
        measured.computed(f"{what}, in fp32", middle["ours in fp32"], flops, "fp32", at)
        measured.profiles[what] = profile(works["ours"])
    _public_training(measured, at, data, steps, batch)
    _ensemble(measured, at, steps, batch)
    return measured


PUBLIC = {"convolutions": 3, "head": 4}
"""The options that give this project's probabilistic U-Net the layers of the public one, but for its normalisation."""


def _public_training(measured: Measured, at: Setting, data: AnnotatedSet, steps: int, batch: int) -> None:
    """In float32 on both sides, in processor time where the processor computes."""
    levels = (8, 16) if at.quick else WIDE
    network, method = public.ProbUNet(levels).to(at.device), methods.build("probunet", levels=levels, **PUBLIC)
    works: dict[str, Work] = {
        "public": lambda: plain.train(network.parameters(), data, network.loss, steps, batch, at.device),
        "ours in fp32": training_work(method, data, steps, batch, at.device, "fp32"),
    }
    what = f"training step, public probunet {levels}, batch {batch}, {data.images.shape[-1]}²"
    measured.add(what, works, 3, {"ours in fp32": 1.15}, at.clock, steps)
    measured.profiles[what] = profile(works["ours in fp32"])


def _public_sampling(measured: Measured, at: Setting, images: Any) -> None:
    levels = (8, 16) if at.quick else WIDE
    network, method = public.ProbUNet(levels).to(at.device), methods.build("probunet", levels=levels, **PUBLIC)
    method.to(at.device).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = normalise(torch.from_numpy(images).to(at.device))
    for n, goal in ((16, 3.0), (100, 6.0)):
        works: dict[str, Work] = {
            "public": torch.inference_mode()(partial(network.samples, x, n)),
            "ours in fp32": sampling_work(method, images, n, "fp32"),
        }
        what = f"{n} samples an image, public probunet {levels}, {images.shape[-1]}²"
        measured.add(what, works, 3, {"ours in fp32": goal}, at.clock)
        measured.profiles[what] = profile(works["ours in fp32"])


def _ensemble(measured: Measured, at: Setting, steps: int, batch: int) -> None:
    data, method = noise_set(2 * batch, 64 if at.quick else 128), methods.build("ensemble")
    plainly = plain_training_work(channels_first(method, at.device).train(), data, steps, batch, at.device)
    assert plainly is not None
    works = {"plain": plainly, "ours": training_work(method, data, steps, batch, at.device)}
    what = f"training step, ensemble of 4, batch {batch}, {data.images.shape[-1]}²"
    middle = measured.add(what, works, at.rounds, {"ours": 2}, repeats=steps)
    kind = "bf16" if uses_bf16("auto", at.device) else "fp32"
    measured.computed(what, middle["ours"], operations(works["ours"]) // steps, kind, at)


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


def sampling(at: Setting) -> Measured:
    """Samples of images at 128×128: four images at a time, the plain way with float32 and channels first."""
    measured, size = Measured(), 64 if at.quick else 128
    images = noise_set(4, size).images
    cases: list[tuple[str, dict[str, Any], int, float | None]] = [
        ("probunet", {}, 16, 4),
        ("probunet", {}, 100, 8),
        ("mcdropout", {}, 16, 2.5),
        ("ensemble", {}, 4, None),
    ]
    if not at.quick:
        cases[2:2] = [("probunet", {"levels": WIDE}, 16, 4), ("probunet", {"levels": WIDE}, 100, 8)]
    for name, options, n, goal in cases:
        method = methods.build(name, **options).to(at.device).eval()
        slow = channels_first(method, at.device).eval()
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        title = "".join(f" {v}" for v in options.values()) or (
            " (16, 32, 64, 64)" if name == "probunet" else " width 16"
        )
        what = f"{n} samples an image, {name}{title}, {size}²"
        works = {
            "plain": plain_sampling_work(slow, images, n),
            "ours": sampling_work(method, images, n),
            "ours in fp32": sampling_work(method, images, n, "fp32"),
        }
        middle = measured.add(what, works, at.rounds, {"ours": goal} if goal else None)
        flops = drawing_operations(method, images, n)
        kind = "bf16" if uses_bf16("auto", at.device) else "fp32"
        measured.computed(what, middle["ours"], flops, kind, at)
        measured.computed(f"{what}, in fp32", middle["ours in fp32"], flops, "fp32", at)
        measured.profiles[what] = profile(works["ours"])
        measured.shares += [_best_possible(what, middle["plain"], flops, limit, at) for limit in ("fp32", "bf16")]
    _public_sampling(measured, at, images)
    return measured


OVER_LIMIT = ": plain time over the limit's"


def _best_possible(what: str, seconds_plain: float, flops: int, limit: str, at: Setting) -> Share:
    """How many times faster than the plain way anything could be that computes these layers at that limit's rate."""
    times = seconds_plain / (flops / getattr(at.limits, limit))
    return Share(f"{what}{OVER_LIMIT}", seconds_plain, f"{times:.2g}× at most", limit, 1 / times)


def metrics(at: Setting) -> Measured:
    """Scoring: pairwise figures against loops, and all figures against drawing the samples that they judge."""
    measured, size = Measured(), 64 if at.quick else 128
    S, B = (20, 2) if at.quick else (100, 4)
    samples, data = blob_samples(B, S, size).to(at.device), noise_set(B, size)
    hypotheses, readers = samples >= 0.5, torch.from_numpy(data.masks).to(at.device)
    a, b = hypotheses.cpu().numpy(), data.masks

    def pairs() -> None:
        score(hypotheses, readers, statistics=["ged_cross", "ged_samples", "ged_readers", "hm_iou", "coverage"])

    works: dict[str, Work] = {"plain": lambda: plain.pairwise(a, b), "ours": pairs}
    what = f"GED, HM-IoU and coverage, S = {S}, R = 4, {size}², {B} images"
    middle = measured.add(what, works, 3, {"ours": 100})
    measured.computed(what, middle["ours"], operations(pairs), "fp32", at)
    measured.moved(what, middle["ours"], samples.nbytes, at)
    measured.profiles[what] = profile(pairs)

    images = noise_set(16, size).images
    method = methods.build("probunet", levels=(16, 32, 64, 64)).to(at.device).eval()
    sixteen, sixteen_masks = blob_samples(16, 16, size).to(at.device), torch.from_numpy(noise_set(16, size).masks)
    all_figures = lambda: score(sixteen, sixteen_masks)  # noqa: E731
    works = {"sampling": sampling_work(method, images, 16), "all figures": all_figures}
    what = f"drawing 16 samples (probunet) against all figures of them, {size}², 16 images"
    middle = measured.add(what, works, at.rounds, {"all figures": 1})
    measured.moved(f"all figures, S = 16, R = 4, {size}², 16 images", middle["all figures"], sixteen.nbytes, at)
    measured.profiles[what] = profile(all_figures)
    measured.budgets.append(_one_case(at.rounds))
    return measured


def _one_case(rounds: int) -> Budget:
    """All figures of one case on one core. They took 13 ms on a slow one, of which GED and HM-IoU 1.2; the rest is to
    take half as long."""
    cases, threads = 16, torch.get_num_threads()
    samples, masks = blob_samples(cases, 16, 64), torch.from_numpy(noise_set(cases, 64).masks)
    torch.set_num_threads(1)
    try:
        seconds = in_turns({"": lambda: score(samples, masks)}, rounds, "processor")[""]
    finally:
        torch.set_num_threads(threads)
    what = "all figures of a case, S = 16, R = 4, 64², in a batch of 16, one thread, processor time"
    return Budget(what, 1000 * float(np.median(seconds)) / cases, 7.1, "ms")


def peers(at: Setting) -> Measured:
    """The same number or the same training step from other packages."""
    measured, size = Measured(), 64 if at.quick else 128
    why = {p: reason for p in packages.PACKAGES if (reason := packages.missing(p))}
    measured.notes += [f"{p} {version(p)}" for p in packages.PACKAGES if p not in why]
    measured.notes += [f"{p} is left out: {reason}. Install it with the extra `peers`." for p, reason in why.items()]
    samples, data = blob_samples(2, 16, size), noise_set(2, size)
    hypotheses, readers, prob = samples >= 0.5, torch.from_numpy(data.masks), samples.mean(1)
    dice = lambda: Scored(hypotheses, readers).dice  # noqa: E731
    iou = lambda: Scored(hypotheses, readers).distances  # noqa: E731
    rounds, name = at.rounds, f"16 samples × 4 readers, {size}², 2 images"
    if "monai" not in why:
        measured.add(
            f"Dice of {name}",
            {"MONAI compute_dice": lambda: packages.monai_dice(hypotheses, readers), "ours": dice},
            rounds,
        )
        _monai_unet(measured, at)
    if "torchmetrics" not in why:
        loop = lambda: packages.torchmetrics_iou(hypotheses, readers)  # noqa: E731
        measured.add(f"IoU of {name}", {"torchmetrics, a call a pair": loop, "ours": iou}, rounds)
        ece = lambda: packages.torchmetrics_ece(prob, readers)  # noqa: E731
        measured.add(
            f"ECE, 15 bins, {size}², 2 images",
            {"torchmetrics": ece, "ours": lambda: calibration.reliability(prob, readers)},
            rounds,
        )
    if "scikit-learn" not in why:
        slow = lambda: packages.sklearn_iou(hypotheses, readers)  # noqa: E731
        measured.add(f"IoU of {name}", {"scikit-learn, a call a pair": slow, "ours": iou}, 3)
        u, wrong = samples.std(1).flatten(1), readers[:, 0].flatten(1)
        theirs = lambda: packages.sklearn_average_precision(u, wrong)  # noqa: E731
        ours = lambda: maps.average_precision(u, wrong)  # noqa: E731
        measured.add(
            f"average precision over pixels, {size}², 2 images", {"scikit-learn": theirs, "ours": ours}, rounds
        )
    return measured


def _monai_unet(measured: Measured, at: Setting) -> None:
    data = noise_set(24, 64 if at.quick else 128)
    x, y = (
        normalise(torch.from_numpy(data.images[:12])).to(at.device),
        torch.from_numpy(data.masks[:12, :1]).float().to(at.device),
    )
    step = packages.monai_training_step(packages.monai_unet((16, 32, 64, 128, 256)).to(at.device))
    works = {
        "MONAI BasicUNet": lambda: step(x, y),
        "ours": training_work(methods.build("unet"), data, 1, 12, at.device),
    }
    middle = measured.add(f"training step, U-Net 16…256, batch 12, {data.images.shape[-1]}²", works, at.rounds)
    for name, work in works.items():
        kind = "bf16" if name == "ours" and uses_bf16("auto", at.device) else "fp32"
        measured.computed(f"training step, {name}", middle[name], operations(work), kind, at)


def start(at: Setting) -> Measured:
    """What a command costs before it works: import and listing, beside importing torch alone."""
    measured = Measured()

    def run(*arguments: str) -> Work:
        return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    works = {
        "import torch": run("-c", "import torch"),
        "import uqseg": run("-c", "import uqseg"),
        "bench list": run("-m", "bench", "list", "methods"),
    }
    seconds = {name: float(np.median(s)) for name, s in in_turns(works, 3 if at.quick else 5).items()}
    measured.notes += [f"{name}: {each:.2f} s" for name, each in seconds.items()]
    for name, limit in (("import uqseg", 2.0), ("bench list", 1.0)):
        more = max(0.0, seconds[name] - seconds["import torch"])
        measured.budgets.append(Budget(f"{name}, beyond importing torch", more, limit))
    return measured


def data(at: Setting) -> Measured:
    """The first build of the embedded data set, into a folder that is deleted afterwards."""
    measured, limit = Measured(), 1000 if at.quick else None
    with tempfile.TemporaryDirectory() as folder:
        started, worked = time.perf_counter(), sum(os.times()[:4])
        built = load("lidc-sim", size=128, limit=limit, cache=folder)
        seconds, worked = time.perf_counter() - started, sum(os.times()[:4]) - worked
        started = time.perf_counter()
        load("lidc-sim", size=128, limit=limit, cache=folder)
        again = time.perf_counter() - started
    if limit is None:
        measured.budgets.append(Budget("lidc-sim at 128², first build", seconds, 90))
    measured.notes.append(
        f"lidc-sim, {len(built):,} slices at 128²: first build {seconds:.1f} s with "
        f"{os.cpu_count()} processors, which worked {worked:.1f} s in all; opened again in {again:.2f} s."
    )
    return measured


SECTIONS: dict[str, Callable[[Setting], Measured]] = {
    "training": training,
    "sampling": sampling,
    "metrics": metrics,
    "peers": peers,
    "start": start,
    "data": data,
}
