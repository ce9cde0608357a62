"""A grid that is killed a hundred times, at any phase and by any signal, ends in the bits of an unstopped one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.cli import main
from bench.report import plots
from tests.bench.conftest import options, write_set

pytestmark = [pytest.mark.soak, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]
KILLS, SEED, PATIENCE = 100, 13, 120.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def start(words: list[str], cache: Path, log: Path) -> int:
    """`python -m bench WORDS` in a process of its own, forked so that nothing is imported again; its number."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ["UQSEG_CACHE"] = str(cache)
        torch.set_num_threads(1)
        plots.DPI = 40
        sys.argv = ["bench", *words]
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt:  # a second one, while the first was being told
        code = 130
    finally:
        sys.stdout.flush()
        os._exit(code)


def waited(pid: int, seconds: float) -> int | None:
    """The exit code of a process, minus the signal that ended it; None where it still runs after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)


def contents(out: Path) -> dict[str, str]:
    """What a finished grid holds, without what tells times: of each file its SHA-256."""
    kept = [*out.glob("store/fits/*/weights.safetensors"), *out.glob("store/fits/*/history.jsonl")]
    kept += [
        *out.glob("store/scores/*/*.parquet"),
        *out.glob("*/cells/*/*.parquet"),
        *out.glob("*/cells/*/history.jsonl"),
    ]
    kept += [*out.glob("*/cases.parquet"), *out.glob("*/gallery.npz"), *out.glob("*/tables/[!c]*.csv")]
    files = {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}
    for file in out.glob("store/fits/*/fit.json"):
        cost = json.loads(file.read_text())
        files[str(file.relative_to(out))] = str([cost[name] for name in ("steps", "best_step", "best_score", "key")])
    return files


def test_a_hundred_kills_change_no_bit(tmp_path: Path) -> None:
    images = write_set(tmp_path / "set")
    log = tmp_path / "log"

    def words(out: Path) -> list[str]:
        given = [*options(images, out, "unet", "mcdropout", steps=60, gallery=True), "--seeds", "0,1"]
        for value in ("keep=best", "validate_every=7", "checkpoint_every=0.02"):
            given += ["--set", f"training.{value}"]
        return given

    started = time.monotonic()
    assert waited(start(words(tmp_path / "whole"), tmp_path / "whole-cache", log), 600) == 0, log.read_text()
    length, expected = time.monotonic() - started, contents(tmp_path / "whole")
    assert len(expected) > 40
    dice, kills, rounds = random.Random(SEED), 0, 0
    out, cache = tmp_path / "killed", tmp_path / "killed-cache"
    while kills < KILLS or (out.exists() and rounds == 0):
        pid = start(words(out), cache, log)
        # Mostly short lives, so that a grid is stopped many times; some long ones, so that it comes to its end.
        delay = dice.uniform(0, length) if dice.random() < 0.4 else dice.expovariate(5 / length)
        code = waited(pid, delay)
        if code is None:
            number = dice.choice(SIGNALS)
            os.kill(pid, number)
            if dice.random() < 0.3:
                time.sleep(dice.uniform(0, 0.05))
                os.kill(pid, dice.choice(SIGNALS))  # not waited for yet: it is this process still, even where it ended
            code, kills = waited(pid, PATIENCE), kills + 1
            assert code in (0, 130, 143, -signal.SIGKILL, -signal.SIGTERM), (number, code, log.read_text()[-3000:])
        if code == 0:
            rounds += 1
            assert contents(out) == expected, f"after {kills} kills, in round {rounds}"
            shutil.rmtree(out)
            shutil.rmtree(cache)
    assert waited(start(words(out), cache, log), 600) == 0, log.read_text()[-3000:]
    assert contents(out) == expected
    assert not [path for path in (*out.rglob(".*.*.*.*-*"), *cache.glob(".*")) if path.parent.name != "locks"] or rounds
    assert rounds > 2
