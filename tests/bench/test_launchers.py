"""A grid of three methods and four repetitions gives the same bits however its cells are shared out, whoever is killed.

Ray and Slurm are used where they are installed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.launchers import Settings, processes
from bench.launchers.ray import _task
from bench.runs import bundle, watch
from bench.runs.results import read_results
from bench.runs.sharing import undone_in
from bench.runs.workers import at_work
from tests.bench import slurm
from tests.bench.conftest import Run, assert_same, bench, options, results_in, tables
from tests.bench.test_resume import STOPPED, start
from tests.bench.test_sharing import planned_again

pytestmark = pytest.mark.integration
PATIENCE = 600.0


def words(images: Path, out: Path, *more: object) -> list[str]:
    """The command of the grid, with checkpoints at every step."""
    given = options(images, out, "unet", "mcdropout", "segnet", steps=120)
    given += ["--set", "training.checkpoint_every=0.01", "--seeds", "0-3", "--threads", "1", "--name", "grid"]
    return [*given, *map(str, more)]


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone")
    answer = bench(*words(images, out))
    assert answer.code == 0, answer.err
    return out


def is_like(out: Path, alone: Path) -> None:
    """All cells are done, and every score and weight is that of one process."""
    assert_same(tables(out), tables(alone))
    weights = {path.parent.name: path.read_bytes() for path in alone.glob("store/fits/*/weights.safetensors")}
    assert len(weights) == 12
    for name, expected in weights.items():
        assert (out / "store/fits" / name / "weights.safetensors").read_bytes() == expected, name
    results = read_results(results_in(out))
    assert (results.failed, results.finished is None) == ({}, False)
    assert {label: len(cells) for label, cells in results.cells.items()} == {"unet": 4, "mcdropout": 4, "segnet": 4}
    assert not at_work(results_in(out)), "every worker has said that it ended"


def kill_some(out: Path, ended: Callable[[], bool], kills: int, seed: int) -> int:
    """Kill workers at random moments until the run has ended; how many. No cell so often that it would be given up."""
    dice, killed = random.Random(seed), Counter[str]()
    deadline = time.monotonic() + PATIENCE
    while not ended():
        assert time.monotonic() < deadline
        time.sleep(dice.uniform(0.2, 1.0))
        busy = [w for w in at_work(out / "grid") if "-r" in w.cell and killed[w.cell] < processes.KILLS - 1]
        if busy and killed.total() < kills:
            worker = dice.choice(busy)
            try:
                os.kill(int(worker.name.rpartition("-")[2]), signal.SIGKILL)
            except ProcessLookupError:
                continue
            killed[worker.cell] += 1
    return killed.total()


def test_two_workers_of_one_command_some_killed(images: Path, alone: Path, tmp_path: Path) -> None:
    process = start(words(images, tmp_path, "--jobs", 2))
    killed = kill_some(tmp_path, lambda: process.poll() is not None, 5, 1)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert killed == 5
    assert out.count(" was killed") == 5
    is_like(tmp_path, alone)


def test_two_processes_started_by_hand_each_killed_now_and_then(images: Path, alone: Path, tmp_path: Path) -> None:
    dice, kills = random.Random(2), 0
    running = [start(words(images, tmp_path)) for _ in range(2)]
    deadline = time.monotonic() + PATIENCE
    while all(process.poll() != 0 for process in running):
        assert time.monotonic() < deadline
        time.sleep(dice.uniform(0.2, 1.0))
        for place, process in enumerate(running):
            if process.poll() == -signal.SIGKILL:
                process.communicate()
                running[place] = start(words(images, tmp_path))
        busy = {int(worker.name.rpartition("-")[2]) for worker in at_work(tmp_path / "grid")}
        if kills < 4 and (at_it := [process for process in running if process.pid in busy]):
            dice.choice(at_it).kill()
            kills += 1
    for process in running:
        ended = (process.communicate(timeout=PATIENCE)[1], process.returncode)
        assert ended in (("", 0), ("", -signal.SIGKILL))
    assert kills == 4
    is_like(tmp_path, alone)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_workers_with_checkpoints_and_the_command_goes_on(
    stop: signal.Signals, images: Path, alone: Path, tmp_path: Path
) -> None:
    process = start(words(images, tmp_path, "--jobs", 2))
    deadline = time.monotonic() + PATIENCE
    while len([w for w in at_work(tmp_path / "grid") if "-r" in w.cell]) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(stop)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (128 + stop, STOPPED)
    assert not at_work(tmp_path / "grid")
    assert bench(*words(images, tmp_path)).code == 0
    is_like(tmp_path, alone)


KILLED = "its process was killed, likely for want of memory; free some"
GLUTTON = '''
import os, pathlib, signal
import torch
from uqseg.methods import Method, Options

class Net(Method[Options]):
    """Is killed when it trains, as one that takes all memory, unless a file forbids it."""
    small = {}
    def __init__(self, options, *, channels, readers):
        super().__init__(options, channels=channels, readers=readers)
        self.logit = torch.nn.Parameter(torch.zeros(()))
    def loss(self, images, masks, read, noise):
        tests = pathlib.Path(__file__).parent
        if list(tests.glob("grid/workers/*")) and not (tests / "fed").exists():  # not in the trial before the run
            os.kill(os.getpid(), signal.SIGKILL)
        return (self.logit - masks.float().mean((1, 2, 3))).square()
    def draw(self, images, n, noise):
        return self.logit.sigmoid().expand(len(images), n, *images.shape[2:])
'''


@pytest.fixture
def glutton(images: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command of a run with a method whose process is killed whenever it trains."""
    file = tmp_path / "net.py"
    file.write_text(GLUTTON)

    def given(*more: object) -> list[str]:
        return [*options(images, tmp_path, "segnet", f"{file}:Net", steps=3), "--name", "grid", *map(str, more)]

    return given


