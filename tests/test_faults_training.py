"""Interrupted at any point, a training ends in the bits and the history of one that nothing stopped."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import discs
from uqseg.interrupts import unwinding
from uqseg.methods import Method, build
from uqseg.training import DivergenceError, Training, fit, loop
from uqseg.training.checkpoint import read_tensors
from uqseg.training.loop import _Run

NARROW = {"width": 4, "depth": 3}
RECIPE = Training(steps=14, batch=4, validate_every=4, keep="best", ema=0.9, checkpoint_every=1e9, lr=1e-2)
BOUNDARIES = ("step", "loss", "reading", "write_line", "validated", "keep", "swap", "save", "finish", "publish")
ENDS: dict[int, type[BaseException]] = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}


@pytest.fixture(autouse=True)
def usual_signals() -> Iterator[None]:
    """As in a process of its own: where the tests run in the background SIGINT is ignored."""
    before = {number: signal.getsignal(number) for number in ENDS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def train(out: Path, recipe: Training = RECIPE) -> Method[Any]:
    method = build("unet", seed=1, **NARROW)
    return fit(method, discs(8), val=discs(4, seed=1), recipe=recipe, out=out, progress=False, device="cpu")


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unstopped")
    train(out)
    return out


def stop_at(patch: pytest.MonkeyPatch, name: str, call: int, stop: Callable[[], object], after: bool) -> None:
    """Have `stop` called before or after the `call`-th time that a method of the loop is called."""
    original, calls = getattr(_Run, name), []

    def stopping(run: _Run, *args: Any) -> Any:
        calls.append(name)
        if len(calls) == call and not after:
            stop()
        result = original(run, *args)
        if len(calls) == call and after:
            stop()
        return result

    patch.setattr(_Run, name, stopping)


def assert_same_training(out: Path, unstopped: Path) -> None:
    for file in ("weights.safetensors", "history.jsonl", "model.json"):
        assert (out / file).read_bytes() == (unstopped / file).read_bytes(), file
    costs = [json.loads((folder / "fit.json").read_text()) for folder in (out, unstopped)]
    assert [costs[0][n] for n in ("steps", "best_step", "best_score")] == [
        14,
        *(costs[1][n] for n in ("best_step", "best_score")),
    ]
    assert {path.name for path in out.iterdir()} == {path.name for path in unstopped.iterdir()}


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("name", BOUNDARIES)
def test_a_signal_at_any_boundary_changes_no_bit(
    name: str, after: bool, twice: bool, unstopped: Path, tmp_path: Path
) -> None:
    number = signal.SIGINT if after == twice else signal.SIGTERM  # both at every boundary

    def stop() -> None:
        for _ in range(1 + twice):
            signal.raise_signal(number)

    recipe = RECIPE.model_copy(update={"checkpoint_every": 1e-9 if name == "save" else 1e9})
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, name, 1 if name in ("finish", "publish") else 2, stop, after)
        with pytest.raises(ENDS[number]) as end:
            train(tmp_path, recipe)
    assert number == signal.SIGINT or end.value.code == 143
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    train(tmp_path, RECIPE if name != "save" else recipe)
    if name != "save":  # of another recipe, and so of another key
        assert_same_training(tmp_path, unstopped)
    assert (tmp_path / "weights.safetensors").read_bytes() == (unstopped / "weights.safetensors").read_bytes()


def test_the_first_signal_waits_for_the_step_and_its_validation_and_the_second_does_not(tmp_path: Path) -> None:
    for twice in (False, True):
        out = tmp_path / str(twice)
        with pytest.MonkeyPatch.context() as patch:
            stop = [signal.SIGINT] * (1 + twice)
            stop_at(patch, "validated", 2, lambda stop=stop: [signal.raise_signal(n) for n in stop], after=False)
            with pytest.raises(KeyboardInterrupt):
                train(out)
        _, numbers = read_tensors(out / "checkpoint.safetensors")
        assert numbers["step"] == 8
        lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == ([4] if twice else [4, 8])
        assert (numbers["unread"] is not None) == twice, "the validation that was cut off is known to be missing"


def test_a_validation_that_was_cut_off_is_repeated_once(unstopped: Path, tmp_path: Path) -> None:
    def cut(*args: Any, **kwargs: Any) -> float:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "validate", cut)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    validated: list[int] = []
    original = _Run.validated
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Run, "validated", lambda run: validated.append(run.state.step) or original(run))
        train(tmp_path)
    assert validated == [4, 8, 12, 14]
    assert_same_training(tmp_path, unstopped)


@pytest.mark.parametrize("number", list(ENDS), ids=["SIGINT", "SIGTERM"])
def test_a_training_that_diverges_while_it_is_stopped_still_diverges(number: int, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"lr": 1e30})
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "reading", 4, lambda: signal.raise_signal(number), after=False)
        with pytest.raises(ENDS[number]):
            train(tmp_path, recipe)
    with pytest.raises(DivergenceError, match="step 4"):
        train(tmp_path, recipe)
    assert not (tmp_path / "weights.safetensors").exists()


def test_signals_that_somebody_else_handles_are_left_alone(tmp_path: Path) -> None:
    received: list[int] = []

    def handler(number: int, frame: object) -> None:
        received.append(number)

    signal.signal(signal.SIGTERM, handler)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "step", 2, lambda: signal.raise_signal(signal.SIGTERM), after=False)
        train(tmp_path)
    assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is handler


def test_sigterm_is_not_lost_while_an_object_is_thrown_away() -> None:
    class Ended:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    @unwinding()
    def wait() -> None:
        Ended()
        time.sleep(10)

    with pytest.raises(SystemExit) as end:
        wait()
    assert end.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_lines_that_no_checkpoint_knows_of_are_written_again(unstopped: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, "step", 6, lambda: signal.raise_signal(signal.SIGINT), after=False)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 1.0}\n{"st')
    assert torch.equal(train(tmp_path).head.weight, train(unstopped).head.weight)  # type: ignore[union-attr]
    assert_same_training(tmp_path, unstopped)
