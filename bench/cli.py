"""The command line: arguments in, lines out. Only this file prints."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from uqseg.errors import FileError, UsageError

app = typer.Typer(
    name="bench",
    help="Train uncertainty methods for segmentation, score them against several readers, and report.",
    epilog="Exit codes: 0 done, 1 a failure, 2 a request that cannot be met. --debug, anywhere, shows tracebacks.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Out = Annotated[Path, typer.Option(help="Folder of all runs, with the store of weights and scores.")]
Methods = Annotated[
    str,
    typer.Option(
        help="Comma-separated: name, name[option=value,training.lr=1e-3], name+wrapper, package.module:Class, "
        "path/to/file.py:Class, NAME=predictions:DIR, or all."
    ),
]
Samples = Annotated[int | None, typer.Option(help="Samples per image. Default: the recipe's.")]
Limit = Annotated[int | None, typer.Option(help="At most this many images in each split.")]
Size = Annotated[int | None, typer.Option(help="Images are SIZE×SIZE pixels. Default: the recipe's.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="method.option=value or training.key=value; may be repeated.")
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        help="A Python file that registers methods, wrappers, statistics, figures, sources or launchers; may be "
        "repeated.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="Results folder of a run, such as runs/NAME, or its published copy.")]


class Format(StrEnum):
    png = "png"
    svg = "svg"


Pictures = Annotated[Format, typer.Option(help="Format of the page's pictures.")]
AllowMissing = Annotated[
    bool, typer.Option("--allow-missing", help="Go on where more than 1 % of the readers' files cannot be used.")
]
Common = Annotated[
    bool,
    typer.Option("--common", help="Go on where predictions lack more than 10 % of the test cases: all are scored on "
                 "the common ones."),
]  # fmt: skip
Name = Annotated[
    str | None, typer.Option(help="Name of the results folder. Default: data, recipe, size and a hash of the rest.")
]
Kept = Annotated[
    bool, typer.Option("--gallery/--no-gallery", help="Keep images and samples of a few cases for the page.")
]
Reported = Annotated[
    bool, typer.Option("--report/--no-report", help="Write the report once the cells are done; else `report` does.")
]


class SampleKind(StrEnum):
    independent = "independent"
    support = "support"
    stratified = "stratified"


Kinds = Annotated[
    SampleKind | None,
    typer.Option("--kind", help="How the samples of predictions were drawn, where their folder does not say."),
]
Curves = Annotated[
    str | None, typer.Option("--log", help="Show the trainings' curves as well in tensorboard:DIR, wandb or mlflow.")
]
STOPPED = 130  # what Typer makes of Ctrl-C


def show(text: object = "", err: bool = False) -> None:
    """Print a line; what a terminal would obey rather than show (names come from anybody's files) becomes escapes."""
    typer.echo("".join(c if c.isprintable() or c in "\t\xa0" else ascii(c)[1:-1] for c in str(text)), err=err)


class NewKind(StrEnum):
    method = "method"


class Kind(StrEnum):
    methods = "methods"
    wrappers = "wrappers"
    metrics = "metrics"
    data = "data"
    recipes = "recipes"
    launchers = "launchers"
    models = "models"
    options = "options"


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


@app.command()
def run(
    methods: Methods = "all",
    data: Annotated[str, typer.Option(help="Data source, such as lidc-sim or folder:PATH.")] = "lidc-sim",
    recipe: Annotated[str, typer.Option(help="Training protocol, see `list recipes`, or FILE.toml.")] = "quick",
    seeds: Annotated[str, typer.Option(help="Repetitions: whole numbers and ranges, such as 0,1 or 0-4.")] = "0",
    samples: Samples = None,
    limit: Limit = None,
    size: Size = None,
    device: Device = "auto",
    out: Out = Path("runs"),
    name: Name = None,
    settings: Assignments = None,
    plugin: Plugins = None,
    kind: Kinds = None,
    common: Common = False,
    allow_missing: AllowMissing = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes that work at the same time. Default: one for each GPU, else 1.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads of each cell, fixed when the run is planned. Default: the cores over the jobs."
        ),
    ] = None,
    slurm: Annotated[
        Path | None, typer.Option(help="Send the cells to Slurm, as FILE.toml says: partition, time, gpus, ...")
    ] = None,
    ray: Annotated[
        str | None, typer.Option(help="Send the cells to the Ray cluster at ADDRESS; without one, to this machine's.")
    ] = None,
    launcher: Annotated[
        str | None, typer.Option(help="Where cells are worked on, see `list launchers`; for those of plugins.")
    ] = None,
    log: Curves = None,
    gallery: Kept = True,
    report: Reported = True,
    pictures: Pictures = Format.png,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Train, sample and score methods, and write a report. The same command goes on where it was stopped."""
    from bench import curves
    from bench.launchers import Settings
    from bench.launchers.choice import choose
    from bench.runs import spec, together

    if together.follows():
        together.follow(device)
        return
    together.lead(device)
    spec.run_plugins(plugin or [])
    request = spec.make_run(
        data=data,
        recipe_name=recipe,
        labels=[spec.of_kind(label, kind) for label in spec.split(methods)],
        seeds=spec.whole_numbers(seeds),
        samples=samples,
        size=size,
        limit=limit,
        assignments=settings or [],
        plugins=plugin or [],
    )
    curves.check(log)
    choice = choose(device, jobs, slurm, ray, launcher)
    use = Settings(
        choice.device,
        progress and sys.stderr.isatty(),
        show,
        _debug(),
        spec.outside(request),
        curves=log,
        jobs=choice.jobs,
        target=choice.target,
        gallery=gallery,
        report=report,
        pictures=_format(pictures),
    )
    splits, theirs = _load(request, use.progress, allow_missing)
    _run(request, splits, theirs, use, choice, threads, out, name, common, dry_run)


def _load(request: Any, progress: bool, allow_missing: bool) -> tuple[Any, Any]:
    """The data of a request, and somebody's predictions that it names."""
    from bench.data import refuse_losses
    from bench.runs.predicted import open_all
    from bench.runs.splits import load_splits

    splits = load_splits(request, progress)
    refuse_losses(splits.test, allow_missing)
    return splits, open_all(request, splits)


