"""Somebody's predictions as a row of a run: scored like any method, on the cases that all have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.runs.publish import publish
from bench.runs.results import read_results
from tests.bench.conftest import SIZE, Run, bench, results_in
from tests.bench.test_errors import refused
from uqseg.data import load
from uqseg.metrics import score


@pytest.fixture
def theirs(images: Path, tmp_path: Path) -> Path:
    """The masks of three readers, shifted by a pixel, of every test case."""
    cases = pd.read_csv(images / "cases.csv")
    for case in cases["case"][cases["split"] == "test"]:
        for s in range(3):
            mask = np.roll(np.asarray(Image.open(images / f"readers/r{s}/{case}.png")), 1, axis=s % 2)
            (tmp_path / "theirs" / case).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask * 255).save(tmp_path / f"theirs/{case}/{s}.png")
    return tmp_path / "theirs"


def words(folder: Path, images: Path, out: Path, report: bool = False) -> list[str]:
    given = ["score", str(folder), "--data", f"folder:{images}", "--size", str(SIZE), "--label", "nnunet"]
    return [*given, "--kind", "support", "--out", str(out), "--no-gallery", f"--{'' if report else 'no-'}report"]


def test_a_folder_becomes_a_row(images: Path, theirs: Path, tmp_path: Path) -> None:
    answer = bench(*words(theirs, images, tmp_path / "runs"))
    assert answer.code == 0, answer.err
    results = read_results(results_in(tmp_path / "runs"))
    (cell,) = results.cells["nnunet"]
    test = load(f"folder:{images}", split="test", size=SIZE)
    shifted = np.stack([np.roll(test.masks[:, s], 1, axis=1 + s % 2) for s in range(3)], 1).astype(np.float32)
    expected = score(shifted, test.masks, test.read, drawn="support")
    for name, values in cell.scores["test"].values.items():
        np.testing.assert_allclose(values, expected.values[name], atol=1e-6, err_msg=name)
    assert (cell.info["samples"], cell.info["drawn"]) == (3, "support")
    assert bench(*words(theirs, images, tmp_path / "runs")).out.count("done") == 1
    before = results.folder
    Image.fromarray(np.full((SIZE, SIZE), 255, np.uint8)).save(next(theirs.glob("*/0.png")))
    bench(*words(theirs, images, tmp_path / "runs"))
    after = [file.parent for file in (tmp_path / "runs").glob("*/run.json") if file.parent != before]
    assert len(after) == 1, "changed predictions are another run"


def test_it_stands_beside_trained_methods(finished: Run, theirs: Path, tmp_path: Path) -> None:
    (theirs / "predictions.toml").write_text('kind = "independent"', encoding="utf-8")
    out = shutil.copytree(finished.out / "store", tmp_path / "runs/store").parent
    given = [w if w != str(finished.out) else str(out) for w in finished.words if w != "--gallery"]
    given[2] = f"unet,nnunet=predictions:{theirs}"
    kept = [i for i, w in enumerate(given) if w == "--set" and given[i + 1].split(".")[0] not in ("unet", "training")]
    given = [w for i, w in enumerate(given) if i not in kept and i - 1 not in kept]
    answer = bench(*given)
    assert answer.code == 0, answer.err
    assert "unet #0: trained; score" in answer.out or "unet #0: scored; collect" in answer.out
    results = read_results(results_in(out))
    assert list(results.cells) == ["unet", "nnunet"]
    text = (results.folder / "report.md").read_text(encoding="utf-8")
    assert "How sure is that?" in text
    assert "| nnunet " in text
    assert results.gallery is not None
    assert set(results.gallery.samples) == {"unet", "nnunet"}
    assert list(publish(results.folder, tmp_path / "published", anonymous=False))
    published = "".join(f.read_text(encoding="utf-8") for f in (tmp_path / "published").rglob("*.json"))
    assert str(tmp_path) not in published


def test_all_methods_are_scored_on_the_common_cases(images: Path, theirs: Path, tmp_path: Path) -> None:
    cases = sorted(folder.name for folder in theirs.iterdir())
    shutil.rmtree(theirs / cases[0])
    answer = bench(*words(theirs, images, tmp_path / "one", report=True))
    assert answer.code == 0, answer.err
    results = read_results(results_in(tmp_path / "one"))
    for cell in (*results.cells["nnunet"], *results.yardsticks.values()):
        assert cases[0] not in cell.scores["test"].cases
        assert len(cell.scores["test"].cases) == len(cases) - 1
    sentence = f"all figures are of the {len(cases) - 1} test images, of {len(cases)}, that all predictions have"
    assert sentence in (results.folder / "report.md").read_text(encoding="utf-8")
    for case in cases[1:4]:
        shutil.rmtree(theirs / case)
    few = words(theirs, images, tmp_path / "few")
    refused(bench(*few), 2, f"{len(cases) - 4} of {len(cases)} test cases", f"{cases[0]}: no file", "--common")
    assert not (tmp_path / "few").exists()
    assert bench(*few, "--common").code == 0


def test_a_set_of_test_images_alone_is_enough(images: Path, theirs: Path, tmp_path: Path) -> None:
    only = shutil.copytree(images, tmp_path / "only")
    cases = pd.read_csv(only / "cases.csv")
    cases[cases["split"] == "test"].to_csv(only / "cases.csv", index=False)
    for file in only.rglob("*.png"):
        if file.stem not in set(cases["case"][cases["split"] == "test"]):
            file.unlink()
    answer = bench(*words(theirs, only, tmp_path / "runs"))
    assert answer.code == 0, answer.err
    results = read_results(results_in(tmp_path / "runs"))
    assert "prevalence" not in results.yardsticks
    assert {"background", "oracle", "human"} <= set(results.yardsticks)
    assert results.run["data"]["splits"]["train"]["images"] == 0
    refused(bench("run", "--methods", "unet", "--data", f"folder:{only}", "--size", "32"), 2, "no image in split")


def test_files_that_change_while_a_run_is_under_way_are_not_scored(images: Path, theirs: Path, tmp_path: Path) -> None:
    assert bench(*words(theirs, images, tmp_path / "runs")).code == 0
    folder = results_in(tmp_path / "runs")
    shutil.rmtree(folder / "cells/nnunet-r0")
    shutil.rmtree(tmp_path / "runs/store/scores")
    Image.fromarray(np.full((SIZE, SIZE), 255, np.uint8)).save(next(theirs.glob("*/0.png")))
    refused(bench("work", folder, "nnunet-r0", "--device", "cpu"), 1, "have changed since the run began")
    refused(
        bench(*words(theirs, images, tmp_path / "runs"), "--name", folder.name), 2, "the files of nnunet have changed"
    )
    assert json.loads((folder / "cells/nnunet-r0/failure.json").read_text(encoding="utf-8"))


def test_a_request_that_cannot_be_met(images: Path, theirs: Path, tmp_path: Path) -> None:
    given = ["--data", f"folder:{images}", "--size", str(SIZE), "--out", str(tmp_path / "runs")]
    refused(bench("score", theirs, *given), 2, "3 samples a case", "Give --kind")
    refused(bench("score", tmp_path / "nothing", *given), 2, "there is no folder")
    refused(bench("score", theirs, *given, "--label", "a/b"), 2, "--label: expected a name")
    refused(bench("run", "--methods", f"predictions[kind=all]:{theirs}", *given), 2, "unknown kind 'all'")
    assert not (tmp_path / "runs").exists()
