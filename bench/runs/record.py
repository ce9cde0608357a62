"""run.json: all that is known of a run before it starts, and whether a results folder is of the same run."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import uqseg
from baselines.yardsticks import YARDSTICKS
from bench.console import without_folders
from bench.data import remarks
from bench.runs import keys, lacking, results
from bench.runs.identity import identity, joined
from bench.runs.spec import Cell, Run, cells, shown_label
from bench.runs.splits import Splits
from bench.runs.store import STORE, Store, named, slug
from uqseg import methods, wrappers
from uqseg.data.load import description_of
from uqseg.errors import UsageError
from uqseg.methods import Method
from uqseg.predictions import Predictions

LONGEST = 100  # letters of a name: with what is written beside it, it is to be a file name


def make_record(
    run: Run,
    splits: Splits,
    name: str | None,
    command: str,
    commit: str,
    threads: int | None = None,
    predictions: Mapping[str, Predictions] | None = None,
) -> dict[str, Any]:
    """What run.json says of a run; its name is by default source, data folder, recipe, size and a hash of the rest.

    threads: of each cell, whoever works on it; default those that torch uses now. predictions: those of somebody's that
    it scores, of the cases of `splits`.
    """
    theirs = predictions or {}
    planned = cells(run)
    reasons = {
        cell.label: declines(cell, splits, run.samples) for cell in {cell.label: cell for cell in planned}.values()
    }
    declined = {label: reason for label, reason in reasons.items() if reason}
    entries = [_predicted(label, each, splits, run.samples) for label, each in theirs.items()]
    entries += [_entry(cell, splits, run.samples) for cell in planned if cell.label not in declined]
    order = [shown_label(label) for label in run.methods]
    entries.sort(key=lambda entry: order.index(entry["label"]))
    left_out = {label: each.left_out for label, each in theirs.items() if each.left_out}
    spec = json.loads(run.model_dump_json())
    record = {
        "format": results.FORMAT,
        "name": name,
        "command": command,
        "commit": commit,
        "version": uqseg.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "spec": spec,
        "threads": threads or torch.get_num_threads(),
        "machine": machine(),
        "data": _facts(run, splits),
        "cells": entries,
        "yardsticks": [
            _yardstick(label, splits, run.samples)
            for label, yardstick in YARDSTICKS.items()
            if (splits.train.readers > 1 or not yardstick.leave_one_out)  # nobody is left where one reader is left out
            and (len(splits.train) or not yardstick.learns)
        ],
        "declined": declined,
    }
    if left_out:
        record["left_out"] = left_out
        record["data"]["remarks"].append(lacking.sentence(len(splits.test), left_out))
    if name is None:
        digest = keys.key_of(*identity(record))[:6]
        parts = (splits.test.name, splits.test.folder, run.recipe_name, f"{run.size}px", digest)
        record["name"] = slug(*filter(None, parts))
    elif slug(name) != name or name == STORE or len(name) > LONGEST:
        raise UsageError(
            f"--name: expected up to {LONGEST} letters, digits and . = _ -, and not '{STORE}', got '{name[:LONGEST]}'."
        )
    return record


def write(folder: Path, record: Mapping[str, Any], splits: Splits) -> dict[str, Any]:
    """Begin the results folder of a run, or join it: run.json, then its cases; the record that holds from now on.

    It has the threads of the first who planned it. One that says nothing new is left as it is, for those at work.
    """
    with Store(folder.parent / STORE).locked(folder.name):
        kept = joined(folder, record)
        before = results.read_run(folder) if (folder / "run.json").exists() else {}
        if any(before.get(key) != kept[key] for key in kept if key not in ("started", "command", "machine")):
            results.write_json(folder / "run.json", kept)
        if not (folder / "cases.parquet").exists():
            results.write_cases(folder, case_table(splits))
    return kept


def new_method(cell: Cell, splits: Splits) -> Method[Any]:
    """The cell's method, untrained."""
    train = splits.train
    return methods.build(
        cell.method,
        cell.options.model_dump(),
        channels=train.images.shape[1],
        readers=train.readers,
        seed=cell.seed(train.name),
    )


def declines(cell: Cell, splits: Splits, samples: int) -> str | None:
    """Why the cell's method cannot be used on these data or for so many samples, or it or its wrappers with its
    training, or None; what fails here fails in its cell too, and is told there."""
    held_out = [name for name, _ in cell.wrappers if wrappers.find(name).holds_out]
    if held_out and cell.training.keep == "best":
        return (
            f"+{held_out[0]} calibrates on patients that nothing before it has used, but keep=best chooses the "
            "weights on all of validation; give --set training.keep=last"
        )
    try:
        method = new_method(cell, splits)
        reason = method.declines(splits.train) or method.declines_recipe(cell.training)
    except Exception:
        return None
    if reason is None and method.most is not None and samples > method.most:
        return f"it has {method.most} samples at most, and the run asks for {samples}"
    return reason