def _run(
    request: Any,
    splits: Any,
    theirs: Any,
    use: Any,
    choice: Any,
    threads: int | None,
    out: Path,
    name: str | None,
    common: bool,
    dry_run: bool,
) -> None:
    """Say what a request asks for, do it, and write its report."""
    from bench import data as described
    from bench.report.origin import is_up_to_date
    from bench.runs import plan, predicted, record
    from bench.runs.carry_out import carry_out
    from bench.runs.work import Job

    if theirs:
        splits, theirs = predicted.on_common_cases(splits, theirs, common)
    entry = record.make_record(request, splits, name, _command(), commit(), threads or choice.threads, theirs)
    folder = out / entry["name"]
    record.check_same(folder, entry)
    entry = record.joined(folder, entry, threads)
    job = Job(folder, entry, request, splits)
    show(
        f"{splits.train.name}: {len(splits.train)} training, {len(splits.val)} validation and {len(splits.test)} test "
        f"images, {request.size}×{request.size} pixels, {splits.train.readers} readers. Recipe {request.recipe_name}. "
        f"{request.samples} samples. Results: {folder}"
    )
    for line in (*described.by_kind(splits.train.problems, False), *entry["data"]["remarks"]):
        show(line)
    planned = plan.plan(job, use.device)
    for line in (*record.changed_since(out, entry), *plan.lines(planned, use.device, use.jobs)):
        show(line)
    for label, reason in entry["declined"].items():
        show(f"{label} declined: {reason}")
    if dry_run:
        return
    failed = carry_out(job, choice.launch, use)
    if failed is None:
        return
    if use.report and not request.plugins and is_up_to_date(folder, use.pictures):
        show(f"Nothing has changed since the report: {folder / 'report.md'}, and {folder / 'report.html'}")
    elif use.report:
        _report(folder, use.pictures)
    if failed:
        reasons = "; ".join(failed)
        raise FileError(f"{len(failed)} of {len(job.entries)} cells failed, the others are kept: {reasons}")


