"""A file that exists and cannot be used is not an absent one, in every source; names, links and systems' leftovers."""

import os
import pickle
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.data import test_lidc_crops, test_lidc_slices
from tests.data.pictures import block, noise, save
from tests.data.test_lidc_pickle import entries
from uqseg.data import AnnotatedSet, load
from uqseg.data.lidc.slots import slots_of
from uqseg.data.sources.lidc_dicom import folders_of
from uqseg.errors import FileError

DAMAGES: dict[str, Callable[[Path], object]] = {
    "link to nothing": lambda file: file.symlink_to("../.git/annex/objects/key"),
    "folder": lambda file: file.mkdir(),
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
    "text": lambda file: file.write_text("version https://git-lfs.github.com/spec/v1"),
}


def plain(root: Path, cases: int = 4, readers: int = 3) -> Path:
    for case in range(cases):
        save(root / f"images/c{case}.png", noise(case))
        for r in range(readers):
            save(root / f"readers/r{r}/c{case}.png", block(10 + r).astype(np.uint8) * 255)
    return root


def read(source: str, root: Path) -> AnnotatedSet:
    return load(f"{source}:{root}", size=32, cache=root.parent / "cache")


@pytest.mark.parametrize("damage", DAMAGES)
def test_in_a_folder(tmp_path: Path, damage: str) -> None:
    root = plain(tmp_path / "set")
    for name in ("readers/r1/c0.png", "images/c1.png", *(f"readers/r{r}/c2.png" for r in range(3))):
        (root / name).unlink()
        DAMAGES[damage](root / name)
    (root / "readers/r2/c3.png").unlink()
    data = read("folder", root)
    assert data.table["case"].tolist() in (["c0", "c3"], ["c3", "c0"])
    by_case = dict(zip(data.table["case"], data.read.tolist(), strict=True))
    assert by_case == {"c0": [True, False, True], "c3": [True, True, False]}
    assert data.readings == (4, 1 + 3 + 3, 1)
    text = "\n".join(data.problems)
    assert "reading lost: c0, reader r1: cannot read readers/r1/c0.png" in text
    assert "left out: cannot read images/c1.png" in text
    assert text.count("reading lost: c2") == 3
    assert "left out: images/c2.png: no reading is left" in text
    assert len(data.problems) == 6


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("source", ["lidc-slices", "lidc-crops"])
def test_in_a_tree_of_lidc(tmp_path: Path, damage: str, source: str) -> None:
    root = tmp_path / "tree"
    if source == "lidc-slices":
        test_lidc_slices.tree(root, patients=2)
        mask, image = "LIDC-IDRI-0000/nodule-0/mask-2/slice-1.png", "LIDC-IDRI-0001/nodule-0/images/slice-0.png"
        case, lesion = "LIDC-IDRI-0000/nodule-0/slice-1", "LIDC-IDRI-0000/nodule-0"
    else:
        test_lidc_crops.tree(root)
        mask, image = "val/gt/val-0/z-30.0_c0_l2.png", "test/images/test-0/z-30.0_c0.png"
        case, lesion = "val/val-0/z-30.0_c0", "val-0/c0"
    before = read(source, root)
    for name in (mask, image):
        (root / name).unlink()
        DAMAGES[damage](root / name)
    data = read(source, root)
    assert len(data) == len(before) - 1
    assert data.readings == (4 * len(data) - 1, 1 + 4, 0)
    row = data.table["case"].tolist().index(case)
    assert data.read[row].tolist() == (slots_of(lesion) != 2).tolist()
    assert sum(p.startswith(f"reading lost: {case}, slot 2: cannot read {mask}") for p in data.problems) == 1
    assert sum(p.startswith(f"left out: cannot read {image}") for p in data.problems) == 1
    assert len(data.problems) == 2


