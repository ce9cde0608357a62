"""The copy of a run to commit holds what a report needs, and nothing that may not be shown."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from bench.runs.publish import publish
from bench.runs.results import read_results, write_cases, write_json
from tests.bench.conftest import SIZE, Run, bench
from uqseg.data import load
from uqseg.metrics import figures


def everything(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file() and file.suffix != ".png")


def test_a_published_run_is_reported_like_the_original(finished: Run, tmp_path: Path) -> None:
    answer = bench("publish", finished.folder, "--to", tmp_path / "copy")
    assert answer.code == 0, answer.err
    kept, original = read_results(tmp_path / "copy"), read_results(finished.folder)
    assert (kept.gallery, list(kept.cells)) == (None, list(original.cells))
    for label, (cell,) in original.cells.items():
        for name, values in cell.scores["test"].values.items():
            np.testing.assert_array_equal(kept.cells[label][0].scores["test"].values[name], values)
    for file in ("tables/figures.csv", "tables/ranks.csv"):
        assert (tmp_path / "copy" / file).read_bytes() == (finished.folder / file).read_bytes()
    lines = answer.out.splitlines()
    assert sum(line.startswith("cells/") for line in lines) == len(list((tmp_path / "copy/cells").iterdir()))
    assert any("cases.parquet: 34 cases with case, patient, split" in line for line in lines)
    assert str(tmp_path) not in everything(tmp_path / "copy").decode("latin1")
    record = json.loads((tmp_path / "copy/run.json").read_text())
    images = Path(original.run["spec"]["data"].partition(":")[2])
    assert record["spec"]["data"] == record["data"]["text"] == f"folder:{images.name}"
    assert str(images.parent) not in everything(tmp_path / "copy").decode("latin1")
    assert list(publish(finished.folder, tmp_path / "copy", anonymous=False)) == [
        line for line in lines if line.startswith(("run.json", "cases.parquet", "cells/", "finished.json"))
    ], "a copy may be made again"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("")
    assert bench("publish", finished.folder, "--to", tmp_path / "other").code == 2


def test_a_gallery_is_kept_where_asked_under_the_new_names_and_left_out_again(finished: Run, tmp_path: Path) -> None:
    to, original = tmp_path / "copy", read_results(finished.folder)
    assert original.gallery is not None
    assert bench("publish", finished.folder, "--to", to, "--anonymize", "--gallery").code == 0
    kept = read_results(to)
    assert kept.gallery is not None
    np.testing.assert_array_equal(kept.gallery.images, original.gallery.images)
    marked = kept.cases.set_index("case")["marked"]
    for case, masks in zip(kept.gallery.cases, kept.gallery.masks, strict=True):
        assert marked[case] == masks.any((1, 2)).sum()
    assert set(kept.gallery.rules.values()) <= set(kept.gallery.cases)
    assert list(publish(to, tmp_path / "second", anonymous=False))
    answer = bench("publish", tmp_path / "second", "--to", tmp_path / "third", "--gallery")
    assert (answer.code, "has none" in answer.err) == (2, True)
    assert bench("publish", finished.folder, "--to", to).code == 0
    assert not (to / "gallery.npz").exists()


def test_an_unfinished_run_is_published_as_such_and_nothing_of_an_earlier_copy_stays(
    finished: Run, tmp_path: Path
) -> None:
    run, to = shutil.copytree(finished.folder, tmp_path / "run"), tmp_path / "copy"
    assert bench("publish", run, "--to", to).code == 0
    shutil.rmtree(run / "cells/unet-r0")
    (run / "finished.json").unlink()
    answer = bench("publish", run, "--to", to)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("NOT FINISHED: without scores so far are unet, repetition 0; the copy says so")
    assert "**Not finished.** Without scores so far: unet, repetition 0." in (to / "report.md").read_text()
    assert not (to / "finished.json").exists()
    assert not (to / "cells/unet-r0").exists()
    assert "is the run itself" in bench("publish", run, "--to", run).err
    assert (run / "cells/segnet-r0/cell.json").exists()


def test_an_anonymous_copy_names_no_case_and_no_patient_and_has_the_same_figures(finished: Run, tmp_path: Path) -> None:
    run = shutil.copytree(finished.folder, tmp_path / "run")
    cases = pd.read_parquet(run / "cases.parquet")
    write_cases(run, cases.assign(record_number=np.arange(len(cases)) + 90000014, subtlety=2.5))
    answer = bench("publish", run, "--to", tmp_path / "copy", "--anonymize")
    assert answer.code == 0, answer.err
    kept, original = read_results(tmp_path / "copy"), read_results(finished.folder)
    assert "record_number" not in kept.cases, "a number may be a name"
    assert re.search("left out: .*record_number", answer.out)
    assert {"marked", "area_0", "spacing_y", "subtlety"} <= set(kept.cases)
    assert kept.cases["case"].str.fullmatch(r"\d\d").all()
    assert sorted(kept.cases.groupby("patient").size()) == sorted(original.cases.groupby("patient").size())
    for label in original.cells:
        for figure in figures():
            values = [r.cells[label][0] for r in (kept, original)]
            a, b = (figure.value(cell.scores["test"]) for cell in values)
            np.testing.assert_allclose(a, b, rtol=1e-12)
    texts = [f for f in (tmp_path / "copy").rglob("*") if f.suffix in (".md", ".csv", ".json", ".jsonl")]
    assert not any(re.search(r"\b[cp]\d\d\b", file.read_text()) for file in texts)
    assert not re.search(rb"c\d\d\b.{0,9}c\d\d\b", everything(tmp_path / "copy"))


def test_an_anonymous_copy_names_no_reader_and_no_case_that_predictions_lack_or_a_failure_names(
    images: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(images, tmp_path / "set")
    for k, reader in enumerate(sorted((folder / "readers").iterdir())):
        reader.rename(folder / f"readers/{'ABCDEF'[k]} Smith")
    test = load(f"folder:{folder}", split="test", size=SIZE)
    for case, masks in zip(test.cases[1:], test.masks[1:], strict=True):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        np.save(tmp_path / f"theirs/{case}.npy", masks[0])
    words = ["--data", f"folder:{folder}", "--size", str(SIZE), "--label", "x", "--out", tmp_path, "--name", "run"]
    answer = bench("score", tmp_path / "theirs", *words, "--common")
    assert answer.code == 0, answer.err
    assert f"x lacks 1 ({test.cases[0]}: no file)" in answer.out
    failure = {"label": "y", "error": f"FileError: the pixels of case '{test.cases[0]}'", "traceback": []}
    write_json(tmp_path / "run/cells/y-r0/failure.json", failure)
    assert bench("publish", tmp_path / "run", "--to", tmp_path / "copy", "--anonymize", "--gallery").code == 0
    assert "that all predictions have: x lacks 1 |" in (tmp_path / "copy/report.md").read_text(encoding="utf-8")
    texts = everything(tmp_path / "copy").decode("latin1")
    assert "Smith" not in texts
    assert not re.search(rf"\b{test.cases[0]}\b", texts)
    assert bench("publish", tmp_path / "run", "--to", tmp_path / "named", "--gallery").code == 0
    assert "Smith" in everything(tmp_path / "named").decode("latin1")
