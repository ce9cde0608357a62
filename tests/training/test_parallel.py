"""A training over two processes is that of one: gradients, weights, what it leaves, and where it stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from tests.conftest import discs
from uqseg import methods
from uqseg.errors import UsageError
from uqseg.training import Training, fit
from uqseg.training.parallel import Ranks

pytestmark = pytest.mark.integration
METHODS = ("unet", "probunet", "mcdropout", "ensemble", "bcnn")
ODD = {"batch": 7, "precision": "fp32", "clip": None}  # 7 images: one process gets three of them, one four


def built(name: str, dtype: torch.dtype = torch.float32) -> Any:
    return methods.build(name, methods.find(name).small, seed=1).to(dtype)


def gradients(name: str) -> dict[str, torch.Tensor]:
    """Those of the first step."""
    method = fit(built(name), discs(12, 4, 32), recipe=Training(steps=1, augment=False, **ODD), progress=False)
    return {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}


def weights(out: Path | None, steps: int = 20, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    """Of a U-Net in float64, stopped after a step or not."""
    method = built("unet", torch.float64)

    def after_step(step: int, total: int) -> None:
        if step == stop_after:
            raise KeyboardInterrupt

    method.after_step = after_step
    recipe = Training(steps=steps, augment=False, keep="last", validate_every=5, checkpoint_every=1e-6, **ODD)
    data = discs(12, 4, 32)
    fit(method, data, val=None, recipe=recipe, progress=False, out=out)
    return {n: t.clone() for n, t in method.state_dict().items()}


def in_processes(work: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """What `work` returns in each of `count` processes of one group."""
    folder.mkdir()
    multiprocessing.spawn(_one, (work, count, folder, arguments), count)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _one(rank: int, work: Callable[..., Any], count: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    torch.save(work(*arguments), folder / f"{rank}.pt")
    dist.destroy_process_group()


def everything(out: Path) -> dict[str, Any]:
    """All that is asked of two processes, in one start of them."""
    answers: dict[str, Any] = {f"gradients {name}": gradients(name) for name in METHODS}
    answers["weights"] = weights(out / "together")
    answers["resumed"] = weights(out / "alone")
    method = built("unet")
    method.couples_cases = True
    for change, recipe in (("couples", ODD), ("small", ODD | {"batch": 1})):
        try:
            fit(method if change == "couples" else built("unet"), discs(12, 4, 32), recipe=Training(steps=1, **recipe))
        except UsageError as error:
            answers[change] = str(error)
    return answers


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    out = tmp_path_factory.mktemp("trainings")
    with pytest.raises(KeyboardInterrupt):
        weights(out / "alone", stop_after=11)
    assert (out / "alone/checkpoint.safetensors").exists()
    return out, in_processes(everything, 2, out / "two", out)


@pytest.mark.parametrize("name", METHODS)
def test_the_first_gradients_are_those_of_one_process(name: str, of_two: tuple[Path, list[dict[str, Any]]]) -> None:
    expected = gradients(name)
    largest = max(float(g.abs().max()) for g in expected.values())
    for answers in of_two[1]:
        got = answers[f"gradients {name}"]
        assert set(got) == set(expected)
        for parameter, gradient in expected.items():
            torch.testing.assert_close(got[parameter], gradient, rtol=1e-5, atol=1e-5 * largest)


def test_weights_in_double_precision_are_those_of_one_process(of_two: tuple[Path, list[dict[str, Any]]]) -> None:
    out, answers = of_two
    expected = weights(None)
    for answer in answers:
        for name, tensor in expected.items():
            torch.testing.assert_close(answer["weights"][name], tensor, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(answer["resumed"][name], tensor, rtol=1e-8, atol=1e-8)
    for folder in ("together", "alone"):
        steps = [json.loads(line)["step"] for line in (out / folder / "history.jsonl").read_text().splitlines()]
        assert steps == [10, 20]
        assert json.loads((out / folder / "fit.json").read_text())["processes"] == 2
        assert not (out / folder / "checkpoint.safetensors").exists()


def test_what_cannot_be_split_is_refused(of_two: tuple[Path, list[dict[str, Any]]]) -> None:
    for answers in of_two[1]:
        assert "couples the cases of a batch; train it with one process" in answers["couples"]
        assert "expected an image for each of 2 processes, got 1" in answers["small"]


def test_the_parts_of_a_batch_are_all_of_it() -> None:
    for batch in range(2, 9):
        for size in range(1, batch + 1):
            parts = [list(range(batch))[Ranks(rank, size).rows(batch)] for rank in range(size)]
            assert sum(parts, []) == list(range(batch))  # noqa: RUF017
            assert {len(part) for part in parts} <= {batch // size, -(-batch // size)}
