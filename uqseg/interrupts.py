"""Ctrl-C and SIGTERM: they end a command alike, and while a training runs what must not be torn apart is finished."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

AGAIN = 0.1  # seconds after which a signal that was lost is sent once more


def end(number: int, frame: FrameType | None = None) -> None:
    """End as a signal asks: SIGINT in KeyboardInterrupt as ever, SIGTERM in SystemExit(143)."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def unwinding() -> Iterator[None]:
    """Have SIGTERM end what runs in it in SystemExit(143), so that it may clean up, unless somebody else handles it."""
    free = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not free:
        yield
        return
    report = sys.unraisablehook

    def again(lost: Any) -> None:
        """Python drops what is raised while an object is thrown away: then the signal is sent once more."""
        if lost.exc_type is SystemExit:
            threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            report(lost)

    signal.signal(signal.SIGTERM, end)
    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Interrupts:
    """A context in which the first SIGINT or SIGTERM waits for the end of a `deferred` block; a second waits for
    nothing. Both end as `end` says.

    Where somebody else handles these signals, or in another thread than the first, it changes nothing.
    shared: the first signal waits for the end of the context, since several processes are to stop together: whoever
    runs in it asks all of them what was received, and ends.
    """

    def __init__(self, shared: bool = False) -> None:
        self.shared = shared
        self.received: list[int] = []
        self.deferring = False

    def __enter__(self) -> Interrupts:
        first = threading.current_thread() is threading.main_thread()
        usual = {signal.SIGINT: (signal.default_int_handler,), signal.SIGTERM: (signal.SIG_DFL, end)}
        current: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in usual if first}
        self._usual = {number: handler for number, handler in current.items() if handler in usual[number]}
        for number in self._usual:
            signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, usual in self._usual.items():
            signal.signal(number, usual)
        if self.received and error[0] is None:
            end(self.received[0])

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Hold the first signal back until the block is done, or has failed."""
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False
            if self.received and not self.shared:
                end(self.received[0])

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if not (self.deferring or self.shared) or len(self.received) > 1:
            end(number)
