"""Runs of other methods and repetitions become one; what may not differ is refused in one line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bench.runs.publish import publish
from bench.runs.results import read_cell, read_results, read_run, write_cell
from tests.bench.conftest import assert_same, bench, options, results_in, tables
from tests.bench.synthetic import METHODS, write


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, names = tmp_path_factory.mktemp("halves"), list(METHODS)
    write(root / "a", methods={n: METHODS[n] for n in names[:2]}, gallery=False)
    write(root / "b", methods={n: METHODS[n] for n in names[2:4]}, repetitions=1, gallery=False)
    return root


@pytest.fixture
def halves(written: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two runs of two methods each; the second has one repetition."""
    return shutil.copytree(written / "a", tmp_path / "a"), shutil.copytree(written / "b", tmp_path / "b")


def change(folder: Path, **values: object) -> None:
    file = folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_methods_and_repetitions_of_two_runs_are_on_one_page(halves: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = halves
    change(second, commit="abcdef", machine={"device": "another CPU"})
    answer = bench("merge", first, second, "--to", tmp_path / "c")
    assert answer.code == 0, answer.err
    merged, parts = read_results(tmp_path / "c"), [read_results(first), read_results(second)]
    assert list(merged.cells) == [*parts[0].cells, *parts[1].cells]
    assert [len(cells) for cells in merged.cells.values()] == [2, 2, 1, 1]
    for part in parts:
        for label, cells in part.cells.items():
            for cell, again in zip(cells, merged.cells[label], strict=True):
                assert again.info["sha256"] == cell.info["sha256"]
    assert [part["commit"] for part in merged.run["merged"]] == ["0123456789", "abcdef"]
    assert merged.finished == {"seconds": 2.0}
    page = (tmp_path / "c/report.md").read_text()
    assert "Not all methods have the same number of repetitions" in page
    assert page.count("| merged |") == 2
    assert "another CPU" in page
    again = bench("merge", tmp_path / "c", first, "--to", tmp_path / "d", "--no-report")
    assert again.code == 0, again.err
    assert len(read_run(tmp_path / "d")["merged"]) == 3
    assert list(publish(tmp_path / "c", tmp_path / "e", anonymous=True))
    assert str(tmp_path) not in (tmp_path / "e/run.json").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spec": {"recipe_name": "long", "recipe": {"description": "x"}, "samples": 4}}, "recipe_name quick → long"),
        ({"spec": {"recipe_name": "quick", "recipe": {"description": "x"}, "samples": 8}}, "samples 4 → 8"),
    ],
)  # fmt: skip
def test_another_protocol_is_refused(
    halves: tuple[Path, Path], tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    first, second = halves
    change(second, **changes)
    refused(first, second, tmp_path, words)


def test_other_data_other_cases_and_other_scores_are_refused(halves: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = halves
    data = read_run(second)["data"]
    data["splits"]["test"]["key"] = "other"
    change(second, data=data)
    refused(first, second, tmp_path, "splits.test.key test → other")
    shutil.rmtree(second)
    write(second, seed=1, repetitions=1, gallery=False)
    refused(first, second, tmp_path, "cases.parquet")
    shutil.copy(first / "cases.parquet", second)
    refused(first, second, tmp_path, "differ from those in")
    assert "at least two" in bench("merge", first, "--to", tmp_path / "c").err


def test_yardsticks_may_differ_as_processors_round_and_trained_methods_may_not(
    halves: tuple[Path, Path], tmp_path: Path
) -> None:
    first, second = halves
    shutil.rmtree(second)
    shutil.copytree(first, second)
    change_scores(second / "cells/human")
    answer = bench("merge", first, second, "--to", tmp_path / "rounded", "--no-report")
    assert answer.code == 0, answer.err
    change_scores(second / "cells/unet-r0")
    refused(first, second, tmp_path, "differ from those in")


def change_scores(folder: Path) -> None:
    cell = read_cell(folder)
    values = {n: x * (1 + 1e-7) for n, x in cell.scores["test"].values.items()}
    write_cell(folder, cell.scores | {"test": replace(cell.scores["test"], values=values)}, cell.info)


def refused(first: Path, second: Path, tmp_path: Path, words: str) -> None:
    answer = bench("merge", first, second, "--to", tmp_path / "c")
    assert answer.code == 2, answer.out
    assert answer.err.count("\n") == 1
    assert words in answer.err
    assert not (tmp_path / "c").exists()
    assert not list(tmp_path.glob(".c*"))


def test_a_merged_run_is_that_of_one_place_and_goes_on(images: Path, tmp_path: Path) -> None:
    def words(out: str, seeds: str) -> list[str]:
        return [*options(images, tmp_path / out, "unet"), "--seeds", seeds, "--name", "run"]

    for out, seeds in (("a", "0"), ("b", "1"), ("all", "0,1")):
        assert bench(*words(out, seeds)).code == 0
    answer = bench("merge", tmp_path / "a/run", tmp_path / "b/run", "--to", tmp_path / "c/run", "--no-report")
    assert answer.code == 0, answer.err
    one, many = (read_results(tmp_path / out / "run").cells["unet"] for out in ("c", "all"))
    for cell, expected in zip(one, many, strict=True):
        assert_same({"test": cell.scores["test"]}, {"test": expected.scores["test"]})
    on = bench(*words("c", "0,1"))
    assert on.code == 0, on.err
    assert on.out.count(": done") == 2
    assert not tables(tmp_path / "c")
    assert results_in(tmp_path / "c").name == "run"


def test_a_file_in_the_way_of_the_new_folder_is_named(halves: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = halves
    (tmp_path / "file").write_bytes(b"x")
    merge, publish = ("merge", first, second), ("publish", first)
    for command, place, code in ((merge, "file", 2), (merge, "file/below", 1), (publish, "file", 2)):
        answer = bench(*command, "--to", tmp_path / place)
        assert answer.code == code, answer.out
        assert answer.err.count("\n") == 1
        assert str(tmp_path / place) in answer.err
        assert "choose another" in answer.err
    assert (tmp_path / "file").read_bytes() == b"x"
