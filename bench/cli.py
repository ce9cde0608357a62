"""The command line: run | report | compare | claims | data | demos | time | list | status. Only this file prints."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from uqseg.errors import FileError, UsageError
from uqseg.train import DivergenceError

app = typer.Typer(
    name="bench",
    help="Train uncertainty methods for segmentation, score them against several readers, and report.",
    epilog="Exit codes: 0 done, 1 a failure, 2 a request that cannot be met. --debug, anywhere, shows tracebacks.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Out = Annotated[Path, typer.Option(help="Folder of weights, scores and reports.")]
Methods = Annotated[str, typer.Option(help="Comma-separated: names, name[option=value], package.module:Class, or all.")]
Samples = Annotated[int | None, typer.Option(help="Samples an image. Default: the recipe's.")]
Limit = Annotated[int | None, typer.Option(help="At most this many images in each split.")]
Size = Annotated[int | None, typer.Option(help="Images are SIZE×SIZE pixels. Default: the recipe's.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="method.option=value or training.key=value; may be repeated.")
]

STOPPED = 130  # what Typer makes of Ctrl-C


class Kind(StrEnum):
    methods = "methods"
    metrics = "metrics"
    data = "data"
    recipes = "recipes"


@app.command()
def run(
    methods: Methods = "all",
    data: Annotated[str, typer.Option(help="Data source, such as lidc-sim or folder:PATH.")] = "lidc-sim",
    recipe: Annotated[str, typer.Option(help="Training protocol, see `list recipes`.")] = "quick",
    seeds: Annotated[str, typer.Option(help="Repetitions, comma-separated whole numbers.")] = "0",
    samples: Samples = None,
    limit: Limit = None,
    size: Size = None,
    device: Device = "auto",
    out: Out = Path("runs"),
    settings: Settings = None,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Train, sample and score methods, and write a report. The same command goes on where it was stopped."""
    from bench import launch, plan, spec
    from bench.report import page
    from bench.runner import data_of
    from bench.store import Store, slug
    from uqseg import checkpoint
    from uqseg.device import pick_device

    made = spec.make_run(
        data=data,
        recipe_name=recipe,
        chosen=_chosen(methods),
        seeds=_whole_numbers(seeds),
        samples=samples,
        size=size,
        limit=limit,
        assignments=settings or [],
    )
    pick_device(device)
    show = progress and sys.stderr.isatty()
    sets, where, cells = data_of(made, show), Store(out), spec.cells(made)
    say = Console(highlight=False, soft_wrap=True, markup=False).print
    say(
        f"{sets.train.name}: {len(sets.train)} training, {len(sets.val)} validation and {len(sets.test)} test images, "
        f"{made.size}×{made.size} pixels, {sets.train.readers} readers. Recipe {recipe}. {made.samples} samples."
    )
    for line in plan.lines(plan.plan(cells, sets, where, made.samples, device), device):
        say(line)
    started = time.perf_counter()
    outcome = launch.here(
        cells, sets, where, samples=made.samples, device=device, progress=show, say=say, debug=_debug()
    )
    folder = where.report(slug(sets.train.name, recipe, f"{made.size}px"))
    record = {
        "run": json.loads(made.model_dump_json()),
        "command": _command(),
        "commit": commit(),
        "seconds": time.perf_counter() - started,
        "declined": outcome.declined,
        "failed": outcome.failed,
    }
    checkpoint.write(folder / "run.json", json.dumps(record, indent=1).encode())
    lines = page.write(folder, made, record, sets, where, device=device)
    say("")
    for line in lines:
        say(line)
    say(f"Report: {folder / 'report.md'}")
    if outcome.failed:
        told = "; ".join(f"{k}: {v}" for k, v in outcome.failed.items())
        raise FileError(f"{len(outcome.failed)} of {len(cells)} cells failed, the others are kept: {told}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a report, such as runs/reports/lidc-sim-quick-64px.")],
    out: Out = Path("runs"),
    to: Annotated[Path | None, typer.Option(help="Write the report here instead, for example to commit it.")] = None,
    pictures_of_data: Annotated[
        bool, typer.Option(help="Include the gallery, which shows the images themselves.")
    ] = True,
    device: Annotated[str, typer.Option(help="Device that samples the gallery.")] = "auto",
) -> None:
    """Write the report of a finished run anew from its stored scores."""
    from bench import spec
    from bench.report import page
    from bench.runner import data_of
    from bench.store import Store, read_json

    if not (folder / "run.json").exists():
        raise UsageError(f"report: there is no run.json in '{folder}'; give the folder of a report.")
    record = read_json(folder / "run.json")
    made = spec.read_run(json.dumps(record.get("run")), str(folder / "run.json"))
    target = to or folder
    for line in page.write(
        target, made, record, data_of(made), Store(out), device=device, show_data=pictures_of_data, private=folder
    ):
        typer.echo(line)
    typer.echo(f"Report: {target / 'report.md'}")


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Folder of a report.")],
    b: Annotated[Path, typer.Argument(help="Folder of another report.")],
    figures: Annotated[
        str, typer.Option(help="Comma-separated figures, see `list metrics`.")
    ] = "dice@0.5,brier,ece_active,ged,hm_iou",
    to: Annotated[Path, typer.Option(help="Folder to write the comparison to.")] = Path("runs/reports/comparison"),
) -> None:
    """Paired differences B − A of each method that two runs have in common."""
    from bench.report import comparison

    for folder in (a, b):
        if not (folder / "figures.csv").exists():
            raise UsageError(f"compare: there is no figures.csv in '{folder}'; give the folder of a report.")
    typer.echo(comparison.write(a, b, [f.strip() for f in figures.split(",")], to))
    typer.echo(f"Comparison: {to / 'comparison.md'}")


