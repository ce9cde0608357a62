"""lidc-slices on a small tree that the tests write, and on the real one where UQSEG_LIDC_SLICES names it."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uqseg.data import load, sources
from uqseg.data.lidc.slots import slots_of
from uqseg.data.sources import lidc_slices
from uqseg.data.split import evenly, split_of
from uqseg.errors import FileError, UsageError


def tree(root: Path, patients: int = 10) -> Path:
    rng = np.random.default_rng(0)
    for p in range(patients):
        for k in range(3):
            for r in range(4):
                mask = np.zeros((128, 128), np.uint8)
                mask[60 : 64 + r, 50:70] = 255 * (r <= k)
                file = root / f"LIDC-IDRI-{p:04d}/nodule-0/mask-{r}/slice-{k}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(file)
            file = root / f"LIDC-IDRI-{p:04d}/nodule-0/images/slice-{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (128, 128), dtype=np.uint8)).save(file)
    return root


def test_the_tree_is_read_checked_and_kept(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    nodule = root / "LIDC-IDRI-0003/nodule-0"
    shutil.copy(nodule / "images/slice-0.png", nodule / "images/slice-1.png")
    (nodule / "images/slice-2.png").unlink()
    cache = tmp_path / "cache"
    data = load(f"lidc-slices:{root}", size=64, cache=cache)
    assert data.images.shape == (29, 1, 64, 64)
    assert data.masks.shape == (29, 4, 64, 64)
    assert data.read.all()
    assert not data.simulated
    assert sum("mask without an image" in p for p in data.problems) == 4
    assert sum("duplicate image" in p for p in data.problems) == 1
    row = data.table.query("case == 'LIDC-IDRI-0000/nodule-0/slice-0'").index[0]
    with Image.open(root / "LIDC-IDRI-0000/nodule-0/images/slice-0.png") as image:
        assert np.array_equal(data.images[row, 0], np.asarray(image)[32:96, 32:96])
    marked = data.masks[row].any((1, 2))
    assert marked.tolist() == [slot == 0 for slot in slots_of("LIDC-IDRI-0000/nodule-0")]
    again = load(f"lidc-slices:{root}", size=64, cache=cache)
    assert again.key == data.key
    assert isinstance(again.images, np.memmap)
    assert np.array_equal(again.masks, data.masks)


def test_splits_share_no_patient_and_add_up(tmp_path: Path) -> None:
    root, cache = tree(tmp_path / "tree", patients=20), tmp_path / "cache"
    whole = load(f"lidc-slices:{root}", size=128, cache=cache)
    parts = [load(f"lidc-slices:{root}", split=s, size=128, cache=cache) for s in ("train", "val", "test")]
    patients = [set(p.table["patient"]) for p in parts]
    assert sum(map(len, parts)) == len(whole)
    assert len(set.union(*patients)) == sum(map(len, patients)) == 20
    few = load(f"lidc-slices:{root}", split="train", size=128, limit=len(patients[0]), cache=cache)
    assert set(few.table["patient"]) == patients[0]
    assert few.key != parts[0].key


def test_bad_slices_are_listed_and_left_out(tmp_path: Path) -> None:
    root, cache = tree(tmp_path / "tree", patients=4), tmp_path / "cache"
    nodules = [root / f"LIDC-IDRI-000{p}/nodule-0" for p in range(4)]
    cut = nodules[1] / "images/slice-1.png"
    cut.write_bytes(cut.read_bytes()[:100])
    Image.fromarray(np.zeros((128, 127), np.uint8)).save(nodules[0] / "mask-2/slice-0.png")
    Image.fromarray(np.full((128, 128), 7, np.uint8)).save(nodules[2] / "mask-3/slice-2.png")
    (nodules[3] / "mask-1/slice-0.png").unlink()
    data = load(f"lidc-slices:{root}", size=128, cache=cache)
    assert len(data) == 11
    assert data.readings == (41, 2 + 4, 1)
    assert data.images.shape == (11, 1, 128, 128)
    assert len(data.problems) == 4
    for problem in (
        "0001/nodule-0/images/slice-1.png",
        "0000/nodule-0/mask-2/slice-0.png: expected grey 8 bit 128×128",
    ):
        assert sum(problem in p for p in data.problems) == 1
    assert sum("0002/nodule-0/mask-3/slice-2.png: mask not binary" in p for p in data.problems) == 1
    assert sum("reader taken as absent: LIDC-IDRI-0003/nodule-0/slice-0, slot 1" in p for p in data.problems) == 1
    assert not any(str(root) in p for p in data.problems)
    assert data.read.sum() == 41
    for row, case in enumerate(data.table["case"]):
        with Image.open(root / f"{case.replace('/slice', '/images/slice')}.png") as image:
            assert np.array_equal(data.images[row, 0], np.asarray(image)), "rows and table stay together"


def test_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "tree", patients=6)
    cut = root / "LIDC-IDRI-0003/nodule-0/images/slice-1.png"
    cut.write_bytes(cut.read_bytes()[:100])
    one = load(f"lidc-slices:{root}", size=128, cache=tmp_path / "one")
    monkeypatch.setattr(lidc_slices, "FEW", 2)
    many = load(f"lidc-slices:{root}", size=128, cache=tmp_path / "many")
    assert len(many) == 17
    assert (many.key, many.problems) == (one.key, one.problems)
    assert many.table.equals(one.table)
    for name in ("images", "masks", "read"):
        assert np.array_equal(getattr(many, name), getattr(one, name))


def test_nothing_usable_is_named_and_a_broken_cache_is_built_anew(tmp_path: Path) -> None:
    root, cache = tree(tmp_path / "tree", patients=1), tmp_path / "cache"
    images = sorted(root.glob("*/*/images/*.png"))
    whole = images[0].read_bytes()
    for file in images:
        file.write_bytes(b"no picture")
    with pytest.raises(FileError, match=r"no usable image(.|\n)*images/slice-1\.png"):
        load(f"lidc-slices:{root}", size=128, cache=cache)
    assert not list(cache.iterdir()), "nothing is left behind"
    images[0].write_bytes(whole)
    masks = np.array(load(f"lidc-slices:{root}", size=128, cache=cache).masks)
    (folder,) = cache.iterdir()
    (folder / "masks.npy").write_bytes(b"short")
    assert np.array_equal(load(f"lidc-slices:{root}", size=128, cache=cache).masks, masks)


def test_bad_requests_say_what_exists(tmp_path: Path) -> None:
    assert "lidc-slices:PATH" in sources()
    (tmp_path / "empty").mkdir()
    for request, message in {
        "lidc-slice:x": "Did you mean 'lidc-slices",
        "lidc-slices": "needs a path",
        "lidc-slices:/no/such/folder": "there is no file or folder",
        f"lidc-slices:{tmp_path / 'empty'}": "give the tree's root",
    }.items():
        with pytest.raises(UsageError, match=message):
            load(request)
    with pytest.raises(UsageError, match="size"):
        load(f"lidc-slices:{tree(tmp_path / 'tree', 1)}", size=256)
    with pytest.raises(UsageError, match="unknown split 'tset'"):
        load("lidc-slices:x", split="tset")


def test_patients_are_split_and_drawn_by_name_alone() -> None:
    patients = [f"p{i}" for i in range(3000)]
    shares = {s: sum(split_of(p) == s for p in patients) / 3000 for s in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.03)
    rows = [p for p in patients[:50] for _ in range(4)]
    few, more = (set(evenly(rows, k, 0).tolist()) for k in (50, 80))
    assert {rows[i] for i in few} == set(rows)
    assert few < more
    assert few != set(evenly(rows, 50, 1).tolist())


@pytest.mark.skipif("UQSEG_LIDC_SLICES" not in os.environ, reason="UQSEG_LIDC_SLICES does not name the real slices")
def test_the_real_slices_hold_what_is_known_of_them(tmp_path: Path) -> None:
    name = f"lidc-slices:{os.environ['UQSEG_LIDC_SLICES']}"
    started = time.perf_counter()
    data = load(name, cache=tmp_path)
    assert time.perf_counter() - started < 60
    marked = data.masks.any((2, 3)).sum(1)
    assert (len(data), data.table.patient.nunique(), data.table.nodule.nunique()) == (15548, 875, 2630)
    assert np.bincount(marked).tolist() == [62, 4905, 3012, 2827, 4742]
    assert sum("duplicate" in p for p in data.problems) == 4
    # Another process opens what was built: the best of three times on the processor, which other work disturbs least.
    ask = (
        "import sys, time; from uqseg.data import load; started = time.process_time(); "
        "load(sys.argv[1], split='test', cache=sys.argv[2]); print(time.process_time() - started)"
    )
    command = [sys.executable, "-c", ask, name, str(tmp_path)]
    assert min(float(subprocess.check_output(command)) for _ in range(3)) < 1
