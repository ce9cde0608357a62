"""What tests of the harness share: a tiny folder of images, the command line in this process, one finished run."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from baselines.yardsticks import YARDSTICKS as REGISTERED
from bench import stats
from bench.cli import main
from bench.report import plots
from bench.runs.results import read_cell
from tests.conftest import discs
from uqseg.metrics import Scores

METHODS = ("ensemble", "mcdropout", "probunet", "segnet", "unet")
NARROW = tuple(f"{m}.{o}" for m in METHODS if m != "probunet" for o in ("width=4", "depth=3"))
YARDSTICKS = list(REGISTERED)
SIZE = 32
STEPS = 60  # of the finished run: enough to find the discs


@dataclass(frozen=True)
class Answer:
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@contextmanager
def quick_pages(resamples: int = 200) -> Iterator[None]:
    """Coarse pictures and few resamples: what a page is made of does not depend on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "DPI", 30)
        patch.setattr(stats, "RESAMPLES", resamples)
        patch.setattr(stats, "RESAMPLES_PER_COMPARISON", 20)
        yield


def bench(*words: object) -> Answer:
    """`python -m bench WORDS` in this process."""
    out, err, threads = io.StringIO(), io.StringIO(), torch.get_num_threads()
    code: object = 0
    with quick_pages(), pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["bench", *map(str, words)])
        torch.set_num_threads(1)
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            torch.set_num_threads(threads)
    return Answer(int(code or 0), out.getvalue(), err.getvalue())  # type: ignore[call-overload]


def options(
    images: Path, out: Path, *methods: str, steps: int = 3, gallery: bool = False, report: bool = False
) -> list[str]:
    """The options of a small run: narrow networks, few steps, four samples, mostly without the slow pages."""
    chosen = methods or METHODS
    settings = [s for s in (*NARROW, "probunet.levels=[4, 8, 8]") if s.partition(".")[0] in chosen]
    settings += [f"training.steps={steps}", "training.batch=8", "training.lr=1e-2", "training.precision=fp32"]
    words = ["run", "--methods", ",".join(chosen), "--data", f"folder:{images}", "--size", str(SIZE), "--samples", "4"]
    words += [f"--{'' if gallery else 'no-'}gallery", f"--{'' if report else 'no-'}report"]
    return [*words, "--device", "cpu", "--out", str(out), *(w for s in settings for w in ("--set", s))]


def write_set(root: Path, images: int = 40, readers: int = 4) -> Path:
    """A `folder:` set of discs: two images per patient; of ten patients four are in train, one in val, five in test."""
    data = discs(images, readers, SIZE)
    for i in range(images):
        files = {root / f"images/c{i:02d}.png": data.images[i, 0]}
        files |= {root / f"readers/r{r}/c{i:02d}.png": data.masks[i, r] for r in range(readers)}
        for file, array in files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(array, np.uint8)).save(file)
    split = [(*["train"] * 4, "val", *["test"] * 5)[i // 2 % 10] for i in range(images)]
    cases = {"case": [f"c{i:02d}" for i in range(images)], "patient": [f"p{i // 2}" for i in range(images)]}
    pd.DataFrame({**cases, "split": split}).to_csv(root / "cases.csv", index=False)
    return root


def tables(out: Path) -> dict[str, Scores]:
    """The stored scores below `out`, by the folder's name."""
    cells = {folder.name: read_cell(folder) for folder in sorted((out / "store/scores").glob("[!.]*"))}
    return {name: scores for name, cell in cells.items() for scores in cell.scores.values()}


def assert_same(got: dict[str, Scores], expected: dict[str, Scores], rtol: float = 0, atol: float = 0) -> None:
    """Two answers of `tables` hold the same names, cases, statistics and values."""
    assert set(got) == set(expected)
    for name, scores in expected.items():
        assert set(got[name].values) == set(scores.values)
        assert got[name].cases.tolist() == scores.cases.tolist()
        for statistic, values in scores.values.items():
            np.testing.assert_allclose(got[name].values[statistic], values, rtol=rtol, atol=atol)
        for statistic, pair in scores.patient_sums.items():
            np.testing.assert_allclose(got[name].patient_sums[statistic], pair, rtol=rtol, atol=atol)


def results_in(out: Path) -> Path:
    """The only results folder below `out`."""
    (file,) = out.glob("*/run.json")
    return file.parent


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UQSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"))


@dataclass(frozen=True)
class Run:
    words: list[str]
    out: Path
    folder: Path
    answer: Answer


@pytest.fixture(scope="session")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All five methods, trained long enough to find the discs."""
    out = tmp_path_factory.mktemp("runs")
    words = options(images, out, steps=STEPS, gallery=True, report=True)
    answer = bench(*words)
    assert answer.code == 0, answer.err
    return Run(words, out, results_in(out), answer)
