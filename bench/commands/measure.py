"""Commands that measure this project itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from bench.commands import app
from bench.commands.arguments import OWN, Assignments, Device, Limit, Methods, Out, Samples, Size
from bench.console import command, show


@app.command(name="time", rich_help_panel=OWN)
def time_(
    only: Annotated[
        str,
        Option(
            help="Comma-separated: training, sampling, metrics, peers, start, data, scale, launch, methods, bench.",
            show_default="all",
        ),
    ] = "",
    quick: Annotated[bool, Option("--quick", help="Small sizes and few turns, to see that it works.")] = False,
    device: Device = "auto",
    to: Annotated[Path, Option(help="Folder to write the report to.")] = Path("reports/timing"),
    page: Annotated[bool, Option("--page", help="Measure nothing: only write the page anew.")] = False,
) -> None:
    """Measure speed against the plain way, other packages and the machine's limits, and write a report.

    Each section is kept as soon as it is measured, beside those of other
    devices and other processors' instructions. The page shows all that are in
    the folder, so --only measures some again, or those that are missing, and
    leaves the others.

    Examples:
      uqseg time --only sampling,metrics --quick --to /tmp/timing
      uqseg time --page
    """
    from bench.runs.spec import split
    from bench.timing import report
    from bench.version import commit

    if page:
        report.page(to)
        show(f"Report: {to / 'report.md'}")
        return
    report.write(to, split(only), device, quick, commit(), show)


@app.command(rich_help_panel=OWN)
def demos(
    to: Annotated[Path, Option(help="Folder to write the page, its tables and pictures to.")] = Path("reports/metrics"),
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

    Example: uqseg demos --methods unet,ssn --to /tmp/metrics
    """
    from bench import demonstrations
    from bench.launchers import Settings
    from bench.report import demonstrations as page
    from bench.runs import record, spec
    from bench.runs.splits import load_splits
    from bench.runs.work import Job
    from bench.version import commit
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
    entry = record.make_record(request, splits, None, command(), commit())
    job = Job(out / entry["name"], entry, request, splits)
    computed = demonstrations.compute(job, Settings(device, log=show))
    for line in page.write(to, computed):
        show(line)
    show(f"Demonstrations: {to / 'report.md'}")
