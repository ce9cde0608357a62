"""The cells of a run shared by workers: nobody waits while there is work, and threads are those that were planned."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from bench.launchers import Settings
from bench.runs import sharing, workers
from bench.runs.results import read_run
from bench.runs.store import Store
from bench.runs.watch import table
from tests.bench.conftest import Run, assert_same, bench, options, results_in, tables
from uqseg import locks
from uqseg.locks import BusyError


def planned_again(finished: Run, out: Path, *kept: str, threads: int = 1) -> Path:
    """The folder of a run like the finished one, of which nothing but the named parts of the store is done."""
    folder = out / finished.folder.name
    folder.mkdir(parents=True)
    record = json.loads((finished.folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"threads": threads}))
    for part in kept:
        shutil.copytree(finished.out / "store" / part, out / "store" / part)
    return folder


def test_a_cell_has_the_threads_of_its_plan_wherever_it_is_done(images: Path, tmp_path: Path) -> None:
    words = options(images, tmp_path / "a", "unet", steps=5)
    assert bench(*words).code == 0
    folder = tmp_path / "b" / results_in(tmp_path / "a").name
    folder.mkdir(parents=True)
    shutil.copy(results_in(tmp_path / "a") / "run.json", folder)
    assert read_run(folder)["threads"] == 1
    torch.set_num_threads(2)
    try:
        sharing.take(folder, sharing.undone_in(folder), Settings("cpu"))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    assert_same(tables(tmp_path / "b"), tables(tmp_path / "a"))
    answer = bench(*words, "--threads", 3)
    assert answer.code == 2
    assert "planned with 1 for each cell, got 3; leave it out" in answer.err


def test_a_worker_passes_by_what_another_is_at_and_waits_for_it_at_the_end(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "POLL", 0.05)
    folder, lines = planned_again(finished, tmp_path, "fits", "scores"), list[str]()
    cells = ["unet-r0", "segnet-r0"]
    worker = threading.Thread(target=sharing.take, args=(folder, cells, Settings("cpu", log=lines.append)))
    with Store(tmp_path / "store").locked(sharing.lock_of(folder, "unet-r0")):
        worker.start()
        deadline = time.monotonic() + 60
        while not any("waiting for what other processes work on: unet-r0" in line for line in lines):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert sharing.undone_in(folder).count("segnet-r0") == 0
        assert "unet-r0" in sharing.undone_in(folder)
    worker.join(60)
    assert not {*cells} & {*sharing.undone_in(folder)}


def test_a_training_that_two_cells_share_is_not_waited_for(finished: Run, tmp_path: Path) -> None:
    folder = planned_again(finished, tmp_path)
    fit = next(entry["fit"] for entry in read_run(folder)["cells"] if entry["label"] == "unet")
    with Store(tmp_path / "store").locked(fit), pytest.raises(BusyError):
        sharing.attempt(folder, "unet-r0", Settings("cpu", wait=False))
    assert not (folder / "cells/unet-r0").exists()


def test_a_cell_that_failed_elsewhere_in_the_meantime_is_not_tried_again(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tries = planned_again(finished, tmp_path, "fits"), []

    def attempt(folder: Path, cell: str, settings: Settings) -> str:
        tries.append(cell)
        for each in ("unet-r0", "segnet-r0"):
            (folder / "cells" / each).mkdir(parents=True, exist_ok=True)
            (folder / "cells" / each / "failure.json").write_text('{"error": "lightning"}')
        return "lightning"

    monkeypatch.setattr(sharing, "attempt", attempt)
    failed = sharing.take(folder, ["unet-r0", "segnet-r0"], Settings("cpu"))
    assert (tries, failed) == (["unet-r0"], {"unet-r0": "lightning", "segnet-r0": "lightning"})
    sharing.take(folder, ["unet-r0"], Settings("cpu"))
    assert tries == ["unet-r0", "unet-r0"], "a later command tries again"


HOLDER = """
import sys, time
from filelock import SoftFileLease
with SoftFileLease(sys.argv[1], lease_duration=1.0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_without_locks_a_lease_keeps_others_away_until_it_is_not_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **named: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refused)
    monkeypatch.setattr(locks, "LEASE", 1.0)
    (tmp_path / "locks").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "locks/cell.lease")], stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        for _ in range(4):
            with pytest.raises(BusyError), Store(tmp_path).locked("cell", wait=False):
                pass
            time.sleep(0.5)
        holder.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        with Store(tmp_path).locked("cell"):
            assert time.monotonic() - started > 0.5
    finally:
        holder.kill()
        holder.wait()


def test_the_table_shows_workers_and_what_they_are_at(finished: Run, tmp_path: Path) -> None:
    folder = planned_again(finished, tmp_path)
    with workers.shown(folder, "unet-r0"):
        shown = table(folder, read_run(folder))
        (worker,) = workers.at_work(folder)
    assert shown.title == "0 of 11 cells done"
    assert [list(column.cells) for column in shown.columns][:3] == [[worker.name], ["unet-r0"], ["step 0 of 60"]]
    assert not workers.at_work(folder)
