"""Commands to begin with: what there is, what a data set holds, a method of one's own."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bench.commands import app, arguments
from bench.commands.arguments import BEGIN, Plugins
from bench.console import program, show
from uqseg.errors import UsageError


class NewKind(StrEnum):
    """What `new` begins."""

    method = "method"


class Kind(StrEnum):
    """What `list` lists."""

    methods = "methods"
    wrappers = "wrappers"
    metrics = "metrics"
    data = "data"
    recipes = "recipes"
    launchers = "launchers"
    models = "models"
    options = "options"


@app.command(name="list", rich_help_panel=BEGIN)
def list_(
    kind: Annotated[
        Kind,
        Argument(
            help=f"What to list: {', '.join(Kind)}.",
            show_choices=False,  # as a type they would leave no room for the text
        ),
    ],
    name: Annotated[str | None, Argument(help="options: of which method or wrapper, or training.")] = None,
    plugin: Plugins = None,
    markdown: Annotated[bool, Option(help="metrics: the page of all definitions.")] = False,
) -> None:
    """What can be asked for, one line of description each.

    Examples:
      uqseg list methods
      uqseg list options unet
    """
    from bench import listing

    if markdown and kind is not Kind.metrics:
        raise UsageError("--markdown: only `list metrics` has a page; leave it out.")
    if (name is not None) != (kind is Kind.options):
        raise UsageError("list: a name goes with options, such as `list options unet`, and with nothing else.")
    arguments.register(plugin)
    if markdown:
        for line in listing.definitions():
            show(line)
        return
    lines = listing.options(name) if name else listing.described(kind)
    width = max(map(len, lines), default=0)
    for key, text in lines.items():
        show(f"{key:{width}}  {text}")


@app.command(rich_help_panel=BEGIN)
def data(
    source: Annotated[str, Argument(help="Data source, see `list data`, such as folder:PATH.")],
    size: arguments.FixedSize = arguments.SIZE,
    split: Annotated[str | None, Option(help="train, val or test.", show_default="all")] = None,
    limit: Annotated[
        int | None, Option(help="At most this many images, drawn evenly over patients.", show_default="all")
    ] = None,
    cases: Annotated[int, Option(min=1, help="Cases on the contact sheet.")] = 24,
    problems: Annotated[bool, Option("--problems", help="List every problem, not a few of each kind.")] = False,
    write_cases: Annotated[
        bool,
        Option("--write-cases", help="Write a cases.csv with patients and splits to look through into the folder."),
    ] = False,
    out: Annotated[
        Path | None,
        Option(
            help="Contact sheet to write, with page and tables beside it.",
            show_default="runs/data/NAME/contact-sheet.png",
        ),
    ] = None,
    cache: Annotated[Path | None, Option(help="Folder of converted data.", show_default="$UQSEG_CACHE")] = None,
) -> None:
    """What a data set holds: images, problems, how far its readers agree, also as a page. Look here before a run.

    Example: uqseg data folder:retina --size 256 --split train
    """
    from bench import contact, readers
    from bench import data as described
    from bench.report import readers as page
    from bench.runs.store import slug
    from uqseg.data import load

    if write_cases and (split is not None or limit is not None):
        raise UsageError("--write-cases: describes all cases; leave out --split and --limit.")
    images = load(source, split=split, size=size, limit=limit, cache=cache, progress=sys.stderr.isatty())
    common = readers.overlaps(images)
    summary, study = described.summary(images, common), readers.study(images, common)
    for title, text in (*summary, *page.lines(study)):
        show(f"{title:<12}  {text}")
    for line in described.by_kind(images.problems, problems):
        show(f"  {line}")
    path = out or Path("runs/data") / slug(images.name, images.folder) / "contact-sheet.png"
    contact.write(images, cases, path)
    show(f"Contact sheet: {path}")
    disputed = readers.most_disputed(images, study, cases)
    picture = contact.draw(disputed, "the cases about which readers differ most") if len(disputed) else None
    show(f"Page: {page.write(study, summary, path, picture)}, cases-by-dispute.csv and pictures beside it")
    if write_cases:
        show(f"To look through and fill in: {described.write_cases(images, source)}")
    elif split is None and limit is None:
        for line in described.of_splits(images):
            show(line)


@app.command(rich_help_panel=BEGIN)
def new(
    kind: Annotated[NewKind, Argument(help="What to begin.")],
    name: Annotated[str, Argument(help="Its name, such as my_ssn.")],
) -> None:
    """Write a commented file NAME.py that works as it is, to be changed.

    Example: uqseg new method my_ssn
    """
    from bench.new import new_method

    file, cls = new_method(name, Path())
    show(f"Wrote {file} with the class {cls}. Next: {program()} check {file}:{cls}")


@app.command(rich_help_panel=BEGIN)
def check(method: Annotated[str, Argument(help="path/to/file.py:Class, package.module:Class or a name.")]) -> None:
    """Check in seconds that a method keeps the contract, on invented images; what is wrong is said in one line.

    Example: uqseg check my_ssn.py:MySSN
    """
    from bench.check import check as parts

    for line in parts(method):
        show(f"ok  {line}")
    show(f"{method} keeps the contract. Next: {program()} run --methods {method},unet")