def test_in_a_pickle(tmp_path: Path) -> None:
    held = entries(["1.2.3"], slices=4)
    names = list(held)
    held[names[0]]["masks"][1] = {"a": 1}
    held[names[1]]["image"] = np.array(["x"])
    held[names[2]]["masks"] = 7
    held[7] = held.pop(names[3])
    held[7]["masks"][2] = np.full((128, 128), np.nan)
    (tmp_path / "data.pickle").write_bytes(pickle.dumps(held))
    data = load(f"lidc-pickle:{tmp_path / 'data.pickle'}", size=32, cache=tmp_path / "cache")
    assert sorted(data.table["case"]) == sorted([names[0], "7"])
    assert data.readings == (6, 2 + 8, 0)
    assert data.read.sum(1).tolist() == [3, 3]
    assert sum(p.startswith("reading lost: ") for p in data.problems) == 2


def test_a_reader_whose_folder_cannot_be_read_has_lost_every_reading(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    before = read("folder", root).readings
    (root / "readers/r9").symlink_to("nowhere")
    data = read("folder", root)
    assert data.reader_names == ("r0", "r1", "r2", "r9")
    assert before == (12, 0, 0)
    assert data.readings == (12, 4, 0)
    assert not data.read[:, 3].any()
    expected = "reading lost: c0, reader r9: cannot read readers/r9: is a link to nothing"
    assert expected in data.problems
    assert len(data.problems) == 4
    shutil.move(root / "images", tmp_path / "elsewhere")
    (root / "images").symlink_to("nowhere")
    with pytest.raises(FileError, match=r"cannot read .*/images: No such file"):
        read("folder", root)


@pytest.mark.parametrize("lost", ["mask-3", "images", "", ".."])
def test_a_folder_of_lidc_slices_that_cannot_be_read(tmp_path: Path, lost: str) -> None:
    tree = test_lidc_slices.tree(tmp_path / "tree", patients=2)
    before = read("lidc-slices", tree)
    nodule = tree / "LIDC-IDRI-0000/nodule-0"
    folder = Path(os.path.normpath(nodule / lost))
    slices = len(list((nodule / "images").iterdir()))
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")
    data = read("lidc-slices", tree)
    assert before.readings is not None
    kept = before.readings.kept
    if lost == "mask-3":
        assert data.readings == (kept - slices, slices, 0)
        assert sum(p.startswith("reading lost: LIDC-IDRI-0000/nodule-0/slice-") for p in data.problems) == slices
        assert any("cannot read LIDC-IDRI-0000/nodule-0/mask-3: is a link to nothing" in p for p in data.problems)
    else:
        assert data.readings == (kept - 4 * (len(before) - len(data)), 4, 0)
        assert f"left out: cannot read {folder.relative_to(tree)}: No such file or directory" in data.problems


@pytest.mark.parametrize("lost", ["gt/test-0", "gt", "images/test-0"])
def test_a_folder_of_lidc_crops_that_cannot_be_read(tmp_path: Path, lost: str) -> None:
    tree = test_lidc_crops.tree(tmp_path / "tree")
    before = read("lidc-crops", tree)
    crops = int(
        (before.table["split" if lost == "gt" else "patient"] == lost.replace("gt", "test").split("/")[-1]).sum()
    )
    shutil.rmtree(tree / "test" / lost)
    (tree / "test" / lost).symlink_to("nowhere")
    data = read("lidc-crops", tree)
    assert data.readings is not None
    assert (data.readings.lost, data.readings.absent) == (4 * crops, 0)
    assert "test-0" not in set(data.table["patient"])
    assert any(f"cannot read test/{lost}: " in problem for problem in data.problems)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    (root / "readers/r1/c0.png").chmod(0)
    assert read("folder", root).readings == (11, 1, 0)


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    moved = tmp_path / "elsewhere"
    shutil.move(root / "readers/r1", moved)
    (root / "readers/r1").symlink_to(moved)
    (root / "images").rename(tmp_path / "pictures")
    (root / "images").symlink_to(tmp_path / "pictures")
    assert read("folder", root).readings == (12, 0, 0)
    scans = tmp_path / "scans"
    (scans / "a/series").mkdir(parents=True)
    (scans / "a/series/1.dcm").write_bytes(b"x")
    (scans / "a/series/._1.dcm").write_bytes(b"x")
    (scans / "a/up").symlink_to(scans)
    (scans / "a/gone").symlink_to("nowhere")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/2.dcm").symlink_to("nowhere")
    (scans / "linked").symlink_to(tmp_path / "other")
    folders = folders_of(scans)
    assert {name: [stamp.name for stamp in stamps] for name, stamps in folders.items()} == {
        "a/gone": [""],
        "a/series": ["1.dcm"],
        "linked": ["2.dcm"],
    }


def test_accents_are_the_same_however_they_are_stored(tmp_path: Path) -> None:
    root = tmp_path / "set"
    one, two = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    save(root / f"images/{two}.png", noise(0))
    save(root / f"readers/{two}/{one}.png", block().astype(np.uint8))
    (root / "cases.csv").write_text(f"case,patient\n{one},{two}", encoding="utf-8")
    data = read("folder", root)
    assert data.table[["case", "patient"]].to_numpy().tolist() == [[one, one]]
    assert data.reader_names == (one,)
    assert data.problems == ()


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", cases=2)
    name = os.fsdecode(b"caf\xe9")
    save(root / f"images/{name}.png", noise(9))
    save(root / f"readers/r0/{name}.png", block().astype(np.uint8))
    (root / f"readers/r1/{name}.png").write_bytes(b"x")
    (root / f"images/{name}.txt").write_bytes(b"x")
    data = read("folder", root)
    assert "caf\\udce9" in data.table["case"].tolist()
    assert len(data.problems) == 2
    assert all(problem.encode() and "caf\\udce9" in problem for problem in data.problems)


def test_what_systems_leave_behind_is_passed_over_everywhere(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    tree = test_lidc_slices.tree(tmp_path / "tree", patients=1)
    crops = test_lidc_crops.tree(tmp_path / "crops")
    nodule = tree / "LIDC-IDRI-0000/nodule-0"
    sources = {"folder": root, "lidc-slices": tree, "lidc-crops": crops}
    before = {source: read(source, path).key for source, path in sources.items()}
    for folder in (root, root / "images", root / "readers", root / "readers/r0", nodule / "images", nodule, tree):
        for name in ("._c0.png", "._slice-0.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
            (folder / name).write_bytes(b"x")
        for name in ("@eaDir", "__MACOSX"):
            (folder / name).mkdir()
            (folder / name / "c0.png").write_bytes(b"x")
    (crops / "train/images/train-0/._z-30.0_c0.png").write_bytes(b"x")
    (crops / "__MACOSX/images/train-0").mkdir(parents=True)
    for source, path in sources.items():
        data = read(source, path)
        assert (data.key, data.problems) == (before[source], ())


def test_capitals_a_fifth_reader_and_valid(tmp_path: Path) -> None:
    tree = test_lidc_slices.tree(tmp_path / "tree", patients=2)
    crops = test_lidc_crops.tree(tmp_path / "crops")
    keys = [read("lidc-slices", tree).key, read("lidc-crops", crops).key]
    for root in (tree, crops):
        for file in list(root.rglob("*.png")):
            file.rename(file.with_suffix(".PNG"))
    (crops / "val").rename(crops / "valid")
    assert [read("lidc-slices", tree).key, read("lidc-crops", crops).key] == keys
    nodule = tree / "LIDC-IDRI-0000/nodule-0"
    shutil.copytree(nodule / "mask-0", nodule / "mask-4")
    data = read("lidc-slices", tree)
    assert data.masks.shape[1] == 5
    assert data.read.sum(1).tolist() in ([5, 5, 5, 4, 4, 4], [4, 4, 4, 5, 5, 5])
    assert data.problems == ()
    shutil.copy(nodule / "images/slice-0.PNG", nodule / "images/slice-0.png")
    assert sum("several files for one picture" in p for p in read("lidc-slices", tree).problems) == 1