@app.command()
def data(
    source: Annotated[str, typer.Argument(help="Data source, such as lidc-sim or folder:PATH, see `list data`.")],
    size: Annotated[int, typer.Option(help="Images are SIZE×SIZE pixels, as a run would see them.")] = 128,
    split: Annotated[str | None, typer.Option(help="train, val or test. Default: all.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many images, drawn evenly over patients.")] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases on the contact sheet.")] = 24,
    problems: Annotated[bool, typer.Option("--problems", help="List every problem found, not a few of each kind.")] = (
        False
    ),
    out: Annotated[Path | None, typer.Option(help="PNG to write. Default: runs/data/NAME/contact-sheet.png.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of converted data. Default: $UQSEG_CACHE.")] = None,
) -> None:
    """What a data set holds: images, readers, agreement, problems, and a contact sheet. Look here before a run.

    Example: python -m bench data folder:retina --size 256 --split train
    """
    from bench import data as described
    from bench.report import contact
    from bench.store import slug
    from uqseg.data import load

    found = load(source, split=split, size=size, limit=limit, cache=cache, progress=sys.stderr.isatty())
    for title, text in described.summary(found):
        typer.echo(f"{title:<12}  {text}")
    for line in described.by_kind(found.problems, problems):
        typer.echo(f"  {line}")
    path = out or Path("runs/data") / slug(found.name, Path(source.partition(":")[2]).name) / "contact-sheet.png"
    contact.write(found, cases, path)
    typer.echo(f"Contact sheet: {path}")


@app.command(name="time")
def time_(
    only: Annotated[
        str, typer.Option(help="Comma-separated: training, sampling, metrics, peers, start, data, scale. Default: all.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and few turns, to see that it works.")] = False,
    device: Device = "auto",
    to: Annotated[Path, typer.Option(help="Folder to write the report to.")] = Path("reports/timing"),
) -> None:
    """Measure speed against the plain way, other packages and the machine's limits, and write a report.

    Each section is kept as soon as it is measured; the page shows all that are in the folder, so --only measures
    some again, or those that are missing, and leaves the others.
    """
    from bench.spec import split_list
    from bench.timing import report

    report.write(to, split_list(only), device, quick, commit(), typer.echo)


@app.command()
def demos(
    to: Annotated[Path, typer.Option(help="Folder to write the page, its tables and pictures to.")] = Path(
        "reports/metrics"
    ),
    methods: Methods = "all",
    size: Size = None,
    limit: Limit = None,
    samples: Samples = None,
    device: Device = "auto",
    out: Out = Path("runs"),
    settings: Settings = None,
) -> None:
    """Show on simulated data with a known truth what the figures say. Trains all methods on `toy`, minutes."""
    from bench import demonstrations, spec
    from bench.report import demonstrations as page
    from bench.runner import data_of, declines
    from bench.store import Store
    from uqseg.device import pick_device

    made = spec.make_run(
        data="toy",
        recipe_name="toy",
        chosen=_chosen(methods),
        seeds=[0],
        samples=samples,
        size=size,
        limit=limit,
        assignments=settings or [],
    )
    pick_device(device)
    sets, where, cells = data_of(made), Store(out), spec.cells(made)
    declined = {c.label: reason for c in cells if (reason := declines(c, sets))}
    kept = [c for c in cells if c.label not in declined]
    found = demonstrations.of_methods(kept, sets, where, made.samples, device, say=typer.echo)
    record = {"command": _command(), "commit": commit(), "declined": declined}
    for line in page.write(to, made, record, sets, found):
        typer.echo(line)
    typer.echo(f"Demonstrations: {to / 'report.md'}")


