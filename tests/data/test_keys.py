"""The key of a data set is its content: not its place, name, order or times; and a source from anybody's file."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import discs
from uqseg.data import AnnotatedSet, load, sources
from uqseg.data.load import _sources
from uqseg.outside import load_file

PLUGIN = """
import numpy as np
import pandas as pd
from uqseg.data import Content, Row, source

def stamp(path):
    return [(path.stat().st_size, path.stat().st_mtime_ns)]

@source("squares", "squares of one grey level, listed in a text file", stamp=stamp, largest=64)
def read(path, size):
    levels = [int(line) for line in path.read_text().split()]
    table = pd.DataFrame({"case": [f"c{k}" for k in range(len(levels))], "patient": "p", "split": "train"})
    rows = (
        Row(np.full((1, size, size), g, np.uint8), np.ones((2, size, size), bool), np.ones(2, bool), np.ones(2, "f4"))
        for g in levels
    )
    return Content(table, rows, reader_names=("ann", "bob"))
"""


def write(root: Path, cases: int = 4, light: int = 0) -> Path:
    """A folder of .npy files of two readers, of equal sizes and times whatever is in them."""
    for case in range(cases):
        image = np.full((16, 16), light + case, np.uint8)
        for name, array in {"images": image, "readers/ann": image % 2, "readers/bob": np.eye(16, dtype=bool)}.items():
            file = root / name / f"c{case}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, array)
            os.utime(file, ns=(10**18, 10**18))
    return root


def read(root: Path, **options: int | str) -> AnnotatedSet:
    return load(f"folder:{root}", **({"size": 16} | options), cache=root.parent / "cache")  # type: ignore[arg-type]


def test_a_copy_has_the_same_key_and_an_entry_of_its_own(tmp_path: Path) -> None:
    first = read(write(tmp_path / "set"))
    shutil.copytree(tmp_path / "set", tmp_path / "copy of it")
    copy = read(tmp_path / "copy of it")
    assert copy.key == first.key
    assert (first.folder, copy.folder) == ("set", "copy of it")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert read(tmp_path / "set", size=32).key != first.key


def test_folders_of_equal_names_sizes_and_times_are_told_apart(tmp_path: Path) -> None:
    first, second = read(write(tmp_path / "a")), read(write(tmp_path / "b", light=100))
    assert first.key != second.key
    assert second.images.min() == 100
    # The same files written anew with their old times: only the time of the entry itself cannot be set back.
    write(tmp_path / "a", light=50)
    assert read(tmp_path / "a").images.min() == 50


def test_a_corrected_table_is_another_data_set(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    keys = {"none": read(root).key}
    for name, text in {
        "same": "case,patient\nc0,c0\nc1,c1\nc2,c2\nc3,c3",
        "age": "case,age\nc0,50",
        "patient": "case,patient\nc0,p\nc1,c1\nc2,c2\nc3,c3",
        "split": "case,split\nc0,test",
        "spacing": "case,spacing_x,spacing_y\nc0,1,1",
    }.items():
        (root / "cases.csv").write_text(text)
        keys[name] = read(root).key
    assert keys["none"] == keys["same"] == keys["age"], "nothing of this is learnt from or scored"
    assert len(set(keys.values())) == 4


def test_a_key_is_that_of_the_cases_whatever_their_order() -> None:
    data = discs(6)
    turned = data.take(np.array([5, 3, 1, 0, 2, 4]))
    assert turned.key == data.key
    assert np.array_equal(turned.digests[0], data.digests[5])
    assert data.take(slice(0, 5)).key != data.key
    other_nan = replace(data, spacing=-data.spacing)
    assert np.signbit(other_nan.spacing).any()
    assert other_nan.key == data.key
    for change in (
        {"images": data.images ^ np.uint8(1)},
        {"masks": ~data.masks},
        {"read": ~data.read},
        {"spacing": np.ones_like(data.spacing)},
        *({"table": data.table.assign(**{c: data.table[c] + "x"})} for c in ("case", "patient", "split")),
    ):
        assert replace(data, **change).key != data.key, next(iter(change))  # type: ignore[arg-type]
    assert replace(data, table=data.table.assign(age=3), name="other", folder="elsewhere").key == data.key


def test_a_set_in_memory_has_the_key_of_the_same_set_from_the_cache(tmp_path: Path) -> None:
    stored = read(write(tmp_path / "set"))
    copy = replace(stored, images=np.array(stored.images))
    assert copy.stored is None
    assert copy.key == stored.key
    assert replace(stored, images=stored.images ^ np.uint8(1)).key != stored.key
    assert replace(stored, name="other").stored is stored.stored
    part = read(tmp_path / "set", limit=2)
    index = np.flatnonzero(stored.table["case"].isin(part.table["case"]))
    assert part.key == stored.take(index).key


def test_simulated_sets_are_recognised_without_their_pixels(tmp_path: Path) -> None:
    data = load("toy", size=16, limit=3, cache=tmp_path)
    # A key that changes means that every stored fit of this data is lost: raise a version on purpose, not by accident.
    assert data.key == "4566236dc2c3272d7482aed04f2ec306cd95c5cf061aec9968d513f76e401634"
    assert replace(data, stored=None).key != data.key
    assert load("toy", size=18, limit=3, cache=tmp_path).key != data.key


def test_readers_are_named_and_persons_where_the_source_knows_them(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    for _ in range(2):  # converted, and from the cache
        data = read(root)
        assert (data.reader_names, data.readers_are_persons) == (("ann", "bob"), True)
    toy = load("toy", size=16, limit=1, cache=tmp_path)
    assert (toy.reader_names, toy.readers_are_persons) == (("slot 0", "slot 1", "slot 2", "slot 3"), False)
    assert (toy.folder, toy.simulated) == ("", True)
    with pytest.raises(ValueError, match="reader_names: expected 2, got 1"):
        replace(data, reader_names=("ann",))


def test_a_source_is_added_by_one_file_from_anywhere(tmp_path: Path) -> None:
    plugin, levels, cache = tmp_path / "plugin.py", tmp_path / "levels.txt", tmp_path / "cache"
    levels.write_text("7 9")
    try:
        keys = []
        for text in (PLUGIN, PLUGIN.replace("full((1, size, size), g", "full((1, size, size), g + 1")):
            plugin.write_text(text)
            load_file(plugin)
            data = load(f"squares:{levels}", size=20, cache=cache)
            assert sources()["squares:PATH"].startswith("squares of one grey level")
            assert (len(data), data.reader_names, data.folder) == (2, ("ann", "bob"), "levels.txt")
            keys.append((data.key, int(data.images[0, 0, 0, 0])))
        assert [level for _, level in keys] == [7, 8], "an edited source is read anew, whatever version it declares"
        assert keys[0][0] != keys[1][0]
        with pytest.raises(ValueError, match="up to 64 pixels, got 80"):
            load(f"squares:{levels}", size=80, cache=cache)
        plugin.write_text(PLUGIN.replace('"squares"', '"folder"'))
        with pytest.raises(ValueError, match="'folder' is registered twice"):
            load_file(plugin)
    finally:
        _sources.pop("squares", None)


def test_everything_imports_without_what_only_unix_has() -> None:
    ask = (
        "import sys, pkgutil, importlib; sys.modules.update(dict.fromkeys(('fcntl', 'resource', 'pwd', 'grp'))); "
        "import uqseg.data; "
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(uqseg.data.__path__, 'uqseg.data.')]; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", ask], check=True)
