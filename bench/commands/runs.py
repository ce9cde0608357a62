"""Commands that train, sample and score."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from bench.commands import app
from bench.commands import arguments as args
from bench.console import command, debug, show
from uqseg.errors import FileError


@app.command(rich_help_panel=args.TRAIN)
def run(
    methods: args.Methods = "all",
    data: Annotated[str, Option(help="Data source, see `list data`, such as folder:PATH.")] = "lidc-sim",
    recipe: Annotated[str, Option(help="Training protocol, see `list recipes`, or FILE.toml.")] = "quick",
    seeds: Annotated[str, Option(help="Repetitions: whole numbers and ranges, such as 0,1 or 0-4.")] = "0",
    settings: args.Assignments = None,
    samples: args.Samples = None,
    size: args.Size = None,
    limit: args.Limit = None,
    device: args.Device = "auto",
    out: args.Out = Path("runs"),
    name: args.Name = None,
    plugin: args.Plugins = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    kind: args.Kinds = None,
    common: args.Common = False,
    allow_missing: args.AllowMissing = False,
    jobs: args.Jobs = None,
    threads: args.Threads = None,
    slurm: args.Slurm = None,
    ray: args.Ray = None,
    launcher: args.Launcher = None,
    log: args.Curves = None,
    gallery: args.Kept = True,
    report: args.Reported = True,
    pictures: args.Pictures = args.Format.png,
    progress: args.Progress = True,
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
    args.register(plugin)
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
        gallery=gallery, report=report, pictures=pictures.value
    )  # fmt: skip
    splits, theirs = perform.load(request, use.progress, allow_missing)
    place = perform.Place(out, name, command(), threads)
    perform.perform(request, splits, theirs, place, choice, use, common, dry_run)


@app.command(rich_help_panel=args.TRAIN)
def score(
    folder: Annotated[Path, Argument(help="Folder of predicted masks or probabilities, see docs/predictions.md.")],
    data: Annotated[str, Option(help="Data source with the readers' masks, such as folder:PATH.")],
    label: Annotated[str, Option(help="What to call the method.")] = "predictions",
    samples: Annotated[
        int | None, Option(help="Draws of the yardstick `oracle`, and independent draws used.", show_default="all")
    ] = None,
    size: args.FixedSize = args.SIZE,
    limit: args.Limit = None,
    out: args.Out = Path("runs"),
    name: args.Name = None,
    plugin: args.Plugins = None,
    kind: args.Kinds = None,
    common: args.Common = False,
    allow_missing: args.AllowMissing = False,
    gallery: args.Kept = True,
    report: args.Reported = True,
    pictures: args.Pictures = args.Format.png,
) -> None:
    """Score what somebody else's program predicted for the test images, and write a report. Nothing is trained.

    Example:
      uqseg score nnunet-output --data folder:retina --size 512 --label nnunet
    """
    from bench.launchers.choice import choose
    from bench.runs import perform, predicted, spec

    args.register(plugin)
    request = predicted.to_score(data, folder, label, kind, samples, size, limit, tuple(plugin or ()))
    choice = choose("cpu", None, None, None, None)
    use = _settings("cpu", spec.outside(request), gallery=gallery, report=report, pictures=pictures.value)
    splits, theirs = perform.load(request, use.progress, allow_missing)
    if samples is None:
        request = request.model_copy(update={"samples": theirs[label].count})
    for line in predicted.cut_off(splits.test):
        show(line)
    perform.perform(request, splits, theirs, perform.Place(out, name, command()), choice, use, common)


@app.command(rich_help_panel=args.TRAIN)
def predict(
    model: Annotated[str, Argument(help="runs/NAME/LABEL, a folder of weights, or a name of `list models`.")],
    images: Annotated[Path, Argument(help="A folder of images, or one: PNG, TIFF, NIfTI, DICOM, ...")],
    to: Annotated[Path, Option(help="Folder of the answers; what is there already is not done again.")],
    samples: Annotated[int, Option(min=1, help="Samples for each slice.")] = 16,
    seed: Annotated[int, Option(help="Of the samples.")] = 0,
    window: Annotated[
        str | None, Option(help="LOW,HIGH: numbers shown as black and white, of images of more than 8 bits.")
    ] = None,
    dicom_seg: Annotated[bool, Option("--dicom-seg", help="Write the masks of DICOM images also so.")] = False,
    device: args.Device = "auto",
    trust: args.Trust = None,
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


@app.command(rich_help_panel=args.TRAIN)
def export(
    cell: Annotated[str, Argument(help="runs/NAME/LABEL of a trained method, with or without wrappers.")],
    to: Annotated[Path, Option(help="Folder of the model, such as uqseg/models/lidc64/unet.")],
    credit: Annotated[
        str | None, Option(help="For its card: whose the data are, and under which licence. Known of LIDC.")
    ] = None,
    device: args.Device = "auto",
    trust: args.Trust = None,
) -> None:
    """Make a model to hand on of a trained method: weights as float16, scored as they are stored, and a card.

    Example: uqseg export runs/first/unet --to models/unet --credit "Our clinic"
    """
    from bench import export as exporting

    for line in exporting.export(cell, to, credit, _settings(device, trust or ())):
        show(line)


@app.command(hidden=True)
def work(
    folder: args.RunFolder,
    cells: Annotated[args.Wanted, Argument(help="Folders in its cells/. Default: all.")] = None,
    device: args.Device = "auto",
    trust: args.Trust = None,
    attached: Annotated[
        bool, Option("--attached", help="Read the cells from standard input, and stop when that is closed.")
    ] = False,
    log: args.Curves = None,
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
