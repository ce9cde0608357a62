"""Progress of work on many cases: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

EVERY = 30.0  # seconds between two lines


@contextmanager
def progress(text: str, total: int, log: Callable[[str], None]) -> Iterator[Callable[[str], None]]:
    """A function to be called with the name of each case that is done."""
    count, last = 0, time.perf_counter()
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(escape(text), total=total)

        def advance(name: str) -> None:
            nonlocal count, last
            count += 1
            bar.advance(task)
            if bar.disable and time.perf_counter() - last > EVERY:
                last = time.perf_counter()
                log(f"  {count} of {total}: {name}")

        yield advance
