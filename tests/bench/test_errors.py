"""What goes wrong is told in one line with the right exit code, and costs nothing that was finished."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.conftest import STEPS, Answer, Run, assert_same, bench, options, results_in, tables
from tests.methods.test_contract import Weighted
from uqseg.data.load import default_cache

HERE = "tests.bench.test_errors"


class Raises(Weighted):
    """A method from outside whose training fails."""

    def loss(self, images: Any, masks: Any, read: Any, noise: Any) -> Any:
        raise ZeroDivisionError("no step today")


class Unbuildable(Weighted):
    """A method from outside that cannot even be made."""

    def __init__(self, options: Any, *, channels: int, readers: int) -> None:
        raise ArithmeticError("no weights today")


def refused(answer: Answer, code: int, *words: str) -> None:
    """The command ended with `code` and one line on standard error that holds all `words`."""
    assert answer.code == code, answer.err
    assert answer.err.startswith("error: ")
    assert answer.err.count("\n") == 1, answer.err
    for word in words:
        assert word in answer.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("run --methods unett", "unknown method 'unett'. Did you mean 'unet'?"),
        ("run --methods xyz", "unknown method 'xyz'. Known: bcnn, ccdm"),
        ("run --data docs", "unknown data source 'docs'. Did you mean 'folder:docs'?"),
        ("run --methods unet,", "unknown data source 'nowhere'. Known: folder, lidc-"),
        ("run --methods ,", "--methods: expected at least one. Known: bcnn, ccdm"),
        ("run --methods unet[width]", "--methods: expected option=value"),
        ("run --methods unet]", "--methods: expected name or name[option=value,...]"),
        ("run --methods unet+", "--methods: expected a name before and after each +, got 'unet+'"),
        ("run --methods +tta", "--methods: expected a name before and after each +"),
        ("run --methods unet[widht=3]", "Allowed: width, depth"),
        ("run --methods nosuch.module:Thing", "expected importable package.module:Class"),
        ("run --methods json:loads", "expected a subclass of uqseg.methods.Method"),
        ("run --recipe fast", "unknown recipe 'fast'. Known: best64, ccdm, cpu64, flowssn, full, mose"),
        ("run --data lidc-sym", "unknown data source 'lidc-sym'. Did you mean 'lidc-sim'?"),
        ("run --data folder:/no/such/place", "there is no file or folder '/no/such/place'"),
        ("run --data folder", "needs a path; ask for 'folder:PATH'"),
        ("run --data lidc-sim:x", "takes no path"),
        ("run --data lidc-sim --size 8", "size: expected a whole number from 16 to 1024, got 8"),
        ("run --data lidc-sim --size 63", "an even size up to 128 pixels, got 63"),
        ("run --data lidc-sim --size 256", "an even size up to 128 pixels, got 256"),
        ("run --set width=3", "--set: expected method.option=value or training.key=value, got 'width=3'"),
        ("run --set unet.widht=3", "Allowed: width, depth"),
        ("run --set unet.width=wide", "width: Input should be a valid integer"),
        ("run --set unet.width=0", "width: Input should be greater than or equal to 1, got 0"),
        ("run --set training.setps=3", "Allowed: steps, epochs, batch"),
        ("run --set training.batch=few", "batch: Input should be a valid integer"),
        ("run --set training.optimizer=sgd", "'adam' or 'adamw', got 'sgd'"),
        ("run --set training.steps=3 --set training.epochs=2", "set exactly one of steps and epochs"),
        ("run --methods unet --set segnet.width=3", "segnet is not among the methods of this run: unet"),
        ("run --set unett.width=3", "unknown method 'unett'"),
        ("run --device gpu", "device: expected auto, cpu or an available cuda device, got 'gpu'"),
        ("run --device meta", "device: expected auto, cpu or an available cuda device, got 'meta'"),
        ("run --device cuda:99", "device: expected auto, cpu or an available cuda device, got 'cuda:99'"),
        ("run --seeds one", "--seeds: expected whole numbers and ranges such as 0,1,2 or 0-4, got 'one'"),
        ("run --seeds 0-2,1", "--seeds: expected different whole numbers, got [0, 1, 2, 1]"),
        ("run --methods unet+level", "unknown wrapper 'level'. Did you mean 'levels'?"),
        ("run --methods unet+conformal+levels", "wraps the one set of pixels of +conformal; put +conformal last"),
        ("run --methods unet+levels[n=3]", "wrapper 'levels': n: Extra inputs are not permitted, got 3"),
        ("run --methods unet[training.lr=-1]", "training of unet[training.lr=-1]: lr: Input should be greater than 0"),
        ("run --methods no/such/file.py:Net", "there is no file"),
        ("run --plugin no/such/plugin.py", "there is no file"),
        ("run --recipe no/such.toml", "--recipe: cannot read 'no/such.toml'"),
        ("run --launcher cloud", "unknown launcher 'cloud'. Known: "),
        ("run --seeds 1,1", "--seeds: expected different whole numbers, got [1, 1]"),
        ("run --seeds ,", "--seeds: expected different whole numbers, got []"),
        ("run --samples 0", "--samples: expected at least 1 and at most 10000, got 0"),
        ("run --limit 0", "--limit: expected at least 1, got 0"),
        ("run --samples many", "'--samples'"),
        ("run --fast", "No such option: --fast"),
        ("run extra", "unexpected extra argument"),
        ("rum", "No such command 'rum'"),
        ("list", "Missing argument"),
        ("list method", "'methods', 'wrappers', 'metrics', 'data', 'recipes', 'launchers', 'models', 'options'"),
        ("list options", "a name goes with options, such as `list options unet`"),
        ("list options unett", "unknown method 'unett'"),
        ("list data --markdown", "only `list metrics` has a page"),
        ("report /no/such/report", "there is no run.json in '/no/such/report'"),
        ("compare /no/a /no/b", "there is no run.json in '/no/a'"),
        ("claims /no/a", "there is no run.json in '/no/a'"),
        ("publish /no/a --to /no/b", "there is no run.json in '/no/a'"),
        ("clean --out /no/such/runs", "there is no folder '/no/such/runs'"),
        ("verify --out /no/such/runs", "there is no folder '/no/such/runs'"),
        ("status --out /no/such/runs", "there is no folder '/no/such/runs'"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_can(words: str, expected: str) -> None:
    given = words.split(" ")
    if given[0] == "run" and "--data" not in given:
        given += ["--data", "nowhere"]  # so that a request taken by mistake ends here
    refused(bench(*given), 2, expected)


def test_wrong_words_name_the_help(finished: Run) -> None:
    refused(bench("run", "--fast"), 2, "See 'python -m bench run -h'.")
    refused(bench("rum"), 2, "See 'python -m bench -h'.")
    help_page = bench()
    assert (help_page.code, help_page.err) == (0, "")
    assert "compare" in help_page.out
    refused(
        bench("compare", finished.folder, finished.folder, "--figures", "geed"), 2, "unknown figure 'geed'", "'ged'"
    )


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="unknown recipe"):
        bench("run", "--recipe", "fast", "--debug")


@pytest.fixture
def copy(finished: Run, tmp_path: Path) -> Run:
    """The finished run in a folder that a test may spoil."""
    shutil.copytree(finished.out, tmp_path / "runs")
    words = [str(tmp_path / "runs") if w == str(finished.out) else w for w in finished.words]
    return Run(words, tmp_path / "runs", tmp_path / "runs" / finished.folder.name, finished.answer)


def test_methods_that_raise_stop_no_other(images: Path, tmp_path: Path) -> None:
    words = options(images, tmp_path, f"{HERE}:Raises", "unet", f"{HERE}:Unbuildable", report=True)
    answer = bench(*words)
    refused(
        answer, 1, "2 of 9 cells failed, the others are kept", "ZeroDivisionError: no step today", "no weights today"
    )
    assert sum("-unet-" in name for name in tables(tmp_path)) == 3
    folder = results_in(tmp_path)
    text = (folder / "report.md").read_text()
    assert re.search(r"\| failed \| .*Raises, repetition 0: ZeroDivisionError: no step today \|", text)
    assert not (folder / "finished.json").exists()
    (record,) = folder.glob("cells/*Raises*/failure.json")
    assert any("in loss" in line for line in json.loads(record.read_text())["traceback"])
    listed = bench("status", "--out", tmp_path).out
    assert listed.count("failed  ") == 2
    assert "ZeroDivisionError: no step today" in listed


def test_a_training_that_diverges_says_what_to_change(images: Path, tmp_path: Path) -> None:
    answer = bench(*options(images, tmp_path, "unet[training.lr=1e30]", "segnet"))
    refused(answer, 1, "training diverged at step", "Lower training.lr (now 1e+30)")


def spoil_cache(run: Run, patch: pytest.MonkeyPatch) -> None:
    cache = shutil.copytree(default_cache(), run.out.parent / "cache")
    patch.setenv("UQSEG_CACHE", str(cache))
    for masks in cache.glob("*/masks.npy"):
        masks.write_bytes(masks.read_bytes()[:-1])


def spoil_scores(run: Run, patch: pytest.MonkeyPatch) -> None:
    (file,) = run.out.glob("store/scores/*-unet-*-test-*/scores.parquet")
    file.write_bytes(file.read_bytes()[:-9])


def spoil_meta(run: Run, patch: pytest.MonkeyPatch) -> None:
    (file,) = run.out.glob("store/scores/*-unet-*-test-*/cell.json")
    file.write_text("[1")


def spoil_weights(run: Run, patch: pytest.MonkeyPatch) -> None:
    (file,) = run.out.glob("store/fits/*-unet-*/weights.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    for folder in run.out.glob("store/scores/*-unet-*"):
        shutil.rmtree(folder)


def spoil_checkpoint(run: Run, patch: pytest.MonkeyPatch) -> None:
    spoil_weights(run, patch)
    (fit,) = run.out.glob("store/fits/*-unet-*")
    (run.out / "store/partial").mkdir(exist_ok=True)
    fit.rename(run.out / "store/partial" / fit.name)
    (run.out / "store/partial" / fit.name / "fit.json").unlink()
    (run.out / "store/partial" / fit.name / "checkpoint.safetensors").write_bytes(b"not tensors")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoil_cache, r"is corrupt \(masks.npy has .*building it anew"),
        (spoil_scores, r"scores.parquet is not what was written .*scoring anew"),
        (spoil_meta, r"cell.json.*scoring anew"),
        (spoil_weights, r"weights.safetensors is not what was written.*training anew"),
        (spoil_checkpoint, r"checkpoint.safetensors.*training anew"),
    ],
)
def test_a_corrupt_file_is_named_and_what_it_held_is_made_anew(
    spoil: Callable[[Run, pytest.MonkeyPatch], None],
    expected: str,
    images: Path,
    copy: Run,
    finished: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spoil(copy, monkeypatch)
    kept = {f: f.stat().st_mtime_ns for f in copy.out.glob("store/*/*/*") if "-unet-" not in f.parent.name}
    answer = bench(*options(images, copy.out, "unet", steps=STEPS))
    assert answer.code == 0, answer.err
    assert re.search(expected, answer.out + caplog.text)
    assert {f: f.stat().st_mtime_ns for f in kept} == kept
    assert_same(tables(copy.out), tables(finished.out), atol=1e-6)  # trained by other threads it may differ


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"run": {}}'])
def test_a_corrupt_record_of_a_run_is_named(text: str, copy: Run) -> None:
    (copy.folder / "run.json").write_text(text)
    refused(bench("report", copy.folder), 1, f"{copy.folder / 'run.json'}")


def test_an_out_that_is_a_file_is_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(bench(*options(images, tmp_path / "file", "unet")), 1, "cannot write", "choose another folder")
