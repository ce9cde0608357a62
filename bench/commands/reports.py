"""Commands that read results folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from bench.commands import app, arguments
from bench.commands.arguments import READ, Format, Pictures, Plugins, Reported, RunFolder
from bench.console import command, show
from uqseg.errors import FileError


@app.command(rich_help_panel=READ)
def report(folder: RunFolder, pictures: Pictures = Format.png, plugin: Plugins = None) -> None:
    """Write the report of a run anew from its results folder alone; no data, weights or torch are needed.

    Example: uqseg report runs/first --pictures svg
    """
    from bench.runs.upkeep import damaged_cells

    arguments.register(plugin)
    _report(folder, pictures)
    if lines := list(damaged_cells(folder)):
        raise FileError(f"left out of the report for a damaged file: {'; '.join(lines)}")


@app.command(rich_help_panel=READ)
def view(
    folder: Annotated[Path, Argument(help="Results folder of a run, or any with a page, such as reports.")],
) -> None:
    """Open the page of a folder in the browser; the report of a run is written first where it has none.

    Example: uqseg view runs/first
    """
    import webbrowser

    pages = [folder / name for name in ("report.html", "index.html", "readers.html")]
    page = next((page for page in pages if page.is_file()), None)
    if page is None:
        _report(folder, Format.png)
        page = pages[0]
    show(f"Page: {page}")
    if not webbrowser.open(page.resolve().as_uri()):
        show("There is no browser here; copy this one file to where there is one.")


@app.command(rich_help_panel=READ)
def index(folder: Annotated[Path, Argument(help="Folder of reports.")] = Path("reports")) -> None:
    """Write index.html over all reports in a folder: their best figures, and whether ranks are the same in all."""
    from bench.report import index as page

    for line in page.write(folder):
        show(line)
    show(f"Index: {folder / 'index.html'}")


@app.command(rich_help_panel=READ)
def compare(
    a: Annotated[Path, Argument(metavar="A", help="Results folder of a run, or its published copy.")],
    b: Annotated[Path, Argument(metavar="B", help="Another one.")],
    figures: Annotated[
        str, Option(help="Comma-separated figures, see `list metrics`.")
    ] = "ged_limit,hm_iou,dice@0.5,brier,ece_active",
    to: Annotated[
        Path | None,
        Option(help="Folder to write the comparison to.", show_default="runs/comparison/A-B of their names"),
    ] = None,
) -> None:
    """What differs between two runs, and paired differences B − A of each method that they have in common.

    Example: uqseg compare runs/a runs/b --figures ged_limit,hm_iou
    """
    from bench.report import comparison

    to = to or Path("runs/comparison") / f"{a.resolve().name}-{b.resolve().name}"
    for line in comparison.write(a, b, [f.strip() for f in figures.split(",")], to).split("\n"):
        show(line)
    show(f"Comparison: {to / 'comparison.md'}")


@app.command(rich_help_panel=READ)
def merge(
    folders: Annotated[list[Path], Argument(help="Results folders of the same data and recipe.")],
    to: Annotated[Path, Option(help="Folder of the joined run.")],
    report: Reported = True,
    pictures: Pictures = Format.png,
) -> None:
    """Make one results folder of several that differ in their methods and repetitions alone, and its report.

    Example: uqseg merge runs/a runs/b --to runs/both
    """
    from bench.runs import merge as joining

    for line in joining.merge(folders, to, command()):
        show(line)
    if report:
        _report(to, pictures)


@app.command(rich_help_panel=READ)
def publish(
    folder: RunFolder,
    to: Annotated[Path, Option(help="Folder of the copy.")],
    anonymize: Annotated[
        bool, Option("--anonymize", "--anonymous", help="Put numbers for the names of cases, patients and readers.")
    ] = False,
    gallery: Annotated[bool, Option("--gallery", help="Keep the gallery, for its images may be shown.")] = False,
    pictures: Pictures = Format.png,
) -> None:
    """Make the copy of a run to commit: without paths, and without gallery unless asked; says what it keeps.

    Example: uqseg publish runs/first --to reports/first --anonymize
    """
    from bench.runs import publish as copies

    for line in copies.publish(folder, to, anonymize, gallery):
        show(line)
    _report(to, pictures)


@app.command(rich_help_panel=READ)
def claims(
    folder: RunFolder,
    to: Annotated[
        Path | None, Option(help="Folder to write NAME.md and NAME.csv of NAME.toml to.", show_default="the run's")
    ] = None,
    file: Annotated[
        str, Option(help="A TOML file of claims, or one that comes along: seed2020, levels, goals.")
    ] = "seed2020",
) -> None:
    """Test a file of claims on a run, by default those of the 2020 student report.

    Example: uqseg claims runs/first --file paper.toml
    """
    from bench.report import verdicts

    answers, page = verdicts.write(folder, to or folder, file)
    for claim, verdict in answers.items():
        show(f"{claim}: {verdict}")
    show(f"Claims: {page}")


@app.command(rich_help_panel=READ)
def claim(
    text: Annotated[str, Argument(help='Such as "ged(probunet) < ged(ensemble) - 0.02", see docs/claims.md.')],
    run: Annotated[Path, Option(help="Results folder of a run, such as runs/NAME, or its published copy.")],
    difference: Annotated[
        float | None, Option(help="Say how many patients would show a difference of this size.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Test one claim on a run: the difference with its interval, p, what could be seen, and a verdict in words.

    Example:
      uqseg claim "dice@0.5(unet) > dice@0.5(segnet) \\[marked=4]" --run runs/first
    """
    from bench.report import verdicts

    arguments.register(plugin)
    for line in verdicts.of_claim(text, run, difference):
        show(line)


@app.command(rich_help_panel=READ)
def literature(folder: RunFolder) -> None:
    """Set a run beside published figures of as many samples, not known to be defined otherwise, with what is known.

    Example: uqseg literature reports/lidc-slices
    """
    from bench.report import beside

    for line in beside.of_results(folder).split("\n"):
        show(line)


def _report(folder: Path, pictures: Format) -> None:
    from bench.report import lines

    for line in lines(folder, pictures.value):
        show(line)