@pytest.mark.parametrize(
    ("extra", "more"),
    [("", ("--jobs", 2)), ("submitit", ("--slurm", "local.toml")), ("ray", ("--ray",))],
    ids=["jobs", "slurm", "ray"],
)
def test_a_cell_whose_process_is_killed_again_and_again_has_failed_in_one_line(
    glutton: Callable[..., list[str]],
    tmp_path: Path,
    extra: str,
    more: tuple[object, ...],
) -> None:
    if extra:
        pytest.importorskip(extra)
    (tmp_path / "local.toml").write_text('cluster = "local"\nat_once = 2\n')
    given = [tmp_path / word if word == "local.toml" else word for word in more]
    process = start(glutton(*given))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, out + err
    (line,) = err.splitlines()
    assert line.startswith(f"error: 1 of 8 cells failed, the others are kept: net.py:Net, repetition 0: {KILLED}")
    assert "--jobs" in line
    assert not at_work(tmp_path / "grid")
    (tmp_path / "fed").touch()
    again = start(glutton(*given))
    out, err = again.communicate(timeout=PATIENCE)
    assert (again.returncode, err) == (0, ""), out


def test_a_run_alone_that_was_killed_says_so_the_next_time(glutton: Callable[..., list[str]], tmp_path: Path) -> None:
    process = start(glutton())
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    (worker,) = at_work(tmp_path / "grid")
    assert worker.silent, "no process of this machine any more"
    (tmp_path / "fed").touch()
    again = start(glutton())
    out, err = again.communicate(timeout=PATIENCE)
    assert (again.returncode, err) == (0, "")
    assert f"{worker.cell} goes on from its last checkpoint, if it has one: the last time, {KILLED}" in out


