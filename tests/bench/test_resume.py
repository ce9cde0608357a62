"""A run that is killed, interrupted or out of disk goes on from what it had, to the same bits."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.runs import work
from tests.bench.conftest import assert_same, bench, options, tables

ROOT = Path(__file__).resolve().parents[2]
STEPS = 120
STOPPED = "stopped; what is finished is kept, a training up to this step; the same command goes on there\n"


def start(
    words: list[str], largest_file: int | None = None, module: Sequence[str] = ("bench",)
) -> subprocess.Popen[str]:
    """`python -m bench WORDS` as a process of its own, which may not write a file of more bytes than `largest_file`."""

    def limit() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # where the tests run in the background it is ignored
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    command = [sys.executable, "-m", *module, *words]
    pipe, alone = (
        subprocess.PIPE,
        os.environ | {"OMP_NUM_THREADS": "1"},
    )  # as `bench` here: the threads decide last bits
    return subprocess.Popen(command, cwd=ROOT, env=alone, stdout=pipe, stderr=pipe, text=True, preexec_fn=limit)


def words(images: Path, out: Path) -> list[str]:
    given = options(images, out, "mcdropout", steps=STEPS)
    return [*given, "--set", "training.checkpoint_every=0.01", "--set", "training.validate_every=20"]


def steps(out: Path) -> list[int]:
    """The steps that the history of the unfinished training speaks of."""
    return [
        json.loads(x)["step"] for h in out.glob("store/partial/*/history.jsonl") for x in h.read_text().splitlines()
    ]


def when_saved(process: subprocess.Popen[str], out: Path, after: int = 0) -> None:
    """Wait for a checkpoint in the middle of the training, beyond the step `after`."""
    deadline = time.monotonic() + 180
    while not (list(out.glob("store/partial/*/checkpoint.safetensors")) and max(steps(out), default=0) > after):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the same run in one piece, and what it printed while it said often where it stands."""
    out = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "EVERY", 0.05)
        answer = bench(*words(images, out))
    assert answer.code == 0, answer.err
    return out, answer.out


@pytest.fixture
def whole(unbroken: tuple[Path, str]) -> Path:
    return unbroken[0]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_killed_it_goes_on_to_the_same_bits(
    stop: signal.Signals, images: Path, whole: Path, tmp_path: Path
) -> None:
    process = start(words(images, tmp_path))
    when_saved(process, tmp_path)
    process.send_signal(stop)
    _, err = process.communicate(timeout=180)
    assert process.returncode == 128 + stop
    assert err == STOPPED
    stopped = steps(tmp_path)[-1]
    process = start(words(images, tmp_path))
    when_saved(process, tmp_path, after=stopped)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("store/fits/*"))
    # What a kill in the middle of writing leaves behind: nothing of it may be read.
    score = next(whole.glob("store/scores/*-mcdropout-*-test-*")).name
    half = tmp_path / "store/scores" / f".{score}.host-1"
    half.mkdir(parents=True)
    (half / "scores.parquet").write_bytes(b"half a table")
    (half / "cell.json").write_text("{")
    listed = bench("status", "--out", tmp_path).out
    assert "unfinished  folder-mcdropout" in listed
    assert score not in listed
    done = steps(tmp_path)[-1]
    with next(tmp_path.glob("store/partial/*/history.jsonl")).open("a") as file:
        file.write('{"step": 3')
    again = bench(*words(images, tmp_path))
    assert again.code == 0, again.err
    assert f"{STEPS - done} of {STEPS} steps" in again.out
    assert_same(tables(tmp_path), tables(whole))
    weights = [next(out.glob("store/fits/*/weights.safetensors")).read_bytes() for out in (tmp_path, whole)]
    assert weights[0] == weights[1]
    assert f"{half}" in bench("clean", "--out", tmp_path).out
    assert not half.exists()
    assert json.loads(next(tmp_path.glob("store/fits/*/fit.json")).read_text())["steps"] == STEPS


def test_sigterm_while_nothing_is_trained_says_the_same(tmp_path: Path) -> None:
    plugin = tmp_path / "sources.py"
    plugin.write_text(
        "import signal\nfrom uqseg.data.load import source\n\n"
        "@source('ending', 'Is stopped while it is read.')\n"
        "def read(path, size):\n    signal.raise_signal(signal.SIGTERM)\n"
    )
    process = start(["run", "--plugin", str(plugin), "--data", "ending", "--out", str(tmp_path / "runs")])
    _, err = process.communicate(timeout=180)
    assert (process.returncode, err) == (143, STOPPED)


def test_without_progress_bars_a_training_says_now_and_then_where_it_stands(unbroken: tuple[Path, str]) -> None:
    assert re.search(rf"  step \d+ of {STEPS}, loss [\d.e-]+, about \d+ s left", unbroken[1])


def test_a_full_disk_costs_nothing_that_was_finished(images: Path, tmp_path: Path) -> None:
    given = options(images, tmp_path, "unet", "segnet")
    process = start([*given, "--set", "segnet.width=32"], largest_file=600_000)  # the weights of segnet are larger
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "cannot write" in err
    assert "failed: cannot write" in out
    kept = tables(tmp_path)
    assert sum("-unet-" in name for name in kept) == 3
    assert not any("-segnet-" in name for name in kept)
    assert not list(tmp_path.glob("store/fits/*segnet*"))
    times = {name: (tmp_path / "store/scores" / name).stat().st_mtime_ns for name in kept}
    again = bench(*given, "--set", "segnet.width=32")
    assert again.code == 0, again.err
    assert {name: (tmp_path / "store/scores" / name).stat().st_mtime_ns for name in kept} == times
    assert sum("-segnet-" in name for name in tables(tmp_path)) == 3
