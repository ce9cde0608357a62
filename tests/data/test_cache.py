"""The cache of converted data: what is damaged is found before it is used, what a killed build left behind goes."""

import errno
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from uqseg.data import AnnotatedSet, load
from uqseg.data.cache import open_entry
from uqseg.data.load import default_cache
from uqseg.errors import DamagedError, FileError

SIZE, CASES = 16, 10


def ask(cache: Path) -> AnnotatedSet:
    return load("toy", size=SIZE, cache=cache).take(slice(0, CASES))


def flip(file: Path, place: int) -> None:
    """Flip the lowest bit of the byte at `place`, counted from the end where it is negative."""
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The cache's entry of the source toy."""
    ask(tmp_path)
    (entry,) = tmp_path.iterdir()
    return entry


@pytest.mark.parametrize(("name", "row_bytes"), [("images", SIZE**2), ("masks", 4 * SIZE**2)])
def test_a_flipped_bit_is_found_when_its_case_is_read_and_by_verify(folder: Path, name: str, row_bytes: int) -> None:
    file = folder / f"{name}.npy"
    header = file.stat().st_size - 2000 * row_bytes
    flip(file, header + 7 * row_bytes + 5)
    data = ask(folder.parent)  # opening stays instant: large arrays are not read
    case = data.table["case"][7]
    assert len(data.batch(slice(0, 7))) == 7
    readings: list[Callable[[], object]] = [
        lambda: data.batch(slice(5, 9)),
        lambda: data.batch(np.array([0, 7])),
        lambda: data.take(np.array([9, 7])).batch(slice(1, 2)),
        data.verify,
        data.take(slice(6, 8)).verify,
    ]
    for reading in readings:
        with pytest.raises(FileError, match=rf"(?s){folder}.*case '{case}'.*delete this folder"):
            reading()
    data.take(slice(8, 10)).verify()
    flip(file, header + 7 * row_bytes + 5)
    data.verify()


@pytest.mark.parametrize("file", ["table.parquet", "read.npy", "spacing.npy", "digests.npy", "checksums.npy"])
def test_a_flipped_bit_in_a_small_file_is_found_at_opening(folder: Path, file: str) -> None:
    flip(folder / file, -9)
    with pytest.raises(DamagedError, match=rf"{folder} is corrupt \({file} has changed"):
        open_entry(folder)


def test_a_folder_of_another_version_is_named_as_such(folder: Path) -> None:
    meta = folder / "meta.json"
    meta.write_text(meta.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(FileError, match=rf"{folder} was written by another version of uqseg"):
        open_entry(folder)


def test_a_batch_holds_copies_of_the_cases_asked_for(folder: Path) -> None:
    data = ask(folder.parent)
    batch = data.batch(np.array([3, 1]))
    assert batch.keys == data.table["case"][[3, 1]].tolist()
    assert batch.images.dtype == torch.uint8
    assert batch.masks is not None
    assert batch.read is not None
    assert np.array_equal(batch.images.numpy(), data.images[[3, 1]])
    assert np.array_equal(batch.masks.numpy(), data.masks[[3, 1]])
    assert batch.masks.dtype == batch.read.dtype == torch.bool
    assert batch.spacing.isnan().all()
    batch.images.zero_()
    assert data.images[3].any()


def test_what_killed_builds_left_behind_goes_and_running_ones_are_let_alone(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    killed, running, other = (
        tmp_path / f".toy-0123.{host}.{pid}.abcd"
        for host, pid in ((platform.node(), child.pid), (platform.node(), os.getpid()), ("elsewhere", child.pid))
    )
    for partial in (killed, running, other):
        partial.mkdir(parents=True)
        (partial / "images.npy").touch()
    ask(tmp_path)
    assert not killed.exists()
    assert running.exists()
    assert other.exists()


ASKS = """
import sys, time
from pathlib import Path
import numpy as np, pandas as pd
from uqseg.data import load
from uqseg.data.cache import Content, Row
from uqseg.data.load import source

@source("slow", "one case, when it may")
def slow(path, size):
    with open("reads", "a") as file:
        print("read", file=file)
    while not Path("go").exists():
        time.sleep(0.01)
    row = Row(*(np.zeros(s, t) for s, t in (((1, size, size), "u1"), ((1, size, size), "?"), ((1,), "?"), (2, "f4"))))
    return Content(pd.DataFrame({"patient": ["p"], "case": ["c"], "split": ["test"]}), [row])

print(len(load("slow", size=16, cache=sys.argv[1])))
"""


def test_of_two_processes_one_builds_and_the_other_waits_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(ASKS)
    words, root = [sys.executable, "ask.py", "cache"], str(Path(__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    logs = [(tmp_path / f"{k}.err").open("w+") for k in range(2)]
    both = [subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=log) for log in logs]
    deadline = time.monotonic() + 60
    while not any("waiting for another process" in Path(log.name).read_text() for log in logs):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in both)
        time.sleep(0.05)
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=60)[0] for process in both] == [b"1\n", b"1\n"]
    assert (tmp_path / "reads").read_text() == "read\n"
    assert len(list((tmp_path / "cache").iterdir())) == 1, "no lock is left"
    first, second = sorted(Path(log.name).read_text() for log in logs)
    assert (first, second.count("\n")) == ("", 1)
    assert second.startswith(f"waiting for another process, which prepares the data cache {Path('cache/slow-')}")


@pytest.mark.parametrize("largest_file", [64, 300_000, 1_000_000])
def test_a_full_cache_is_named_with_how_to_have_another(tmp_path: Path, largest_file: int) -> None:
    reading, writing = os.pipe()
    if not os.fork():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        try:
            ask(tmp_path)
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    message = os.read(reading, 10_000).decode()
    os.close(reading)
    assert message.startswith(f"FileError: cannot write {tmp_path}")
    assert "$UQSEG_CACHE" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "call"), [("toy", "fsync"), ("toy", "replace"), ("toy", "mkdir"), ("lidc-sim", "replace")]
)
def test_a_cache_that_the_disk_refuses_is_named(
    tmp_path: Path, source: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(FileError, match=r"cannot write .*: No space left on device; .*\$UQSEG_CACHE"):
        load(source, size=SIZE, limit=1, split="test", cache=tmp_path)
    assert not list(tmp_path.glob(".*")), "nothing half-written"


def test_a_cache_below_a_file_and_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot write .*file/cache/toy-.*: Not a directory; .*\$UQSEG_CACHE"):
        ask(tmp_path / "file" / "cache")
    monkeypatch.setenv("UQSEG_CACHE", "~/data")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / "data"
    for name in ("~nobody-of-this-name/x", ""):
        monkeypatch.setenv("UQSEG_CACHE", name)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.delenv("HOME", raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 2**31 - 5)
        with pytest.raises(FileError, match=r"no folder for the data cache: .*\$UQSEG_CACHE"):
            default_cache()
