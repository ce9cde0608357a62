"""A finished cell as a model to hand on: weights as float16, what it needs to know, and a card with its figures.

The figures are those of the weights as stored: they are scored anew on the run's test images.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import uqseg
from bench import stats
from bench.launchers import Settings
from bench.predict import cell_of, open_model
from bench.report import tables
from bench.runs import results
from bench.runs.work import read_job, score_sampler
from uqseg.errors import UsageError
from uqseg.files import beside, is_taken, make_folder, publish, unwritable, write
from uqseg.metrics import Scores, figures
from uqseg.trained import CARD, load_model, save_model
from uqseg.training.facts import facts_of

MOST = 6e6  # bytes of the weights of one model
LIDC = """\
- Data: LIDC-IDRI, by the Lung Image Database Consortium and the Image Database Resource Initiative, from The Cancer
  Imaging Archive, licence CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/).
- Citations: Armato III, S. G., et al. (2015). Data From LIDC-IDRI. The Cancer Imaging Archive.
  https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX. Armato III, S. G., et al. (2011). The Lung Image Database Consortium
  (LIDC) and Image Database Resource Initiative (IDRI): a completed reference database of lung nodules on CT scans.
  Medical Physics 38, 915–931. https://doi.org/10.1118/1.3528204. Clark, K., et al. (2013). The Cancer Imaging Archive
  (TCIA): maintaining and operating a public information repository. Journal of Digital Imaging 26, 1045–1057.
  https://doi.org/10.1007/s10278-013-9622-7.
- Changes made: slices were cut around nodules and reduced to 8 bits, and a network was trained on them; its weights
  were rounded to float16. The weights hold no image."""


def export(text: str, to: Path, credit: str | None, settings: Settings) -> Iterator[str]:
    """Write the model that runs/NAME/LABEL names into the folder `to`, and yield what it scores, a line each.

    credit: whose data they are, under which licence, for the card; known of LIDC. Raises UsageError where that is
    missing or `to` is not empty.
    """
    run, entry = cell_of(text)
    job = read_job(run, settings.trust)
    source = job.splits.train.name
    if credit is None and not source.startswith("lidc"):
        raise UsageError(f"--credit: say whose data '{source}' is and under which licence; it is written on the card.")
    if is_taken(to):
        raise UsageError(f"--to: '{to}' is not empty; choose another folder.")
    sampler, _ = open_model(text, settings.device, settings.trust)
    sampler.input.update(facts_of(job.splits.train))
    partial = beside(to)
    try:
        make_folder(to.parent)
        save_model(sampler, partial, half=True)
        stored = load_model(partial, settings.device, trust=settings.trust)
        names = [s for f in figures(table="summary") for s in f.statistics]
        scores, _ = score_sampler(
            stored, job.splits.test, job.run.samples, list(dict.fromkeys(names)), settings.progress, "score"
        )
        before = _scores(run, entry["folder"])
        rows = list(_rows({"as stored": scores} | ({"as trained": before} if before else {})))
        write(partial / CARD, _card(run, entry["label"], source, credit or LIDC, rows, job.run.samples).encode())
        publish(partial, to)
    except OSError as error:
        raise unwritable(to, error, "choose another --to") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    yield from rows
    size = (to / "weights.safetensors").stat().st_size
    yield f"{to}: {size / 1e6:.1f} MB" + (f", more than the {MOST / 1e6:.0f} MB of a model that ships" * (size > MOST))


def _scores(run: Path, folder: str) -> Scores | None:
    """The test scores of the cell in its results folder, if they are there."""
    path = run / "cells" / folder
    return results.read_cell(path).scores["test"] if (path / "cell.json").exists() else None


def _rows(scores: dict[str, Scores]) -> Iterator[str]:
    """Lines of a Markdown table: figure, and its value with an interval for each of the scores."""
    boot = stats.bootstrap({label: [each] for label, each in scores.items()}, figures(table="summary"))
    yield f"| figure | {' | '.join(scores)} |"
    yield f"| :--- |{' :--- |' * len(scores)}"
    for figure in boot.figures:
        values = [tables.with_interval(boot.estimate(label, figure.name)) for label in scores]
        yield f"| {figure.title}{tables.ARROWS[figure.direction]} | {' | '.join(values)} |"


def _card(run: Path, label: str, source: str, credit: str, rows: list[str], samples: int) -> str:
    record = results.read_run(run)
    data, spec = record["data"], record["spec"]
    test = data["splits"]["test"]
    table = "\n".join(rows)
    size = f"{data['size']}×{data['size']}"
    learnt = (
        "It has learnt from the surroundings\nof lesions that somebody marked: elsewhere, and on other images"
        if source.startswith("lidc")
        else "On images unlike\nthose that it has learnt from"
    )
    return f"""\
# {label}, trained on {source} at {size}

**Not for clinical use.** A model of a benchmark, to try uqseg with; it has been validated for no patient.

## Figures

On the {test["images"]} test images of {test["patients"]} patients, {samples} samples each, with 95 % intervals over
patients, from {stats.FEWEST} patients on; ↓ lower is better, ↑ higher is better. "As stored": with the weights of this
folder, which are float16.

{table}

## Input

Images of {size} pixels and {data["channels"]} channel(s), 8 bits; larger ones are cut into tiles. {learnt}, it may
find what is not there.

## Training

Recipe {spec["recipe_name"]} of uqseg {uqseg.__version__}: {spec["recipe"]["description"]}.
{data["splits"]["train"]["images"]} training images of {data["splits"]["train"]["patients"]} patients.

## Data and licence

{credit}
- The weights may be used as the data may be, with the same attribution.
"""
