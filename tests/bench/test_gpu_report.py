"""`make gpu-report`: what it does decides the seed report's claims, and a piece that is done is not done again."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pandas as pd

from baselines.yardsticks import YARDSTICKS
from bench import claimfiles, claims
from bench.runs.spec import split, whole_numbers

ROOT = Path(__file__).parents[2]


def commands(stamps: Path) -> list[list[str]]:
    """What `make gpu-report` would do, with its stamps in a folder."""
    made = ["make", "--dry-run", "--old-file=.venv/installed", "gpu-report", f"GPU={stamps}"]
    # Inside `make test` it would follow that make's options, and say which directory it enters.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    answer = subprocess.run(made, cwd=ROOT, env=own, capture_output=True, text=True, check=True)
    lines = answer.stdout.replace("\\\n", " ").replace("&&", "\n").splitlines()
    return [shlex.split(line) for line in lines]


def value(words: list[str], option: str, default: str = "") -> str:
    return words[words.index(option) + 1] if option in words else default


def test_every_claim_can_be_decided_by_the_cells_of_its_runs(tmp_path: Path) -> None:
    repetitions: dict[str, set[int]] = {}
    for words in commands(tmp_path):
        if value(words, "--recipe") == "seed2020":
            for label in split(value(words, "--methods")):
                repetitions.setdefault(label, set()).update(whole_numbers(value(words, "--seeds", "0")))
    _, groups = claimfiles.read("seed2020", claims.Evidence({}, {}, pd.DataFrame()))
    terms = [term for group in groups for claim in group.parts for _, term in claim.terms]
    assert {term.label for term in terms} <= repetitions.keys() | YARDSTICKS.keys()
    for term in terms:
        if term.figure == claims.START:
            assert len(repetitions[term.label]) >= 2


def test_both_reports_are_published(tmp_path: Path) -> None:
    copies = [value(words, "--to") for words in commands(tmp_path) if "publish" in words]
    assert copies == ["reports/lidc-slices-128-seed2020", "reports/lidc-slices-128"]


def test_a_piece_that_is_done_is_left_alone(tmp_path: Path) -> None:
    before = commands(tmp_path)
    pieces = [Path(words[1]).stem for words in before if words[0] == "touch"]
    for piece in pieces[:-1]:
        (tmp_path / f"{piece}.done").touch()
    assert commands(tmp_path) == before[-3:]
    (tmp_path / f"{pieces[-1]}.done").touch()
    assert not [words for words in commands(tmp_path) if words[0] == "touch"]
