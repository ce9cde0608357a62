"""Two results folders side by side: what differs, paired differences, and what is not compared."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.report import comparison
from bench.runs.publish import publish
from bench.runs.results import read_cell, read_results, write_cell
from tests.bench import synthetic
from uqseg.errors import UsageError
from uqseg.metrics import figure

FEW = {"unet": ("support", 1, 1.5, 0.0), "mcdropout": ("independent", 4, 1.5, 0.1)}


def spec(width: int, *methods: str) -> dict[str, object]:
    settings = {"unet": {"width": width}}
    return {"recipe_name": "quick", "recipe": {"description": ""}, "samples": 8, "settings": settings,
            "methods": list(methods or FEW), "plugins": []}  # fmt: skip


@pytest.fixture(scope="module")
def a(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.write(
        tmp_path_factory.mktemp("a") / "first", methods=FEW, gallery=False, yardsticks=(), spec=spec(8)
    )


@pytest.fixture(scope="module")
def b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cases; the U-Net is worse, the other method the same."""
    worse = FEW | {"unet": ("support", 1, 4.0, 0.2)}
    return synthetic.write(
        tmp_path_factory.mktemp("b") / "second", methods=worse, gallery=False, yardsticks=(), spec=spec(4)
    )


def test_it_begins_with_what_differs_and_leaves_out_what_is_equal(a: Path, b: Path, tmp_path: Path) -> None:
    text = comparison.write(a, b, ["dice@0.5", "ged_limit"], tmp_path)
    assert "- settings.unet.width 8 → 4" in text
    assert text.index("8 → 4") < text.index("| method")
    assert "The same numbers in both runs: mcdropout." in text
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert table["method"].tolist() == ["unet", "unet"]
    assert table["B is"].tolist() == ["worse", "worse"]
    assert (tmp_path / "comparison.md").read_text(encoding="utf-8") == text + "\n"
    assert "Paired over the 48 test cases" in text


def test_the_difference_is_that_of_the_figures(a: Path, b: Path, tmp_path: Path) -> None:
    comparison.write(a, b, ["ged_limit"], tmp_path)
    row = pd.read_csv(tmp_path / "comparison.csv").iloc[0]
    value = {
        f: np.mean([figure("ged_limit").value(c.scores["test"]) for c in read_results(f).cells["unet"]]) for f in (a, b)
    }
    assert float(row["B − A"].split(" ")[0]) == pytest.approx(value[b] - value[a], abs=0.01)
    assert float(row["A"]) == pytest.approx(value[a], abs=0.01)


def of_other_data(a: Path) -> dict[str, object]:
    """The facts about data of a run whose test images are others."""
    data = read_results(a).run["data"]
    return data | {"splits": data["splits"] | {"test": data["splits"]["test"] | {"key": "other"}}}


@pytest.mark.parametrize("reason", ["images", "anonymous copy", "names", "masks"])
def test_cases_that_are_not_known_to_be_the_same_are_set_side_by_side_without_a_test(
    a: Path, reason: str, tmp_path: Path
) -> None:
    """Other images of the same names, as in folders of files; numbers as names; other names; other masks."""
    change = {"images": {"data": of_other_data(a)}, "anonymous copy": {"anonymized": True},
              "names": {"case_name": "other {}"}, "masks": {"seed": 1}}[reason]  # fmt: skip
    worse = FEW | {"unet": ("support", 1, 4.0, 0.2)}
    other = synthetic.write(
        tmp_path / "other", **{"methods": worse, "spec": spec(8), "gallery": False, "yardsticks": ()} | change
    )
    text = comparison.write(a, other, ["dice@0.5"], tmp_path / "to")
    assert re.search(rf"^The .*{reason}.*: values|^Cases .*{reason}.*: values", text, re.MULTILINE)
    assert "not paired, no test" in text
    assert list(pd.read_csv(tmp_path / "to/comparison.csv")) == ["method", "figure", "A", "B"]


