"""The gallery of a run: cases chosen by rule, with what the first repetition of each label makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from bench.launchers import Settings
from bench.runs import results
from bench.runs.results import Gallery
from bench.runs.work import make_sampler, read_job
from uqseg.metrics import Scores
from uqseg.metrics.threshold import THRESHOLDS
from uqseg.prediction import predict

FILE = "gallery.npz"
SPREAD = 20  # cases beside those of the rules
HALF = THRESHOLDS.index(0.5)
ROUNDING = 1e-6  # of shares of readers: one third and two thirds are as far from one half


def choose(scores: Mapping[str, Scores]) -> dict[str, str]:
    """The case of each rule of `results.RULES`, from one repetition of each method; rules no case meets are absent."""
    tables = list(scores.values())
    frame = pd.DataFrame(
        {
            "case": tables[0].cases,
            "dice": np.mean([s.column("dice_image")[:, HALF] for s in tables], axis=0),
            "apart": tables[0].column("ged_readers"),
            "readers": tables[0].column("presence_readers"),
            "between": -np.abs(np.mean([s.column("presence") for s in tables], axis=0) - 0.5),
        }
    ).sort_values("case")
    everybody = frame[frame["readers"] >= frame["readers"].max() - ROUNDING]
    disputed = frame[frame["readers"].between(ROUNDING, 1 - ROUNDING)]
    from_half = (disputed["readers"] - 0.5).abs()
    half = disputed[from_half <= from_half.min() + ROUNDING]
    chosen = (
        everybody.nlargest(1, "dice"),
        everybody.nsmallest(1, "dice"),
        everybody.nlargest(1, "apart"),
        half.nlargest(1, "between"),
    )
    return {rule: str(row["case"].iloc[0]) for rule, row in zip(results.RULES, chosen, strict=True) if len(row)}


def spread(scores: Scores) -> list[str]:
    """At most SPREAD cases at equal steps of rank by how far the readers disagree, the most disputed first."""
    table = pd.DataFrame({"case": scores.cases, "apart": scores.column("ged_readers")}).sort_values(["apart", "case"])
    rows = np.unique(np.linspace(0, len(table) - 1, SPREAD).round().astype(int))[::-1]
    return table["case"].iloc[rows].tolist()


def write(folder: Path, settings: Settings) -> None:
    """Choose the cases and keep them in the results folder with the samples that were scored."""
    first = {label: cells[0].scores["test"] for label, cells in results.read_results(folder).cells.items()}
    if not first:
        return
    rules, job = choose(first), read_job(folder, settings.trust)
    cases = tuple(dict.fromkeys([*rules.values(), *spread(next(iter(first.values())))]))
    test = job.splits.test
    rows = pd.Index(test.table["case"]).get_indexer(list(cases))
    few = test.take(rows)
    samples, weights = {}, {}
    for name, entry in job.entries.items():
        if entry["label"] in first and entry["label"] not in samples:
            drawn = predict(make_sampler(job, name, settings), few, job.run.samples)
            samples[entry["label"]] = (drawn.prob * 255).round().byte().cpu().numpy()
            if drawn.weights is not None:
                weights[entry["label"]] = drawn.weights.double().cpu().numpy()
    images, masks, read = np.array(few.images), np.array(few.masks), np.array(few.read)
    results.write_gallery(folder / FILE, Gallery(rules, cases, images, masks, read, samples, weights))