def _format(pictures: Format) -> Literal["png", "svg"]:
    return "svg" if pictures is Format.svg else "png"


@app.command()
def score(
    folder: Annotated[
        Path, typer.Argument(help="Folder of predicted masks or probabilities, see docs/predictions.md.")
    ],
    data: Annotated[str, typer.Option(help="Data source with the readers' masks, such as folder:PATH.")],
    label: Annotated[str, typer.Option(help="What to call the method.")] = "predictions",
    kind: Kinds = None,
    samples: Annotated[
        int | None, typer.Option(help="Draws of the yardstick `oracle`, and independent draws used. Default: all.")
    ] = None,
    size: Annotated[int, typer.Option(help="Images are SIZE×SIZE pixels.")] = 128,
    limit: Limit = None,
    common: Common = False,
    out: Out = Path("runs"),
    name: Name = None,
    plugin: Plugins = None,
    allow_missing: AllowMissing = False,
    gallery: Kept = True,
    report: Reported = True,
    pictures: Pictures = Format.png,
) -> None:
    """Score what somebody else's program predicted for the test images, and write a report. Nothing is trained.

    Example: python -m bench score nnunet-output --data folder:retina --size 512 --label nnunet
    """
    from bench.launchers import Settings
    from bench.launchers.choice import choose
    from bench.runs import predicted, spec

    spec.run_plugins(plugin or [])
    request = predicted.to_score(data, folder, label, kind, samples, size, limit, tuple(plugin or ()))
    choice = choose("cpu", None, None, None, None)
    use = Settings("cpu", sys.stderr.isatty(), show, _debug(), spec.outside(request), gallery=gallery,
                   report=report, pictures=_format(pictures))  # fmt: skip
    splits, theirs = _load(request, use.progress, allow_missing)
    if samples is None:
        request = request.model_copy(update={"samples": theirs[label].count})
    for line in predicted.cut_off(splits.test):
        show(line)
    _run(request, splits, theirs, use, choice, None, out, name, common, False)


@app.command()
def new(
    kind: Annotated[NewKind, typer.Argument(help="What to begin.")],
    name: Annotated[str, typer.Argument(help="Its name, such as my_ssn.")],
) -> None:
    """Write a commented file NAME.py that works as it is, to be changed."""
    from bench.new import new_method

    file, cls = new_method(name, Path())
    show(f"Wrote {file} with the class {cls}. Next: {_program()} check {file}:{cls}")


@app.command()
def check(
    method: Annotated[str, typer.Argument(help="path/to/file.py:Class, package.module:Class or a name.")],
) -> None:
    """Check in seconds that a method keeps the contract, on invented images; what is wrong is said in one line."""
    from bench.check import check as parts

    for line in parts(method):
        show(f"ok  {line}")
    show(f"{method} keeps the contract. Next: {_program()} run --methods {method},unet")


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="runs/NAME/LABEL, a folder of weights, or a name of `list models`.")],
    images: Annotated[Path, typer.Argument(help="A folder of images, or one: PNG, TIFF, NIfTI, DICOM, ...")],
    to: Annotated[Path, typer.Option(help="Folder of the answers; what is there already is not done again.")],
    samples: Annotated[int, typer.Option(min=1, help="Samples for each slice.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the samples.")] = 0,
    window: Annotated[
        str | None, typer.Option(help="LOW,HIGH: numbers shown as black and white, of images of more than 8 bits.")
    ] = None,
    dicom_seg: Annotated[bool, typer.Option("--dicom-seg", help="Write the masks of DICOM images also so.")] = False,
    device: Device = "auto",
    trust: Annotated[
        list[str] | None, typer.Option(help="A class from outside this project that the model may use.")
    ] = None,
) -> None:
    """Predict on new images: mask, mean, standard deviation, entropy, samples and a picture of each, and a summary.

    Example: python -m bench predict lidc64/unet images --to answers
    """
    from bench import dicomseg
    from bench import predict as predicting
    from bench.progress import progress

    if dicom_seg:
        dicomseg.check_installed()
    files = predicting.images_in(images)
    ends = predicting.window_of(window)
    sampler, identity = predicting.open_model(model, device, trust or [])
    request = predicting.Request(sampler, identity, samples, seed, ends, dicom_seg)
    with progress("predict", len(files), show) as advance:
        table, before = predicting.predict(request, files, to, advance)
    for line in predicting.lines(table, before, to):
        show(line)
    if reasons := predicting.failures(table):
        raise FileError(f"{len(reasons)} of {len(table)} images have no prediction: {'; '.join(reasons[:5])}")


