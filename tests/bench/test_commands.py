"""list, status, report, compare and the recipes say what they promise."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench import spec
from bench.cli import commit
from tests.bench.conftest import METHODS, SIZE, STEPS, Run, bench
from uqseg import methods, metrics
from uqseg.data import sources
from uqseg.errors import UsageError


def test_list_names_everything_that_is_registered() -> None:
    for kind, names in {
        "methods": methods.names(),
        "metrics": metrics.names(),
        "data": list(sources()),
        "recipes": spec.recipe_names(),
    }.items():
        answer = bench("list", kind)
        assert answer.code == 0
        lines = dict(line.split(maxsplit=1) for line in answer.out.splitlines())
        assert list(lines) == names
        assert all(len(text) > 8 for text in lines.values())
    page = bench("list", "metrics", "--markdown").out
    assert all(name in page for name in ("ged", "hm_iou", "ece_active"))


def test_status_lists_what_is_finished(finished: Run) -> None:
    lines = bench("status", "--out", finished.out).out.splitlines()
    words = [line.split()[0] for line in lines]
    assert words == ["trained"] * len(METHODS) + ["scored"] * len(list((finished.out / "scores").iterdir()))
    assert all(f"{STEPS} steps" in line for line in lines if line.startswith("trained"))


def test_report_writes_the_same_figures_anew(finished: Run, tmp_path: Path) -> None:
    answer = bench("report", finished.report, "--out", finished.out, "--to", tmp_path, "--no-pictures-of-data")
    assert answer.code == 0, answer.err
    assert f"Report: {tmp_path / 'report.md'}" in answer.out
    assert (tmp_path / "figures.csv").read_bytes() == (finished.report / "figures.csv").read_bytes()
    assert not list(tmp_path.glob("gallery*")), "pictures of the data stay with the run"
    assert not (tmp_path / "images.parquet").exists()


def test_the_record_of_a_run_repeats_it(finished: Run) -> None:
    record = json.loads((finished.report / "run.json").read_text())
    assert record["command"].startswith("python -m bench run --methods ensemble,")
    assert record["commit"] == commit()
    assert not record["failed"]
    made = spec.read_run(json.dumps(record["run"]), "run.json")
    assert (made.methods, made.samples, made.size) == (METHODS, 4, SIZE)
    assert [cell.options.model_dump().get("width", 4) for cell in spec.cells(made)] == [4] * len(METHODS)


def test_compare_tells_a_change_from_none(finished: Run, tmp_path: Path) -> None:
    other = shutil.copytree(finished.report, tmp_path / "other")
    table = pd.read_parquet(other / "images.parquet")
    table.loc[table["method"] == "unet", "brier"] /= 2
    table.to_parquet(other / "images.parquet", index=False)
    answer = bench("compare", finished.report, other, "--figures", "brier,ged", "--to", tmp_path / "comparison")
    assert answer.code == 0, answer.err
    assert f"Comparison: {tmp_path / 'comparison/comparison.md'}" in answer.out
    found = pd.read_csv(tmp_path / "comparison/comparison.csv").set_index(["method", "figure"])
    assert set(found.index.get_level_values("method")) >= set(METHODS)
    assert found.loc[("unet", "brier"), "B is"] == "better"
    assert set(found.drop(("unet", "brier"))["B is"]) == {"tie"}
    assert "Paired over the 8 test cases" in (tmp_path / "comparison/comparison.md").read_text()


@pytest.mark.parametrize("name", spec.recipe_names())
def test_every_recipe_makes_a_run_of_every_method(name: str) -> None:
    made = spec.make_run(data="lidc-sim", recipe_name=name, chosen=methods.names(), seeds=[0, 1])
    assert len(spec.cells(made)) == 2 * len(methods.names())
    assert made.recipe.description
    assert len({cell.text for cell in spec.cells(made)}) == len(spec.cells(made))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size = [", "r.toml: not valid TOML"),
        ('description = "x"\nsizes = 64\n[training]\nsteps = 1', "r.toml: sizes: Extra inputs are not permitted"),
        ('description = "x"\nsizes = 64\n[training]\nsteps = 1', "Allowed: description, size, samples, limit"),
        ('description = "x"\nsize = "big"\n[training]\nsteps = 1', "r.toml: size: Input should be a valid integer"),
        ('description = "x"\n[limit]\ntrain = 0\n[training]\nsteps = 1', "r.toml: limit.train: Input should be"),
        ('description = "x"\n[training]\nstep = 1', "r.toml: training: "),
        ('description = "x"\n[training]\nsteps = 1.5', "r.toml: training: steps: Input should be a valid integer"),
        ('description = "x"\n[training]\nsteps = 1\nepochs = 1', "r.toml: training: keys: set exactly one of"),
        ('description = "x"\n[training]\nsteps = 1\n[training_of.unet]\nlr = -1', "r.toml: training_of.unet: lr: "),
        ('description = "x"\n[training]\nsteps = 1\n[options.unet]\nwidht = 3', "r.toml: options.unet: "),
        (
            'description = "x"\n[training]\nsteps = 1\n[options.unett]\nwidth = 3',
            "options.unett: unknown method 'unett'",
        ),
        ('description = "x"\n[training]\nsteps = 1\n[training_of.unett]\nlr = 1', "training_of.unett: unknown method"),
    ],
)
def test_a_wrong_recipe_is_told_by_file_and_key(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec.read_recipe(text, "r.toml")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
