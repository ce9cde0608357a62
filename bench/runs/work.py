"""One cell, self-contained: a process on any machine that sees the results folder trains, samples and scores it."""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from baselines import yardsticks
from bench.console import in_words
from bench.curves import Hook, curves
from bench.launchers import Settings
from bench.runs import keys, predicted, results, shards, spec, together
from bench.runs.record import cell_folder, machine, new_method
from bench.runs.spec import Cell, Run, cells
from bench.runs.splits import Splits, load_splits
from bench.runs.store import STORE, Store, read_scores, write_scores
from uqseg import wrappers
from uqseg.data import AnnotatedSet
from uqseg.device import pick_device
from uqseg.errors import DamagedError, FileError, UsageError, message_of
from uqseg.files import mend, read_json, write
from uqseg.locks import BusyError
from uqseg.metrics import THRESHOLD_STATISTICS, Scores, leave_one_out, score, statistics
from uqseg.prediction import predict_batches
from uqseg.samples import Sampler
from uqseg.training import fit
from uqseg.training.checkpoint import check_fit, load_weights

BATCH = 64  # images scored at once
EVERY = 30.0  # seconds between two lines about a training
EVERY_SHARD = 1.0  # seconds between two looks at shards that others score
ORDER = ("test", "val", "train")  # of scoring: what matters most comes first


@dataclass(frozen=True)
class Job:
    """A run as a worker sees it: its record, request, data and store."""

    folder: Path
    record: dict[str, Any]
    run: Run
    splits: Splits

    @property
    def store(self) -> Store:
        """The store that this run shares with those beside it."""
        return Store(self.folder.parent / STORE)

    @cached_property
    def entries(self) -> dict[str, dict[str, Any]]:
        """What the record says of each cell and yardstick, by its folder; yardsticks come first."""
        return results.entries_of(self.record)

    @property
    def failures(self) -> dict[str, Path]:
        """The record of the last failure of each cell that has one."""
        files = {name: self.folder / "cells" / name / "failure.json" for name in self.entries}
        return {name: file for name, file in files.items() if file.exists()}

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """What each cell trains and how it samples, by its folder."""
        return {cell_folder(cell.label, cell.repetition): cell for cell in cells(self.run)}


def read_job(folder: Path, trust: Sequence[str]) -> Job:
    """The run in `folder`; its data are read once for all of its cells in this process.

    trust: the plugins and classes from outside this project whose code may be run. Raises UsageError for others.
    """
    file = folder / "run.json"
    return _read_job(folder, tuple(trust), file.stat().st_mtime_ns if file.exists() else 0)


@lru_cache(maxsize=1)
def _read_job(folder: Path, trust: tuple[str, ...], written: int) -> Job:
    record = results.read_run(folder)
    if "threads" not in record:
        raise FileError(f"{folder / 'run.json'} was planned by an earlier version; give its command again")
    request = spec.read_spec(record["spec"], str(folder / "run.json"))
    for name in spec.outside(request):
        if name not in trust:
            raise UsageError(
                f"{folder / 'run.json'} would run code from outside this project, '{name}'; if you trust it, add "
                f"--trust {name}"
            )
    spec.run_plugins(request.plugins)
    left_out = {case for cases in record.get("left_out", {}).values() for case in cases}
    return Job(folder, record, request, predicted.without(load_splits(request), left_out))


def attempt(folder: Path, cell: str, settings: Settings) -> str | None:
    """Work on a cell; an error is kept in its failure.json and returned in one line, so that the others go on.

    Raises BusyError where another process works on a part of it and the settings say not to wait.
    """
    path = folder / "cells" / cell
    try:
        work(folder, cell, settings)
    except BusyError:
        raise
    except Exception as error:
        if settings.debug:
            raise
        text = one_line(error)
        with suppress(FileError):  # a full disk stops no other cell; the line that is returned says it too
            lines = traceback.format_exception(error)
            results.write_json(path / "failure.json", {"label": cell, "error": text, "traceback": lines})
        return text
    (path / "failure.json").unlink(missing_ok=True)
    return None


def title(entry: Mapping[str, Any]) -> str:
    """What messages call a cell or yardstick."""
    return f"{entry['label']}, repetition {entry['repetition']}" if "repetition" in entry else str(entry["label"])