def cell_folder(label: str, repetition: int | None = None) -> str:
    """The folder of a cell: its label as far as file systems allow, made unique by a hash where that changed it."""
    readable = slug(label)[:80]
    digest = "" if readable == label else "-" + hashlib.sha256(label.encode()).hexdigest()[:6]
    return f"{readable}{digest}" + ("" if repetition is None else f"-r{repetition}")


def _entry(cell: Cell, splits: Splits, n: int) -> dict[str, Any]:
    source, fit, sampler = splits.train.name, keys.fit_key(cell, splits), keys.sampler_key(cell, splits)
    return {
        "label": cell.label,
        "repetition": cell.repetition,
        "folder": cell_folder(cell.label, cell.repetition),
        "method": shown_label(cell.method),
        "wrappers": [name for name, _ in cell.wrappers],
        "options": cell.options.model_dump(mode="json"),
        "training": cell.training.model_dump(mode="json"),
        "fit": named(fit, source, cell.label.partition("+")[0], f"r{cell.repetition}"),
        "scores": _score_names(sampler, splits, n, source, cell.label, f"r{cell.repetition}"),
    }


def _predicted(label: str, predictions: Predictions, splits: Splits, n: int) -> dict[str, Any]:
    """The entry of somebody's predictions, which are scored on the test images alone."""
    key = keys.predictions_key(predictions)
    name = named(keys.score_key(key, splits, "test", n), splits.test.name, label, "test")
    return {
        "label": label,
        "repetition": 0,
        "folder": cell_folder(label, 0),
        "method": "predictions",
        "wrappers": [],
        "predictions": key,
        "drawn": predictions.drawn,
        "scores": {"test": name},
    }


def _yardstick(label: str, splits: Splits, n: int) -> dict[str, Any]:
    scores = _score_names(keys.yardstick_key(label, splits), splits, n, splits.train.name, label)
    described = {"label": label, "description": YARDSTICKS[label].description}
    return {**described, "folder": cell_folder(label), "scores": scores}


def _score_names(sampler: str, splits: Splits, n: int, *parts: str) -> dict[str, str]:
    """The names of the scores of each split that has images."""
    filled = [split for split in results.SPLITS if len(getattr(splits, split))]
    return {split: named(keys.score_key(sampler, splits, split, n), *parts, split) for split in filled}


def _facts(run: Run, splits: Splits) -> dict[str, Any]:
    test, parts = splits.test, {split: getattr(splits, split) for split in results.SPLITS}
    read = np.concatenate([part.read.sum(1) for part in parts.values()])
    return {
        "source": test.name,
        "text": without_folders(run.data),
        "description": description_of(test.name),
        "simulated": test.simulated,
        "folder": test.folder,
        "size": run.size,
        "channels": test.images.shape[1],
        "readers": test.readers,
        "reader_names": list(test.reader_names),
        "readers_are_persons": test.readers_are_persons,
        "read_per_case": [int(read.min()), int(read.max())],
        "spacing_known": bool(np.isfinite(test.spacing).all()),
        "problems": len(test.problems),
        "remarks": remarks(splits.train, splits.val, splits.test),
        "splits": {
            split: {
                "images": len(part),
                "patients": int(part.table["patient"].nunique()),
                "scored": splits.count(split),
                "key": part.key,
            }
            for split, part in parts.items()
        },
    }


def case_table(splits: Splits) -> pd.DataFrame:
    """One row per scored case of all splits: who read and marked it, areas in pixels, spacing, the source's columns."""
    tables = []
    for split in results.SPLITS:
        if not len(data := splits.scored(split)):
            continue
        areas = np.array([masks.sum((1, 2)) for masks in data.masks], float).reshape(data.read.shape)
        areas[~data.read] = np.nan
        columns: dict[str, Any] = {"case": data.table["case"], "patient": data.table["patient"], "split": split}
        columns |= {"read": data.read.sum(1), "marked": (areas > 0).sum(1)}
        columns |= {f"area_{r}": areas[:, r] for r in range(data.readers)}
        columns |= {"spacing_y": data.spacing[:, 0], "spacing_x": data.spacing[:, 1]}
        shared = [column for column in ("case", "patient", "split") if column in columns]
        own = data.table.drop(columns=shared).rename(columns={column: f"{column} (as given)" for column in columns})
        tables.append(pd.concat([pd.DataFrame(columns), own], axis=1))
    return pd.concat(tables, ignore_index=True).astype({"case": str, "patient": str})


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """What computes, in words and versions."""
    chip = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        chip = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), chip)
    except OSError:
        chip = f"{chip} (model unknown)"
    return {
        "device": torch.cuda.get_device_name(device) if device and device.type == "cuda" else chip,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
