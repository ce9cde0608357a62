"""The errors a user can mend: a request that names nothing, and a file that cannot be used."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """What was asked for does not exist or does not fit; the command line exits with 2."""


class FileError(RuntimeError):
    """A file is missing, corrupt or cannot be written; the command line exits with 1."""


class DamagedError(FileError):
    """A file is not as it was written. Whoever can make anew what it held does so; otherwise it is an error."""


FEW = 20  # names that are listed beside the one that is close


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for a name that is not registered: names what is close, and what exists unless that is a long list."""
    names, name = sorted(known), str(name)
    close = get_close_matches(name, names, n=1)
    hints = [f"Did you mean '{close[0]}'?"] if close else []
    if not close or len(names) <= FEW:
        hints.append(f"Known: {', '.join(names)}.")
    return UsageError(f"unknown {kind} '{name}'. {' '.join(hints)}")


def message_of(error: BaseException) -> str:
    """The message of an error in one line; the name of its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
