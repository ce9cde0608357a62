"""`uqseg data`: what it says of a folder whose numbers are known, and its contact sheet."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from bench import data as described
from bench.cli import app
from bench.readers import overlaps
from tests.conftest import discs
from uqseg.data import AnnotatedSet, load
from uqseg.data.annotated import Readings
from uqseg.data.casefile import propose
from uqseg.data.split import SPLITS
from uqseg.errors import FileError, UsageError


def save(file: Path, array: NDArray[np.uint8]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


def block(rows: int) -> NDArray[np.uint8]:
    """The first `rows` rows of a 32×32 mask."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:rows] = 255
    return mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four colour images and three readers: c0 read by all, c1 by two, c2 by one, c3 by all and nobody marked it."""
    root = tmp_path / "set"
    for case, rows in enumerate([(4, 8, 0), (8, 8, None), (2, None, None), (0, 0, 0)]):
        save(root / f"images/c{case}.png", np.random.default_rng(case).integers(0, 256, (32, 32, 3), dtype=np.uint8))
        for reader, marked in enumerate(rows):
            if marked is not None:
                save(root / f"readers/r{reader}/c{case}.png", block(marked))
    lines = ["case,patient,split,spacing_x,spacing_y", "c0,p,train,0.5,0.5", "c1,p,train,0.5,0.75", "c2,q,test,,"]
    (root / "cases.csv").write_text("\n".join([*lines, "c3,r,val,,", "c7,r,test,,", "c8,r,test,,"]))
    return root


def test_a_known_folder_is_described(folder: Path, tmp_path: Path) -> None:
    data = load(f"folder:{folder}", size=32, cache=tmp_path / "cache")
    lines = dict(described.summary(data, overlaps(data)))
    assert lines["data"] == "folder set"
    assert lines["images"] == "4 from 3 patients"
    assert lines["  train"] == "2 from 1 patients"
    assert lines["  test"] == "1 from 1 patients"
    assert lines["size"] == "32×32 pixels, 3 channels"
    assert lines["spacing"] == "0.5 to 0.75 mm, unknown for 2 images"
    assert lines["marked by"] == "0: 1, 1: 1, 2: 2, 3: 0 images"
    assert lines["  r0"] == "read 4, absent 0, marked 3"
    assert lines["  r2"] == "read 2, absent 2, marked 0"
    # Reader fractions: (4+8+0)/3, 8, 2, 0 of 32 rows.
    assert lines["foreground"].startswith(f"{100 * (4 + 8 + 2) / (4 * 32):.3g} %")
    # Only c0 differs: of its 9 ordered pairs 2 are at distance 1 − 4/8, 4 at 1.
    assert lines["disagreement"].startswith(f"E d(y,y') = {(2 * 0.5 + 4) / 9 / 4:.3f}")
    assert lines["problems"] == "2"


def test_problems_are_counted_by_kind() -> None:
    problems = [f"duplicate image: a{k} is b" for k in range(5)] + ["2 cases (x, …): too large", "no file in readers/a"]
    few, every = described.by_kind(problems, False), described.by_kind(problems, True)
    assert few[0] == every[0] == "5 × duplicate image"
    assert few[4] == "  … and 2 more: --problems lists all"
    assert few[5:] == problems[5:], "one alone is printed once"
    assert sum(line.strip() in problems for line in every) == 7


def test_the_command_prints_and_draws(folder: Path, tmp_path: Path) -> None:
    sheet, cache = tmp_path / "new" / "sheet.png", str(tmp_path / "cache")
    asked = ["data", f"folder:{folder}", "--size", "32", "--cache", cache, "--out", str(sheet), "--cases", "7"]
    answer = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert answer.exit_code == 0
    assert "readers       3" in answer.output
    assert "2 × cases.csv" in answer.output
    assert str(sheet) in answer.output
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    for colour in ((0xE6, 0x9F, 0x00), (0x00, 0x9E, 0x73)):  # the outlines of readers 1 and 2 are there
        assert (pixels == colour).all(2).sum() > 50
    few = CliRunner().invoke(app, [*asked, "--split", "test", "--limit", "1"], catch_exceptions=False)
    assert "images        1 from 1 patients" in few.output


def ask(folder: Path, *more: str) -> str:
    asked = ["data", f"folder:{folder}", "--size", "32", "--cache", str(folder.parent / "cache")]
    asked += ["--out", str(folder.parent / "sheet.png"), "--cases", "1", *more]
    answer = CliRunner().invoke(app, asked)
    if answer.exception and not isinstance(answer.exception, SystemExit):
        return f"{answer.output}{type(answer.exception).__name__}: {answer.exception}"
    return answer.output


def of_patients(root: Path, patients: int) -> Path:
    """Two images of each patient, in their names, and two readers, the second of whom has read every fourth image."""
    for k in range(2 * patients):
        name = f"P{k // 2:02d}_{'lr'[k % 2]}"
        save(root / f"images/{name}.png", np.random.default_rng(k).integers(0, 256, (32, 32), dtype=np.uint8))
        for reader in ("ann", "bob")[: 1 + (k % 4 == 0)]:
            save(root / f"readers/{reader}/{name}.png", block(4))
    return root


def test_patients_in_names_are_said_loudly_and_a_table_is_written(tmp_path: Path) -> None:
    root = of_patients(tmp_path / "set", 30)
    assert "EVERY IMAGE COUNTS AS A PATIENT OF ITS OWN" in ask(root)
    assert ask(root).count("EVERY IMAGE") == 1
    assert "; these data have too few for 20 in each split, 15 in all" in ask(root)
    assert f"To look through and fill in: {root / 'cases.csv'}" in ask(root, "--write-cases")
    table = pd.read_csv(root / "cases.csv")
    assert table.columns.tolist() == ["case", "patient", "split", "spacing_x", "spacing_y"]
    assert (table["patient"] == table["case"].str[:3]).all()
    assert (table["patient"] + table["case"]).is_monotonic_increasing
    assert table.groupby("patient")["split"].nunique().eq(1).all()
    data = load(f"folder:{root}", size=32, cache=tmp_path / "cache")
    assert data.table["patient"].nunique() == 30
    assert not any("EVERY IMAGE" in problem for problem in data.problems)
    double = data.table["split"][data.read.all(1)].value_counts()
    assert double[["train", "val", "test"]].tolist() == [5, 5, 5], "dealt out, so that each split has some"
    assert "--write-cases" not in ask(root), "other splits would not help"
    assert "cases-proposed.csv" in ask(root, "--write-cases"), "what somebody has filled in is kept"
    assert "leave out --split and --limit" in ask(root, "--write-cases", "--limit", "3")
    with pytest.raises(UsageError, match="--write-cases: only folder:PATH"):
        described.write_cases(data, "toy")


def test_an_empty_split_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    root = of_patients(tmp_path / "set", 6)
    names = [file.stem for file in sorted((root / "images").iterdir())]
    (root / "cases.csv").write_text("case,patient,split\n" + "".join(f"{n},{n[:3]},train\n" for n in names))
    text = ask(root)
    assert "images        12 from 6 patients" in text
    assert "FileError: no image is in val and test (6 patients in all); uqseg data folder:PATH --write-cases" in text


def split_set(n: int, readers: int) -> list[AnnotatedSet]:
    data = discs(3 * n, readers=readers)
    table = data.table.assign(split=np.repeat(SPLITS, n), patient=data.table["case"])
    data = replace(data, table=table)
    return [data.take(slice(i * n, i * n + n)) for i in range(3)]


@pytest.mark.parametrize(("double", "silent"), [(25, True), (15, False), (0, False)])
def test_where_hardly_a_test_case_is_read_by_two_it_is_said(double: int, silent: bool) -> None:
    train, val, test = (replace(part, name="folder") for part in split_set(25, 2))
    read = np.ones((25, 2), bool)
    read[double:, 1] = False
    lines = described.remarks(train, val, replace(test, read=read))
    assert (not lines) is silent
    assert any("MEAN NOTHING here: 0 of 25 test cases" in line for line in lines) == (double == 0)
    if not silent:
        advice = "uqseg data" if double else "these data have too few"
        assert f"fewer than 20 cases read by two readers: test {double}; {advice}" in lines[-1]


def test_where_the_splits_are_those_proposed_no_others_are_advised() -> None:
    data = replace(discs(90, readers=2), name="folder")
    table = data.table.assign(patient=np.repeat(["a", "b", "c"], [5, 5, 80]))
    table["split"] = propose(replace(data, table=table), guess=False)["split"].tolist()
    parts = [data.take(np.flatnonzero(table["split"] == split)) for split in SPLITS]
    parts = [
        replace(p, table=table[table["split"] == s].reset_index(drop=True)) for p, s in zip(parts, SPLITS, strict=True)
    ]
    (line,) = described.remarks(*parts)
    assert line.endswith("; these patients have too few for other splits")


def test_one_reader_alone_and_a_reader_without_training_images_are_said() -> None:
    train, val, test = split_set(25, 1)
    assert described.remarks(train, val, test) == [
        "figures of ambiguity (GED, HM-IoU, ...) MEAN NOTHING here: 0 of 25 test cases were read by two readers"
    ]
    train, val, test = split_set(25, 3)
    read = np.ones((25, 3), bool)
    read[:, 2] = False
    assert described.remarks(replace(train, read=read), val, test) == ["reader slot 2 has read no training image"]


def test_a_run_stops_where_more_than_a_hundredth_of_the_readings_is_lost() -> None:
    data = replace(discs(4), problems=("duplicate image: a is b", "reading lost: c0, reader r1: cannot read x"))
    described.refuse_losses(data)
    described.refuse_losses(replace(data, readings=Readings(990, 10, 500)))
    lost = replace(data, readings=Readings(989, 11, 0))
    message = r"11 of 1,000 readings are lost .*\(reading lost: c0, reader r1: cannot read x; …\).* --allow-missing"
    with pytest.raises(FileError, match=message):
        described.refuse_losses(lost)
    described.refuse_losses(lost, allow_missing=True)
    assert (
        dict(described.summary(lost, overlaps(lost)))["readings"]
        == "989, 11 lost to files that cannot be used, 0 without a file"
    )
