"""What the command line is called, was given and prints; nothing else of this project prints."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import typer


def show(text: object = "", err: bool = False) -> None:
    """Print a line; what a terminal would obey rather than show (names come from anybody's files) becomes escapes."""
    typer.echo("".join(c if c.isprintable() or c in "\t\xa0" else ascii(c)[1:-1] for c in str(text)), err=err)


def in_words(seconds: float) -> str:
    """About 40 s, 7 min, 3 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def program() -> str:
    """The command as the user called it, for advice that names it."""
    return "uqseg" if Path(sys.argv[0]).stem == "uqseg" else "python -m bench"


def command() -> str:
    """The command as it was typed."""
    return f"{program()} {shlex.join(word for word in sys.argv[1:] if word != '--debug')}"


def without_folders(word: str) -> str:
    """A word of a command with the folders of this machine left out: folder:/home/me/retina becomes folder:retina."""
    return re.sub(r"""[^:=,"'\[+]*[/\\]""", "", word.rstrip("/\\"))


def debug() -> bool:
    """Whether errors are to show their tracebacks."""
    return "--debug" in sys.argv or bool(os.environ.get("UQSEG_DEBUG"))
