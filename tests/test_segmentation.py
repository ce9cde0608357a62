"""Images of any size through a trained model: put back in place, prepared alike, and noticed where they are unlike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import uqseg
from tests.conftest import discs
from uqseg import trained
from uqseg.errors import FileError, UsageError
from uqseg.files import read_json
from uqseg.methods import Method, Options, build
from uqseg.noise import Noise
from uqseg.segmentation import segment
from uqseg.training import Training, fit
from uqseg.wrappers import build as wrapper

SIDE = 16


class Threshold(Method[Options]):
    """Marks what is brighter than 100; every second sample also a column that noise chooses."""

    name = "tests.test_segmentation:Threshold"

    def __init__(self, options: Options, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.input = {"size": [SIDE, SIDE], "channels": 1, "fit": "crop", "window": None, "mean": [20, 200],
                      "deviation": [10, 100], "spacing": [0.7, 0.7]}  # fmt: skip

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        raise NotImplementedError

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        bright = (images.mean(1, keepdim=True) > 100.5 / 127.5 - 1).float()
        return bright.repeat(1, n, 1, 1)


MODEL = Threshold(Options(), channels=1, readers=1)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(16, 16), (9, 31), (7, 5), (50, 41), (16, 17)])
def test_an_image_of_any_size_comes_back_on_its_own_pixels(shape: tuple[int, int]) -> None:
    image = RNG.integers(0, 255, shape).astype(np.uint8)
    made = segment(MODEL, image, 3)
    assert made.prob.shape == (3, *shape)
    np.testing.assert_array_equal(made.mask, image > 100)
    np.testing.assert_allclose(made.mean, image > 100, atol=1e-6)
    assert (made.std < 1e-3).all()


def test_a_model_of_stretched_images_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODEL.input, "fit", "resize")
    image = np.zeros((48, 64), np.uint8)
    image[12:36, 16:48] = 255
    made = segment(MODEL, image, 1)
    assert made.mask.shape == (48, 64)
    assert (made.mask ^ (image > 100)).mean() < 0.1


def test_maps_and_numbers_by_hand() -> None:
    prob = np.zeros((2, 4, 4), np.float32)
    prob[0, :2, :2], prob[1, :2, :] = 1, 1
    made = uqseg.segmentation.Segmentation(np.zeros((1, 4, 4), np.uint8), prob, np.array([0.25, 0.75]), "support", ())
    assert made.mean[0, 0] == 1
    assert made.mean[0, 3] == 0.75
    assert made.std[0, 3] == pytest.approx(np.sqrt(0.25 * 0.75))
    assert made.entropy[0, 3] == pytest.approx(0.25 * 2 + 0.75 * np.log2(4 / 3))
    assert made.mask.sum() == 8
    assert made.presence == 1
    assert made.disagreement == pytest.approx(2 * 0.25 * 0.75 * 0.5)
    assert made.picture().size == (3 * 4 * 128, 4 * 128)


def test_what_is_unlike_the_training_images_is_remarked() -> None:
    like = RNG.integers(0, 255, (SIDE, SIDE)).astype(np.uint8)
    assert segment(MODEL, like, 1, spacing=(0.7, 0.8)).remarks == ()
    assert segment(MODEL, like, 1, spacing=(2.1, 2.1)).remarks == ("spacing 2.1 mm, trained on 0.7 mm",)
    dark = np.zeros((SIDE, 40), np.uint8)
    assert segment(MODEL, dark, 1).remarks == (
        "size 16×40, trained on 16×16", "mean of grey levels 0, trained on 20 to 200",
        "deviation of grey levels 0, trained on 10 to 100",
    )  # fmt: skip
    narrow = np.full((SIDE, SIDE // 2), 200, np.uint8)  # padded as a training image would be: mean and deviation 100
    assert segment(MODEL, narrow, 1).remarks == ("size 16×8, trained on 16×16",)
    with pytest.raises(ValueError, match="expected 1 channels, got 3"):
        segment(MODEL, np.zeros((3, SIDE, SIDE), np.uint8))


def test_files_are_prepared_as_the_training_images_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = RNG.integers(0, 4000, (SIDE, SIDE)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with pytest.raises(UsageError, match=r"trained on images of 8 bits: give the numbers.*window=\(-1000, 400\)"):
        segment(MODEL, tmp_path / "deep.png")
    given = segment(MODEL, tmp_path / "deep.png", window=(0, 2000)).image[0]
    np.testing.assert_array_equal(given, np.rint((deep / 2000).clip(0, 1) * 255))
    monkeypatch.setitem(MODEL.input, "window", [0, 1000])
    assert segment(MODEL, tmp_path / "deep.png").image.max() == 255
    np.save(tmp_path / "stack.npy", np.zeros((3, SIDE, SIDE), np.uint8))
    with pytest.raises(FileError, match="expected one picture, got 3 slices"):
        segment(MODEL, tmp_path / "stack.npy")


def test_a_model_on_disk_keeps_its_wrappers_and_knows_its_images(tmp_path: Path) -> None:
    data = discs(8)
    recipe = Training(steps=2, batch=4, precision="fp32")
    method = fit(build("unet", width=4, depth=3), data, val=data, recipe=recipe, out=tmp_path / "fit", progress=False)
    facts = method.input
    assert (facts["fit"], facts["window"], facts["size"]) == ("crop", None, [32, 32])
    assert facts["mean"] == [round(float(f(data.images.mean((1, 2, 3)))), 2) for f in (np.min, np.max)]
    chain = [wrapper("temperature", cases=4), wrapper("levels")]
    sampler: Any = uqseg.wrappers.wrap(method, chain, data)
    trained.save_model(sampler, tmp_path / "model", half=True)
    assert (tmp_path / "model/weights.safetensors").stat().st_size < 0.6 * (
        tmp_path / "fit/weights.safetensors").stat().st_size  # fmt: skip
    loaded = uqseg.load_model(tmp_path / "model")
    assert loaded.describes.name == sampler.describes.name == "unet+temperature+levels"
    assert loaded.input == facts
    ours, theirs = (uqseg.predict(each, data, 4, precision="fp32").prob for each in (sampler, loaded))
    assert float((ours - theirs).abs().mean()) < 1e-2
    assert read_json(tmp_path / "model/model.json")["wrappers"][0]["state"] == chain[0].state()
    with pytest.raises(UsageError, match="unknown model, or folder of one, 'nosuch'"):
        uqseg.load_model("nosuch")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_method_of_a_run_is_exported_before_it_is_loaded(tmp_path: Path, kind: type[str] | type[Path]) -> None:
    (tmp_path / "study/cells/unet-r0").mkdir(parents=True)
    (tmp_path / "study/run.json").write_text("{}", encoding="utf-8")
    for name in ("unet", "cells/unet-r0"):
        cell = kind(tmp_path / "study" / name)
        with pytest.raises(UsageError, match=f"`uqseg export {cell} --to FOLDER`, then load FOLDER"):
            uqseg.load_model(cell)


@pytest.mark.parametrize("name", trained.shipped())
def test_what_ships_loads_by_name_and_samples(name: str) -> None:
    folder = trained.SHIPPED / name
    assert {f.name for f in folder.iterdir()} == {"weights.safetensors", "model.json", "CARD.md"}
    assert (folder / "weights.safetensors").stat().st_size < 6e6
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    assert all(words in card for words in ("Not for clinical use", "CC BY 3.0", "Citation", "Changes made", "["))
    made = uqseg.segment(uqseg.load_model(name), np.full((64, 64), 128, np.uint8), 4)
    assert made.prob.shape[1:] == (64, 64)


def test_all_that_ships_is_small() -> None:
    assert sum(f.stat().st_size for f in trained.SHIPPED.rglob("*") if f.is_file()) < 15e6


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"window": (1, 1)}, "window: expected two ascending numbers"),
        ({"window": (2, 1)}, "window: expected two ascending numbers"),
        ({"window": (np.nan, 1)}, "window: expected two numbers"),
        ({"window": (0, np.inf)}, "window: expected two numbers"),
        ({"window": (0, 1, 2)}, "window: expected two numbers"),
        ({"window": "01"}, "window: expected two numbers"),
        ({"spacing": (0, 1)}, "spacing: expected two numbers above 0"),
        ({"spacing": (1, np.nan)}, "spacing: expected two numbers"),
        ({"spacing": 1}, "spacing: expected two numbers"),
    ],
)
def test_wrong_windows_and_spacings_are_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{expected}"):
        segment(MODEL, np.zeros((SIDE, SIDE), np.uint8), **given)


def test_a_file_of_no_numbers_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((SIDE, SIDE), np.nan))
    with pytest.raises(FileError, match=r"nan\.npy: expected finite numbers"):
        segment(MODEL, tmp_path / "nan.npy", window=(0, 1))
