"""After a power cut: files are on the disk before their names are, and what is empty, half or gone is made anew."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.launchers import Settings
from bench.runs import upkeep, work
from tests.bench.conftest import assert_same, bench, options, results_in, tables, write_set
from uqseg import files
from uqseg.data import load
from uqseg.training.loop import _Run

WAYS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda file: file.write_bytes(b""),
    "halved": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "deleted": Path.unlink,
}
OF_FITS = ("weights.safetensors", "model.json", "fit.json", "history.jsonl")
OF_SCORES = ("cell.json", "scores.parquet", "sums.parquet")
OF_CELLS = (*OF_SCORES, "cost.json", "history.jsonl")
OF_RUNS = ("run.json", "cases.parquet", "gallery.npz", "finished.json", "report.md")
CELL = "unet-r0"


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UQSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    images, out = write_set(tmp_path_factory.mktemp("set")), tmp_path_factory.mktemp("runs")
    given = options(images, out, "unet", steps=12, gallery=True, report=True)
    answer = bench(*given)
    assert answer.code == 0, answer.err
    return given


@pytest.fixture(scope="module")
def out(words: list[str]) -> Path:
    return Path(words[words.index("--out") + 1])


def again(out: Path) -> list[str]:
    """Work on the cell once more, as the next run does; the lines that are said about it."""
    lines: list[str] = []
    work.work(results_in(out), CELL, Settings("cpu", log=lines.append))
    assert list(upkeep.damaged(out)) == []
    assert work.is_done(results_in(out) / "cells" / CELL, work.read_job(results_in(out), ()).entries[CELL])
    return lines


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", [*(f"fits/{f}" for f in OF_FITS), *(f"scores/{f}" for f in OF_SCORES)])
def test_a_damaged_file_of_the_store_is_made_anew(file: str, way: str, out: Path) -> None:
    before = tables(out)
    weights = next(out.glob("store/fits/*/weights.safetensors")).read_bytes()
    kind, name = file.split("/")
    (damaged,) = out.glob(f"store/{kind}/*unet*/{name}" if kind == "fits" else f"store/{kind}/*unet*test*/{name}")
    WAYS[way](damaged)
    (results_in(out) / "cells" / CELL / "cell.json").unlink()  # as for a run that needs the store
    (line,) = again(out)
    assert damaged.parent.name in line
    assert "anew" in line
    assert_same(tables(out), before)
    (fit,) = out.glob("store/fits/*")
    assert (fit / "weights.safetensors").read_bytes() == weights


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", OF_CELLS)
def test_a_damaged_file_of_a_cell_is_copied_anew(file: str, way: str, out: Path) -> None:
    path = results_in(out) / "cells" / CELL / file
    before = path.read_bytes()
    WAYS[way](path)
    assert not work.is_done(path.parent, work.read_job(results_in(out), ()).entries[CELL])
    assert again(out) == []
    assert path.read_bytes() == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("file", ["checkpoint.safetensors", "history.jsonl"])
def test_a_damaged_file_of_a_half_done_training_has_it_begin_anew(
    file: str, way: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tables(out)
    for folder in (*out.glob("store/fits/*unet*"), *out.glob("store/scores/*unet*"), results_in(out) / "cells" / CELL):
        shutil.rmtree(folder)
    step = _Run.step

    def stop(run: _Run, lr: float) -> object:
        if run.state.step == 11:
            raise KeyboardInterrupt
        run.recipe = run.recipe.model_copy(update={"checkpoint_every": 1e-9})
        return step(run, lr)

    with monkeypatch.context() as patch:
        patch.setattr(_Run, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            work.work(results_in(out), CELL, Settings("cpu", log=print))
    (partial,) = out.glob("store/partial/*unet*")
    WAYS[way](partial / file)
    lines = again(out)
    assert (file, way) == ("checkpoint.safetensors", "deleted") or "training anew" in lines[0]
    assert_same(tables(out), before)


@pytest.mark.parametrize("turn", range(3))
def test_damaged_files_of_a_run_are_written_anew(turn: int, words: list[str], out: Path) -> None:
    folder = results_in(out)
    before = {name: (folder / name).read_bytes() for name in ("cases.parquet", "gallery.npz")}
    names = OF_RUNS if turn == 0 else OF_RUNS[:-1]  # the slow page once: it is damaged if its key is not that of all
    for number, name in enumerate(names):
        [*WAYS.values()][(number + turn) % 3](folder / name)
    answer = bench(*words, *([] if turn == 0 else ["--no-report"]))
    assert answer.code == 0, answer.err
    assert list(upkeep.damaged(out)) == []
    assert {path.name for path in folder.iterdir()} >= set(OF_RUNS)
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_file_of_the_data_cache_is_built_anew(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = load("toy", size=16, cache=tmp_path).key
    (folder,) = tmp_path.iterdir()
    names = sorted(path.name for path in folder.iterdir())
    assert {"images.npy", "masks.npy", "meta.json", "table.parquet"} <= set(names)
    for name in names:
        caplog.clear()
        WAYS[way](folder / name)
        data = load("toy", size=16, cache=tmp_path)
        data.verify()
        assert data.key == key
        assert f"the data cache {folder} is corrupt" in caplog.text
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        assert sorted(path.name for path in folder.iterdir()) == names


def test_a_changed_case_of_the_data_cache_is_named_and_the_next_run_builds_anew(tmp_path: Path) -> None:
    data = load("toy", size=16, cache=tmp_path)
    key, (folder,) = data.key, tmp_path.iterdir()
    changed = bytearray((folder / "images.npy").read_bytes())
    changed[-5] ^= 1
    (folder / "images.npy").write_bytes(changed)
    data = load("toy", size=16, cache=tmp_path)  # opening reads no pixel
    with pytest.raises(files.FileError, match=rf"{folder} is corrupt .*the same command builds it anew"):
        data.batch(slice(len(data) - 1, len(data)))
    data = load("toy", size=16, cache=tmp_path)
    data.verify()
    assert data.key == key


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append(("fsync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        events.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    files.write(tmp_path / "new" / "a.json", b"1")
    (kind, partial), *rest = events[1:]
    assert events[0] == ("fsync", tmp_path.name), "the new folder's own name"
    assert (kind, partial.startswith(".a.json.")) == ("fsync", True)
    assert rest == [("rename", "a.json"), ("fsync", "new")]
    events.clear()
    (tmp_path / "partial" / "deep").mkdir(parents=True)
    for name in ("b", "deep/c"):
        (tmp_path / "partial" / name).write_bytes(b"2")
    files.publish(tmp_path / "partial", tmp_path / "store" / "final")
    place = events.index(("rename", "final"))
    assert {name for _, name in events[:place]} == {"b", "c", "deep", "partial", tmp_path.name}
    assert {name for _, name in events[place + 1 :]} == {"store", tmp_path.name}


def test_what_killed_writers_left_behind_goes_with_the_next_write(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        (files.beside(tmp_path / "a.json")).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    running = files.beside(tmp_path / "b.json")
    running.write_bytes(b"half")
    assert len(list(tmp_path.iterdir())) == 1, "asking for a name has removed the other"
    files.write(tmp_path / "a.json", b"1")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", running.name}
