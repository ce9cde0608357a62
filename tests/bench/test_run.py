"""A whole run on forty images: its report, and that its figures depend on nothing they should not depend on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import launch, runner, spec
from bench.store import Store
from tests.bench.conftest import METHODS, STEPS, YARDSTICKS, Run, bench, options, tables, write_set
from uqseg.data import load

SECTIONS = (
    "short",
    "which",
    "sure",
    "cost",
    "fail",
    "ambiguity",
    "calibration",
    "uncertainty",
    "thresholds",
    "gallery",
)


def test_the_report_is_complete(finished: Run) -> None:
    text = (finished.report / "report.md").read_text()
    heads = [head.lower() for head in re.findall(r"^## (.+)$", text, re.MULTILINE)]
    for section in SECTIONS:
        assert any(section in head for head in heads), f"no section about {section}: {heads}"
    assert re.search(r"\| test +\| 8 images of 4 patients, 8 of them scored", text)
    assert re.search(r"\| train +\| 24 images of 12 patients, 4 of them scored", text)
    for picture in re.findall(r"!\[[^]]*\]\((.+?)\)", text):
        assert (finished.report / picture).stat().st_size > 1000, picture
    assert "Report: " in finished.answer.out
    assert not finished.answer.err
    figures = pd.read_csv(finished.report / "figures.csv")
    assert set(figures["method"]) == {*METHODS, *YARDSTICKS}
    assert not figures.duplicated(["method", "figure"]).any()
    assert len(figures) == len(set(figures["figure"])) * (len(METHODS) + len(YARDSTICKS))
    spread = figures.dropna(subset=["value", "low", "high"])
    assert (spread["low"] <= spread["high"]).all()
    value = figures.set_index(["method", "figure"])["value"]
    assert value["background", "dice@0.5"] == 0
    assert value["oracle", "ged"] < value["consensus", "ged"] < value["background", "ged"]
    for name in METHODS:
        assert value[name, "brier"] < value["background", "brier"], "the discs are found"
    for name in ("ranks", "differences", "cost"):
        table = pd.read_csv(finished.report / f"{name}.csv")
        assert set(METHODS) >= set(table["method"])
        assert table["method"].nunique() >= len(METHODS) - (name == "differences"), (
            f"{name}: the reference alone may be absent"
        )


def test_sensitivity_falls_and_specificity_rises_with_the_threshold(finished: Run) -> None:
    table = pd.read_csv(finished.report / "thresholds.csv").query("threshold != 'average'")
    groups = table.groupby(["method", "split"])
    assert len(groups) == 3 * len(METHODS)
    for name, group in groups:
        assert group["threshold"].tolist() == ["0.1", "0.3", "0.5", "0.7", "0.9"]
        assert (np.diff(group["sensitivity"]) <= 0).all(), name
        assert (np.diff(group["specificity"]) >= 0).all(), name
    assert table["sensitivity"].nunique() > 10


def test_a_second_run_trains_and_scores_nothing(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **named: object) -> object:
        raise AssertionError("a finished cell was worked on again")

    figures = (finished.report / "figures.csv").read_bytes()
    monkeypatch.setattr(runner, "fit", never)
    monkeypatch.setattr(runner, "_scores", never)
    again = bench(*finished.words)
    assert again.code == 0, again.err
    assert again.out.count(": done") == len(METHODS)
    assert (finished.report / "figures.csv").read_bytes() == figures


def test_neither_order_nor_company_of_methods_changes_a_figure(images: Path, finished: Run, tmp_path: Path) -> None:
    assert bench(*options(images, tmp_path, "unet", "segnet", steps=STEPS)).code == 0
    few, all_of = (
        pd.read_csv(folder / "figures.csv").set_index(["method", "figure"])
        for folder in (tmp_path / "reports" / finished.report.name, finished.report)
    )
    assert few.index.get_level_values("method").unique().tolist() == ["unet", "segnet", *YARDSTICKS]
    pd.testing.assert_frame_equal(few, all_of.loc[few.index], check_exact=True)


def test_the_batch_of_scoring_changes_no_figure(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = spec.read_run(json.dumps(json.loads((finished.report / "run.json").read_text())["run"]), "run.json")
    splits = {
        s: load(made.data, split=s, size=made.size, limit=getattr(made.limit, s)) for s in ("train", "val", "test")
    }
    for folder in (finished.out / "fits").iterdir():
        shutil.copytree(folder, tmp_path / "fits" / folder.name)
    monkeypatch.setattr(runner, "BATCH", 1)
    said: list[str] = []
    launch.here(
        spec.cells(made),
        runner.Data(**splits),
        Store(tmp_path),
        samples=4,
        device="cpu",
        progress=False,
        say=said.append,
    )
    whole, single = tables(finished.out), tables(tmp_path)
    assert set(whole) == set(single)
    assert len(whole) == 3 * (len(METHODS) + len(YARDSTICKS))
    for name, table in whole.items():
        pd.testing.assert_frame_equal(table, single[name], atol=1e-6, rtol=1e-6, obj=name)


def test_a_run_whose_only_method_declines_says_why(tmp_path: Path) -> None:
    images = write_set(tmp_path / "set", 10, readers=1)
    answer = bench(*options(images, tmp_path / "runs", "ensemble"))
    assert answer.code == 0, answer.err
    reason = "one member a reader needs at least two readers"
    assert f"declined: {reason}" in answer.out
    text = (tmp_path / "runs/reports/folder-quick-32px/report.md").read_text()
    assert f"| declined | ensemble: {reason} |" in text
    assert "No method has scores" in text
