"""Work in several processes: order, a worker that is killed, and a parent that is killed."""

import os
import signal
import time
from pathlib import Path

import pytest

from uqseg.data import ahead
from uqseg.data.processes import in_order
from uqseg.errors import FileError


def slow_square(n: int) -> int:
    time.sleep(0.01 * (n % 3))
    return n * n


def end_at_three(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def nothing(job: object) -> int:
    return 0


def leave_pid(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(0.05)


@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_the_order_of_the_jobs(count: int) -> None:
    assert list(in_order(slow_square, iter(range(30)), count, nothing)) == [n * n for n in range(30)]


def test_a_killed_worker_is_an_error_that_says_so() -> None:
    with pytest.raises(FileError, match="ended from outside"):
        list(in_order(end_at_three, range(9), 2, nothing))


def test_results_held_ahead_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "BYTES", 100)
    begun: list[int] = []
    results = in_order(slow_square, (begun.append(n) or n for n in range(20)), 2, lambda _: 40)
    for n, result in enumerate(results):
        assert result == n * n
        assert len(begun) <= n + 3, "two fit, and the next waits"


def alive(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes live")
def test_a_killed_parent_leaves_no_worker_behind(tmp_path: Path) -> None:
    parent = os.fork()
    if not parent:
        try:
            for n, _ in enumerate(in_order(leave_pid, [tmp_path] * 1000, 2, nothing)):
                if n == 10:
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(parent, 0)
    workers = [file.name for file in tmp_path.iterdir()]
    assert workers
    for _ in range(100):
        if not any(map(alive, workers)):
            break
        time.sleep(0.05)
    assert not any(map(alive, workers))