def one_line(error: BaseException) -> str:
    """An error as one line: its kind, unless it is a user's to mend, and its message."""
    message = message_of(error)
    return message if isinstance(error, FileError) else f"{type(error).__name__}: {message}"


def work(folder: Path, cell: str, settings: Settings) -> None:
    """Train, sample and score the cell `cell` of the run in `folder`, as far as that is not done.

    Whoever does it uses as many threads as the run was planned with, since another number rounds sums otherwise.
    """
    job = read_job(folder, settings.trust)
    torch.set_num_threads(job.record["threads"])
    entry, path = job.entries[cell], folder / "cells" / cell
    if is_done(path, entry):
        return
    scores, info = {}, {}
    sampler = _Lazy(lambda: make_sampler(job, cell, settings))
    for split in filter(entry["scores"].__contains__, ORDER):
        scores[split], info[split] = _scored(job, entry, split, sampler, settings)
    kept = {split: _only(scores[split], wanted(split, entry)) for split in results.SPLITS if split in scores}
    described = info["test"] | {"scores": entry["scores"], "statistics": wanted("test", entry)}
    if "fit" in entry:
        final = trained(job.cells[cell], entry["fit"], job.splits, job.store, settings)
        cost = read_json(final / "fit.json") | {"sample_ms": info["test"]["sample_ms"]}
        results.write_json(path / "cost.json", {name: cost[name] for name in cost if name not in ("key", "sha256")})
        write(path / "history.jsonl", (final / "history.jsonl").read_bytes())
    results.write_cell(path, kept, described)


def is_done(path: Path, entry: dict[str, Any]) -> bool:
    """Whether the results in `path` are those that the record asks for, in the present versions, and undamaged."""
    try:
        info = results.read_object(path / "cell.json")
        results.check_cell(path, info)
        return bool(info["scores"] == entry["scores"] and info["statistics"] == wanted("test", entry))
    except (FileError, KeyError):
        return False


def wanted(split: str, entry: Mapping[str, Any]) -> dict[str, int]:
    """The statistics that a split is scored with, and their versions: train and val only show overfitting."""
    if gives_set(entry):
        return {n: s.version for n, s in statistics(of_set=True).items()}
    return {n: s.version for n, s in statistics().items() if split == "test" or n in THRESHOLD_STATISTICS}


def gives_set(entry: Mapping[str, Any]) -> bool:
    """Whether a cell's answer is one set of pixels, which is not scored as samples are."""
    return any(wrappers.find(name).gives == "set" for name in entry.get("wrappers", ()))


def missing(store: Store, entry: dict[str, Any], split: str) -> list[str]:
    """The statistics that the store does not hold of a split in their present versions."""
    try:
        known = dict(results.read_object(store.scores(entry["scores"][split]) / "cell.json")["statistics"])
    except (FileError, KeyError, TypeError, ValueError):
        known = {}
    return [name for name, version in wanted(split, entry).items() if known.get(name) != version]


class _Lazy:
    """A sampler that is made when it is first needed."""

    def __init__(self, make: Callable[[], Sampler]) -> None:
        self._make = make

    @cached_property
    def sampler(self) -> Sampler:
        """The sampler, made now if it was not."""
        return self._make()


def make_sampler(job: Job, name: str, settings: Settings) -> Sampler:
    """The trained method of a cell with its wrappers around it, somebody's predictions, or a yardstick."""
    entry = job.entries[name]
    if "predictions" in entry:
        theirs = predicted.open_all(job.run, job.splits, entry["label"])[entry["label"]]
        if keys.predictions_key(theirs) != entry["predictions"]:
            raise FileError(f"the files in '{theirs.folder}' have changed since the run began; give its command again")
        return theirs
    if "fit" not in entry:
        return yardsticks.build(entry["label"], job.splits.train)
    cell = job.cells[name]
    method = fitted(cell, entry["fit"], job.splits, job.store, settings)
    chain = [wrappers.build(wrapper, **options.model_dump()) for wrapper, options in cell.wrappers]
    return wrappers.wrap(method, chain, job.splits.val)


def fitted(cell: Cell, name: str, splits: Splits, store: Store, settings: Settings) -> Any:
    """The trained method of a cell, from the store or trained now."""
    final = trained(cell, name, splits, store, settings)
    method = new_method(cell, splits)  # not by load_method: the file of an outside class may have moved since
    load_weights(method, final)
    return method.to(pick_device(settings.device)).eval()


