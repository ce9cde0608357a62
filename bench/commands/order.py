"""Commands that look after the folder of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bench.commands import app
from bench.commands.arguments import ORDER, Out
from bench.console import show
from uqseg.errors import FileError, UsageError


@app.command(rich_help_panel=ORDER)
def status(
    folder: Annotated[
        Path | None, Argument(metavar="RUN", help="One run, or a folder of runs.", show_default="--out")
    ] = None,
    out: Out = Path("runs"),
    every: Annotated[bool, Option("--all", help="List each cell, training and score.")] = False,
    watch: Annotated[
        bool, Option("--watch", help="Show workers and Slurm's queue until all is done, anew every few seconds.")
    ] = False,
) -> None:
    """What is finished, under way, failed and damaged, of all runs or of one, and what comes next.

    Example: uqseg status runs/first
    """
    from bench.runs import upkeep
    from bench.runs import watch as watching

    run, out = (folder, folder.parent) if folder and (folder / "run.json").exists() else (None, folder or out)
    if watch:
        watching.watch(_existing(out))
        return
    for line in upkeep.state_of_run(run, every) if run else upkeep.state(_existing(out), every):
        show(line)


@app.command(rich_help_panel=ORDER)
def clean(
    out: Out = Path("runs"),
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be freed, and free nothing.")] = False,
) -> None:
    """Free weights, scores and half-done trainings that no results folder in OUT needs."""
    from bench.runs import upkeep

    total = 0
    for path in upkeep.unneeded(_existing(out)):
        size = upkeep.size(path)
        total += size
        show(f"{size / 1e6:9.2f} MB  {path}")
        if not dry_run:
            upkeep.free(path)
    show(f"{'Would free' if dry_run else 'Freed'} {total / 1e6:.2f} MB.")


@app.command(rich_help_panel=ORDER)
def verify(out: Out = Path("runs")) -> None:
    """Compare weights, scores, results and converted data with the checksums they were written with."""
    from bench.runs.upkeep import damaged

    lines = list(damaged(_existing(out)))
    for line in lines:
        show(line)
    if lines:
        raise FileError(f"{len(lines)} damaged, see above; delete what is named and run again")
    show("Everything is as it was written.")


def _existing(out: Path) -> Path:
    if not out.is_dir():
        raise UsageError(f"--out: there is no folder '{out}'; give the folder of runs.")
    return out
