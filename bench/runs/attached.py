"""A worker that another process started: it is told its cells, and stops when that process is gone or says so."""

from __future__ import annotations

import _thread
import json
import signal
import sys
import threading


def read_cells() -> list[str]:
    """The cells on the first line of standard input. When the input ends, this process gets a Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whoever started it sees that it was killed, and starts another

    def stop_at_end() -> None:
        sys.stdin.read()
        _thread.interrupt_main()

    cells: list[str] = json.loads(sys.stdin.readline())
    threading.Thread(target=stop_at_end, daemon=True).start()
    return cells