def trained(cell: Cell, name: str, splits: Splits, store: Store, settings: Settings) -> Path:
    """The folder of a cell's finished training, trained now where there is none; an interrupted training goes on, and
    what is damaged is trained anew."""
    final, partial = store.fit(name), store.partial(name)
    if _is_fit(final):
        return final
    with store.locked(name, settings.wait):
        try:
            check_fit(final)
        except DamagedError as error:
            if final.exists():
                settings.log(f"  {error}; training anew")
            try:
                _train(cell, splits, partial, settings)
            except DamagedError as damage:
                settings.log(f"  {damage}; training anew")
                shutil.rmtree(partial)
                _train(cell, splits, partial, settings)
            mend(partial, final, valid=_is_fit)
    return final


def _is_fit(folder: Path) -> bool:
    try:
        check_fit(folder)
    except DamagedError:
        return False
    return True


def _train(cell: Cell, splits: Splits, folder: Path, settings: Settings) -> None:
    facts = cell.options.model_dump(mode="json") | cell.training.model_dump(mode="json")
    drawn = curves(settings.curves, cell_folder(cell.label.partition("+")[0], cell.repetition), facts)
    telling = _telling(folder / "history.jsonl", cell.training.total_steps(len(splits.train)), settings)
    with telling, together.training(cell, folder), drawn as watch:
        train_cell(cell, splits, folder, settings, watch)


def train_cell(cell: Cell, splits: Splits, folder: Path, settings: Settings, watch: Hook | None = None) -> None:
    """Train a cell into `folder`, as each process does of those that train it together."""
    fit(
        new_method(cell, splits),
        splits.train,
        val=splits.val,
        recipe=cell.training,
        device=settings.device,
        out=folder,
        progress=settings.progress,
        seed=cell.seed(splits.train.name),
        watch=watch,
    )


@contextmanager
def _telling(history: Path, total: int, settings: Settings) -> Iterator[None]:
    """Without progress bars, log a line now and then about the training that writes `history`."""
    ended, started = threading.Event(), time.perf_counter()
    before = results.history_so_far(history)
    first = before[-1]["step"] if before else 0

    def tell() -> None:
        while not ended.wait(EVERY):
            if lines := results.history_so_far(history):
                step, loss = lines[-1]["step"], lines[-1]["loss"]
                left = (time.perf_counter() - started) / max(step - first, 1) * (total - step)
                settings.log(f"  step {step} of {total}, loss {loss:.4g}, about {in_words(left)} left")

    teller = threading.Thread(target=tell, daemon=True)
    if not settings.progress:
        teller.start()
    try:
        yield
    finally:
        ended.set()


def _scored(
    job: Job, entry: dict[str, Any], split: str, lazy: _Lazy, settings: Settings
) -> tuple[Scores, dict[str, Any]]:
    """The scores of a split from the store; what is missing there or of another version is computed and kept there."""
    name, count = entry["scores"][split], job.splits.count(split)
    with job.store.locked(name, settings.wait):
        folder, versions, names = job.store.scores(name), wanted(split, entry), missing(job.store, entry, split)
        stored: tuple[Scores, dict[str, Any]] | None = None
        if folder.exists():
            try:
                stored = read_scores(folder, split)
            except DamagedError as error:
                settings.log(f"  {error}; scoring anew")
                names = list(versions)
        if stored and not names:
            return stored
        if stored and stored[0].averaged:  # what was derived before averaging is derived from all anew
            stored, names = None, list(versions)
        if count > shards.SHARD:
            while _score_free_shards(job, entry, split, lazy, names, settings):
                time.sleep(EVERY_SHARD)  # others are at the rest
            scores, milliseconds = shards.joined(job.store, name, count, names)
        else:
            scores, milliseconds = _score_part(job, entry, split, lazy, names, settings)(slice(None))
        computed = {statistic: versions[statistic] for statistic in names}
        if stored:
            scores, computed = _joined(stored[0], scores), stored[1]["statistics"] | computed
        info = _described(entry, lazy.sampler, scores) | {"statistics": computed, "sample_ms": milliseconds}
        write_scores(folder, split, scores, info)
        shards.free(job.store, name)
        return scores, info


