"""Damaged files of every format: each loads with the right shape and type or is left out by name, in time and memory.

Formats with checksums (PNG, packed NIfTI, .npz) load equal or not at all.
"""

import pickle
import resource
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import nifti, noise, png16, save
from tests.data.test_lidc_pickle import entries
from uqseg.data import load
from uqseg.data.formats import outline, read_volume
from uqseg.data.lidc.unpickling import load_arrays
from uqseg.errors import FileError
from uqseg.seeds import seed_of

CHECKED = ("png", "nii.gz", "npz")
PICTURES = ("tif", "bmp", "ppm", "pgm", "gif", "webp", "jp2", "jpg", "tga", "pcx", "sgi")
FORMATS = (*CHECKED, "npy", "nii", "dcm", *PICTURES, "nrrd", "mha")
SECONDS, MEGABYTES = 2.0, 1500
FEW, MANY = 12, 260  # damaged files of each kind


def originals(folder: Path, extension: str) -> list[Path]:
    """Well-formed files of a format: grey, and where it knows more, deep, in colours or with a palette."""
    files = [folder / f"grey.{extension}"]
    if extension in ("nrrd", "mha"):
        library = pytest.importorskip("SimpleITK")
        library.WriteImage(library.GetImageFromArray(noise(0, 24, 20)), str(files[0]))
        return files
    save(files[0], noise(0, 24, 20) if extension != "ppm" else noise(0, 24, 20, 3))
    if extension in ("png", "tif", "jp2", "npy", "npz", "nii", "nii.gz", "dcm"):
        files.append(folder / f"deep.{extension}")
        save(files[-1], noise(1, 24, 20, top=65536))
    if extension in ("png", "tif", "jpg", "npy", "npz", "jp2"):
        files.append(folder / f"colours.{extension}")
        save(files[-1], noise(2, 24, 20, 3))
    if extension == "png":
        files.append(folder / "deep-colours.png")
        png16(files[-1], noise(3, 24, 20, 3, top=65536))
    if extension in ("png", "gif"):
        files.append(folder / f"palette.{extension}")
        Image.fromarray(noise(4, 24, 20, 3)).quantize(16).save(files[-1])
    if extension in ("nii", "nii.gz"):
        files.append(folder / f"turned.{extension}")
        nifti(files[-1], noise(5, 3, 24, 20, top=4096), np.diag([-0.5, 0.7, 2, 1]))
    return files


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with flipped bits, another number at one place, or a piece cut out, cut off, doubled or zeroed."""
    broken = bytearray(data)
    at = int(rng.integers(len(data) if rng.random() < 0.5 else min(len(data), 400)))  # headers are short
    length = int(rng.integers(1, 1 + min(64, len(data) - at)))
    kind = int(rng.integers(7))
    if kind in (0, 1):
        for _ in range(1 + 3 * kind):
            broken[int(rng.integers(len(data))) if kind else at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        broken[at : at + 4] = bytes(
            rng.choice([[0xFF] * 4, [0x7F, 0xFF, 0xFF, 0xFF], [0, 0, 0, 0x80], [0, 0, 0xF0, 0x7F]]).tolist()
        )
    elif kind == 3:
        del broken[at:]
    elif kind == 4:
        del broken[at : at + length]
    elif kind == 5:
        broken[at:at] = broken[at : at + length]
    else:
        broken[at : at + length] = bytes(length)
    return bytes(broken)


def check(folder: Path, extension: str, count: int) -> tuple[int, int]:
    """How many of `count` damaged files were read, and how many left out."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    files = originals(folder, extension)
    volumes = [read_volume(file) for file in files]
    outcomes = [0, 0]
    for k in range(count):
        rng = np.random.default_rng(seed_of("fuzz", extension, k))
        file, volume = files[k % len(files)], volumes[k % len(files)]
        broken = folder / f"broken.{extension}"
        broken.write_bytes(damaged(file.read_bytes(), rng))
        started = time.process_time()
        message = ""
        try:
            outline(broken)
            read = read_volume(broken)
        except FileError as error:
            message = str(error)
        if message:
            assert "broken" in message, k
            outcomes[1] += 1
        else:
            assert read.array.ndim in (3, 4), k
            assert read.array.dtype.kind in "buif", k
            if extension in CHECKED:
                assert np.array_equal(read.array, volume.array), k
            outcomes[0] += 1
        assert time.process_time() - started < SECONDS, k
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < MEGABYTES * 1024, f"{grown / 1024:.0f} MB"
    return outcomes[0], outcomes[1]


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")  # of decoders, about damage
@pytest.mark.parametrize("extension", FORMATS)
def test_damaged_files_are_read_right_or_left_out(tmp_path: Path, extension: str) -> None:
    assert sum(check(tmp_path, extension, FEW)) == FEW


