"""Work ahead: jobs that threads or processes do before their results are asked for, bounded in bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
BYTES = 2**29  # that jobs and results ahead may take together


def in_turn(
    submit: Callable[[Job], Future[Result]], jobs: Iterable[Job], weigh: Callable[[Job], int], most: int
) -> Iterator[Result]:
    """The result of each job in order; at most `most` jobs are submitted ahead.

    weigh: the bytes that a job and its result take; together they take at most BYTES, or one job alone more.
    """
    ahead: deque[tuple[int, Future[Result]]] = deque()
    try:
        for job in jobs:
            weight = weigh(job)
            while ahead and (len(ahead) == most or weight + sum(other for other, _ in ahead) > BYTES):
                yield ahead.popleft()[1].result()
            ahead.append((weight, submit(job)))
        while ahead:
            yield ahead.popleft()[1].result()
    finally:
        for _, future in ahead:
            future.cancel()