def test_ray_with_two_workers_one_killed(images: Path, alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `ray`")
    process = start(words(images, tmp_path, "--ray"))
    killed = kill_some(tmp_path, lambda: process.poll() is not None, 1, 3)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert killed == 1
    is_like(tmp_path, alone)


def test_ray_workers_that_do_not_see_the_folder_return_bytes(finished: Run, tmp_path: Path) -> None:
    folder = planned_again(finished, tmp_path / "far")
    run, cells = (folder / "run.json").read_bytes(), ["unet-r0", "oracle"]
    returned = _task(tmp_path / "nowhere" / folder.name, run, cells, Settings("cpu"))
    assert returned is not None
    bundle.unpack(returned, folder)
    bundle.unpack(returned, folder)
    assert not {*cells} & {*undone_in(folder)}
    assert_same(
        tables(tmp_path / "far"), {n: s for n, s in tables(finished.out).items() if n in tables(tmp_path / "far")}
    )
    assert len(list(tmp_path.glob("far/store/fits/*/weights.safetensors"))) == 1
    assert not list(folder.parent.glob(".*"))


def test_submitits_local_executor(images: Path, alone: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="the extra `slurm`")
    options = tmp_path / "local.toml"
    options.write_text('cluster = "local"\nat_once = 2\ncpus = 1\n')
    answer = bench(*words(images, tmp_path, "--slurm", options, "--report"))
    assert answer.code == 0, answer.err
    is_like(tmp_path, alone)


def test_slurm_requeues_one_task_and_has_another_killed(images: Path, alone: Path, tmp_path: Path) -> None:
    """The report of the last job names the cell of the killed task; the same command has it done."""
    pytest.importorskip("submitit", reason="the extra `slurm`")
    if reason := slurm.missing():
        pytest.skip(reason)
    options = tmp_path / "cpu.toml"
    options.write_text("cpus = 1\nmemory_gb = 2\nminutes = 60\n")
    root = tmp_path / "slurm"
    root.mkdir()
    with slurm.cluster(root) as environment, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", environment["SLURM_CONF"])

        def command(*given: str) -> str:
            return subprocess.run(given, check=True, capture_output=True, text=True).stdout

        def sent() -> None:
            answer = bench(*words(images, tmp_path, "--slurm", options, "--report"))
            assert answer.code == 0, answer.err
            assert "Sent to Slurm: array " in answer.out

        sent()
        stopped: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while watch.queue(tmp_path / "grid"):
            assert time.monotonic() < deadline, command("squeue")
            for worker in at_work(tmp_path / "grid"):
                if len(stopped) == 2 or worker.cell in stopped or "-r" not in worker.cell:
                    continue
                process = int(worker.name.rpartition("-")[2])
                if stopped:
                    os.kill(process, signal.SIGKILL)
                else:
                    lines = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                    known = dict(line.decode().partition("=")[::2] for line in lines)
                    task = f"{known['SLURM_ARRAY_JOB_ID']}_{known['SLURM_ARRAY_TASK_ID']}"
                    command("scontrol", "requeue", task)
                    time.sleep(2)
                    command("scontrol", "update", f"JobId={task}", "StartTime=now")  # not after its usual two minutes
                stopped.append(worker.cell)
            time.sleep(0.5)
        assert len(stopped) == 2
        results = read_results(tmp_path / "grid")
        left = undone_in(tmp_path / "grid")
        assert left == [stopped[1]], "the one that was requeued is done"
        assert "| failed |" in (tmp_path / "grid/report.md").read_text()
        assert results.finished is None
        (log,) = (file for file in (tmp_path / "grid/slurm").glob("*_log.err") if "cells failed" in file.read_text())
        assert "1 of 18 cells failed" in log.read_text()
        sent()
        while watch.queue(tmp_path / "grid"):
            assert time.monotonic() < deadline + PATIENCE, command("squeue")
            time.sleep(0.5)
    assert (tmp_path / "grid/report.md").exists()
    is_like(tmp_path, alone)


def test_torchrun_trains_each_cell_over_its_processes(images: Path, alone: Path, tmp_path: Path) -> None:
    """Near the weights of one process; a request that cannot be met ends all of them in one line."""
    launch = ["torch.distributed.run", "--nproc-per-node", "2", "-m", "bench"]
    given = [*options(images, tmp_path, "unet", "ensemble", steps=5), "--threads", "1"]
    process = start(given, module=launch)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    results = read_results(results_in(tmp_path))
    assert not results.failed
    for (cell,) in results.cells.values():
        assert cell.cost is not None
        assert cell.cost["processes"] == 2
    refused = start([*given, "--jobs", "2"], module=launch)
    _, err = refused.communicate(timeout=PATIENCE)
    assert refused.returncode != 0
    assert "error: --jobs: torchrun splits each training over its processes; leave this out." in err
