"""The training loop: it learns, resumes to the bit, refuses to diverge silently."""

import json
import re
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.timing.scale import sparse_set
from tests.conftest import discs
from uqseg import train as training
from uqseg.checkpoint import read_tensors
from uqseg.data import AnnotatedSet
from uqseg.device import pick_device
from uqseg.errors import FileError, UsageError
from uqseg.methods import Method, build
from uqseg.train import DivergenceError, Training, fit, rate, resident, rows_of

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

    whole = run(tmp_path / "whole")
    step, taken = training._step, []

    def interrupted(*arguments: object) -> object:
        taken.append(1)
        if len(taken) == 14:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert (tmp_path / "cut" / "checkpoint.safetensors").exists()
    assert torch.equal(whole, run(tmp_path / "cut"))
    assert len(taken) == 14 + 24 - 13
    assert torch.equal(whole, run(tmp_path / "cut")), "a finished training is loaded"
    assert len(taken) == 14 + 24 - 13
    histories = [(tmp_path / k / "history.jsonl").read_text() for k in ("whole", "cut")]
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


def test_an_interruption_waits_for_the_end_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = training._step

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return step(*args)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
    monkeypatch.setattr(training, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(build("unet", width=4, depth=3), discs(8), recipe=Training(steps=5, batch=4), out=tmp_path, progress=False)
    tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    counts = {int(t) for name, t in tensors.items() if name.endswith("num_batches_tracked")}
    assert counts == {1}
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_recipe_errors() -> None:
    for wrong in ({}, {"steps": 1, "epochs": 1}, {"steps": 0}, {"steps": 1, "lrr": 1}, {"steps": 1, "clip": -1}):
        with pytest.raises(ValueError, match="Training"):
            Training(**wrong)
    with pytest.raises(UsageError, match="device"):
        pick_device("nonsense")


def test_augmentation_moves_image_and_masks_alike() -> None:
    from uqseg.augment import augment
    from uqseg.seeds import generator

    data = discs(8, size=64)
    masks = torch.from_numpy(data.masks)
    images = masks[:, :1].float()
    moved, drawn = augment(images, masks, generator("a"))
    level = moved.amin((1, 2, 3), keepdim=True) / 2 + moved.amax((1, 2, 3), keepdim=True) / 2
    seen = images.any((1, 2, 3))
    agree = ((moved > level) == drawn[:, :1]).float().mean((1, 2, 3))
    assert drawn.dtype == torch.bool
    assert (agree[seen] > 0.99).all()
    assert not torch.equal(drawn, masks)


def test_no_warning_and_no_change_of_the_data(small: AnnotatedSet) -> None:
    before = small.images.copy(), small.masks.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(build("ensemble", **NARROW), small, recipe=Training(epochs=1, batch=4), progress=False)
    assert np.array_equal(before[0], small.images)
    assert np.array_equal(before[1], small.masks)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_runs_on_cuda(small: AnnotatedSet, tmp_path: Path) -> None:
    recipe = Training(steps=20, batch=6, lr=1e-2)
    method = fit(build("probunet", levels=(8, 16)), small, recipe=recipe, device="cuda", out=tmp_path, progress=False)
    assert weights(method).isfinite().all()
    assert weights(method).is_cuda


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not tell how maps are read")
def test_only_a_map_larger_than_reading_ahead_can_hold_is_read_without_it(tmp_path: Path) -> None:
    data = sparse_set(40_000, 128, tmp_path)  # images of 0.7 GB, masks of 2.6 GB, full of holes
    gather = resident(data, torch.device("cpu"))
    maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
    read_at_random = {}
    for name in ("images", "masks"):
        found = re.search(rf"{name}\.npy$.*?^VmFlags: (.*?)$", maps, re.S | re.M)
        assert found is not None
        read_at_random[name] = "rr" in found[1].split()
    assert read_at_random == {"images": False, "masks": True}
    images, masks, _ = gather(torch.tensor([39_999, 0]))
    assert images.shape == (2, 1, 128, 128)
    assert masks.shape == (2, 4, 128, 128)
