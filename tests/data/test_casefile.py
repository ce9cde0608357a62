"""cases.csv in every form that people write, and the one that is proposed to them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import discs
from tests.data.pictures import block, noise, save
from uqseg.data import AnnotatedSet, load
from uqseg.data.casefile import propose, shared_beginnings
from uqseg.data.split import SPLITS, split_of
from uqseg.errors import FileError


def plain(root: Path, names: tuple[str, ...] = ("c0", "c1", "c2"), readers: int = 2) -> Path:
    for k, name in enumerate(names):
        save(root / f"images/{name}.png", noise(k))
        for r in range(readers):
            save(root / f"readers/r{r}/{name}.png", block(10 + r).astype(np.uint8) * 255)
    return root


def read(root: Path) -> AnnotatedSet:
    return load(f"folder:{root}", size=32, cache=root.parent / "cache")


@pytest.mark.parametrize(
    "text",
    [
        "case,patient,age\nc0,p,60\nc1,p,61\nc2,q,62\n",
        "\ufeffcase;patient;age\r\nc0;p;60\r\nc1;p;61\r\nc2;q;62\r\n",
        "Case\tPatient\tage\nc0\tp\t60\nc1\tp\t61\nc2\tq\t62",
        "case,patient,age\nc0.png,p,60\nc1.PNG,p,61\nc2.nii.gz,q,62",
        "\n case , patient , age \n\nc0, p, 60\n,,\nc1,p,61\n   \nc2,q,62\n\n",
        "case,patient,age,\nc0,p,60,\nc1,p,61,\nc2,q,62,",
        '"case","patient","age"\n"c0","p","60"\n"c1","p","61"\n"c2","q","62"',
        "patient,age,case\np,60,c0\np,61,c1\nq,62,c2",
    ],
    ids=[
        "plain",
        "semicolons and a mark",
        "tabs and capitals",
        "file names",
        "blanks",
        "commas at the end",
        "quotes",
        "order",
    ],
)
@pytest.mark.parametrize("name", ["cases.csv", "Cases.csv"])
def test_every_form_gives_the_same_table(tmp_path: Path, text: str, name: str) -> None:
    root = plain(tmp_path / "set")
    (root / name).write_text(text, encoding="utf-8", newline="")
    data = read(root)
    table = data.table.set_index("case")
    assert table["patient"].to_dict() == {"c0": "p", "c1": "p", "c2": "q"}
    assert table["age"].to_dict() == {"c0": 60, "c1": 61, "c2": 62}
    assert data.problems == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,patient,age\nc0,p,60\nc1,p,61,\nc2,q,62", "line 3: expected 3 cells, got 4; remove the ','"),
        ("case,patient\nc0,Smith, J.", "line 2: expected 2 cells, got 3"),
        ("case,case\nc0,c0", "expected a column case and each column once, got case, case"),
        ("Case,case\nc0,c0", "each column once"),
        ("case,,patient\nc0,x,p", "each column once"),
        ("", "expected a column case"),
        ("case\nc0\nc0.png", "several for c0"),
        ('case,note\nc0,"a\nc1,b\nc2,c', "cannot read .*unexpected end of data"),
        ("case,spacing_x\nc0,1\nc1,nan", "line 3: spacing_x: expected mm above 0 or nothing, got 'nan'"),
        ("case,spacing_x\nc0,inf", "line 2: spacing_x: .* got 'inf'"),
        ("case,spacing_x\nc0,1e-50", "line 2: spacing_x: .* got '1e-50'"),
        ("case,spacing_x\nc0,1e39", "line 2: spacing_x: .* got '1e39'"),
        ('case;spacing_x\nc0;"0,5"', "line 2: spacing_x: .* got '0,5'"),
        ("case,age\nc0,60\n\nc1,NaN", "line 4: age: expected a finite number or nothing, got 'NaN'"),
        ("case,age\nc0,-inf", "line 2: age: expected a finite number"),
        ("case,fit\nc0,0.5", "fit: is for what loading says of an image; give the column another name"),
        ("case,split\nc0,trial", "line 2: split: expected train, val, test or nothing, got trial"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    root = plain(tmp_path / "set")
    (root / "cases.csv").write_text(text)
    with pytest.raises(FileError, match=message):
        read(root)


def test_columns_of_any_name_are_kept(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    (root / "cases.csv").write_text("case,file,line,name,index,level_0\nc0,a,b,c,1,2\nc1,a,b,c,1,2\nc2,a,b,c,1,2")
    table = read(root).table
    assert table[["file", "line", "name", "index", "level_0"]].to_numpy().tolist() == [["a", "b", "c", 1, 2]] * 3


def test_words_are_categories_and_other_names_of_val(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    (root / "cases.csv").write_text("case,texture,split\nc0,solid,valid\nc1,ground glass,Validation\nc2,nan,test")
    table = read(root).table.set_index("case")
    assert table["texture"].to_dict() == {"c0": "solid", "c1": "ground glass", "c2": "nan"}
    assert table["split"].to_dict() == {"c0": "val", "c1": "val", "c2": "test"}
    (root / "CASES.csv").write_text("case")
    with pytest.raises(FileError, match=r"expected one cases\.csv, got CASES\.csv and cases\.csv"):
        read(root)


def test_a_line_may_stand_for_all_slices_of_a_file(tmp_path: Path) -> None:
    root = tmp_path / "set"
    save(root / "images/v.npy", noise(0, 2, 32, 32))
    save(root / "readers/x/v.npy", np.stack([block()] * 2))
    (root / "dataset.toml").write_text("slices = true")
    (root / "cases.csv").write_text("case,patient,spacing_x,spacing_y\nv.npy,p,0.5,0.7")
    data = read(root)
    assert data.table["patient"].tolist() == ["p", "p"]
    assert (data.spacing == np.float32([0.7, 0.5])).all()


def test_names_that_begin_alike_hint_at_patients() -> None:
    assert shared_beginnings(["P01_a", "P01-b", "P02_a"]) == {"P01": ["P01_a", "P01-b"], "P02": ["P02_a"]}
    assert shared_beginnings(["img_1", "img_2"]) == {}, "all begin alike: no hint at patients"
    assert shared_beginnings(["a1", "b2"]) == {}


def test_without_patients_it_is_said_and_proposed(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", ("P01_l", "P01_r", "P02-l", "P02-r", "P03_l", "P03_r"))
    data = read(root)
    assert data.problems[0].startswith("EVERY IMAGE COUNTS AS A PATIENT OF ITS OWN, though names begin alike (2 with")
    proposal = propose(data, guess=True)
    assert proposal["patient"].tolist() == [name[:3] for name in data.table["case"]]
    assert set(proposal.groupby("patient")["split"].first()) == set(SPLITS)
    (root / "cases.csv").write_text(proposal.to_csv(index=False))
    again = read(root)
    assert again.problems == ()
    assert again.table["patient"].nunique() == 3
    assert again.table["split"].nunique() == 3


def test_a_balanced_split_is_proposed_where_few_cases_are_read_by_two() -> None:
    data = discs(400, readers=2)
    patients = [f"p{i // 2}" for i in range(400)]
    table = pd.DataFrame({"patient": patients, "case": [f"c{i}" for i in range(400)]})
    table["split"] = table["patient"].map(split_of)
    assert (propose(replace(data, table=table), guess=False)["split"] == "").all(), "names decide where that is enough"
    read = np.ones((400, 2), bool)
    read[60:, 1] = False
    few = propose(replace(data, table=table, read=read), guess=False)
    assert few.groupby("patient")["split"].nunique().max() == 1
    counts = few["split"][:60].value_counts()
    assert counts["test"] == counts["val"] == counts["train"] == 20
    assert few["split"].value_counts(normalize=True)["train"] == pytest.approx(0.55, abs=0.05)