def help_to_score(folder: Path, cell: str, settings: Settings) -> None:
    """Score shards of a cell that another worker is at, once it is trained and its test set is large."""
    job = read_job(folder, settings.trust)
    entry = job.entries[cell]
    if "fit" in entry and not _is_fit(job.store.fit(entry["fit"])):
        return
    torch.set_num_threads(job.record["threads"])
    lazy = _Lazy(lambda: make_sampler(job, cell, settings))
    for split in ORDER:
        names = missing(job.store, entry, split)
        if names and job.splits.count(split) > shards.SHARD and not job.store.scores(entry["scores"][split]).exists():
            _score_free_shards(job, entry, split, lazy, names, settings)


def _score_free_shards(
    job: Job, entry: dict[str, Any], split: str, lazy: _Lazy, names: list[str], settings: Settings
) -> list[slice]:
    score_part = _score_part(job, entry, split, lazy, names, settings)
    return shards.score_free(job.store, entry["scores"][split], job.splits.count(split), names, score_part)


def _score_part(
    job: Job, entry: dict[str, Any], split: str, lazy: _Lazy, names: list[str], settings: Settings
) -> shards.Score:
    """A function that scores some cases of a split."""

    def score_part(part: slice) -> tuple[Scores, float]:
        data, task = job.splits.scored(split).take(part), f"score {entry['label']} {split}"
        return score_sampler(lazy.sampler, data, job.run.samples, names, settings.progress, task)

    return score_part


def _described(entry: dict[str, Any], sampler: Sampler, scores: Scores) -> dict[str, Any]:
    yardstick, describes = "repetition" not in entry, sampler.describes
    return {
        "label": entry["label"],
        "method": entry["label"] if yardstick else entry["method"],
        "wrappers": entry.get("wrappers", []),
        "gives": "set" if gives_set(entry) else "samples",
        "repetition": entry.get("repetition", 0),
        "yardstick": yardstick,
        "samples": scores.samples,
        "drawn": scores.drawn,
        "averaged": scores.averaged,
        "varies": describes.varies,
        "support": describes.support,
        "machine": machine(getattr(sampler, "device", None)),
    }


def score_sampler(
    sampler: Sampler, data: AnnotatedSet, n: int, names: list[str], progress: bool, text: str
) -> tuple[Scores, float]:
    """Scores of the named statistics, and the milliseconds that sampling took per image (the first batch warms up)."""
    parts, seconds = [], []
    device = getattr(sampler, "device", torch.device("cpu"))
    with Progress(console=Console(stderr=True), disable=not progress, transient=True) as bar:
        task = bar.add_task(escape(text), total=len(data))  # the brackets of a label are no markup
        batches, started = predict_batches(sampler, data, n, batch=BATCH), time.perf_counter()
        while (drawn := next(batches, None)) is not None:
            part, samples = drawn
            if samples.prob.is_cuda:
                torch.cuda.synchronize()
            seconds.append((time.perf_counter() - started) / len(samples.prob))
            batch, patients = data.batch(part).to(device), data.table["patient"].to_numpy()[part].tolist()
            known = {"spacing": batch.spacing, "statistics": names, "cases": batch.keys, "patients": patients}
            assert batch.masks is not None
            if getattr(sampler, "leave_one_out", False):
                parts.append(leave_one_out(batch.masks, batch.read, **known))
            else:
                parts.append(score(samples, batch.masks, batch.read, **known))
            bar.advance(task, len(samples.prob))
            started = time.perf_counter()
    return Scores.concatenate(parts), 1000 * float(np.median(seconds[1:] or seconds))


def _joined(old: Scores, new: Scores) -> Scores:
    """The statistics of both, where both have one those of `new`."""
    kept = _only(old, {*old.values, *old.patient_sums} - {*new.values, *new.patient_sums})
    return replace(new, values=kept.values | new.values, patient_sums=kept.patient_sums | new.patient_sums)


def _only(scores: Scores, names: Container[str]) -> Scores:
    """The named statistics alone; averaged scores hold derived ones too, and stay as they are."""
    if scores.averaged:
        return scores
    return replace(
        scores,
        values={name: value for name, value in scores.values.items() if name in names},
        patient_sums={name: pair for name, pair in scores.patient_sums.items() if name in names},
    )
