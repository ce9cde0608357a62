"""Commands that train, sample and score."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands import app, arguments
from bench.commands.arguments import (
    PAGE,
    TRAIN,
    WHERE,
    AllowMissing,
    Assignments,
    Common,
    Curves,
    Device,
    Format,
    Kept,
    Kinds,
    Limit,
    Methods,
    Name,
    Out,
    Pictures,
    Plugins,
    Reported,
    RunFolder,
    Samples,
    Size,
    Trust,
    Wanted,
)
from bench.console import command, debug, show
from uqseg.errors import FileError


@app.command(rich_help_panel=TRAIN)
def run(
    methods: Methods = "all",
    data: Annotated[str, typer.Option(help="Data source, see `list data`, such as folder:PATH.")] = "lidc-sim",
    recipe: Annotated[str, typer.Option(help="Training protocol, see `list recipes`, or FILE.toml.")] = "quick",
    seeds: Annotated[str, typer.Option(help="Repetitions: whole numbers and ranges, such as 0,1 or 0-4.")] = "0",
    settings: Assignments = None,
    samples: Samples = None,
    size: Size = None,
    limit: Limit = None,
    device: Device = "auto",
    out: Out = Path("runs"),
    name: Name = None,
    plugin: Plugins = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    kind: Kinds = None,
    common: Common = False,
    allow_missing: AllowMissing = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that work at the same time.",
            show_default="one for each GPU, else 1",
            rich_help_panel=WHERE,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads of each cell, fixed when the run is planned.",
            show_default="the cores over the jobs",
            rich_help_panel=WHERE,
        ),
    ] = None,
    slurm: Annotated[
        Path | None,
        typer.Option(
            help="Send the cells to Slurm, as FILE.toml says: partition, time, gpus, ...", rich_help_panel=WHERE
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Send the cells to the Ray cluster at ADDRESS; without one, to this machine's.", rich_help_panel=WHERE
        ),
    ] = None,
    launcher: Annotated[
        str | None,
        typer.Option(
            help="Where cells are worked on, see `list launchers`; for those of plugins.", rich_help_panel=WHERE
        ),
    ] = None,
    log: Curves = None,
    gallery: Kept = True,
    report: Reported = True,
    pictures: Pictures = Format.png,
    progress: Annotated[bool, typer.Option(help="Show progress bars.", rich_help_panel=PAGE)] = True,
) -> None:
    """Train, sample and score methods, and write a report. The same command goes on where it was stopped.

    Examples:
      uqseg run --methods unet,unet+levels,probunet --data folder:PATH
      uqseg run --methods all --seeds 0-2 --jobs 4
      uqseg run --methods "unet,unet\\[pos_weight=99]" --set training.steps=200
      uqseg run --methods mine.py:Mine,nnunet=predictions:DIR --dry-run
    """
    from bench import curves
    from bench.launchers.choice import choose
    from bench.runs import perform, spec, together

    if together.follows():
        together.follow(device)
        return
    together.lead(device)
    arguments.register(plugin)
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
    use = _settings(
        choice.device, spec.outside(request), progress, curves=log, jobs=choice.jobs, target=choice.target,
        gallery=gallery, report=report, pictures=pictures.value,
    )  # fmt: skip
    splits, theirs = perform.load(request, use.progress, allow_missing)
    place = perform.Place(out, name, command(), threads)
    perform.perform(request, splits, theirs, place, choice, use, common, dry_run)


@app.command(rich_help_panel=TRAIN)
def score(
    folder: Annotated[
        Path, typer.Argument(help="Folder of predicted masks or probabilities, see docs/predictions.md.")
    ],
    data: Annotated[str, typer.Option(help="Data source with the readers' masks, such as folder:PATH.")],
    label: Annotated[str, typer.Option(help="What to call the method.")] = "predictions",
    samples: Annotated[
        int | None,
        typer.Option(help="Draws of the yardstick `oracle`, and independent draws used.", show_default="all"),
    ] = None,
    size: Annotated[int, typer.Option(help="Images are SIZE×SIZE pixels.")] = 128,
    limit: Limit = None,
    out: Out = Path("runs"),
    name: Name = None,
    plugin: Plugins = None,
    kind: Kinds = None,
    common: Common = False,
    allow_missing: AllowMissing = False,
    gallery: Kept = True,
    report: Reported = True,
    pictures: Pictures = Format.png,
) -> None:
    """Score what somebody else's program predicted for the test images, and write a report. Nothing is trained.

    Example:
      uqseg score nnunet-output --data folder:retina --size 512 --label nnunet
    """
    from bench.launchers.choice import choose
    from bench.runs import perform, predicted, spec

    arguments.register(plugin)
    request = predicted.to_score(data, folder, label, kind, samples, size, limit, tuple(plugin or ()))
    choice = choose("cpu", None, None, None, None)
    use = _settings("cpu", spec.outside(request), gallery=gallery, report=report, pictures=pictures.value)
    splits, theirs = perform.load(request, use.progress, allow_missing)
    if samples is None:
        request = request.model_copy(update={"samples": theirs[label].count})
    for line in predicted.cut_off(splits.test):
        show(line)
    perform.perform(request, splits, theirs, perform.Place(out, name, command()), choice, use, common)


@app.command(rich_help_panel=TRAIN)
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
    trust: Trust = None,
) -> None:
    """Predict on new images: mask, mean, standard deviation, entropy, samples and a picture of each, and a summary.

    Example: uqseg predict lidc64/unet images --to answers
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


@app.command(rich_help_panel=TRAIN)
def export(
    cell: Annotated[str, typer.Argument(help="runs/NAME/LABEL of a trained method, with or without wrappers.")],
    to: Annotated[Path, typer.Option(help="Folder of the model, such as uqseg/models/lidc64/unet.")],
    credit: Annotated[
        str | None, typer.Option(help="For its card: whose the data are, and under which licence. Known of LIDC.")
    ] = None,
    device: Device = "auto",
    trust: Trust = None,
) -> None:
    """Make a model to hand on of a trained method: weights as float16, scored as they are stored, and a card.

    Example: uqseg export runs/first/unet --to models/unet --credit "Our clinic"
    """
    from bench import export as exporting

    for line in exporting.export(cell, to, credit, _settings(device, trust or ())):
        show(line)


@app.command(hidden=True)
def work(
    folder: RunFolder,
    cells: Annotated[Wanted, typer.Argument(help="Folders in its cells/. Default: all.")] = None,
    device: Device = "auto",
    trust: Trust = None,
    attached: Annotated[
        bool, typer.Option("--attached", help="Read the cells from standard input, and stop when that is closed.")
    ] = False,
    log: Curves = None,
) -> None:
    """Do cells of a run that nobody else is at; what launchers call in other processes and on other machines."""
    from bench.runs.attached import read_cells
    from bench.runs.sharing import take, undone_in

    wanted = read_cells() if attached else cells or undone_in(folder)
    failed = take(folder, wanted, _settings(device, trust or (), progress=False, curves=log))
    if failed:
        raise FileError("; ".join(f"{cell}: {error}" for cell, error in failed.items()))


def _settings(device: str, trust: Any, progress: bool = True, **others: Any) -> Any:
    """How cells are worked on by a command that prints its lines; progress bars only where somebody looks."""
    from bench.launchers import Settings

    return Settings(device, progress and sys.stderr.isatty(), show, debug(), tuple(trust), **others)
