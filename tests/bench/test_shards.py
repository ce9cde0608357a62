"""A large set is scored in shards, by whoever is free, to the same numbers as in one piece."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bench.launchers import Settings
from bench.runs import shards, sharing, work
from bench.runs.results import read_run
from bench.runs.store import Store
from tests.bench.conftest import Run, assert_same, tables
from tests.bench.test_sharing import planned_again

CELLS = ["probunet-r0", "human"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty test images in shards of six, which cut patients in two; batches as in one piece, of three."""
    monkeypatch.setattr(shards, "SHARD", 6)
    monkeypatch.setattr(work, "BATCH", 3)
    monkeypatch.setattr(work, "EVERY_SHARD", 0.01)


def scored_in_one_piece(finished: Run, out: Path) -> Path:
    folder = planned_again(finished, out, "fits")
    sharing.take(folder, CELLS, Settings("cpu"))
    return out


@pytest.mark.usefixtures("small")
def test_shards_give_what_one_piece_gives(finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = planned_again(finished, tmp_path / "shards", "fits")
    assert sharing.take(folder, CELLS, Settings("cpu")) == {}
    assert not list((tmp_path / "shards/store/partial").glob("*"))
    monkeypatch.setattr(shards, "SHARD", 1000)
    one = scored_in_one_piece(finished, tmp_path / "one")
    assert_same(tables(tmp_path / "shards"), tables(one))


@pytest.mark.usefixtures("small")
def test_whoever_is_free_helps_and_a_damaged_shard_is_scored_anew(finished: Run, tmp_path: Path) -> None:
    folder = planned_again(finished, tmp_path, "fits")
    entry = next(entry for entry in read_run(folder)["cells"] if entry["folder"] == "probunet-r0")
    name, store = entry["scores"]["test"], Store(tmp_path / "store")
    work.help_to_score(folder, "probunet-r0", Settings("cpu"))
    files = sorted(store.partial(name).glob("*.npz"))
    assert len(files) == 4
    assert not store.scores(name).exists()
    files[1].write_bytes(files[1].read_bytes()[:-100])
    with store.locked(f"{name}-12"):
        worker = threading.Thread(target=sharing.take, args=(folder, ["probunet-r0"], Settings("cpu")))
        worker.start()
        worker.join(1)
    worker.join(60)
    assert "probunet-r0" not in sharing.undone_in(folder)
    expected = {n: s for n, s in tables(finished.out).items() if n == name}
    assert_same({n: s for n, s in tables(tmp_path).items() if n == name}, expected, rtol=1e-6, atol=1e-6)
