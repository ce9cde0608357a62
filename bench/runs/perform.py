"""A request from its data to its report; what is asked for, planned and done is logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import data as described
from bench import report
from bench.launchers import Settings
from bench.launchers.choice import Choice
from bench.report.origin import is_up_to_date
from bench.runs import identity, plan, predicted, record
from bench.runs.carry_out import carry_out
from bench.runs.spec import Run
from bench.runs.splits import Splits, load_splits
from bench.runs.work import Job
from bench.version import commit
from uqseg.errors import FileError
from uqseg.predictions import Predictions


@dataclass(frozen=True)
class Place:
    """Where the results go: the folder of all runs, and the run's name if it is given; and the command, for its record.

    threads: of each cell, if given
    """

    out: Path
    name: str | None
    command: str
    threads: int | None = None


def load(request: Run, progress: bool, allow_missing: bool) -> tuple[Splits, dict[str, Predictions]]:
    """The data of a request, and somebody's predictions that it names."""
    splits = load_splits(request, progress)
    described.refuse_losses(splits.test, allow_missing)
    return splits, predicted.open_all(request, splits)


def perform(
    request: Run,
    splits: Splits,
    theirs: Mapping[str, Predictions],
    place: Place,
    choice: Choice,
    settings: Settings,
    common: bool = False,
    dry_run: bool = False,
) -> None:
    """Do what a request asks for and write its report; with `dry_run` only log the plan. FileError for failed cells."""
    log = settings.log
    if theirs:
        splits, theirs = predicted.on_common_cases(splits, theirs, common)
    threads = place.threads or choice.threads
    entry = record.make_record(request, splits, place.name, place.command, commit(), threads, theirs)
    folder = place.out / entry["name"]
    identity.check_same(folder, entry)
    entry = identity.joined(folder, entry, place.threads)
    job = Job(folder, entry, request, splits)
    log(
        f"{splits.train.name}: {len(splits.train)} training, {len(splits.val)} validation and {len(splits.test)} test "
        f"images, {request.size}×{request.size} pixels, {splits.train.readers} readers. Recipe {request.recipe_name}. "
        f"{request.samples} samples. Results: {folder}"
    )
    for line in (*described.by_kind(splits.train.problems, False), *entry["data"]["remarks"]):
        log(line)
    planned = plan.plan(job, settings.device)
    for line in (*identity.changed_since(place.out, entry), *plan.lines(planned, settings.device, settings.jobs)):
        log(line)
    for label, reason in entry["declined"].items():
        log(f"{label} declined: {reason}")
    if dry_run:
        return
    failed = carry_out(job, choice.launch, settings)
    if failed is None:
        return
    if settings.report and not request.plugins and is_up_to_date(folder, settings.pictures):
        log(f"Nothing has changed since the report: {folder / 'report.md'}, and {folder / 'report.html'}")
    elif settings.report:
        for line in report.lines(folder, settings.pictures):
            log(line)
    if failed:
        reasons = "; ".join(failed)
        raise FileError(f"{len(failed)} of {len(job.entries)} cells failed, the others are kept: {reasons}")
