"""The gallery: four cases chosen by rule, and what each method makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from bench.report.figures import COLOURS, DASHES, canvas, save
from uqseg.data import AnnotatedSet
from uqseg.methods import Method
from uqseg.metrics import maps
from uqseg.prediction import predict

SHOWN = 4  # samples drawn of each method
DPI = 85  # a case is 64 or 128 pixels wide: more would only make the files larger
ROUNDING = 1e-6  # of shares of readers: one third and two thirds are as far from one half
# Seen on dark images: yellow and white in place of black, blue last.
OUTLINES = (*COLOURS[1:6], "#F0E442", "#FFFFFF", COLOURS[0])

RULES = {
    "easiest": "all readers marked it (or as many as marked any), and the methods' mean Dice is the highest",
    "hardest": "all readers marked it (or as many as marked any), and the methods' mean Dice is the lowest",
    "most disputed": "all readers marked it (or as many as marked any), and their outlines differ most",
    "some readers only": "about half of the readers marked it, and the methods' mean presence is nearest to one half",
}


def choose(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """The case of each rule, from per-image scores of one repetition of each method; rules no case meets are absent."""
    first = next(iter(tables.values()))
    dice = np.mean([t["dice_image@0.5"] for t in tables.values()], axis=0)
    present = np.mean([t["presence"] for t in tables.values()], axis=0)
    frame = pd.DataFrame(
        {
            "case": first["case"],
            "dice": dice,
            "apart": first["ged_readers"],
            "readers": first["presence_readers"],
            "between": -np.abs(present - 0.5),
        }
    ).sort_values("case")
    everybody = frame[frame["readers"] >= frame["readers"].max() - ROUNDING]
    disputed = frame[frame["readers"].between(ROUNDING, 1 - ROUNDING)]
    from_half = (disputed["readers"] - 0.5).abs()
    half = disputed[from_half <= from_half.min() + ROUNDING]
    rules = {
        "easiest": everybody.nlargest(1, "dice"),
        "hardest": everybody.nsmallest(1, "dice"),
        "most disputed": everybody.nlargest(1, "apart"),
        "some readers only": half.nlargest(1, "between"),
    }
    return {name: str(found["case"].iloc[0]) for name, found in rules.items() if len(found)}


def draw(case: str, data: AnnotatedSet, fitted: Mapping[str, Method], n: int, path: Path) -> None:
    """One picture of a case: a row a method with outlines, mean probability, standard deviation and some samples."""
    part = data.take(np.flatnonzero(data.table["case"] == case))
    figure, _ = canvas(1, 1, 1)
    figure.clear()
    figure.set_size_inches(1.35 * (3 + SHOWN), 1.3 * len(fitted) + 0.4)
    axes = figure.subplots(len(fitted), 3 + SHOWN, squeeze=False)
    titles = ["readers", "mean", "std", *(f"sample {k + 1}" for k in range(SHOWN))]
    for row, (label, method) in enumerate(fitted.items()):
        samples = torch.from_numpy(predict(method, np.array(part.images), n, keys=[case]))
        mean, std = maps.mean(samples, None)[0].numpy(), maps.std(samples, None)[0].numpy()
        outlined(axes[row, 0], part)
        axes[row, 1].imshow(mean, vmin=0, vmax=1, cmap="viridis")
        axes[row, 2].imshow(std, vmin=0, vmax=0.5, cmap="magma")
        for k in range(SHOWN):
            shown = samples[0, k].numpy() if k < samples.shape[1] else np.full(mean.shape, np.nan)
            axes[row, 3 + k].imshow(shown, vmin=0, vmax=1, cmap="viridis")
        axes[row, 0].set_ylabel(label.replace("[", "\n["), fontsize=8)
    for column, title in enumerate(titles):
        axes[0, column].set_title(title, fontsize=9)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    save(figure, path, DPI)


def outlined(ax: Axes, part: AnnotatedSet) -> None:
    """Draw the first image of `part` with the outline of every reader who marked something."""
    pixels: NDArray[np.uint8] = np.moveaxis(np.asarray(part.images[0]), 0, -1)
    grey = pixels.shape[-1] != 3
    ax.imshow(pixels[..., 0] if grey else pixels, cmap="gray", vmin=0, vmax=255)
    for r in range(part.readers):
        mask = np.asarray(part.masks[0, r])
        if part.read[0, r] and mask.any():
            # A margin of background: an outline that ends at the image's border is closed there.
            ys, xs = (np.arange(-1, n + 1) for n in mask.shape)
            ax.contour(xs, ys, np.pad(mask, 1), levels=[0.5], linewidths=0.9, **line(r))
    height, width = pixels.shape[:2]
    ax.set(xticks=[], yticks=[], xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    ax.spines[:].set_visible(False)


def line(reader: int) -> dict[str, Any]:
    """Colour and dash of a reader's outline, as matplotlib's contours take them."""
    dash = DASHES[(reader + reader // len(OUTLINES)) % 4]
    return {"colors": OUTLINES[reader % len(OUTLINES)], "linestyles": dash}
