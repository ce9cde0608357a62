"""The stored scores of a run, as the report reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from baselines.reference import YARDSTICKS
from bench import store
from bench.runner import Data, fit_name, score_name, yardstick_score_name
from bench.spec import Cell, Run, cells
from bench.store import Store

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Loaded:
    """Scores of a run: per split and label one table a repetition; meta of the test scores; a cell of each method."""

    images: dict[str, dict[str, list[pd.DataFrame]]]
    meta: dict[str, list[dict[str, Any]]]
    cells: dict[str, Cell]

    @property
    def methods(self) -> list[str]:
        return list(self.cells)

    def pooled(self, label: str) -> pd.DataFrame:
        """The per-image test scores of all repetitions, one under the other."""
        return pd.concat(self.images["test"][label], ignore_index=True)


def load(run: Run, data: Data, where: Store) -> Loaded:
    """The stored scores of a run; cells that have none (declined or failed) are left out."""
    images: dict[str, dict[str, list[pd.DataFrame]]] = {split: {} for split in SPLITS}
    meta: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, Cell] = {}
    for cell in cells(run):
        name = fit_name(cell, data)
        folders = {s: where.score(score_name(name, data.scored(s), s, run.samples)) for s in SPLITS}
        if not all(f.exists() for f in folders.values()):
            continue
        found.setdefault(cell.label, cell)
        for split, folder in folders.items():
            table, told = store.read_scores(folder)
            images[split].setdefault(cell.label, []).append(table)
            if split == "test":
                meta.setdefault(cell.label, []).append(told)
    for name in YARDSTICKS:
        for split in SPLITS:
            table, told = store.read_scores(where.score(yardstick_score_name(name, data, split, run.samples)))
            images[split][name] = [table]
            if split == "test":
                meta[name] = [told]
    return Loaded(images, meta, found)
