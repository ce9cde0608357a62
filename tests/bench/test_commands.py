"""list, status, report, compare, clean, verify and the recipes say what they promise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench import launchers
from bench.runs import record, spec, workers
from bench.runs.results import read_results, write_cell, write_json
from bench.runs.splits import Splits
from bench.version import commit
from tests.bench.conftest import METHODS, SIZE, STEPS, YARDSTICKS, Run, bench, options, results_in
from tests.conftest import discs
from uqseg import methods, metrics, wrappers
from uqseg.data import sources
from uqseg.errors import UsageError


def test_list_names_everything_that_is_registered() -> None:
    for kind, names in {
        "methods": methods.names(),
        "wrappers": wrappers.names(),
        "metrics": [f.name for f in metrics.figures()],
        "data": list(sources()),
        "recipes": spec.recipe_names(),
        "launchers": list(launchers.names()),
    }.items():
        answer = bench("list", kind)
        assert answer.code == 0
        lines = dict(line.split(maxsplit=1) for line in answer.out.splitlines())
        assert list(lines) == names
        assert all(len(text) > 8 for text in lines.values())
    page = bench("list", "metrics", "--markdown").out
    assert all(name in page for name in ("ged", "hm_iou", "ece_active"))
    assert re.search(r"^width +16  channels of the finest level", bench("list", "options", "unet").out, re.MULTILINE)
    assert "lr " in bench("list", "options", "training").out


def test_the_version_is_printed_and_commands_work_as_a_script() -> None:
    assert bench("--version").out.startswith("uqseg ")
    root = Path(spec.__file__).resolve().parents[2]
    words = "import sys; sys.argv[0] = '/bin/uqseg'; from bench.__main__ import main; main()"
    answer = subprocess.run([sys.executable, "-c", words, "list", "method"], cwd=root, capture_output=True, text=True)
    assert answer.returncode == 2
    assert "See 'uqseg list -h'." in answer.stderr


@pytest.mark.parametrize(("given", "used"), [(None, "PASSIVE"), ("active", "ACTIVE")])
def test_threads_without_work_sleep_unless_the_user_says_otherwise(given: str | None, used: str) -> None:
    root = Path(spec.__file__).resolve().parents[2]
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | {"OMP_DISPLAY_ENV": "true"}
    env |= {} if given is None else {"OMP_WAIT_POLICY": given}
    words = [sys.executable, "-m", "bench", "list", "methods"]
    answer = subprocess.run(words, cwd=root, env=env, capture_output=True, text=True)
    assert f"OMP_WAIT_POLICY = '{used}'" in answer.stderr


def test_a_missing_module_names_the_environment() -> None:
    root = Path(spec.__file__).resolve().parents[2]
    words = "import sys; sys.modules['typer'] = None; from bench.__main__ import main; main()"
    answer = subprocess.run([sys.executable, "-c", words], cwd=root, capture_output=True, text=True)
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1
    for word in ("no module 'typer'", ". .venv/bin/activate", "make"):
        assert word in answer.stderr


def test_status_lists_what_is_finished(finished: Run) -> None:
    short = bench("status", finished.out).out.splitlines()
    assert short == bench("status", "--out", finished.out).out.splitlines()
    assert [line.split()[0] for line in short] == ["finished", "store"]
    lines = bench("status", "--out", finished.out, "--all").out.splitlines()
    words = [line.split()[0] for line in lines]
    scored = 3 * (len(METHODS) + len(YARDSTICKS))
    assert words == ["finished", *["trained"] * len(METHODS), *["scored"] * scored]
    assert f"{len(METHODS) + len(YARDSTICKS)} of {len(METHODS) + len(YARDSTICKS)} cells" in lines[0]
    assert all(f"{STEPS} steps" in line for line in lines if line.startswith("trained"))


def test_status_of_a_run_is_one_screen(finished: Run, tmp_path: Path) -> None:
    lines = bench("status", finished.folder).out.splitlines()
    assert [line.split()[0] for line in lines] == ["finished", "done", "next"]
    assert all(f"{name} 1 of 1" in lines[1] for name in METHODS)
    assert f"yardsticks {len(YARDSTICKS)} of {len(YARDSTICKS)}" in lines[1]
    assert lines[2] == f"next        uqseg view {finished.folder}"
    run = shutil.copytree(finished.folder, tmp_path / "run")
    (run / "finished.json").unlink()
    for name in ("unet-r0", "segnet-r0"):
        shutil.rmtree(run / "cells" / name)
    write_json(run / "cells/unet-r0/failure.json", {"label": "unet", "error": "no memory", "traceback": []})
    with workers.shown(run, "mcdropout-r0"):
        text = bench("status", run).out
        assert re.search(rf"^running +mcdropout-r0  step 0 of {STEPS}, for 1 s, \S+$", text, re.MULTILINE)
        assert text.splitlines()[-1] == f"next        uqseg status --watch --out {tmp_path}"
    lines = bench("status", run).out.splitlines()
    assert [line.split()[0] for line in lines] == ["unfinished", "failed", "done", "to", "next"]
    assert "failed      run/unet-r0  no memory" in lines
    assert "to do       1: segnet-r0" in lines
    assert lines[-1].startswith(
        "next        mend what failed, and give the same command: python -m bench run --methods"
    )
    assert len(bench("status", run, "--all").out.splitlines()) == len(lines) + len(METHODS) + len(YARDSTICKS) - 3


def test_status_clean_and_verify_name_what_is_damaged_or_old(finished: Run, tmp_path: Path) -> None:
    out = shutil.copytree(finished.out, tmp_path / "runs")
    assert bench("verify", "--out", out).out == "Everything is as it was written.\n"
    assert bench("clean", "--out", out).out == "Freed 0.00 MB.\n"
    folder = results_in(out)
    (weights,) = out.glob("store/fits/*-unet-*/weights.safetensors")
    weights.write_bytes(weights.read_bytes()[:-9] + bytes(9))
    (fit,) = out.glob("store/fits/*-segnet-*/fit.json")
    fit.write_text("{")
    scores = folder / "cells/unet-r0/scores.parquet"
    scores.write_bytes(scores.read_bytes()[:-9])
    (out / "reports/lidc-sim-quick-64px").mkdir(parents=True)
    (out / "reports/lidc-sim-quick-64px/run.json").write_text('{"run": {}, "command": "", "commit": ""}')
    (out / "broken").mkdir()
    (out / "broken/run.json").write_text("[")
    status = bench("status", "--out", out)
    assert status.code == 0
    assert "damaged     broken" in status.out
    assert "written by uqseg 0.1" in status.out
    assert f"damaged     {fit.parent.name}" in status.out
    verify = bench("verify", "--out", out)
    assert verify.code == 1
    assert all(str(file) in verify.out for file in (weights, scores, out / "broken/run.json"))
    for command in ("report", "claims"):
        answer = bench(command, out / "reports/lidc-sim-quick-64px")
        assert answer.code == 2
        assert "is a report of uqseg 0.1" in answer.err
    assert bench("clean", "--out", out).code == 1, "what a damaged run needs is not known"
    shutil.rmtree(out / "broken")
    shutil.rmtree(folder)
    size = sum(f.stat().st_size for f in (out / "store").rglob("*") if f.is_file())
    assert f"Would free {size / 1e6:.2f} MB." in bench("clean", "--out", out, "--dry-run").out
    assert weights.exists()
    assert f"Freed {size / 1e6:.2f} MB." in bench("clean", "--out", out).out
    assert not [path for path in out.glob("store/*/*") if path.parent.name != "locks"]


def test_the_record_of_a_run_repeats_it(finished: Run) -> None:
    record = json.loads((finished.folder / "run.json").read_text())
    assert record["command"].startswith("python -m bench run --methods ensemble,")
    assert record["commit"] == commit()
    request = spec.read_spec(record["spec"], "run.json")
    assert (request.methods, request.samples, request.size) == (METHODS, 4, SIZE)
    assert [cell.options.model_dump().get("width", 4) for cell in spec.cells(request)] == [4] * len(METHODS)


def test_no_run_overwrites_another(images: Path, finished: Run, tmp_path: Path) -> None:
    words = options(images, tmp_path, "unet", steps=1)
    assert bench(*words).code == 0
    assert bench(*words, "--set", "unet.width=5").code == 0, "another width, another folder"
    assert len(list(tmp_path.glob("*/run.json"))) == 2
    assert bench(*words, "--name", "mine").code == 0
    before = (tmp_path / "mine/run.json").read_bytes()
    answer = bench(*words, "--name", "mine", "--set", "unet.width=5", "--samples", "3")
    assert answer.code == 2
    assert f"'{tmp_path / 'mine'}' holds another run (samples 4 → 3; settings.unet.width 4 → 5)" in answer.err
    assert (tmp_path / "mine/run.json").read_bytes() == before
    for name in ("a/b", "store", "..", 101 * "x"):
        assert "--name: expected up to 100 letters" in bench(*words, "--name", name).err


def test_a_dry_run_prints_the_plan_and_writes_nothing(images: Path, tmp_path: Path) -> None:
    answer = bench(*options(images, tmp_path / "runs", "unet", "segnet"), "--dry-run")
    assert answer.code == 0, answer.err
    assert answer.out.count("3 of 3 steps") == 2
    shared = bench(*options(images, tmp_path / "runs", "unet", "unet+levels"), "--dry-run").out
    assert shared.count("3 of 3 steps") == 1
    assert "unet+levels #0: shares a training; score" in shared
    assert not (tmp_path / "runs").exists()


def test_where_no_method_passes_its_trial_step_nothing_is_begun(images: Path, tmp_path: Path) -> None:
    reason = "unet fails in a trial step: ValueError: images: expected height and width divisible by 4"
    for more in ([], ["--dry-run"]):
        odd = bench(*options(images, tmp_path / "runs", "unet"), "--size", 33, *more)
        assert odd.code == 2
        assert reason in odd.err
        assert odd.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_compare_tells_a_change_from_none(finished: Run, tmp_path: Path) -> None:
    other = shutil.copytree(finished.folder, tmp_path / "other")
    cell = read_results(other).cells["unet"][0]
    cell.scores["test"].values["brier"][:] /= 2
    write_cell(other / "cells/unet-r0", cell.scores, cell.info)
    answer = bench("compare", finished.folder, other, "--figures", "brier,ged", "--to", tmp_path / "comparison")
    assert answer.code == 0, answer.err
    assert f"Comparison: {tmp_path / 'comparison/comparison.md'}" in answer.out
    table = pd.read_csv(tmp_path / "comparison/comparison.csv").set_index(["method", "figure"])
    assert set(table.index.get_level_values("method")) == {"unet"}, "the same numbers are not compared"
    assert "ensemble" in answer.out


@pytest.mark.parametrize("name", spec.recipe_names())
def test_every_recipe_makes_a_run_of_every_method(name: str) -> None:
    request = spec.make_run(data="lidc-sim", recipe_name=name, labels=methods.names(), seeds=[0, 1])
    cells = spec.cells(request)
    assert (
        len({(cell.label, cell.repetition) for cell in cells})
        == len({cell.seed("x") for cell in cells})
        == 2 * len(methods.names())
    )
    assert request.recipe.description


@pytest.mark.parametrize("name", [n for n in spec.recipe_names() if "as published" in spec.recipe(n).description])
def test_a_published_protocol_plans_the_one_method_that_it_is_of(name: str) -> None:
    protocol = spec.recipe(name)
    assert protocol.description.startswith("for a GPU: ")
    ((method, options),) = protocol.options.items()
    request = spec.make_run(data="discs", recipe_name=name, labels=[method], seeds=[0])
    (cell,) = spec.cells(request)
    assert options.items() <= cell.options.model_dump(mode="json").items()
    splits = Splits(*[discs(4)] * 3)
    planned = record.make_record(request, splits, None, f"bench run --recipe {name}", "")
    assert [entry["label"] for entry in planned["cells"]] == [method]
    assert sum(p.numel() for p in record.new_method(cell, splits).parameters()) > 1e6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("size = [", "r.toml: not valid TOML"),
        ('description = "x"\nsizes = 64\n[training]\nsteps = 1', "r.toml: sizes: Extra inputs are not permitted"),
        ('description = "x"\nsizes = 64\n[training]\nsteps = 1', "Allowed: description, size, samples, limit"),
        ('description = "x"\nsize = "big"\n[training]\nsteps = 1', "r.toml: size: Input should be a valid integer"),
        ('description = "x"\n[limit]\ntrain = 0\n[training]\nsteps = 1', "r.toml: limit: train: Input should be"),
        ('description = "x"\n[training]\nstep = 1', "r.toml: training: "),
        ('description = "x"\n[training]\nsteps = 1.5', "r.toml: training: steps: Input should be a valid integer"),
        ('description = "x"\n[training]\nsteps = 1\nepochs = 1', "r.toml: training: set exactly one of"),
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
