"""Options and arguments that several commands have."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

# Headings of commands.
HEADINGS = BEGIN, TRAIN, READ, ORDER, OWN = (
    "Begin",
    "Train, score and predict",
    "Read and compare results",
    "Keep order",
    "Measure uqseg itself",
)

Wanted = list[str] | None


class Format(StrEnum):
    """File formats of a picture."""

    png = "png"
    svg = "svg"


class SampleKind(StrEnum):
    """How samples were drawn: `uqseg.samples.Drawn` as the command line offers it."""

    independent = "independent"
    support = "support"
    stratified = "stratified"


RunFolder = Annotated[
    Path, Argument(metavar="RUN", help="Results folder of a run, such as runs/NAME, or its published copy.")
]
Methods = Annotated[str, Option(
    help="Comma-separated: name, name\\[option=value,training.lr=1e-3], name+wrapper, package.module:Class, "
    "path/to/file.py:Class, NAME=predictions:DIR, or all."
)]  # fmt: skip
Assignments = Annotated[Wanted, Option("--set", help="method.option=value or training.key=value; repeatable.")]
Samples = Annotated[int | None, Option(help="Samples per image.", show_default="the recipe's")]
Limit = Annotated[int | None, Option(help="At most this many images in each split.", show_default="all")]
SIZE = 64  # of the recipe quick, which is that of `run` by default
FixedSize = Annotated[int, Option(help="Images are SIZE×SIZE pixels; by default as `run` sees them.")]
Size = Annotated[int | None, Option(help="Images are SIZE×SIZE pixels.", show_default="the recipe's")]
Device = Annotated[str, Option(help="auto, cpu, cuda or cuda:1.")]
Out = Annotated[Path, Option(help="Folder of all runs, with the store of weights and scores.")]
Name = Annotated[
    str | None, Option(help="Name of the results folder.", show_default="data, recipe, size and a hash of the rest")
]
Plugins = Annotated[Wanted, Option("--plugin",
    help="A Python file that registers methods, wrappers, statistics, figures, sources or launchers; repeatable."
)]  # fmt: skip
Trust = Annotated[Wanted, Option(help="A plugin or class from outside this project whose code may be run; repeatable.")]
on_predictions = partial(Option, rich_help_panel="Options for data and predictions")
on_processors = partial(Option, rich_help_panel="Options for several processors")
on_page = partial(Option, rich_help_panel="Options for the report")
Kinds = Annotated[
    SampleKind | None,
    on_predictions(
        "--kind", help="independent, support or stratified: how the samples of predictions were drawn, whatever "
        "their folder says.", show_choices=False,  # as a type they would leave no room for the text
    ),
]  # fmt: skip
Common = Annotated[bool, on_predictions(
    "--common", help="Go on where predictions lack more than 10 % of the test cases: all are scored on the common ones."
)]  # fmt: skip
AllowMissing = Annotated[
    bool, on_predictions("--allow-missing", help="Go on where more than 1 % of the readers' files cannot be used.")
]
Jobs = Annotated[
    int | None,
    on_processors(min=1, help="Processes that work at the same time.", show_default="one for each GPU, else 1"),
]
Threads = Annotated[int | None, on_processors(
    min=1, help="Threads of each cell, fixed when the run is planned.", show_default="the cores over the jobs"
)]  # fmt: skip
Slurm = Annotated[
    Path | None, on_processors(help="Send the cells to Slurm, as FILE.toml says: partition, time, gpus, ...")
]
Ray = Annotated[
    str | None, on_processors(help="Send the cells to the Ray cluster at ADDRESS; without one, to this machine's.")
]
Launcher = Annotated[
    str | None, on_processors(help="Where cells are worked on, see `list launchers`; for those of plugins.")
]
Curves = Annotated[
    str | None, on_page("--log", help="Show the trainings' curves as well in tensorboard:DIR, wandb or mlflow.")
]
Kept = Annotated[bool, on_page("--gallery/--no-gallery", help="Keep images and samples of a few cases for the page.")]
Reported = Annotated[
    bool, on_page("--report/--no-report", help="Write the report once the cells are done; else `report` does.")
]
Pictures = Annotated[Format, on_page(help="Format of the page's pictures.")]
Progress = Annotated[bool, on_page(help="Show progress bars.")]


def register(plugins: Wanted) -> None:
    """Run the plugins; without any, nothing is imported that a report does not need."""
    if plugins:
        from bench.runs.spec import run_plugins

        run_plugins(plugins)
