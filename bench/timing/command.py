"""What a user waits for: `make bench` from its command to its report, and the same command once more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.timing.launch import GRID
from bench.timing.outcome import Budget, Measured, Setting

WORDS = ["--methods", "ensemble,mcdropout", "--jobs", "2"]
"""Of `uqseg run` in `make bench`."""
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


def section(at: Setting) -> Measured:
    """`make bench` after installation, on two cores and without converted data; and again, when all is done."""
    measured, words = Measured(), [*WORDS, "--device", at.device.type]
    if at.quick:
        words = [*GRID, "--set", "training.steps=2", "--seeds", "0-1", "--jobs", "2"]
    with tempfile.TemporaryDirectory() as root:
        first, answer = _seconds(words, Path(root))
        (finished,) = Path(root).glob("runs/*/finished.json")
        again, _ = _seconds(words, Path(root))
        happened = json.loads(finished.read_bytes())["seconds"]
    expected = expectation(answer)
    measured.notes.append(f"Expected by its plan: {expected:.0f} s; its cells took {happened:.0f} s.")
    what = " ".join(["uqseg run", *words])
    measured.budgets += [
        Budget(f"{what}: from the command to its report", first, 150 if at.precision == "bf16" else 240),
        Budget("the same: its time over what the plan expects, or the reverse", max(happened / expected,
               expected / happened), 1.5, "×"),
        Budget("the same command again, all done", again, 3),
    ]  # fmt: skip
    return measured


def expectation(answer: str) -> float:
    """Seconds that a run expected to take, as it said it to its user."""
    match = re.search(r"Expected: about ([\d.]+) (s|min|h) on", answer)
    if match is None:
        raise RuntimeError(f"a run without an expectation: {answer[-500:]}")
    return float(match[1]) * SECONDS[match[2]]


def _seconds(words: list[str], root: Path) -> tuple[float, str]:
    """How long a run took whose data and results lie in `root`, and what it printed."""
    command = [sys.executable, "-m", "bench", "run", *words, "--out", str(root / "runs")]
    started = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | {"UQSEG_CACHE": str(root / "cache")}, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed, see above")
    return seconds, done.stdout