@app.command()
def export(
    cell: Annotated[str, typer.Argument(help="runs/NAME/LABEL of a trained method, with or without wrappers.")],
    to: Annotated[Path, typer.Option(help="Folder of the model, such as uqseg/models/lidc64/unet.")],
    credit: Annotated[
        str | None, typer.Option(help="For its card: whose the data are, and under which licence. Known of LIDC.")
    ] = None,
    device: Device = "auto",
    trust: Annotated[
        list[str] | None, typer.Option(help="A class from outside this project that the model may use.")
    ] = None,
) -> None:
    """Make a model to hand on of a trained method: weights as float16, scored as they are stored, and a card."""
    from bench import export as exporting
    from bench.launchers import Settings

    use = Settings(device, sys.stderr.isatty(), show, _debug(), tuple(trust or ()))
    for line in exporting.export(cell, to, credit, use):
        show(line)


def _report(folder: Path, pictures: Literal["png", "svg"]) -> None:
    from bench import report as pages

    show("")
    for line in pages.write(folder, pictures=pictures):
        show(line)
    show(f"Report: {folder / 'report.md'}, and for a browser {folder / 'report.html'}")


@app.command(hidden=True)
def work(
    folder: RunFolder,
    cells: Annotated[list[str] | None, typer.Argument(help="Folders in its cells/. Default: all.")] = None,
    device: Device = "auto",
    trust: Annotated[
        list[str] | None,
        typer.Option(help="A plugin or class from outside this project that the run may use; may be repeated."),
    ] = None,
    attached: Annotated[
        bool, typer.Option("--attached", help="Read the cells from standard input, and stop when that is closed.")
    ] = False,
    log: Curves = None,
) -> None:
    """Do cells of a run that nobody else is at; what launchers call in other processes and on other machines."""
    from bench.launchers import Settings
    from bench.runs.attached import read_cells
    from bench.runs.sharing import take, undone_in

    wanted = read_cells() if attached else cells or undone_in(folder)
    failed = take(folder, wanted, Settings(device, log=show, debug=_debug(), trust=tuple(trust or ()), curves=log))
    if failed:
        raise FileError("; ".join(f"{cell}: {error}" for cell, error in failed.items()))


@app.command()
def report(
    folder: RunFolder,
    pictures: Pictures = Format.png,
    plugin: Plugins = None,
) -> None:
    """Write the report of a run anew from its results folder alone; no data, weights or torch are needed."""
    from bench.runs.upkeep import damaged_cells

    _plugins_of_figures(plugin)
    _report(folder, _format(pictures))
    if lines := list(damaged_cells(folder)):
        raise FileError(f"left out of the report for a damaged file: {'; '.join(lines)}")


def _plugins_of_figures(plugin: list[str] | None) -> None:
    if plugin:
        from bench.runs.spec import run_plugins

        run_plugins(plugin)