@app.command()
def claims(
    folder: Annotated[Path, typer.Argument(help="Folder of a report, such as runs/reports/lidc-sim-quick-64px.")],
    out: Out = Path("runs"),
    to: Annotated[Path | None, typer.Option(help="Write claims.md and claims.csv here instead.")] = None,
) -> None:
    """Test the claims of the 2020 student report on the stored scores of a run."""
    from bench import claims as logic
    from bench import spec
    from bench.report import claims as pages
    from bench.report.loaded import load as load_scores
    from bench.runner import data_of
    from bench.store import Store, read_json

    if not (folder / "run.json").exists():
        raise UsageError(f"claims: there is no run.json in '{folder}'; give the folder of a report.")
    made = spec.read_run(json.dumps(read_json(folder / "run.json").get("run")), str(folder / "run.json"))
    data, where = data_of(made), Store(out)
    said = pages.write(to or folder, load_scores(made, data, where), logic.histories_of(made, data, where))
    for claim, verdict in said.items():
        typer.echo(f"{claim}. {logic.CLAIMS[claim]}: {verdict}")
    typer.echo(f"Claims: {(to or folder) / 'claims.md'}")


@app.command(name="list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    markdown: Annotated[bool, typer.Option(help="metrics: the whole page of definitions.")] = False,
) -> None:
    """What can be asked for, a line of description each."""
    if markdown and kind is not Kind.metrics:
        raise UsageError("--markdown: only `list metrics` has a page; leave it out.")
    if markdown:
        from uqseg.metrics import markdown as page

        typer.echo(page())
        return
    found = _described(kind)
    width = max(map(len, found))
    for name, text in found.items():
        typer.echo(f"{name:{width}}  {text}")


@app.command()
def status(out: Out = Path("runs")) -> None:
    """What is finished, under way and failed in the folder of runs."""
    from bench.plan import steps_done
    from bench.store import Store, read_json

    if not out.is_dir():
        raise UsageError(f"--out: there is no folder '{out}'; give the folder of a run.")
    where = Store(out)
    for cell in sorted((out / "fits").glob("*/fit.json")):
        cost = read_json(cell)
        typer.echo(f"trained     {cell.parent.name}  {cost['steps']} steps, {cost['train_seconds']:.0f} s")
    for folder in sorted((out / "partial").glob("*")):
        typer.echo(f"unfinished  {folder.name}  {steps_done(where, folder.name)} steps")
    for folder in sorted((out / "scores").glob("[!.]*/meta.json")):
        typer.echo(f"scored      {folder.parent.name}")
    for file in sorted((out / "failures").glob("*.json")):
        typer.echo(f"failed      {file.stem}  {read_json(file)['error']}")


def _described(kind: Kind) -> dict[str, str]:
    if kind is Kind.methods:
        from uqseg.methods import find, names

        return {n: (find(n).__doc__ or "").strip().splitlines()[0] for n in names()}
    if kind is Kind.metrics:
        from uqseg.metrics import find as metric
        from uqseg.metrics import names as metrics

        return {n: f"{metric(n).group}, {metric(n).direction} is better: {metric(n).formula}" for n in metrics()}
    if kind is Kind.data:
        from uqseg.data import sources

        return sources()
    from bench.spec import recipe, recipe_names

    return {n: recipe(n).description for n in recipe_names()}


def _chosen(methods: str) -> list[str]:
    from bench.spec import split_list
    from uqseg.methods import names

    return names() if methods == "all" else split_list(methods)


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--seeds: expected comma-separated whole numbers such as 0,1,2, got '{text}'.") from error


def _command() -> str:
    return "python -m bench " + shlex.join(a for a in sys.argv[1:] if a != "--debug")


def commit() -> str:
    """The commit of the code that runs, with + where files differ from it; "unknown" outside a repository."""
    here = Path(__file__).resolve().parent.parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


_STATE: dict[str, Any] = {"debug": False}


def _debug() -> bool:
    return bool(_STATE["debug"])


# Typer's own base of wrong options, arguments and commands, which it exports under no name.
WrongWords = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line; one line an error, exit code 2 for usage, 1 for failures and 130 for Ctrl-C."""
    _STATE["debug"] = "--debug" in sys.argv or bool(os.environ.get("UQSEG_DEBUG"))
    sys.argv = [a for a in sys.argv if a != "--debug"]
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="python -m bench", standalone_mode=False)
    except Exception as error:
        if isinstance(error, WrongWords):
            sys.exit(_wrong_words(error))
        if _debug():
            raise
        known = isinstance(error, UsageError | FileError | DivergenceError)
        message = " ".join(str(error).split())
        said = message if known else f"{type(error).__name__}: {message} (--debug shows the traceback)"
        typer.echo(f"error: {said}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    if code == STOPPED:
        typer.echo("stopped; the same command goes on where it stopped", err=True)
    sys.exit(code)


def _wrong_words(error: Any) -> int:
    """Say in one line what Typer does not understand."""
    where = error.ctx.command_path if error.ctx else "python -m bench"
    typer.echo(f"error: {' '.join(error.format_message().split())} See '{where} -h'.", err=True)
    return 2
