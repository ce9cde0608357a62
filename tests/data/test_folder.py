"""folder: small folders of every format, with every trap, written by the tests."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import block, noise, save
from uqseg.data import AnnotatedSet, load
from uqseg.data.images import shrunk
from uqseg.data.split import split_of
from uqseg.errors import FileError, UsageError


def plain(root: Path, cases: int = 3, readers: int = 2) -> Path:
    for case in range(cases):
        save(root / f"images/c{case}.png", noise(case))
        for r in range(readers):
            save(root / f"readers/r{r}/c{case}.png", block(10 + r % 8).astype(np.uint8) * 255)
    return root


def read(root: Path, size: int = 32) -> AnnotatedSet:
    return load(f"folder:{root}", size=size, cache=root.parent / "cache")


def said(data: AnnotatedSet, text: str) -> int:
    return sum(text in problem for problem in data.problems)


@pytest.mark.parametrize("extension", ["png", "tif", "bmp", "pgm", "npy", "nii.gz", "PNG"])
def test_every_format_gives_the_same_pixels(tmp_path: Path, extension: str) -> None:
    save(tmp_path / f"set/images/a.{extension}", noise(0))
    save(tmp_path / f"set/readers/x/a.{extension}", block().astype(np.uint8))
    data = read(tmp_path / "set")
    assert np.array_equal(data.images[0, 0], noise(0))
    assert np.array_equal(data.masks[0, 0], block())
    assert data.problems == ()
    assert data.table.loc[0, ["patient", "case", "split"]].tolist() == ["a", "a", split_of("a")]
    expected = [0.9, 0.7] if extension == "nii.gz" else [np.nan, np.nan]
    np.testing.assert_allclose(data.spacing[0], expected, rtol=1e-6)


@pytest.mark.parametrize("readers", [1, 2, 5, 10])
def test_absent_readers_and_empty_masks_differ(tmp_path: Path, readers: int) -> None:
    root = plain(tmp_path / "set", readers=readers)
    save(root / "readers/r0/c0.png", np.zeros((32, 32), np.uint8))
    if readers > 1:
        (root / "readers/r1/c1.png").unlink()
    (root / "readers/nobody").mkdir()
    data = read(root)
    assert data.masks.shape == (3, readers, 32, 32)
    rows = dict(zip(data.table["case"], range(3), strict=True))
    assert data.read[rows["c0"]].all()
    assert not data.masks[rows["c0"], 0].any()
    assert data.read.sum() == 3 * readers - (readers > 1)
    if readers > 1:
        assert not data.read[rows["c1"], 1]
        assert not data.masks[rows["c1"], 1].any()
    assert data.problems == ("no file in readers/nobody",)


@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("invert", [False, True])
def test_masks_of_any_sign_and_range(tmp_path: Path, top: int, invert: bool) -> None:
    root = tmp_path / "set"
    save(root / "images/a.png", noise(0))
    save(root / "readers/x/a.png", (block() ^ invert).astype(np.uint8) * top)
    forgotten = read(root, 40)
    assert said(forgotten, "set invert in dataset.toml") == invert
    if invert:
        (root / "dataset.toml").write_text("invert = true\n")
    data = read(root, 40)
    assert (data.key == forgotten.key) is not invert
    assert np.array_equal(data.masks[0, 0, 4:36, 4:36], block())
    assert data.masks.sum() == block().sum(), "what is padded is never marked"


def test_colours_are_kept_and_mixed_kinds_listed(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    for case in (0, 1):
        save(root / f"images/c{case}.png", noise(case, 32, 32, 3))
    save(root / "readers/r0/c0.png", np.repeat(block()[..., None].astype(np.uint8) * 255, 3, 2))
    data = read(root)
    assert data.images.shape == (2, 3, 32, 32)
    row = data.table["case"].tolist().index("c0")
    assert np.array_equal(data.images[row], noise(0, 32, 32, 3).transpose(2, 0, 1))
    assert np.array_equal(data.masks[row, 0], block())
    assert data.problems == ("left out: images/c2.png: 1 channels where 2 images have 3",)


def test_palettes_and_transparency(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", cases=0)
    indexed = Image.fromarray(noise(0) % 4).convert("P")
    indexed.putpalette([9, 8, 7, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    (root / "images").mkdir(parents=True)
    indexed.save(root / "images/a.png")
    opaque = np.dstack([noise(1, 32, 32, 3), np.full((32, 32), 255, np.uint8)])
    save(root / "images/b.png", opaque)
    save(root / "images/c.png", noise(2, 32, 32, 4))
    for case in "abc":
        mask = Image.fromarray(block().astype(np.uint8)).convert("P")
        mask.putpalette([0, 0, 0, 255, 0, 0])
        (root / "readers/x").mkdir(parents=True, exist_ok=True)
        mask.save(root / f"readers/x/{case}.png")
    data = read(root)
    assert data.images.shape == (2, 3, 32, 32)
    assert set(np.unique(data.images[data.table["case"] == "a"])) <= {0, 7, 8, 9, 200}
    assert np.array_equal(data.images[(data.table["case"] == "b").to_numpy()][0], opaque[..., :3].transpose(2, 0, 1))
    assert (data.masks == block()).all()
    assert said(data, "images/c.png: is transparent") == len(data.problems) == 1


def test_sizes_are_cropped_or_padded_and_only_stretched_when_asked(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for case, (height, width) in {"wide": (20, 80), "small": (11, 15)}.items():
        save(root / f"images/{case}.png", np.full((height, width), 200, np.uint8))
        mask = np.zeros((height, width), np.uint8)
        mask[4:8, 2:6] = 255
        save(root / f"readers/x/{case}.png", mask)
    (root / "cases.csv").write_text("case,spacing_x,spacing_y\nwide,0.5,2\n")
    data = read(root)
    small, wide = (data.table["case"].tolist().index(c) for c in ("small", "wide"))
    assert data.images[small].sum() == 200 * 11 * 15
    assert data.images[wide].sum() == 200 * 20 * 32
    assert data.masks.sum((1, 2, 3))[[small, wide]].tolist() == [16, 0]
    assert said(data, "1 cases (wide, …): marked pixels lie outside the centre 32×32") == 1
    assert said(data, "1 masks (wide by x, …): marked something, and nothing in the centre 32×32") == 1
    assert len(data.problems) == 2
    assert data.spacing[wide].tolist() == [2.0, 0.5]
    assert np.isnan(data.spacing[small]).all()
    (root / "dataset.toml").write_text('fit = "resize"\n')
    data = read(root)
    assert (data.images == 200).all()
    assert data.masks.any((1, 2, 3)).all()
    assert data.spacing[wide].tolist() == [2.0 * 20 / 32, 0.5 * 80 / 32]


def test_deep_images_are_scaled_by_a_stated_rule(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", cases=4)
    save(root / "images/c0.tif", np.linspace(1000, 3000, 1024).reshape(32, 32).astype(np.uint16))
    save(root / "images/c1.npy", np.linspace(-1, 1, 1024, dtype=np.float32).reshape(32, 32))
    save(root / "images/c2.npy", np.full((32, 32), np.nan))
    for case in range(3):
        (root / f"images/c{case}.png").unlink()
    data = read(root)
    rows = [data.table["case"].tolist().index(c) for c in ("c0", "c1", "c3")]
    assert (data.images[rows[:2]].min((1, 2, 3)) == 0).all()
    assert (data.images[rows[:2]].max((1, 2, 3)) == 255).all()
    assert np.array_equal(data.images[rows[2], 0], noise(3)), "8 bits stay as they are"
    assert said(data, "2 cases (c0, …): more than 8 bits, each scaled from its own minimum to its own maximum") == 1
    assert said(data, "images/c2.npy: expected finite numbers") == 1
    (root / "dataset.toml").write_text("window = [0, 2000]\n")
    data = read(root)
    assert data.images[rows[0]].min() in (127, 128)
    assert data.images[rows[0]].max() == 255
    assert not said(data, "more than 8 bits")


def test_every_trap_is_listed_by_path_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", cases=12)
    save(root / "images/c0.bmp", noise(0))
    save(root / "readers/r0/c1.tif", block().astype(np.uint8))
    (root / "images/c2.png").unlink()
    save(root / "readers/r1/c3.png", np.zeros((32, 31), np.uint8))
    save(root / "readers/r1/c4.png", noise(4))
    (root / "images/c5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "readers/r0/c6.png").write_bytes((root / "readers/r0/c6.png").read_bytes()[:60])
    shutil.copy(root / "images/c7.png", root / "images/c8.png")
    for r in range(2):
        (root / f"readers/r{r}/c9.png").unlink()
    (root / "images/notes.txt").write_text("x")
    (root / "images/.DS_Store").write_text("x")
    np.save(root / "images/c10.npy", np.array([{}], dtype=object), allow_pickle=True)
    (root / "images/c10.png").unlink()
    save(root / "readers/r0/c11.png", noise(5, 32, 32, 3))
    data = read(root)
    assert sorted(data.table["case"]) == ["c1", "c11", "c3", "c4", "c6", "c7", "c8"]
    by_case = dict(zip(data.table["case"], data.read.tolist(), strict=True))
    assert by_case["c7"] == by_case["c8"] == [True, True]
    assert by_case["c1"] == by_case["c6"] == by_case["c11"] == [False, True]
    assert by_case["c3"] == by_case["c4"] == [True, False]
    # Lost with images: c0, c5 and c10 two each; c9 has no reading to lose, c2 no image.
    assert data.readings == (9, 5 + 6, 0)
    for text, count in {
        "several files for one case, images/c0.bmp and images/c0.png": 1,
        "several files for one case, readers/r0/c1.png and readers/r0/c1.tif": 1,
        "mask without an image: readers/r0/c2.png": 1,
        "mask without an image: readers/r1/c2.png": 1,
        "reading lost: c3, reader r1: readers/r1/c3.png: expected 32×32 like its image, got 32×31": 1,
        "readers/r1/c4.png: mask not binary": 1,
        "cannot read images/c5.png": 1,
        "cannot read readers/r0/c6.png": 1,
        "duplicate image: c8 is c7": 1,
        "no reader has read images/c9.png": 1,
        "not an image by its name, left out: images/notes.txt": 1,
        "cannot read images/c10.npy": 1,
        "readers/r0/c11.png: expected a mask of one channel": 1,
    }.items():
        assert said(data, text) == count, (text, data.problems)
    assert len(data.problems) == 13
    assert not said(data, str(root))


def test_soft_masks_need_a_threshold(tmp_path: Path) -> None:
    root = tmp_path / "set"
    save(root / "images/a.jpg", noise(0))
    save(root / "readers/x/a.jpg", block().astype(np.uint8) * 255, quality=60)
    with pytest.raises(FileError, match=r"no usable image(.|\n)*readers/x/a.jpg: mask not binary"):
        read(root)
    (root / "dataset.toml").write_text("mask_threshold = 128\n")
    assert np.array_equal(read(root).masks[0, 0], block())


def test_cases_csv_adds_what_it_knows(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", cases=5)
    lines = ["case, patient, split, age, note", "c0,p,val,60,x", "c1,p,,61,", "c2,q,,,y", "c3,,,5,z", "c9,q,,1,w"]
    (root / "cases.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    data = read(root)
    table = data.table.set_index("case")
    assert table["split"].to_dict() == {"c0": "val", "c1": "val", "c2": split_of("q")}
    assert table["patient"].to_dict() == {"c0": "p", "c1": "p", "c2": "q"}
    assert table["age"].dropna().to_dict() == {"c0": 60.0, "c1": 61.0}
    assert table.loc["c0", "note"] == "x"
    assert said(data, "cases.csv: case 'c9' has no usable image") == 1
    assert said(data, "has no patient in cases.csv") == 2
    for row, case in enumerate(data.table["case"]):
        assert np.array_equal(data.images[row, 0], noise(int(case[1:])))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    {
        "leak": ("cases.csv", "case,patient,split\nc0,p,train\nc1,p,test", r"p \(c0 in train, c1 in test\)"),
        "column": ("cases.csv", "name,patient\nc0,p", "expected a column case"),
        "twice": ("cases.csv", "case,patient\nc0,p\nc0,q", "one line for each case, got several for c0"),
        "split": ("cases.csv", "case,split\nc0,training", "expected train, val, test or nothing, got training"),
        "spacing": ("cases.csv", "case,spacing_x\nc0,-1", "spacing_x: expected mm above 0"),
        "word": ("cases.csv", "case,spacing_y\nc0,one", "line 2: spacing_y: expected mm above 0 or nothing, got 'one'"),
        "ragged": ("cases.csv", "case\nc0\nc1,a,b,c", "cases.csv: line 3: expected 1 cells, got 4"),
        "key": ("dataset.toml", "inverted = true", "inverted: Extra inputs .* Allowed: invert"),
        "value": ("dataset.toml", 'fit = "squeeze"', "fit: Input should be 'crop' or 'resize'"),
        "window": ("dataset.toml", "window = [5, 5]", "window: expected two ascending numbers"),
        "toml": ("dataset.toml", "invert = ", "cannot read .*dataset.toml"),
    }.values(),
)
def test_wrong_descriptions_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    root = plain(tmp_path / "set")
    (root / name).write_text(text)
    with pytest.raises(FileError, match=message):
        read(root)


def test_an_empty_folder_says_what_belongs_there(tmp_path: Path) -> None:
    (tmp_path / "set/images").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"readers/<reader>/<case>"):
        read(tmp_path / "set")


def test_a_mask_that_is_lost_is_lost_for_all_slices(tmp_path: Path) -> None:
    root = tmp_path / "set"
    save(root / "images/v.npy", noise(0, 5, 32, 32))
    save(root / "readers/x/v.npy", np.stack([block()] * 5))
    save(root / "readers/y/v.npy", np.stack([block()] * 4))
    (root / "dataset.toml").write_text("slices = true")
    data = read(root)
    assert data.readings == (5, 5, 0)
    assert data.problems == (
        "reading lost: v, reader y: readers/y/v.npy: expected 5×32×32 like its image, got 4×32×32",
    )


def test_pictures_three_pixels_wide_are_no_colours(tmp_path: Path) -> None:
    mask = np.eye(32, 3, dtype=np.uint8)
    save(tmp_path / "set/images/a.png", noise(0, 32, 3))
    save(tmp_path / "set/readers/x/a.png", mask)
    assert np.array_equal(read(tmp_path / "set").masks[0, 0, :, 14:17], mask)


# Sizes, and masks that are hard to understand.


@pytest.mark.parametrize("place", [0, 100, 250])
def test_a_small_lesion_survives_being_made_smaller(tmp_path: Path, place: int) -> None:
    root = tmp_path / "set"
    mask = np.zeros((512, 512), np.uint8)
    mask[place : place + 5, place + 3 : place + 8] = 255
    save(root / "images/a.png", noise(0, 512, 512))
    save(root / "readers/x/a.png", mask)
    (root / "dataset.toml").write_text('fit = "resize"')
    data = read(root, 64)
    assert np.argwhere(data.masks[0, 0]).shape == (1, 2)
    assert np.abs(np.argwhere(data.masks[0, 0])[0] * 8 + 3.5 - [place + 2, place + 5]).max() < 8
    assert said(data, "1 masks (a by x, …): too small for 64×64 pixels, kept as their best-covered pixel") == 1


def test_masks_are_made_smaller_by_area() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0:2, 0] = True  # half of the first pixel of 2×2
    mask[2, 4] = True  # a quarter
    mask[4:6, 4:6] = True
    expected = np.zeros((4, 4), bool)
    expected[0, 0] = expected[2, 2] = True
    assert np.array_equal(shrunk(mask, 4), expected)
    assert not shrunk(np.zeros((8, 8), bool), 4).any()
    assert np.array_equal(shrunk(mask, 8), mask)


def test_a_default_that_loses_most_lesions_stops_with_what_mends_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    corner = np.zeros((200, 150), np.uint8)
    corner[:9, :9] = 255
    for case in range(3):
        save(root / f"images/c{case}.png", noise(case, 200, 150))
        save(root / f"readers/x/c{case}.png", corner if case else np.full((200, 150), 255, np.uint8))
    message = r'the centre 64×64 .* in 3 of 3 cases; write into dataset.toml\nfit = "resize".*\nor ask for --size 200'
    with pytest.raises(FileError, match=message):
        read(root, 64)
    (root / "dataset.toml").write_text('fit = "crop"')
    data = read(root, 64)
    assert said(data, "2 masks (c1 by x, …): marked something, and nothing in the centre 64×64") == 1
    (root / "dataset.toml").write_text('fit = "resize"')
    assert read(root, 64).masks.any((1, 2, 3)).all()
    (root / "dataset.toml").unlink()
    assert read(root, 200).masks.any((1, 2, 3)).all()


@pytest.mark.parametrize("top", [1.0, 0.99999994, 1.0000001, 255.00002])
def test_masks_that_were_scaled_and_scaled_back(tmp_path: Path, top: float) -> None:
    root = tmp_path / "set"
    save(root / "images/a.png", noise(0))
    mask = block().astype(np.float32) * np.float32(top)
    mask[block() & (np.arange(32) == 13)] = np.rint(np.float32(top))
    save(root / "readers/x/a.npy", mask)
    assert np.array_equal(read(root).masks[0, 0], block())


@pytest.mark.parametrize("top", [2, 85])
def test_what_is_not_understood_costs_its_reading_and_names_the_key(tmp_path: Path, top: int) -> None:
    root = plain(tmp_path / "set")
    save(root / "readers/r1/c0.png", block().astype(np.uint8) * top)
    data = read(root)
    assert data.readings == (5, 1, 0)
    (problem,) = data.problems
    assert problem.startswith("reading lost: c0, reader r1: readers/r1/c0.png: mask not binary, expected 0 and 1")
    assert f"got 2 values (0, {top}); set mask_threshold" in problem
    (root / "dataset.toml").write_text("mask_threshold = 1")
    assert read(root).readings == (6, 0, 0)


def test_one_label_of_several_and_a_value_to_ignore(tmp_path: Path) -> None:
    root = tmp_path / "set"
    numbers = np.zeros((32, 32), np.uint8)
    numbers[:4], numbers[4:10], numbers[10:20], numbers[31] = 1, 2, 3, 255
    save(root / "images/a.png", noise(0))
    save(root / "readers/x/a.png", numbers)
    with pytest.raises(FileError, match=r"got 5 values \(0, 1, 2, 3, …\); set mask_threshold, or label and ignore"):
        read(root)
    (root / "dataset.toml").write_text("\ufefflabel = 3", encoding="utf-8")
    assert np.array_equal(read(root).masks[0, 0].any(1), (np.arange(32) >= 10) & (np.arange(32) < 20))
    (root / "dataset.toml").write_text("mask_threshold = 2\nignore = 255")
    assert np.array_equal(read(root).masks[0, 0].any(1), (np.arange(32) >= 4) & (np.arange(32) < 20))
    (root / "dataset.toml").write_text("label = 3\nignore = 255\ninvert = true")
    assert np.array_equal(
        read(root).masks[0, 0].any(1), (np.arange(32) < 10) | ((np.arange(32) >= 20) & (np.arange(32) < 31))
    )
    (root / "dataset.toml").write_text("label = 3\nmask_threshold = 1")
    with pytest.raises(FileError, match="label and mask_threshold: expected one of the two"):
        read(root)
    for text in ("mask_threshold = nan", "window = [0, inf]", "label = inf"):
        (root / "dataset.toml").write_text(text)
        with pytest.raises(FileError, match="finite number"):
            read(root)
