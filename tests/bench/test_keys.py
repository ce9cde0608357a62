"""Keys tell the truth: the same bytes give the same numbers anywhere, and what changes is computed anew."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.runs import work
from bench.runs.results import read_results
from tests.bench.conftest import assert_same, bench, options, results_in, tables, write_set
from uqseg.metrics import registry, score

METHOD = '''
import torch
from layers import VALUE
from uqseg.methods import Method, Options

class Constant(Method[Options]):
    """A constant from the module beside it."""
    def __init__(self, options, *, channels, readers):
        super().__init__(options, channels=channels, readers=readers)
        self.logit = torch.nn.Parameter(torch.zeros(()))
    def loss(self, images, masks, read, noise):
        return (self.logit - 1).square().expand(len(images))
    def draw(self, images, n, noise):
        return images.new_full((len(images), n, *images.shape[2:]), VALUE)
'''


def test_a_copied_folder_gives_the_same_numbers_and_reuses_them(tmp_path: Path) -> None:
    first = write_set(tmp_path / "first")
    second = shutil.copytree(first, tmp_path / "second")
    assert bench(*options(first, tmp_path / "a", "unet")).code == 0
    assert bench(*options(second, tmp_path / "b", "unet")).code == 0
    assert_same(tables(tmp_path / "a"), tables(tmp_path / "b"))
    answer = bench(*options(second, tmp_path / "a", "unet"))
    assert answer.code == 0
    assert ": scored; collect" in answer.out
    assert len(list((tmp_path / "a").glob("*/run.json"))) == 2, "runs on folders of other names do not share a report"


def test_a_corrected_table_of_cases_is_another_data_set(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "set")
    words = options(folder, tmp_path / "runs", "unet")
    assert bench(*words, "--name", "run").code == 0
    cases = pd.read_csv(folder / "cases.csv")
    cases.loc[cases["split"] == "test", "patient"] = "one"
    cases.to_csv(folder / "cases.csv", index=False)
    answer = bench(*words, "--name", "run")
    assert answer.code == 2
    assert "the test cases of folder:set have changed: images, masks, patients, spacing or how many" in answer.err
    assert bench(*words, "--name", "corrected").code == 0
    assert len(list((tmp_path / "runs/store/fits").iterdir())) == 1, "the training images are the same"
    assert set(read_results(tmp_path / "runs/corrected").cases.query("split == 'test'")["patient"]) == {"one"}


@pytest.mark.parametrize("changed", ["mine.py", "layers.py"])
def test_an_edited_file_from_outside_is_trained_anew_and_said_so(changed: str, images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    (tmp_path / "layers.py").write_text("VALUE = 0.25\n")
    words = options(images, tmp_path / "runs", f"{tmp_path}/mine.py:Constant", steps=1)
    assert bench(*words).code == 0
    before = results_in(tmp_path / "runs")
    assert ": done" in bench(*words).out
    file = tmp_path / changed
    file.write_text(file.read_text().replace("0.25", "0.75") + "# edited\n")
    answer = bench(*words)
    assert answer.code == 0
    assert f"since {before.name}: the code of mine.py:Constant has changed" in answer.out
    assert "1 of 1 steps" in answer.out
    (after,) = {f.parent for f in (tmp_path / "runs").glob("*/run.json")} - {before}
    assert list(read_results(after).cells) == ["mine.py:Constant"]
    brier = [
        read_results(f).cells["mine.py:Constant"][0].scores["test"].column("brier").mean() for f in (before, after)
    ]
    assert (brier[0] == brier[1]) == (changed == "mine.py")


def test_only_a_statistic_of_a_new_version_is_computed_and_old_results_are_read(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = options(images, tmp_path, "unet")
    assert bench(*words).code == 0
    folder = results_in(tmp_path)
    old = read_results(folder).cells["unet"][0].scores["test"]
    statistic = registry.statistics()["brier"]
    doubled = replace(statistic, version=statistic.version + 1, compute=lambda scored: 2 * statistic.compute(scored))
    monkeypatch.setitem(registry._STATISTICS, "brier", doubled)
    assert read_results(folder).statistics["brier"] == {statistic.version}
    assert (
        "older version of their statistics"
        in " ".join(bench("report", folder).out.split()) + (folder / "report.md").read_text()
    )
    asked: list[list[str]] = []
    monkeypatch.setattr(
        work, "score", lambda *given, **named: asked.append(named["statistics"]) or score(*given, **named)
    )
    answer = bench(*words)
    assert answer.code == 0, answer.err
    assert "trained; score" in answer.out
    assert asked == [["brier"]] * len(asked) != []
    new = read_results(folder).cells["unet"][0]
    assert new.info["statistics"]["brier"] == statistic.version + 1
    np.testing.assert_array_equal(new.scores["test"].values["brier"], 2 * old.values["brier"])
    for name in set(old.values) - {"brier"}:
        np.testing.assert_array_equal(new.scores["test"].values[name], old.values[name])
    assert not list(tmp_path.glob("store/scores/*broken*"))
    assert ": done" in bench(*words).out
