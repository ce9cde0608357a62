"""Work shared out over processes, with results in the order of the jobs."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from uqseg.data.ahead import in_turn
from uqseg.errors import FileError

Job = TypeVar("Job")
Result = TypeVar("Result")
AHEAD = 3  # jobs a process that may be finished before their results are asked for


def count_for(jobs: int, few: int) -> int:
    """How many processes to use: one below `few` jobs, which starting processes does not pay for; else one a core."""
    return 1 if jobs < few or sys.platform != "linux" else os.cpu_count() or 1


def in_order(
    function: Callable[[Job], Result], jobs: Iterable[Job], count: int, weigh: Callable[[Job], int]
) -> Iterator[Result]:
    """`function` of each job, in order, by `count` processes; few results are held, however many jobs there are.

    weigh: the bytes that a job and its result take, see `in_turn`
    Raises what `function` raises, and FileError where a process is ended from outside.
    """
    if count == 1:
        yield from map(function, jobs)
        return
    # Forked, because a spawned process would run the caller's script again; so `function` may use neither torch nor
    # BLAS, whose threads a fork does not survive.
    with ProcessPoolExecutor(count, multiprocessing.get_context("fork"), _end_with_parent) as pool:
        try:
            yield from in_turn(lambda job: pool.submit(function, job), jobs, weigh, AHEAD * count)
        except BrokenProcessPool as error:
            raise FileError(
                "a process preparing data was ended from outside, likely for want of memory; ask again with more "
                "memory free or with a limit; where the data cache lies in memory, name another folder in $UQSEG_CACHE"
            ) from error


def _end_with_parent() -> None:
    """End this process by SIGTERM at once, and when the one that started it is gone: a killed parent cannot tell it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
