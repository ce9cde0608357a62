"""A whole run on forty images: its report, and that its figures depend on nothing they should not depend on."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import stats
from bench.launchers import Settings
from bench.report.origin import is_up_to_date
from bench.runs import work
from bench.runs.results import read_results
from tests.bench.conftest import (
    METHODS,
    STEPS,
    YARDSTICKS,
    Run,
    assert_same,
    bench,
    options,
    results_in,
    tables,
    write_set,
)
from uqseg import methods
from uqseg.metrics import figures

SECTIONS = (
    "short",
    "which",
    "sure",
    "cost",
    "fail",
    "ambiguity",
    "calibration",
    "failure",
    "thresholds",
    "gallery",
)


def test_the_report_is_complete(finished: Run) -> None:
    text = (finished.folder / "report.md").read_text()
    heads = [head.lower() for head in re.findall(r"^## (.+)$", text, re.MULTILINE)]
    for section in SECTIONS:
        assert any(section in head for head in heads), f"no section about {section}: {heads}"
    assert re.search(r"\| test +\| 20 images of 10 patients, 20 of them scored", text)
    assert re.search(r"\| train +\| 16 images of 8 patients, 10 of them scored", text)
    for picture in re.findall(r"!\[[^]]*\]\((.+?)\)", text):
        assert (finished.folder / picture).stat().st_size > 1000, picture
    assert "Report: " in finished.answer.out
    assert not finished.answer.err
    figures = pd.read_csv(finished.folder / "tables/figures.csv")
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
        table = pd.read_csv(finished.folder / f"tables/{name}.csv")
        assert set(METHODS) >= set(table["method"])
        assert table["method"].nunique() >= len(METHODS) - (name == "differences"), (
            f"{name}: the reference alone may be absent"
        )


def test_sensitivity_falls_and_specificity_rises_with_the_threshold(finished: Run) -> None:
    table = pd.read_csv(finished.folder / "tables/thresholds.csv").query("threshold != 'average'")
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

    figures, page = (finished.folder / "tables/figures.csv").read_bytes(), finished.folder / "report.html"
    written = page.stat().st_mtime_ns
    monkeypatch.setattr(work, "fit", never)
    monkeypatch.setattr(work, "score_sampler", never)
    again = bench(*finished.words)
    assert again.code == 0, again.err
    assert again.out.count(": done") == len(METHODS)
    assert (finished.folder / "tables/figures.csv").read_bytes() == figures
    assert page.stat().st_mtime_ns == written
    report = page.with_name("report.md")
    text = report.read_bytes()
    report.write_text("half")
    assert not is_up_to_date(finished.folder, "png")
    report.write_bytes(text)
    assert is_up_to_date(finished.folder, "png")


def test_every_method_passes_its_trial(images: Path, tmp_path: Path) -> None:
    names = methods.names()
    small = [
        ("--set", f"{name}.{option}={json.dumps(value)}")
        for name in names
        for option, value in methods.find(name).small.items()
    ]
    words = ["run", "--dry-run", "--data", f"folder:{images}", "--size", 32, "--samples", 2, "--out", tmp_path]
    words += ["--device", "cpu"]
    answer = bench(*words, "--methods", ",".join(names), *(word for pair in small for word in pair))
    assert answer.code == 0, answer.err
    assert answer.out.count(" steps, about ") == len(names), answer.out
    kept = bench(*words, "--methods", "unet", "--set", "training.keep=best", "--set", "unet.width=4")
    assert (kept.code, kept.out.count(" steps, about ")) == (0, 1), kept.out + kept.err


def test_neither_order_nor_company_of_methods_changes_a_figure(images: Path, finished: Run, tmp_path: Path) -> None:
    assert bench(*options(images, tmp_path, "unet", "segnet", steps=STEPS)).code == 0
    few, all_of = (
        stats.bootstrap(results.tested, figures(), resamples=50, common_among=list(results.cells))
        .summary()
        .set_index(["method", "figure"])
        for results in map(read_results, (results_in(tmp_path), finished.folder))
    )
    assert few.index.get_level_values("method").unique().tolist() == ["unet", "segnet", *YARDSTICKS]
    pd.testing.assert_frame_equal(few, all_of.loc[few.index], check_exact=True)


def test_the_batch_of_scoring_changes_no_figure(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(finished.out / "store/fits", tmp_path / "store/fits")
    folder = tmp_path / finished.folder.name
    folder.mkdir()
    shutil.copy(finished.folder / "run.json", folder)
    monkeypatch.setattr(work, "BATCH", 1)
    for cell in work.read_job(folder, ()).entries:
        work.work(folder, cell, Settings("cpu"))
    assert len(tables(tmp_path)) == 3 * (len(METHODS) + len(YARDSTICKS))
    assert_same(tables(tmp_path), tables(finished.out), atol=1e-6, rtol=1e-6)


def test_the_results_folder_holds_the_stored_scores(finished: Run) -> None:
    results = read_results(finished.folder)
    assert list(results.cells) == list(METHODS)
    assert list(results.yardsticks) == YARDSTICKS
    assert (results.failed, results.finished is None) == ({}, False)
    assert {split: len(part) for split, part in results.cases.groupby("split")} == {"train": 10, "val": 4, "test": 20}
    assert (results.cases["marked"] <= results.cases["read"]).all()
    for (cell,) in results.cells.values():
        assert [len(cell.scores[split].cases) for split in ("train", "val", "test")] == [10, 4, 20]
        assert cell.cost is not None
        assert cell.cost["steps"] == cell.history[-1]["step"] == STEPS
        assert cell.info["samples"] == {"ensemble": 4, "segnet": 1, "unet": 1}.get(cell.label, 4)
    assert results.gallery is not None
    assert set(results.gallery.samples) == set(METHODS)
    assert results.gallery.samples["probunet"].shape == (len(results.gallery.cases), 4, 32, 32)


def test_a_run_whose_only_method_declines_says_why(tmp_path: Path) -> None:
    images = write_set(tmp_path / "set", 20, readers=1)
    answer = bench(*options(images, tmp_path / "runs", "ensemble", report=True))
    assert answer.code == 0, answer.err
    reason = "one member per reader needs at least two readers"
    assert f"declined: {reason}" in answer.out
    text = (results_in(tmp_path / "runs") / "report.md").read_text()
    assert f"| declined | ensemble: {reason} |" in text
    assert "No method has scores" in text
