"""The training loop: it learns, resumes to the bit, refuses to diverge silently."""

import json
import re
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import discs
from uqseg.data import AnnotatedSet
from uqseg.device import peak_memory, pick_device
from uqseg.errors import FileError, UsageError
from uqseg.methods import Method, build
from uqseg.methods.method import normalise
from uqseg.methods.unet import SingleUNet
from uqseg.noise import Noise
from uqseg.training import DivergenceError, Training, fit
from uqseg.training.augment import augment
from uqseg.training.batches import resident, rows_of
from uqseg.training.checkpoint import read_tensors
from uqseg.training.loop import _Run
from uqseg.training.recipe import rate

NARROW = {"width": 4, "depth": 3}


def weights(method: Method) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in method.parameters()])


def test_training_lowers_the_validation_score_and_writes_what_it_did(small: AnnotatedSet, tmp_path: Path) -> None:
    recipe = Training(steps=60, batch=6, lr=1e-2, validate_every=15, keep="best")
    fit(build("unet", **NARROW), small, val=discs(6, seed=1), recipe=recipe, out=tmp_path, progress=False)
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    scores = [line["val"] for line in history if "val" in line]
    assert len(scores) == 4
    assert scores[-1] < 0.8 * scores[0]
    cost = json.loads((tmp_path / "fit.json").read_text())
    assert cost["best_score"] == min(scores)
    assert cost["steps"] == 60
    assert cost["train_seconds"] > 0
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("name", ["unet", "probunet"])
def test_an_interrupted_training_resumes_to_the_same_bits(
    name: str, small: AnnotatedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = NARROW if name == "unet" else {"levels": (4, 8, 8)}
    recipe = Training(steps=24, batch=5, validate_every=6, keep="best", checkpoint_every=1e9)
    val = discs(6, seed=1)

    def run(out: Path) -> torch.Tensor:
        built = build(name, seed=1, **options)
        return weights(fit(built, small, val=val, recipe=recipe, out=out, progress=False, device="cpu"))

    uninterrupted = run(tmp_path / "uninterrupted")
    step, taken = _Run.step, []

    def interrupted(*arguments: object) -> object:
        taken.append(1)
        if len(taken) == 14:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(_Run, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists()
    assert torch.equal(uninterrupted, run(tmp_path / "cut"))
    assert len(taken) == 14 + 24 - 13
    assert torch.equal(uninterrupted, run(tmp_path / "cut")), "a finished training is loaded"
    assert len(taken) == 14 + 24 - 13
    histories = [(tmp_path / k / "history.jsonl").read_text() for k in ("uninterrupted", "cut")]
    assert histories[0] == histories[1]


def test_a_folder_of_another_training_is_not_taken(small: AnnotatedSet, tmp_path: Path) -> None:
    fit(build("unet", **NARROW), small, recipe=Training(steps=1, batch=2), out=tmp_path, progress=False)
    with pytest.raises(FileError, match="another training"):
        fit(build("unet", **NARROW), small, recipe=Training(steps=2, batch=2), out=tmp_path, progress=False)


def test_divergence_stops_and_says_what_to_change(small: AnnotatedSet) -> None:
    method = build("unet", **NARROW)
    with torch.no_grad():
        method.head.weight.fill_(torch.nan)
    with pytest.raises(DivergenceError, match=r"step 1.*Lower training\.lr"):
        fit(method, small, recipe=Training(steps=1, batch=2), progress=False)


def test_probunet_uses_its_latent_or_warns(small: AnnotatedSet) -> None:
    recipe = Training(steps=60, batch=6, lr=5e-3, validate_every=60)
    alive = build("probunet", levels=(8, 16), beta=1.0)
    fit(alive, small, val=discs(4, seed=1), recipe=recipe, progress=False)
    assert sum(alive.watch().values()) > 0.05
    dead = build("probunet", levels=(8, 16), beta=1e4)
    with pytest.warns(UserWarning, match="collapsed"):
        fit(dead, small, val=discs(4, seed=1), recipe=recipe, progress=False)


def test_data_the_method_declines_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="at least two readers"):
        fit(build("ensemble", readers=1), discs(4, readers=1), recipe=Training(steps=1))


def test_each_pass_sees_every_image_once() -> None:
    rows = torch.cat([rows_of(step, 10, 4, seed=1) for step in range(5)])
    assert sorted(rows[:10].tolist()) == sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert len(rows_of(0, 3, 8, seed=1)) == 8


def test_schedules_start_and_end_where_they_should() -> None:
    def course(schedule: str) -> list[float]:
        recipe = Training(steps=600, lr=1.0, schedule=schedule)
        return [rate(recipe, step, 600) for step in range(600)]

    assert set(course("constant")) == {1.0}
    assert max(course("onecycle")) == pytest.approx(1.0, abs=1e-3)
    assert course("onecycle")[0] < 0.05
    assert course("cosine")[0] == 1.0
    assert course("cosine")[-1] < 1e-4
    assert len({round(r, 9) for r in course("steps")}) == 6
    assert course("steps")[-1] == pytest.approx(0.01)


@pytest.mark.parametrize("at", ["step", "validated", "save"])
def test_an_interruption_waits_until_step_validation_and_checkpoint_are_done(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(_Run, at)

    def interrupted(run: _Run, *args: float) -> object:
        signal.raise_signal(signal.SIGINT)
        return original(run, *args)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
    monkeypatch.setattr(_Run, at, interrupted)
    recipe = Training(steps=5, batch=4, validate_every=1, keep="best", checkpoint_every=1e-9)
    with pytest.raises(KeyboardInterrupt):
        fit(build("unet", **NARROW), discs(8), val=discs(2), recipe=recipe, out=tmp_path, progress=False)
    tensors, numbers = read_tensors(tmp_path / "checkpoint.safetensors")
    assert {int(t) for name, t in tensors.items() if name.endswith("num_batches_tracked")} == {1}
    assert (numbers["step"], numbers["best_step"]) == (1, 1)
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Hooked(SingleUNet):
    """Counts the calls of its hooks."""

    def after_step(self, step: int, total: int) -> None:
        self.steps = [*getattr(self, "steps", []), (step, total)]

    def finish(self, train) -> None:
        self.passes = [(images, masks) for images, masks, _ in train]
        with torch.no_grad():
            self.head.bias.fill_(7.0)


def test_hooks_run_after_each_step_and_at_the_end(small: AnnotatedSet) -> None:
    method = build("tests.training.test_loop:Hooked", **NARROW)
    fit(method, small, val=small, recipe=Training(steps=3, batch=5, keep="best"), progress=False)
    assert method.steps == [(1, 3), (2, 3), (3, 3)]
    assert [len(images) for images, _ in method.passes] == [5, 5, 2]
    images = torch.cat([images for images, _ in method.passes])
    order = [
        int((images - image).abs().amax((1, 2, 3)).argmin()) for image in normalise(torch.from_numpy(small.images))
    ]
    assert sorted(order) == list(range(12))
    assert order != list(range(12)), "in random order"
    assert torch.equal(torch.cat([masks for _, masks in method.passes])[order], torch.from_numpy(small.masks))
    assert float(method.head.bias.detach()) == 7.0, "finish comes after the choice of the weights"


def test_memory_is_read_where_the_system_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    linux = peak_memory(torch.device("cpu"))
    assert linux is not None
    assert linux > 2**24
    monkeypatch.setattr("sys.platform", "darwin")
    assert peak_memory(torch.device("cpu")) == pytest.approx(linux / 1024, rel=0.1)
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(torch.device("cpu")) is None


def test_recipe_errors() -> None:
    for wrong in ({}, {"steps": 1, "epochs": 1}, {"steps": 0}, {"steps": 1, "lrr": 1}, {"steps": 1, "clip": -1}):
        with pytest.raises(ValueError, match="Allowed: steps, epochs"):
            Training(**wrong)
    with pytest.raises(UsageError, match="device"):
        pick_device("nonsense")


def test_augmentation_moves_image_and_masks_alike() -> None:
    data = discs(8, size=64)
    masks = torch.from_numpy(data.masks)
    images = masks[:, :1].float()
    moved, moved_masks = augment(images, masks, Noise.for_step(8, "a"))
    level = moved.amin((1, 2, 3), keepdim=True) / 2 + moved.amax((1, 2, 3), keepdim=True) / 2
    seen = images.any((1, 2, 3))
    agree = ((moved > level) == moved_masks[:, :1]).float().mean((1, 2, 3))
    assert moved_masks.dtype == torch.bool
    assert (agree[seen] > 0.99).all()
    assert not torch.equal(moved_masks, masks)


def test_augmentation_keeps_shapes_of_images_that_are_not_square() -> None:
    y, x = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(96.0) - 47.5, indexing="ij")
    disc = (y.square() + x.square() < 64).expand(64, 1, -1, -1)
    moved = augment(disc.float(), disc, Noise.for_step(64, "a"))[1][:, 0].float()
    area = moved.sum((1, 2))
    weights = moved / area[:, None, None]
    middles = [(weights * axis).sum((1, 2)) for axis in (y, x)]
    a, b = (axis - middle[:, None, None] for axis, middle in zip((y, x), middles, strict=True))
    spread = torch.stack([(weights * one * other).sum((1, 2)) for one in (a, b) for other in (a, b)], 1).view(-1, 2, 2)
    lengths = torch.linalg.eigvalsh(spread).sqrt()
    assert (lengths[:, 1] / lengths[:, 0]).max() < 1.5
    assert (area / disc[0].sum()).log().abs().max() < 0.6


def test_no_warning_and_no_change_of_the_data(small: AnnotatedSet) -> None:
    before = small.images.copy(), small.masks.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(build("ensemble", **NARROW), small, recipe=Training(epochs=1, batch=4), progress=False)
    assert np.array_equal(before[0], small.images)
    assert np.array_equal(before[1], small.masks)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell how maps are read")
def test_only_a_map_larger_than_reading_ahead_can_hold_is_read_without_it(tmp_path: Path) -> None:
    n, arrays = 40_000, []  # images of 0.7 GB, masks of 2.6 GB, full of holes
    for name, dtype, planes in (("images", np.uint8, 1), ("masks", np.bool_, 4)):
        file = tmp_path / f"{name}.npy"
        np.lib.format.open_memmap(file, "w+", dtype=dtype, shape=(n, planes, 128, 128)).flush()
        arrays.append(np.load(file, mmap_mode="r"))
    cases = np.arange(n).astype(str)
    table = pd.DataFrame({"patient": cases, "case": cases, "split": "train"})
    spacing = np.full((n, 2), np.nan, np.float32)
    data = AnnotatedSet(*arrays, np.ones((n, 4), bool), table, spacing, "sparse")
    gather = resident(data, torch.device("cpu"))
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    read_at_random = {}
    for name in ("images", "masks"):
        flags = re.search(rf"{name}\.npy$.*?^VmFlags: (.*?)$", maps, re.S | re.M)
        assert flags is not None
        read_at_random[name] = "rr" in flags[1].split()
    assert read_at_random == {"images": False, "masks": True}
    images, masks, _ = gather(torch.tensor([39_999, 0]))
    assert images.shape == (2, 1, 128, 128)
    assert masks.shape == (2, 4, 128, 128)