@pytest.mark.filterwarnings("ignore")
def test_a_folder_of_damaged_files_loads_without_them(tmp_path: Path) -> None:
    for extension in set(FORMATS) - {"nrrd", "mha"}:
        file = originals(tmp_path, extension)[0]
        for k in range(2 * FEW):
            broken = damaged(file.read_bytes(), np.random.default_rng(seed_of("fuzz", "folder", extension, k)))
            place = ("images", "readers/x", "readers/y")[k % 3]
            name = f"{extension.replace('.', '-')}{k}"
            for folder in ("images", "readers/x", "readers/y"):
                target = tmp_path / f"set/{folder}/{name}.{extension}"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(broken if folder == place else file.read_bytes())
    (tmp_path / "set/dataset.toml").write_text("slices = true\nmask_threshold = 128\nfit = 'resize'")
    data = load(f"folder:{tmp_path / 'set'}", size=16, cache=tmp_path / "cache")
    text = "\n".join(data.problems)
    cases = {case.partition("_z")[0] for case in data.table["case"]}
    for file in (tmp_path / "set/images").iterdir():
        name = file.name.partition(".")[0]
        assert name in cases or f"images/{file.name}" in text, name
    assert data.readings is not None
    assert data.readings.lost > 0


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("extension", FORMATS)
def test_many_damaged_files_are_read_right_or_left_out(tmp_path: Path, extension: str) -> None:
    read, left_out = check(tmp_path, extension, MANY)
    assert left_out > 0
    assert read > 0 or extension in CHECKED


def damaged_pickles(tmp_path: Path, count: int) -> int:
    """How many of `count` damaged pickles are refused; none may do anything but be read or be refused, in time."""
    data = pickle.dumps(
        {k: v | {"image": v["image"][:4, :4], "masks": v["masks"][:1]} for k, v in entries(["1"]).items()}
    )
    refused = 0
    for k in range(count):
        broken = tmp_path / "broken.pickle"
        broken.write_bytes(damaged(data, np.random.default_rng(seed_of("fuzz", "pickle", k))))
        started = time.process_time()
        message = ""
        try:
            load_arrays(broken)
        except FileError as error:
            message = str(error)
        assert not message or "broken.pickle" in message, k
        refused += bool(message)
        assert time.process_time() - started < SECONDS, k
    return refused


def test_damaged_pickles_are_read_or_refused(tmp_path: Path) -> None:
    assert damaged_pickles(tmp_path, 2 * FEW) > 0


@pytest.mark.soak
def test_many_damaged_pickles_are_read_or_refused(tmp_path: Path) -> None:
    assert damaged_pickles(tmp_path, 2 * MANY) > 0


def test_what_packs_a_lot_into_little_is_refused_in_time(tmp_path: Path) -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = bomb.compress(bytes(2**20)) + b"".join(bomb.compress(bytes(2**20)) for _ in range(400)) + bomb.flush()
    nifti(tmp_path / "good.nii.gz", noise(0, 1, 24, 20))
    (tmp_path / "a.nii.gz").write_bytes((tmp_path / "good.nii.gz").read_bytes() + packed)
    started = time.process_time()
    with pytest.raises(FileError, match=r"a\.nii\.gz: holds more than its header says"):
        read_volume(tmp_path / "a.nii.gz")
    assert time.process_time() - started < SECONDS
