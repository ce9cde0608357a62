"""What can be added without an edit in the tree: the table "To add" of the design is true."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from bench import launchers
from bench.runs.results import read_results
from tests.bench.conftest import bench, results_in
from uqseg import methods, wrappers
from uqseg.data import sources
from uqseg.metrics import figures, registry

METHOD = '''
import torch
from uqseg.methods import Method, Options, method
from uqseg.wrappers import Wrapper, wrapper
from uqseg.samples import Samples

@method("guess")
class Guess(Method[Options]):
    """The same learned probability everywhere."""
    small = {}
    def __init__(self, options, *, channels, readers):
        super().__init__(options, channels=channels, readers=readers)
        self.logit = torch.nn.Parameter(torch.zeros(()))
    def loss(self, images, masks, read, noise):
        return (self.logit - masks.float().mean((1, 2, 3))).square()
    def draw(self, images, n, noise):
        return self.logit.sigmoid().expand(len(images), n, *images.shape[2:])

@wrapper("inverted")
class Inverted(Wrapper[Options]):
    """One minus each sample."""
    def sample(self, batch, n, noise):
        inner = self.sampler.sample(batch, n, noise)
        return Samples(1 - inner.prob, inner.weights, inner.drawn)
'''
STATISTIC = """
from uqseg.metrics import Figure, declare, statistic

@statistic("highest")
def highest(scored):
    return scored.samples.amax((1, 2)).double()

declare(Figure("highest", "Highest probability", ("highest",), "none", ("summary",), "maximum", "here"))
"""
SOURCE = '''
import numpy as np
import pandas as pd
from uqseg.data.cache import Content, Row
from uqseg.data.load import source

@source("squares", "bright squares, drawn by two readers")
def read(path, size):
    """Thirty squares."""
    table = pd.DataFrame({"case": [f"s{i}" for i in range(30)], "patient": [f"p{i}" for i in range(30)]})
    table["split"] = [("train", "val", "test")[i % 3] for i in range(30)]
    def rows():
        for i in range(30):
            mask = np.zeros((2, size, size), bool)
            mask[:, 4 + i % 8 : 12 + i % 8, 5:15] = True
            yield Row((90 * mask[:1]).astype(np.uint8), mask, np.ones(2, bool), np.ones(2, np.float32))
    return Content(table, rows())
'''
LAUNCHER = '''
import subprocess, sys
from bench.launchers import launcher
from bench.runs.work import attempt

@launcher("backwards")
def launch(folder, cells, settings):
    """The last cell first, and that in a process of its own."""
    for cell in reversed(cells):
        settings.log(f"sent {cell}")
        if cell == cells[-1]:
            words = [word for name in settings.trust for word in ("--trust", name)]
            words = ["work", folder, cell, "--device", "cpu", *words]
            subprocess.run([sys.executable, "-m", "bench", *words], check=True)
        else:
            attempt(folder, cell, settings)
'''
RECIPE = """
description = "a recipe from anywhere"
size = 32
samples = 3
[training]
steps = 2
batch = 4
precision = "fp32"
"""


@pytest.fixture
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it; what comes with the project is registered before."""
    for discover in (methods.names, wrappers.names, launchers.names, sources, figures):
        discover()
    for owner, name in (
        (registry, "_STATISTICS"),
        (registry, "_DERIVED"),
        (registry, "_FIGURES"),
        (importlib.import_module("uqseg.data.load"), "_sources"),
        (launchers, "_LAUNCHERS"),
        (importlib.import_module("uqseg.methods.method")._registry, "classes"),
        (importlib.import_module("uqseg.wrappers.wrapper")._registry, "classes"),
    ):
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))


@pytest.mark.usefixtures("own_registries")
def test_each_addition_is_one_file_outside_and_is_seen_in_list_run_and_page(tmp_path: Path) -> None:
    for name, text in {"method": METHOD, "statistic": STATISTIC, "source": SOURCE, "launcher": LAUNCHER}.items():
        (tmp_path / f"my_{name}.py").write_text(text)
    (tmp_path / "mine.toml").write_text(RECIPE)
    plugins = [
        w for n in ("method", "statistic", "source", "launcher") for w in ("--plugin", str(tmp_path / f"my_{n}.py"))
    ]
    kinds = {
        "methods": "guess ",
        "wrappers": "inverted ",
        "metrics": "highest ",
        "data": "squares ",
        "launchers": "backwards ",
    }
    for kind, line in kinds.items():
        assert f"\n{line}" in "\n" + bench("list", kind, *plugins).out
    words = ["run", "--methods", "guess,guess+inverted", "--data", "squares", "--recipe", str(tmp_path / "mine.toml")]
    words += ["--launcher", "backwards", "--device", "cpu", "--out", str(tmp_path / "runs"), *plugins]
    answer = bench(*words)
    assert answer.code == 0, answer.err
    sent = [
        line.removeprefix("sent ").partition("-")[0] for line in answer.out.splitlines() if line.startswith("sent ")
    ]
    assert sent[-1] == "background", "the launcher decides the order"
    folder = results_in(tmp_path / "runs")
    results = read_results(folder)
    assert (results.run["spec"]["recipe_name"], results.run["data"]["source"]) == ("mine", "squares")
    plain, wrapped = (results.cells[label][0] for label in ("guess", "guess+inverted"))
    assert plain.cost == {**(wrapped.cost or {}), "sample_ms": plain.cost and plain.cost["sample_ms"]}, "one training"
    highest = [cell.scores["test"].column("highest") for cell in (plain, wrapped)]
    np.testing.assert_allclose(highest[0] + highest[1], 1, atol=1e-6)
    page = (folder / "report.md").read_text(encoding="utf-8")
    for text in ("guess+inverted", "Highest probability", "squares", "a recipe from anywhere"):
        assert text in page