def test_two_anonymous_copies_of_a_run_are_not_paired(b: Path, tmp_path: Path) -> None:
    """Nor two that are not marked as such, as copies were not once."""
    for copy in ("x", "y"):
        list(publish(b, tmp_path / copy, anonymous=True))
    list(publish(tmp_path / "x", tmp_path / "again", anonymous=False))
    assert "in A and B are numbers" in comparison.write(tmp_path / "again", tmp_path / "y", ["brier"], tmp_path / "to")
    for copy in ("x", "y"):
        run = tmp_path / copy / "run.json"
        record = json.loads(run.read_text(encoding="utf-8"))
        del record["anonymized"]
        run.write_text(json.dumps(record), encoding="utf-8")
    text = comparison.write(tmp_path / "x", tmp_path / "y", ["brier"], tmp_path / "to")
    assert "The test cases of the two runs have other names" in text, "only some of the numbers are in both"


def test_runs_with_no_method_in_common_are_refused(a: Path, tmp_path: Path) -> None:
    other = synthetic.write(tmp_path / "other", methods={"segnet": FEW["unet"]}, gallery=False, yardsticks=())
    with pytest.raises(UsageError, match="no method in common"):
        comparison.write(a, other, ["dice@0.5"], tmp_path)
    with pytest.raises(UsageError, match="unknown figure 'dce'"):
        comparison.write(a, a, ["dce"], tmp_path)


def test_equal_values_of_another_kind_of_samples_are_compared(a: Path) -> None:
    first = read_results(a)
    cells = [replace(cell, scores={"test": replace(cell.scores["test"], drawn="stratified")})
             for cell in first.cells["mcdropout"]]  # fmt: skip
    second = replace(first, cells=first.cells | {"mcdropout": cells})
    assert comparison._equal(first, first, "mcdropout")
    assert not comparison._equal(first, second, "mcdropout")


def test_a_run_compared_with_its_copy_has_no_rows(a: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(a, tmp_path / "copy")
    text = comparison.write(a, copy, ["dice@0.5"], tmp_path / "to")
    assert "The same numbers in both runs: unet, mcdropout." in text
    assert "| method" not in text


def test_figures_that_are_equal_in_every_case_have_no_row(a: Path, tmp_path: Path) -> None:
    """Other samples around the same mean map: its Brier score is equal by construction, its GED is not."""
    other = shutil.copytree(a, tmp_path / "other")
    for cell in sorted((other / "cells").glob("unet-r*")):
        scores = read_cell(cell)
        changed = {split: replace(s, values=s.values | {"ged_cross": s.values["ged_cross"] + 0.1} if split == "test"
                                  else s.values) for split, s in scores.scores.items()}  # fmt: skip
        write_cell(cell, changed, scores.info)
    text = comparison.write(a, other, ["brier", "ged_limit"], tmp_path / "to")
    assert "Equal in every case: Brier of unet." in text
    table = pd.read_csv(tmp_path / "to/comparison.csv")
    assert len(table) == 1
    assert table["figure"].iloc[0].startswith("GED")


def test_other_numbers_of_samples_are_said_of_figures_that_depend_on_them(a: Path, tmp_path: Path) -> None:
    more = FEW | {"mcdropout": ("independent", 8, 1.5, 0.1)}
    other = synthetic.write(tmp_path / "more", methods=more, gallery=False, yardsticks=(), spec=spec(8))
    words = (
        "GED, Brier of mcdropout depend on number and kind of samples, 4 independent in A and 8 independent in B: see"
    )
    assert words in comparison.write(a, other, ["ged_limit", "ged", "brier"], tmp_path / "to")
    assert "number and kind" not in comparison.write(a, other, ["ged_limit"], tmp_path / "to")


def test_few_patients_have_no_intervals_and_the_text_does_not_promise_them(tmp_path: Path) -> None:
    a, b = (
        synthetic.write(tmp_path / name, methods={"unet": ("support", 1, off, 0.0)}, gallery=False, yardsticks=(),
                        patients=8, spec=spec(8))
        for name, off in (("x", 1.5), ("y", 4.0))
    )  # fmt: skip
    text = comparison.write(a, b, ["dice@0.5"], tmp_path / "to")
    assert "[" not in text[text.index("| method") :]
    assert "95 % intervals over patients and repetitions, where 10 patients or more have a value" in text
