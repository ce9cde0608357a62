"""Quiet: decoders' warnings name no file, so they are kept from the user; what matters is said of each file by name."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LIBRARIES = ("PIL", "nibabel", "pydicom")
LOGGERS = (*LIBRARIES, "nibabel.global")  # the last has a level of its own

_lock = threading.Lock()
_threads = 0  # that are quiet at the moment: the first sets what is global, and the last sets it back
_kept_back = ExitStack()


@contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor log lines of the libraries that decode, in any number of threads."""
    global _threads
    with _lock:
        if not _threads:
            _kept_back.enter_context(_silence())
        _threads += 1
    try:
        yield
    finally:
        with _lock:
            _threads -= 1
            if not _threads:
                _kept_back.close()


@contextmanager
def _silence() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=rf"({'|'.join(LIBRARIES)})(\.|$)")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
