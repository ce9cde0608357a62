"""The command line: the commands, and how each of them ends."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from typing import Annotated, Any

import typer

from bench.commands import app, begin, measure, order, reports, runs  # noqa: F401 - each registers its commands
from bench.commands.arguments import HEADINGS
from bench.console import debug, program, show
from bench.version import commit
from uqseg.errors import FileError, UsageError, message_of
from uqseg.interrupts import unwinding

__all__ = ["app", "main"]
STOPPED = 130, 143  # by Ctrl-C, as Typer has it, and by SIGTERM


def _show_version(wanted: bool) -> None:
    if wanted:
        import uqseg

        show(f"uqseg {uqseg.__version__}, commit {commit()}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


app.registered_commands.sort(key=lambda command: HEADINGS.index(command.rich_help_panel or HEADINGS[-1]))
# Typer's own base of wrong options, arguments and commands, which it exports under no name.
WrongWords = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line; one line per error; exit code 2 for usage, 1 for failures, 130 or 143 if it is stopped."""
    for place, word in enumerate(sys.argv):
        if word == "--ray" and sys.argv[place + 1 : place + 2] in ([], *([w] for w in sys.argv if w.startswith("-"))):
            sys.argv[place] = "--ray=local"  # Typer knows no option whose value may be left out
    words = [word for word in sys.argv[1:] if word != "--debug"]
    # Of the processes that torchrun started those that wait for others have to end at once.
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    try:
        with unwinding() if alone else nullcontext():
            code = app(words or ["--help"], prog_name=program(), standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except Exception as error:
        if isinstance(error, WrongWords):
            sys.exit(_wrong_words(error))
        if debug():
            raise
        message = message_of(error)
        if not isinstance(error, UsageError | FileError):
            message = f"{type(error).__name__}: {message} (--debug shows the traceback)"
        show(f"error: {message}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    if code in STOPPED:
        show("stopped; what is finished is kept, a training up to this step; the same command goes on there", err=True)
    sys.exit(code)


def _wrong_words(error: Any) -> int:
    """Say in one line what Typer does not understand."""
    command = error.ctx.command_path if error.ctx else program()
    show(f"error: {' '.join(error.format_message().split())} See '{command} -h'.", err=True)
    return 2