@app.command()
def view(
    folder: Annotated[Path, typer.Argument(help="Results folder of a run, or any with a page, such as reports.")],
) -> None:
    """Open the page of a folder in the browser; the report of a run is written first where it has none."""
    import webbrowser

    pages = [folder / name for name in ("report.html", "index.html", "readers.html")]
    page = next((page for page in pages if page.is_file()), None)
    if page is None:
        _report(folder, "png")
        page = pages[0]
    show(f"Page: {page}")
    if not webbrowser.open(page.resolve().as_uri()):
        show("There is no browser here; copy this one file to where there is one.")


@app.command()
def index(
    folder: Annotated[Path, typer.Argument(help="Folder of reports.")] = Path("reports"),
) -> None:
    """Write index.html over all reports in a folder: their best figures, and whether ranks are the same in all."""
    from bench.report import index as page

    for line in page.write(folder):
        show(line)
    show(f"Index: {folder / 'index.html'}")


@app.command()
def compare(
    a: RunFolder,
    b: RunFolder,
    figures: Annotated[
        str, typer.Option(help="Comma-separated figures, see `list metrics`.")
    ] = "dice@0.5,brier,ece_active,ged,hm_iou",
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to write the comparison to. Default: runs/comparison/A-B of their names."),
    ] = None,
) -> None:
    """What differs between two runs, and paired differences B − A of each method that they have in common."""
    from bench.report import comparison

    to = to or Path("runs/comparison") / f"{a.resolve().name}-{b.resolve().name}"
    for line in comparison.write(a, b, [f.strip() for f in figures.split(",")], to).split("\n"):
        show(line)
    show(f"Comparison: {to / 'comparison.md'}")


@app.command()
def merge(
    folders: Annotated[list[Path], typer.Argument(help="Results folders of the same data and recipe.")],
    to: Annotated[Path, typer.Option(help="Folder of the joined run.")],
    report: Reported = True,
    pictures: Pictures = Format.png,
) -> None:
    """Make one results folder of several that differ in their methods and repetitions alone, and its report.

    Example: python -m bench merge runs/a runs/b --to runs/both
    """
    from bench.runs import merge as joining

    for line in joining.merge(folders, to, _command()):
        show(line)
    if report:
        _report(to, _format(pictures))


@app.command()
def publish(
    folder: RunFolder,
    to: Annotated[Path, typer.Option(help="Folder of the copy.")],
    anonymize: Annotated[
        bool, typer.Option("--anonymize", "--anonymous", help="Replace names of cases and patients by numbers.")
    ] = False,
    pictures: Pictures = Format.png,
) -> None:
    """Make the copy of a run to commit: without gallery and paths; says what it keeps."""
    from bench.runs import publish as copies

    for line in copies.publish(folder, to, anonymize):
        show(line)
    _report(to, _format(pictures))


