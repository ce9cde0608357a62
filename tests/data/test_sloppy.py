"""Folders as people have them: each small oddity is read right or said, never silently wrong."""

from __future__ import annotations

import os
import re
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import block, dicom, noise, save
from uqseg.data import AnnotatedSet, ahead, load
from uqseg.data.cache import Lost
from uqseg.data.formats import read_volume
from uqseg.data.images import Decoded, stream
from uqseg.errors import FileError
from uqseg.predictions import open_predictions

WINDOW = "window = [0, 4095]"


def plain(root: Path, cases: int = 4, readers: int = 2) -> Path:
    for c in range(cases):
        save(root / f"images/c{c}.png", noise(c))
        for r in range(readers):
            save(root / f"readers/r{r}/c{c}.png", block(10 + c).astype(np.uint8) * 255)
    return root


def read(root: Path) -> AnnotatedSet:
    return load(f"folder:{root}", size=32, cache=root.parent / "cache")


def replace(root: Path, name: str, array: object, ending: str = "npy") -> None:
    (root / f"{name}.png").unlink()
    save(root / f"{name}.{ending}", np.asarray(array))


def pipe(root: Path) -> None:
    os.mkfifo(root / "images/waiting")


def transparent_grey(root: Path) -> None:
    Image.fromarray(noise(0)).save(root / "images/c0.png", transparency=int(noise(0)[0, 0]))


def device(root: Path) -> None:
    (root / "images/c0.png").unlink()
    (root / "images/c0.png").symlink_to("/dev/zero")


