"""Wrong arguments of fit, predict, load, load_model and options: one line that says what was expected and what came."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import discs
from tests.methods.test_contract import Weighted
from uqseg import load_model, predict
from uqseg.data import AnnotatedSet, load
from uqseg.methods import Method, build, find, names
from uqseg.methods.method import size_of
from uqseg.methods.unet import SingleUNet
from uqseg.samples import Samples
from uqseg.training import Training, fit

ONE_STEP = Training(steps=1, batch=2, augment=False)
THREE_STEPS = Training(steps=3, batch=2)
NOBODY = replace(discs(2), read=np.zeros((2, 4), bool))


def unet() -> Method[Any]:
    return build("unet", width=4, depth=2)


def refused(expected: str, function: Any, *words: Any, **named: Any) -> None:
    """The call is refused in one line that begins with `expected`."""
    with pytest.raises(ValueError, match=f"^{expected}") as error:
        function(*words, **named)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "unet"}, "method: expected Method, got str"),
        ({"method": find("unet")}, "method: expected Method, got ABCMeta"),
        ({"train": discs(2).images}, "train: expected AnnotatedSet, got ndarray"),
        ({"train": discs(2).take(slice(0, 0))}, r"train: expected at least one image .* got \(0, 1, 32, 32\)"),
        ({"train": discs(2, channels=3)}, "train: expected images of 1 channels, got 3"),
        ({"train": NOBODY}, "train: expected at least one reader of every image, got none of case 'c0'"),
        ({"train": discs(2, size=31)}, "images: expected height and width divisible by 2 .* got 31×31"),
        ({"val": "none"}, "val: expected AnnotatedSet or None, got str"),
        ({"val": discs(2).take(slice(0, 0))}, "val: expected at least one image"),
        ({"val": discs(2, channels=3)}, "val: expected images of 1 channels, got 3"),
        ({"val": NOBODY}, "val: expected at least one reader of every image"),
        ({"recipe": {"steps": 1}}, "recipe: expected Training, got dict"),
        ({"recipe": Training(steps=1, keep="best")}, "val: expected images to validate on"),
        ({"seed": "1"}, "seed: expected a whole number, got '1'"),
        ({"seed": True}, "seed: expected a whole number, got True"),
        ({"device": None}, "device: expected auto, cpu or an available cuda device, got None"),
        ({"out": 3}, "out: expected a folder or None, got 3"),
    ],
)
def test_fit(given: dict[str, Any], expected: str, tmp_path: Path) -> None:
    right = {"method": unet(), "train": discs(2), "recipe": ONE_STEP, "out": tmp_path, "progress": False}
    method, train = (given.pop(name, right.pop(name)) for name in ("method", "train"))
    refused(expected, fit, method, train, **right | given)
    assert not (tmp_path / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("images", "given", "expected"),
    [
        (None, {}, r"images: expected a uint8 array \(N,C,H,W\) or a set, got NoneType"),
        (torch.zeros(2, 1, 32, 32), {}, "images: expected a uint8 array .* got Tensor"),
        (np.ma.masked_array(discs(2).images), {}, "images: expected a plain array, got a masked array"),
        (np.zeros((2, 1, 32, 32)), {}, "images: expected uint8 .* got float64"),
        (np.zeros((1, 32, 32), np.uint8), {}, r"images: expected uint8 .* got uint8 \(1, 32, 32\)"),
        (np.zeros((0, 1, 32, 32), np.uint8), {}, "images: expected at least one image, got none"),
        (np.zeros((2, 1, 0, 32), np.uint8), {}, "images: .* with no side of 0"),
        (np.zeros((2, 3, 32, 32), np.uint8), {}, "images: expected 1 channels, got 3"),
        (discs(2), {"n": 0}, "n: expected a whole number from 1 to 10000, got 0"),
        (discs(2), {"n": 10**9}, "n: expected a whole number from 1 to 10000, got 1000000000"),
        (discs(2), {"n": 2.5}, "n: expected a whole number"),
        (discs(2), {"batch": None}, "batch: expected a whole number from 1 to 10000, got None"),
        (discs(2), {"seed": None}, "seed: expected a whole number, got None"),
        (discs(2), {"keys": ["a"]}, "keys: expected one for each of 2 images, got 1"),
        (discs(2), {"keys": "ab"}, "keys: expected one for each of 2 images, got 'ab'"),
        (discs(2), {"keys": {"a", "b"}}, "keys: expected one for each of 2 images"),
        (discs(2), {"precision": "fp16"}, "precision: expected one of auto, fp32, bf16, got 'fp16'"),
    ],
)
def test_predict(images: Any, given: dict[str, Any], expected: str) -> None:
    refused(expected, predict, unet(), images, **given)


def test_images_give_the_same_bits_however_they_lie_in_memory() -> None:
    data = discs(4)
    columns_first = replace(data, images=np.asfortranarray(data.images), masks=np.asfortranarray(data.masks))
    trained = [fit(unet(), each, recipe=THREE_STEPS, progress=False).state_dict() for each in (data, columns_first)]
    assert all(torch.equal(tensor, trained[1][name]) for name, tensor in trained[0].items())
    images = data.images
    expected = predict(unet(), images, 2).prob
    for same in (np.asfortranarray(images), images[::-1][::-1], images.astype(">u1")):
        assert torch.equal(predict(unet(), same, np.int64(2)).prob, expected)
    refused("sampler: expected a trained method", predict, Method, images)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"source": None}, "source: expected a name such as 'lidc-sim', got None"),
        ({"size": 32.0}, "size: expected a whole number, got 32.0"),
        ({"size": True}, "size: expected a whole number, got True"),
        ({"size": 2048}, "size: expected a whole number from 16 to 1024, got 2048"),
        ({"split": 3}, "unknown split '3'. Known: test, train, val"),
        ({"limit": 0}, "limit: expected at least 1 image or None for all, got 0"),
        ({"limit": "all"}, "limit: expected a whole number or None, got 'all'"),
        ({"seed": 0.5}, "seed: expected a whole number, got 0.5"),
        ({"cache": 3}, "cache: expected a folder or None, got 3"),
        ({"source": "folder:~nobody-of-this-name/x"}, "source 'folder': there is no file or folder"),
        ({"source": "folder:" + "a" * 5000}, "source 'folder': there is no file or folder"),
    ],
)
def test_load(given: dict[str, Any], expected: str, tmp_path: Path) -> None:
    refused(expected, load, **{"source": "toy", "cache": tmp_path} | given)
    assert list(tmp_path.iterdir()) == []


def test_load_model(tmp_path: Path) -> None:
    refused("folder: expected the folder of a trained method, got 3", load_model, 3)
    refused("trust: expected names of classes, got 3", load_model, tmp_path, trust=3)
    refused("device: expected auto, cpu or an available cuda device, got 'gpu'", load_model, tmp_path, "gpu")


@pytest.mark.parametrize(
    ("label", "given", "expected"),
    [
        ("unet", {"width": True}, "width: Input should be of another type than true or false, got True"),
        ("unet", {"width": "wide"}, "width: Input should be a valid integer.*, got 'wide'"),
        ("unet", {"width": 10**30}, "width: Input should be less than or equal to 4096"),
        ("unet", {"depth": 100}, "depth: Input should be less than or equal to 10, got 100"),
        (
            "unet",
            {"width": 4096},
            "width=4096 with 1 channels and 4 readers ask for weights of 514 GB, expected at most",
        ),
        ("unet", {"pos_weight": float("nan")}, "pos_weight: Input should be a finite number, got nan"),
        ("deepensemble", {"members": 10**9}, "members: Input should be less than or equal to 100"),
        ("probunet", {"levels": (4, 0)}, r"levels.1: Input should be greater than or equal to 1, got 0"),
        (
            "probunet",
            {"levels": (4, True)},
            r"levels: Input should be of another type than true or false, got \(4, True\)",
        ),
        ("probunet", {"levels": (4,) * 1000}, r"levels: .* at most 10 items .*, got \(4, 4, .*…\. "),
        ("swag", {"width": 512, "rank": 1000}, "(width=512, rank=1000|rank=1000, width=512) with 1 channels"),
        ("unet", {"channels": 0}, "channels: expected a whole number from 1 to 1000, got 0"),
        ("unet", {"readers": "4"}, "readers: expected a whole number from 1 to 1000, got '4'"),
        ("ensemble", {"width": 64, "readers": 40}, "width=64 with 1 channels and 40 readers ask for weights of"),
        ("unet", {"seed": 0.5}, "seed: expected a whole number, got 0.5"),
    ],
)
def test_options(label: str, given: dict[str, Any], expected: str) -> None:
    refused(f"(method '{label}': )?{expected}", build, label, **given)


@pytest.mark.parametrize("name", names())
def test_the_size_of_a_method_is_known_before_it_is_made(name: str) -> None:
    method = build(name, find(name).small)
    assert size_of(name, method.options, 1, 4) == sum(t.nbytes for t in method.state_dict().values())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "set exactly one of steps and epochs, got steps=None, epochs=None. Allowed: steps, epochs"),
        ({"steps": 1, "epochs": 1}, "set exactly one of steps and epochs, got steps=1, epochs=1.0. Allowed"),
        ({"steps": 1.5}, "steps: Input should be a valid integer.*, got 1.5"),
        ({"epochs": float("inf")}, "epochs: Input should be a finite number, got inf"),
        ({"steps": 1, "batch": 10**9}, "batch: Input should be less than or equal to 4096"),
        ({"steps": 1, "rate": 2}, "rate: Extra inputs are not permitted, got 2"),
    ],
)
def test_training(given: dict[str, Any], expected: str) -> None:
    refused(expected, Training, **given)


class Wrong(Weighted):
    """Draws what the test sets."""

    answer: Any = None

    def draw(self, images: Tensor, n: int, noise: Any) -> Any:
        return self.answer(images, n)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda images, n: None, r"draw: expected a tensor \(B,S,H,W\) in \[0,1\] or Samples, got NoneType"),
        (
            lambda images, n: torch.zeros(len(images), 32, 32),
            r"draw: expected \(1,2,32,32\) in \[0,1\], got \(1,32,32\)",
        ),
        (lambda images, n: images.expand(-1, n, -1, -1), r"draw: expected .* in \[0,1\], got numbers from -"),
        (lambda images, n: images.bool().expand(-1, n, -1, -1), "draw: expected floating point numbers"),
        (lambda images, n: images.new_zeros(1, n + 1, 32, 32), r"draw: expected \(1,2,32,32\) .* got \(1,3,32,32\)"),
        (lambda images, n: Samples(images.abs(), images[:, 0, 0, :1] * 0 + 0.5, "support"), "draw: expected weights"),
        (lambda images, n: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda images, n: images.new_zeros(1, n, 32, 32) + torch.nan, "draw: .* got numbers from nan"),
    ],
)
def test_a_wrong_draw_is_seen_before_training(answer: Any, expected: str, tmp_path: Path, small: AnnotatedSet) -> None:
    method = build(f"{__name__}:Wrong")
    method.answer = answer  # type: ignore[assignment]
    refused(
        rf"method '{__name__}:Wrong', tried on one image: {expected}",
        fit,
        method,
        small,
        recipe=ONE_STEP,
        out=tmp_path,
        progress=False,
    )
    assert list(tmp_path.iterdir()) == []


class Drawing(SingleUNet):
    """A U-Net from outside that draws from the global generator."""

    def draw(self, images: Tensor, n: int, noise: Any) -> Tensor:
        return super().draw(images, n, noise) * torch.rand(())


def test_trying_a_draw_changes_neither_weights_nor_global_random_state(small: AnnotatedSet) -> None:
    state = torch.random.get_rng_state()
    recipe = Training(steps=3, batch=2)
    tried, own = (
        fit(build(label, width=4, depth=2), small, recipe=recipe, device="cpu", progress=False).state_dict()
        for label in (f"{__name__}:Drawing", "unet")
    )
    assert all(torch.equal(tried[name], own[name]) for name in own)
    assert torch.equal(torch.random.get_rng_state(), state)
