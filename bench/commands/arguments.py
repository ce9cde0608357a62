"""Options and arguments that several commands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

# Headings of options and of commands.
PREDICTIONS = "Options for data and predictions"
WHERE = "Options for several processors"
PAGE = "Options for the report"
HEADINGS = BEGIN, TRAIN, READ, ORDER, OWN = (
    "Begin",
    "Train, score and predict",
    "Read and compare results",
    "Keep order",
    "Measure uqseg itself",
)

Wanted = list[str] | None


class Format(StrEnum):
    png = "png"
    svg = "svg"


class SampleKind(StrEnum):
    independent = "independent"
    support = "support"
    stratified = "stratified"


RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Results folder of a run, such as runs/NAME, or its published copy.")
]
Methods = Annotated[
    str,
    typer.Option(
        help="Comma-separated: name, name\\[option=value,training.lr=1e-3], name+wrapper, package.module:Class, "
        "path/to/file.py:Class, NAME=predictions:DIR, or all."
    ),
]
Assignments = Annotated[Wanted, typer.Option("--set", help="method.option=value or training.key=value; repeatable.")]
Samples = Annotated[int | None, typer.Option(help="Samples per image.", show_default="the recipe's")]
Limit = Annotated[int | None, typer.Option(help="At most this many images in each split.", show_default="all")]
Size = Annotated[int | None, typer.Option(help="Images are SIZE×SIZE pixels.", show_default="the recipe's")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Out = Annotated[Path, typer.Option(help="Folder of all runs, with the store of weights and scores.")]
Name = Annotated[
    str | None,
    typer.Option(help="Name of the results folder.", show_default="data, recipe, size and a hash of the rest"),
]
Plugins = Annotated[
    Wanted,
    typer.Option(
        "--plugin",
        help="A Python file that registers methods, wrappers, statistics, figures, sources or launchers; repeatable.",
    ),
]
Trust = Annotated[
    Wanted, typer.Option(help="A plugin or class from outside this project whose code may be run; repeatable.")
]
Kinds = Annotated[
    SampleKind | None,
    typer.Option(
        "--kind",
        help="independent, support or stratified: how the samples of predictions were drawn, where their folder does "
        "not say.",
        show_choices=False,  # as a type they would leave no room for the text
        rich_help_panel=PREDICTIONS,
    ),
]
Common = Annotated[
    bool,
    typer.Option(
        "--common",
        help="Go on where predictions lack more than 10 % of the test cases: all are scored on the common ones.",
        rich_help_panel=PREDICTIONS,
    ),
]
AllowMissing = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Go on where more than 1 % of the readers' files cannot be used.",
        rich_help_panel=PREDICTIONS,
    ),
]
Curves = Annotated[
    str | None,
    typer.Option(
        "--log", help="Show the trainings' curves as well in tensorboard:DIR, wandb or mlflow.", rich_help_panel=PAGE
    ),
]
Kept = Annotated[
    bool,
    typer.Option(
        "--gallery/--no-gallery", help="Keep images and samples of a few cases for the page.", rich_help_panel=PAGE
    ),
]
Reported = Annotated[
    bool,
    typer.Option(
        "--report/--no-report",
        help="Write the report once the cells are done; else `report` does.",
        rich_help_panel=PAGE,
    ),
]
Pictures = Annotated[Format, typer.Option(help="Format of the page's pictures.", rich_help_panel=PAGE)]


def register(plugins: Wanted) -> None:
    """Run the plugins; without any, nothing is imported that a report does not need."""
    if plugins:
        from bench.runs.spec import run_plugins

        run_plugins(plugins)
