"""A results folder with real statistics of invented samples, written as a run writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.runs import results
from bench.runs.record import cell_folder
from bench.runs.results import Gallery
from uqseg.metrics import THRESHOLD_STATISTICS, leave_one_out, score, statistics

SIZE = 24
READERS = 4
YARDSTICKS = ("background", "prevalence", "consensus", "oracle", "human")
SPLITS = {"train": 3, "val": 3, "test": 24}  # patients, two cases each
# Per label the kind of its samples, their number, how far its discs are off (pixels), and how often they are missing.
METHODS: dict[str, tuple[str, int, float, float]] = {
    "segnet": ("support", 1, 2.5, 0.0),
    "unet": ("support", 1, 1.5, 0.0),
    "ensemble": ("support", 4, 1.5, 0.2),
    "mcdropout": ("independent", 4, 1.5, 0.1),
    "probunet[beta=2]": ("independent", 4, 1.0, 0.3),
}
Floats = NDArray[np.float32]


def discs(rng: np.random.Generator, centres: Floats, radii: Floats, n: int, off: float, missing: float) -> Floats:
    """n soft discs around each centre, of probability sloping from 1 to 0 at the rim: float32 (B,n,H,W)."""
    shape = (len(centres), n, 1, 1)
    y, x = (c[:, None, None, None] + rng.normal(0, off, shape) for c in centres.T)
    r = radii[:, None, None, None] * rng.uniform(0.7, 1.2, shape)
    grid = np.arange(SIZE)
    distance = np.hypot(grid[:, None] - y, grid - x)
    prob = np.clip(0.5 + (r - distance) / 3, 0.01, 0.99) * (rng.random(shape) >= missing)
    return prob.astype(np.float32)


def write(folder: Path, *, methods: dict[str, tuple[str, int, float, float]] = METHODS, source: str = "lidc-sim",
          repetitions: int = 2, gallery: bool = True, patients: int | None = None, seed: int = 0,
          case_name: str = "case {}",
          yardsticks: tuple[str, ...] = YARDSTICKS, **record: Any) -> Path:  # fmt: skip
    """Write a results folder; record: what run.json says besides, such as spec or commit."""
    rng = np.random.default_rng(seed)
    counts = {**SPLITS, "test": patients or SPLITS["test"]}
    sets, tables = {}, []
    for split, count in counts.items():
        n = 2 * count
        centres, radii = rng.uniform(10, SIZE - 10, (n, 2)), rng.uniform(2.5, 6, n)
        masks = discs(rng, centres, radii, READERS, 0.8, 0.3) >= 0.5
        cases = np.array([case_name.format(f"{split}-{i:02d}") for i in range(n)])
        owners = np.array([f"{split}-p{i // 2:02d}" for i in range(n)])
        sets[split] = centres, radii, masks, cases, owners
        areas = masks.sum((2, 3))
        tables.append(
            pd.DataFrame({"case": cases, "patient": owners, "split": split, "read": READERS,
                          "marked": (areas > 0).sum(1), **{f"area_{r}": areas[:, r] * 1.0 for r in range(READERS)},
                          "spacing_y": 0.7, "spacing_x": 0.7, "subtlety": rng.uniform(1, 5, n)})
        )  # fmt: skip
    cells = [
        {
            "label": label,
            "repetition": k,
            "folder": cell_folder(label, k),
            "method": label.partition("[")[0],
            "wrappers": [],
        }
        for label in methods
        for k in range(repetitions)
    ]
    splits = {s: {"images": 2 * c, "patients": c, "scored": 2 * c, "key": s} for s, c in counts.items()}
    run = {
        "format": results.FORMAT, "name": folder.name, "command": "python -m bench run --data lidc-sim",
        "commit": "0123456789", "version": "1.0", "started": "2026-01-01T00:00:00+00:00",
        "spec": {"recipe_name": "quick", "recipe": {"description": "minutes"}, "samples": 4},
        "machine": {"device": "CPU"},
        "data": {"source": source, "text": source, "description": "discs", "simulated": True, "folder": "",
                 "size": SIZE, "channels": 1, "readers": READERS, "reader_names": [], "readers_are_persons": False,
                 "read_per_case": [READERS, READERS], "spacing_known": True, "problems": 0, "splits": splits},
        "cells": cells, "declined": {},
        "yardsticks": [{"label": y, "description": f"what {y} is", "folder": y} for y in yardsticks],
    } | record  # fmt: skip
    results.write_json(folder / "run.json", run)
    results.write_cases(folder, pd.concat(tables, ignore_index=True))
    versions = {name: s.version for name, s in statistics().items()}
    for cell in cells:
        drawn, n, off, missing = methods[cell["label"]]
        noise = np.random.default_rng([seed, cell["repetition"], list(methods).index(cell["label"])])
        scores = {}
        for split, (centres, radii, masks, cases, owners) in sets.items():
            prob = discs(noise, centres, radii, n, off, missing)
            wanted = None if split == "test" else THRESHOLD_STATISTICS
            scores[split] = score(prob, masks, drawn=drawn, spacing=np.full((len(masks), 2), 0.7, np.float32),
                                  statistics=wanted, cases=cases, patients=owners)  # fmt: skip
        info = {"label": cell["label"], "method": cell["method"], "wrappers": [], "repetition": cell["repetition"],
                "samples": n, "drawn": drawn, "varies": "weights", "support": n if drawn == "support" else None,
                "statistics": versions, "machine": {}, "yardstick": False}  # fmt: skip
        path = folder / "cells" / cell["folder"]
        results.write_cell(path, scores, info)
        cost = {"parameters": 1000 * n, "train_seconds": 10.0 * n + off, "cpu_seconds": 20.0, "images_per_second": 99.0,
                "sample_ms": 0.7 * n + off, "peak_memory_bytes": 2**28, "device": "CPU"}  # fmt: skip
        results.write_json(path / "cost.json", cost)
        lines = [f'{{"step": {step}, "loss": {1 / step}}}' for step in range(10, 101, 10)]
        (path / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in yardsticks:
        scores = {}
        for split, (_, _, masks, cases, owners) in sets.items():
            known: dict[str, Any] = {
                "cases": cases,
                "patients": owners,
                "spacing": np.full((len(masks), 2), 0.7, np.float32),
            }
            known |= {"statistics": None if split == "test" else THRESHOLD_STATISTICS}
            if name == "human":
                scores[split] = leave_one_out(masks, np.ones(masks.shape[:2], bool), **known)
            else:
                prob, drawn = _yardstick(name, masks, np.random.default_rng(seed))
                scores[split] = score(prob, masks, drawn=drawn, **known)
        some = scores["test"]
        info = {"label": name, "method": name, "wrappers": [], "repetition": 0, "samples": some.samples,
                "drawn": some.drawn, "varies": "outcome", "support": None, "statistics": versions, "machine": {},
                "yardstick": True}  # fmt: skip
        results.write_cell(folder / "cells" / name, scores, info)
    if gallery:
        centres, radii, masks, cases, _ = sets["test"]
        kept = np.flatnonzero(masks.any((2, 3)).all(1))[:2]
        noise = np.random.default_rng(seed)
        images = np.clip(90 + 60 * masks[kept].mean(1) + noise.normal(0, 15, (len(kept), SIZE, SIZE)), 0, 255)
        samples = {
            label: np.round(255 * discs(noise, centres[kept], radii[kept], n, off, missing)).astype(np.uint8)
            for label, (_, n, off, missing) in methods.items()
        }
        rules = dict(zip(results.RULES, cases[kept], strict=False))
        results.write_gallery(
            folder / "gallery.npz",
            Gallery(rules, tuple(cases[kept]), images.astype(np.uint8)[:, None], masks[kept],
                    np.ones((len(kept), READERS), bool), samples, {}),
        )  # fmt: skip
    results.write_json(folder / "finished.json", {"seconds": 1.0})
    return folder


def _yardstick(name: str, masks: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Floats, str]:
    if name == "oracle":
        slots = rng.integers(0, READERS, (len(masks), 4))
        return masks[np.arange(len(masks))[:, None], slots].astype(np.float32), "independent"
    share = masks.mean(1, keepdims=True)
    single = {"background": np.zeros_like(share), "prevalence": np.broadcast_to(share.mean(0), share.shape),
              "consensus": share >= 0.5}  # fmt: skip
    return np.ascontiguousarray(single[name], np.float32), "support"
