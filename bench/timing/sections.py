"""What is compared: training, sampling and scoring against the plain way, other packages and the machine's limits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from baselines.peers import packages, plain, public
from bench.timing.measure import Work, in_turns, operations, profile
from bench.timing.outcome import Budget, Measured, Setting, Share
from bench.timing.works import (
    blob_samples,
    channels_first,
    drawing_operations,
    noise_set,
    plain_sampling_work,
    plain_training_work,
    sampling_work,
    training_work,
)
from uqseg import methods
from uqseg.data import AnnotatedSet, load
from uqseg.methods.method import normalise
from uqseg.metrics import Scored, calibration, maps, score

WIDE = (32, 64, 128, 192)
DEEP = (*WIDE, 192)


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
        measured.computed(what, middle["ours"], flops, at.precision, at, 0.7)
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
    measured.computed(what, middle["ours"], operations(works["ours"]) // steps, at.precision, at)


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
        measured.computed(what, middle["ours"], flops, at.precision, at)
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
        kind = at.precision if name == "ours" else "fp32"
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
