"""Ctrl-C and SIGTERM while a training runs: what must not be torn apart is finished first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """A context in which the first SIGINT or SIGTERM waits for the end of a `deferred` block; a second waits for
    nothing. SIGINT ends in KeyboardInterrupt as ever, SIGTERM in SystemExit(143).

    Where somebody else handles these signals, or in another thread than the first, it changes nothing.
    shared: the first signal waits for the end of the context, since several processes are to stop together: whoever
    runs in it asks all of them what was received, and ends.
    """

    def __init__(self, shared: bool = False) -> None:
        self.shared = shared
        self.received: list[int] = []
        self.deferring = False

    def __enter__(self) -> Interrupts:
        self._usual: dict[signal.Signals, Any] = {
            signal.SIGINT: signal.default_int_handler,
            signal.SIGTERM: signal.SIG_DFL,
        }
        if threading.current_thread() is not threading.main_thread():
            self._usual = {}
        self._usual = {number: usual for number, usual in self._usual.items() if signal.getsignal(number) == usual}
        for number in self._usual:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, usual in self._usual.items():
            signal.signal(number, usual)
        if self.received and error[0] is None:
            self._end(self.received[0])

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold the first signal back until the block is done, or has failed."""
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False
            if self.received and not self.shared:
                self._end(self.received[0])

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if not (self.deferring or self.shared) or len(self.received) > 1:
            self._end(number)

    def _end(self, number: int) -> None:
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