@app.command()
def data(
    source: Annotated[str, typer.Argument(help="Data source, such as lidc-sim or folder:PATH, see `list data`.")],
    size: Annotated[int, typer.Option(help="Images are SIZE×SIZE pixels, as a run would see them.")] = 128,
    split: Annotated[str | None, typer.Option(help="train, val or test. Default: all.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many images, drawn evenly over patients.")] = None,
    cases: Annotated[int, typer.Option(min=1, help="Cases on the contact sheet.")] = 24,
    problems: Annotated[bool, typer.Option("--problems", help="List every problem, not a few of each kind.")] = (False),
    write_cases: Annotated[
        bool,
        typer.Option(
            "--write-cases", help="Write a cases.csv with patients and splits to look through into the folder."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Contact sheet to write, with page and tables beside it. Default: runs/data/NAME/contact-sheet.png."
        ),
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of converted data. Default: $UQSEG_CACHE.")] = None,
) -> None:
    """What a data set holds: images, problems, how far its readers agree, also as a page. Look here before a run.

    Example: python -m bench data folder:retina --size 256 --split train
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


@app.command(name="time")
def time_(
    only: Annotated[
        str,
        typer.Option(
            help="Comma-separated: training, sampling, metrics, peers, start, data, scale, launch. Default: all."
        ),
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes and few turns, to see that it works.")] = False,
    device: Device = "auto",
    to: Annotated[Path, typer.Option(help="Folder to write the report to.")] = Path("reports/timing"),
) -> None:
    """Measure speed against the plain way, other packages and the machine's limits, and write a report.

    Each section is kept as soon as it is measured; the page shows all that are in the folder, so --only measures
    some again, or those that are missing, and leaves the others.
    """
    from bench.runs.spec import split
    from bench.timing import report

    report.write(to, split(only), device, quick, commit(), show)


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
    settings: Assignments = None,
) -> None:
    """Show on simulated data with a known truth what the figures say.

    It trains methods on `toy`, for minutes each: name a few.
    """
    from bench import demonstrations
    from bench.launchers import Settings
    from bench.report import demonstrations as page
    from bench.runs import record, spec
    from bench.runs.splits import load_splits
    from bench.runs.work import Job
    from uqseg.device import pick_device

    request = spec.make_run(
        data="toy",
        recipe_name="toy",
        labels=spec.split(methods),
        seeds=[0],
        samples=samples,
        size=size,
        limit=limit,
        assignments=settings or [],
    )
    pick_device(device)
    splits = load_splits(request)
    entry = record.make_record(request, splits, None, _command(), commit())
    job = Job(out / entry["name"], entry, request, splits)
    computed = demonstrations.compute(job, Settings(device, log=show))
    for line in page.write(to, computed):
        show(line)
    show(f"Demonstrations: {to / 'report.md'}")


@app.command()
def claims(
    folder: RunFolder,
    to: Annotated[Path | None, typer.Option(help="Write claims.md and claims.csv here instead.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="A TOML file of claims. Default: those of the 2020 student report.")
    ] = None,
) -> None:
    """Test a file of claims on a run, by default those of the 2020 student report."""
    from bench.report import verdicts

    for claim, verdict in verdicts.write(folder, to or folder, file).items():
        show(f"{claim}: {verdict}")
    show(f"Claims: {(to or folder) / 'claims.md'}")


@app.command()
def claim(
    text: Annotated[str, typer.Argument(help='Such as "ged(probunet) < ged(ensemble) - 0.02", see docs/claims.md.')],
    run: Annotated[Path, typer.Option(help="Results folder of a run, such as runs/NAME, or its published copy.")],
    difference: Annotated[
        float | None, typer.Option(help="Say how many patients would show a difference of this size.")
    ] = None,
    plugin: Plugins = None,
) -> None:
    """Test one claim on a run: the difference with its interval, p, what could be seen, and a verdict in words.

    Example: python -m bench claim "dice@0.5(unet) > dice@0.5(segnet) [marked=4]" --run reports/lidc-sim
    """
    from bench.report import verdicts

    _plugins_of_figures(plugin)
    for line in verdicts.of_claim(text, run, difference):
        show(line)


@app.command()
def literature(folder: RunFolder) -> None:
    """Set a run beside published figures of the same definition and number of samples, and what is known of each."""
    from bench.report import beside

    for line in beside.of_results(folder).split("\n"):
        show(line)


@app.command(name="list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    name: Annotated[str | None, typer.Argument(help="options: of which method or wrapper, or training.")] = None,
    plugin: Plugins = None,
    markdown: Annotated[bool, typer.Option(help="metrics: the page of all definitions.")] = False,
) -> None:
    """What can be asked for, one line of description each."""
    from bench.runs.spec import run_plugins

    if markdown and kind is not Kind.metrics:
        raise UsageError("--markdown: only `list metrics` has a page; leave it out.")
    if (name is not None) != (kind is Kind.options):
        raise UsageError("list: a name goes with options, such as `list options unet`, and with nothing else.")
    run_plugins(plugin or [])
    if markdown:
        from uqseg.metrics import markdown as page

        for line in page().split("\n"):
            show(line)
        return
    lines = _options(name) if name else _described(kind)
    width = max(map(len, lines), default=0)
    for key, text in lines.items():
        show(f"{key:{width}}  {text}")


@app.command()
def status(
    out: Out = Path("runs"),
    watch: Annotated[
        bool, typer.Option("--watch", help="Show workers and Slurm's queue until all is done, anew every few seconds.")
    ] = False,
) -> None:
    """What is finished, under way, failed and damaged in the folder of runs."""
    from bench.runs import watch as watching
    from bench.runs.upkeep import state

    if watch:
        watching.watch(_existing(out))
        return
    for line in state(_existing(out)):
        show(line)


@app.command()
def clean(
    out: Out = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be freed, and free nothing.")] = False,
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


@app.command()
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


def _described(kind: Kind) -> dict[str, str]:
    if kind is Kind.methods or kind is Kind.wrappers:
        from uqseg import methods, wrappers

        registry: Any = methods if kind is Kind.methods else wrappers
        return {n: (registry.find(n).__doc__ or "").strip().partition("\n")[0] for n in registry.names()}
    if kind is Kind.metrics:
        from uqseg.metrics import figures

        return {f.name: f"{f.table}, {f.direction} is better: {f.formula}" for f in figures()}
    if kind is Kind.data:
        from uqseg.data import sources

        return sources()
    if kind is Kind.launchers:
        from bench import launchers

        return launchers.names()
    if kind is Kind.models:
        from uqseg.trained import shipped

        return shipped()
    from bench.runs.spec import recipe, recipe_names

    return {n: recipe(n).description for n in recipe_names()}


def _options(name: str) -> dict[str, str]:
    """Each option of a method or wrapper, or of training: its default and what it means."""
    from uqseg import methods, wrappers
    from uqseg.training import Training

    if name == "training":
        model: Any = Training
    else:
        model = (wrappers if name in wrappers.names() else methods).find(name).Options
    fields = model.model_fields.items()
    return {key: f"{field.get_default(call_default_factory=True)}  {field.description or ''}" for key, field in fields}


def _program() -> str:
    return "uqseg" if Path(sys.argv[0]).stem == "uqseg" else "python -m bench"


def _command() -> str:
    return f"{_program()} {shlex.join(a for a in sys.argv[1:] if a != '--debug')}"


def commit() -> str:
    """The commit of the code that runs, with + where files differ from it; "unknown" outside a clone."""
    root = Path(__file__).resolve().parent.parent
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    try:
        if not (root / ".git").exists():  # installed, possibly below somebody else's repository
            raise OSError
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


_STATE: dict[str, Any] = {"debug": False}


def _debug() -> bool:
    return bool(_STATE["debug"])


# Typer's own base of wrong options, arguments and commands, which it exports under no name.
WrongWords = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line; one line per error, exit code 2 for usage, 1 for failures and 130 for Ctrl-C."""
    _STATE["debug"] = "--debug" in sys.argv or bool(os.environ.get("UQSEG_DEBUG"))
    sys.argv = [a for a in sys.argv if a != "--debug"]
    for place, word in enumerate(sys.argv):
        if word == "--ray" and sys.argv[place + 1 : place + 2] in ([], *([w] for w in sys.argv if w.startswith("-"))):
            sys.argv[place] = "--ray=local"  # Typer knows no option whose value may be left out
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name=_program(), standalone_mode=False)
    except Exception as error:
        if isinstance(error, WrongWords):
            sys.exit(_wrong_words(error))
        if _debug():
            raise
        message = " ".join(str(error).split())
        if not isinstance(error, UsageError | FileError):
            message = f"{type(error).__name__}: {message} (--debug shows the traceback)"
        show(f"error: {message}", err=True)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    if code == STOPPED:
        show("stopped; the same command goes on where it stopped", err=True)
    sys.exit(code)


def _wrong_words(error: Any) -> int:
    """Say in one line what Typer does not understand."""
    command = error.ctx.command_path if error.ctx else _program()
    show(f"error: {' '.join(error.format_message().split())} See '{command} -h'.", err=True)
    return 2
