"""`bench data`: what it says of a folder whose numbers are known, and its contact sheet."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from bench import data as described
from bench.cli import app
from uqseg.data import load


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
    lines = dict(described.summary(data))
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
    assert "1 × too large" in few
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
