"""lidc-crops on a small tree that the tests write."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uqseg.data import load
from uqseg.data.lidc.slots import slots_of
from uqseg.errors import FileError, UsageError


def picture(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)


def tree(root: Path, first: int = 0) -> Path:
    """Two patients a split, two slices each; reader slot r marks r + 1 rows of 10 pixels at the centre."""
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for p in range(2):
            for z in (-120.5, 30.0):
                name = f"{split}-{p}/z-{z}_c0"
                picture(root / f"{split}/images/{name}.png", rng.integers(0, 256, (180, 180), dtype=np.uint8))
                for r in range(4):
                    mask = np.zeros((180, 180), np.uint8)
                    mask[90 : 91 + r, 85:95] = 255
                    picture(root / f"{split}/gt/{name}_l{r + first}.png", mask)
    return root


@pytest.mark.parametrize("first", [0, 1])
def test_published_splits_and_slots_are_kept(tmp_path: Path, first: int) -> None:
    root = tree(tmp_path / "tree", first)
    data = load(f"lidc-crops:{root}", size=128, cache=tmp_path / "cache")
    assert data.images.shape == (12, 1, 128, 128)
    assert data.table["split"].tolist() == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    assert (data.table["patient"].str.split("-").str[0] == data.table["split"]).all()
    assert data.table["z"].tolist() == [-120.5, 30.0] * 6
    assert (data.spacing == 0.5).all()
    assert data.read.all()
    assert not data.problems
    for row, patient in enumerate(data.table["patient"]):
        assert (data.masks[row].sum((1, 2)) == 10 * (slots_of(f"{patient}/c0") + 1)).all()
    with Image.open(root / "val/images/val-1/z-30.0_c0.png") as image:
        assert np.array_equal(data.images[7, 0], np.asarray(image)[26:154, 26:154])
    assert len(load(f"lidc-crops:{root}", split="val", size=180, cache=tmp_path / "cache")) == 4


def test_traps_are_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    (root / "val/images/val-0/z-30.0_c0.png").unlink()
    (root / "val/gt/val-1/z-30.0_c0_l3.png").unlink()
    (root / "train/gt/train-0/z-30.0_c0_l1.png").write_bytes(b"")
    picture(root / "train/images/train-1/z-30.0_c0.png", np.zeros((128, 128), np.uint8))
    picture(root / "test/gt/test-0/z-30.0_c0_l2.png", np.arange(180 * 180, dtype=np.uint8).reshape(180, 180))
    picture(root / "test/images/test-1/slice7.png", np.zeros((180, 180), np.uint8))
    shutil.copy(root / "test/images/test-1/z-30.0_c0.png", root / "test/images/test-1/z--120.5_c0.png")
    shutil.copy(root / "test/images/test-1/z-30.0_c0.png", root / "test/images/test-1/z-31.5_c0.png")
    data = load(f"lidc-crops:{root}", size=128, cache=tmp_path / "cache")
    assert len(data) == 10
    assert data.readings == (37, 2 + 4, 1)
    for text, count in {
        "mask without an image: val/gt/val-0/z-30.0_c0_l": 4,
        "reader taken as absent: val/val-1/z-30.0_c0, slot 3": 1,
        "cannot read train/gt/train-0/z-30.0_c0_l1.png": 1,
        "train/images/train-1/z-30.0_c0.png: expected grey 8 bit 180×180": 1,
        "test/gt/test-0/z-30.0_c0_l2.png: mask not binary": 1,
        "not understood, left out: test/images/test-1/slice7.png": 1,
        "duplicate image: test/test-1/z-30.0_c0 is test/test-1/z--120.5_c0": 1,
        "test/images/test-1/z-31.5_c0.png: no reader's mask": 1,
    }.items():
        assert sum(text in p for p in data.problems) == count, text
    assert len(data.problems) == 11


def test_leakage_and_mixed_releases_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    with pytest.raises(UsageError, match="an even size up to 180"):
        load(f"lidc-crops:{root}", size=181)
    for kind in ("images", "gt"):
        shutil.copytree(root / f"train/{kind}/train-0", root / f"test/{kind}/train-0")
    with pytest.raises(FileError, match=r"train-0 \(test/train-0/z-.* in test, train/train-0/z-.* in train"):
        load(f"lidc-crops:{root}", size=128, cache=tmp_path / "cache")
    shutil.rmtree(root / "test/images/train-0")
    picture(root / "val/gt/val-0/z-30.0_c0_l4.png", np.zeros((180, 180), np.uint8))
    with pytest.raises(FileError, match="both _l0 and _l4"):
        load(f"lidc-crops:{root}", size=128, cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="give the tree's root"):
        load(f"lidc-crops:{tmp_path / 'tree/train'}", size=128, cache=tmp_path / "cache")