def pointer(root: Path) -> None:
    (root / "images/c0.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    (root / "readers/r0/c1.png").write_text("/annex/objects/SHA256E-s3--1.png\n")


def not_numbers(root: Path) -> None:
    replace(root, "readers/r0/c0", np.where(block(), np.nan, 0.0))
    (root / "dataset.toml").write_text("mask_threshold = 0.5")


def a_label_that_no_mask_has(root: Path) -> None:
    (root / "dataset.toml").write_text("label = 300")


def nearly_the_same_names(root: Path) -> None:
    save(root / "readers/R0/c0.png", block().astype(np.uint8))
    (root / "cases.csv").write_text("case,patient,split\nc0,P1,train\nc1,p1,test\nc2,1,val\nc3,01.0,test\n")


def window_for_8_bits(root: Path) -> None:
    replace(root, "images/c0", noise(0, top=4096))
    (root / "dataset.toml").write_text(WINDOW)


def white_is_zero(root: Path) -> None:
    library = pytest.importorskip("tifffile")
    (root / "images/c0.png").unlink()
    library.imwrite(root / "images/c0.tif", noise(0, top=4096), photometric="miniswhite")
    (root / "dataset.toml").write_text(WINDOW)


def no_arrays(root: Path) -> None:
    replace(root, "images/c0", noise(0), "npz")
    with zipfile.ZipFile(root / "images/c0.npz", "w") as archive:
        archive.writestr("notes.txt", "x")
    replace(root, "readers/r0/c1", block(), "npz")
    zipfile.ZipFile(root / "readers/r0/c1.npz", "w").close()
    (root / "readers/r0/c2.png").write_bytes(b"")


def a_window_beside_the_numbers(root: Path) -> None:
    replace(root, "images/c0", noise(0, top=4096))
    replace(root, "images/c1", noise(1, top=2) * np.uint16(9000))
    (root / "images/c2.png").unlink()
    (root / "images/c3.png").unlink()
    (root / "dataset.toml").write_text("window = [5000, 6000]")


def a_plain_image(root: Path) -> None:
    replace(root, "images/c0", np.full((32, 32), 7.5))


SAID: list[tuple[Callable[[Path], None], list[str]]] = [
    (pipe, ["not an image by its name, left out: images/waiting"]),
    (transparent_grey, ["left out: images/c0.png: is transparent in places"]),
    (device, ["left out: cannot read images/c0.png: is no file"]),
    (
        pointer,
        [
            "left out: cannot read images/c0.png: is a pointer of Git LFS",
            "reading lost: c1, reader r0: .* a pointer of",
        ],
    ),
    (not_numbers, ["reading lost: c0, reader r0: readers/r0/c0.npy: expected finite numbers, got NaN"]),
    (a_label_that_no_mask_has, ["NO MASK MARKS ANYTHING; look at the masks, and at label"]),
    (
        nearly_the_same_names,
        [
            "taken as different patients: P1 and p1",
            "taken as different patients: 1 and 01.0",
            "taken as different readers: R0 and r0",
        ],
    ),
    (window_for_8_bits, [r"3 cases \(c1, …\): 8 bits, to which the window of dataset.toml is not applied"]),
    (
        no_arrays,
        [
            r"left out: images/c0.npz: expected an array, got notes.txt, which is none",
            r"reading lost: c1, reader r0: readers/r0/c1.npz: expected one array, got none",
            r"reading lost: c2, reader r0: cannot read readers/r0/c2.png: is empty",
        ],
    ),
    (
        a_window_beside_the_numbers,
        [r"1 cases \(c0, …\): all pixels look alike; look at window in dataset.toml", *["mask without an image"] * 4],
    ),
    (a_plain_image, [r"1 cases \(c0, …\): all pixels look alike$", r"1 cases \(c0, …\): more than 8 bits"]),
    (white_is_zero, [r"1 cases \(c0, …\): TIFF whose high values are dark \(WhiteIsZero\)", "8 bits, to which"]),
]


@pytest.mark.parametrize(("spoil", "expected"), SAID, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_odd_is_said(tmp_path: Path, spoil: Callable[[Path], None], expected: list[str]) -> None:
    root = plain(tmp_path / "set")
    spoil(root)
    problems = read(root).problems
    assert len(problems) == len(expected), problems
    for line in expected:
        assert any(re.search(line, problem) for problem in problems), (line, problems)


def test_excel_names_its_separator_in_front_of_the_header(tmp_path: Path) -> None:
    root = plain(tmp_path / "set")
    (root / "cases.csv").write_bytes(
        "\ufeffsep=;\r\ncase;patient;age\r\nc0;a;1\r\nc1;b;2\r\nc2;c;3\r\nc3;d;4\r\n".encode()
    )
    table = read(root).table.sort_values("case")
    assert table["patient"].tolist() == list("abcd")
    assert table["age"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "text", ["invert = 1", "slices = 'yes'", "label = true", "window = [false, true]", "label = nan"]
)
def test_a_wrong_type_in_dataset_toml_is_refused(tmp_path: Path, text: str) -> None:
    root = plain(tmp_path / "set")
    (root / "dataset.toml").write_text(text)
    with pytest.raises(FileError, match=rf"dataset.toml: {text.split()[0]}.*, got .*Allowed: invert") as error:
        read(root)
    assert "\n" not in str(error.value)


def test_dicom_of_12_bits_shows_those_alone(tmp_path: Path) -> None:
    stored = noise(0, top=4096)
    dicom(tmp_path / "a.dcm", stored | np.uint16(0xF000), BitsStored=12, HighBit=11)
    assert np.array_equal(read_volume(tmp_path / "a.dcm").array[0], stored)


def test_arrays_in_any_order_of_bytes_and_axes(tmp_path: Path) -> None:
    array = noise(0, top=4096)
    np.save(tmp_path / "a.npy", np.asfortranarray(array.astype(">u2")))
    assert np.array_equal(read_volume(tmp_path / "a.npy").array[0], array)


def test_what_is_decoded_ahead_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "BYTES", 1000)
    sizes = [1, 400, 400, 400, 5000, 300, 300, 300, 300, *[1] * 100]
    held: dict[int, int] = {}
    most: list[int] = []

    def decode(job: int) -> list[Decoded]:
        held[job] = sizes[job]
        most.append(sum(held.values()))
        return [Decoded(str(job), None)]

    rows = stream(range(len(sizes)), decode, tmp_path, [], Lost(), sizes.__getitem__)
    for job, _ in enumerate(rows):
        held.pop(job)
    assert len(most) == len(sizes)
    assert sorted(most)[-2] <= 1000
    assert max(most) == 5000, "alone"


@pytest.fixture
def peak() -> Iterator[Callable[[], float]]:
    """The most MB that Python held since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()


def test_few_large_images_of_a_folder_are_decoded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peak: Callable[[], float]
) -> None:
    monkeypatch.setattr(ahead, "BYTES", 2**25)
    root = plain(tmp_path / "root", cases=12, readers=1)
    for c in range(12):
        replace(root, f"images/c{c}", np.full((1000, 1000), c / 9))
        replace(root, f"readers/r0/c{c}", np.eye(1000))
    (root / "dataset.toml").write_text('fit = "resize"\n')
    assert len(read(root)) == 12
    assert 16 < peak() < 60, "of two files 16 MB; of all 12 cases 192 MB"


def test_few_large_predictions_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peak: Callable[[], float]
) -> None:
    monkeypatch.setattr(ahead, "BYTES", 2**25)
    data = read(plain(tmp_path / "root", cases=12, readers=1))
    for case in data.cases:
        np.savez_compressed(tmp_path / f"{case}.npz", np.zeros((2000, 32, 32)))
    assert len(open_predictions("p", tmp_path, data, "independent").files) == 12
    assert 16 < peak() < 80, "of one file 16 MB and a copy; of all 12 files 192 MB at least"


@pytest.mark.parametrize(
    ("source", "places", "mask"),
    [
        ("lidc-slices", "p{}/nodule-0/images/slice-0.png", "p{}/nodule-0/mask-0/slice-0.png"),
        ("lidc-crops", "train/images/p{}/z-1.5_c0.png", "train/gt/p{}/z-1.5_c0_l0.png"),
    ],
)
def test_files_far_larger_than_those_of_lidc_are_refused_before_they_are_decoded(
    tmp_path: Path, source: str, places: str, mask: str, peak: Callable[[], float]
) -> None:
    side = 128 if source == "lidc-slices" else 180
    save(tmp_path / "large.png", np.zeros((5000, 5000), np.uint8))
    for p in range(8):
        for name in places, mask:
            save(
                tmp_path / "root" / name.format(p), noise(p, side, side) if name == places else np.eye(side, dtype=bool)
            )
    for name in places.format(0), mask.format(1):
        (tmp_path / "root" / name).unlink()
        (tmp_path / "root" / name).hardlink_to(tmp_path / "large.png")
    tracemalloc.reset_peak()
    data = load(f"{source}:{tmp_path / 'root'}", cache=tmp_path / "cache")
    assert len(data) == 6
    expected = f"claims 1 × 5000×5000 × 1 pixels, expected at most {2**20} numbers"
    assert sum(expected in problem for problem in data.problems) == 2
    assert peak() < 20, "of one file 25 MB"


def test_a_copied_reader_is_told_unless_they_differ_once_or_marked_little(tmp_path: Path) -> None:
    root = plain(tmp_path / "set", cases=6, readers=2)
    save(root / "readers/r0/c5.png", np.zeros((32, 32), np.uint8))
    save(root / "readers/r1/c5.png", np.zeros((32, 32), np.uint8))
    text = "r1 has the masks of r0 in all cases that both read, 5 of them not empty; if one is a copy, leave it out"
    assert read(root).problems == (f"copied reader: {text}",)
    save(root / "readers/r2/c0.png", block(10).astype(np.uint8) * 255)
    assert read(root).problems == (f"copied reader: {text}",), "one case is no proof"
    save(root / "readers/r1/c5.png", block(3).astype(np.uint8) * 255)
    assert read(root).problems == ()
