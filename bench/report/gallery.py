"""The gallery: cases chosen by rule, cropped around their lesion, and what each method makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.report.plots import COLOURS, DASHES, plain
from bench.runs.results import Gallery

SAMPLES = 4  # drawn of each method
LEAST = 32  # pixels: the shortest side of a crop, so that something around a small lesion is seen
TILE = 1.8  # inches: 230 pixels
# Seen on dark images: yellow and white in place of black, blue last.
OUTLINES = (*COLOURS[1:6], "#F0E442", "#FFFFFF", COLOURS[0])
GREY = {"cmap": "gray", "vmin": 0, "vmax": 255}
PROBABILITY = {"cmap": "viridis", "vmin": 0, "vmax": 1}
DEVIATION = {"cmap": "magma", "vmin": 0, "vmax": 0.5}
HYPOTHESIS = "#FF2222"  # seen on both ends of viridis
Floats = NDArray[np.float64]
Window = tuple[slice, slice]


def draw(gallery: Gallery, place: int, names: Sequence[str]) -> Figure:
    """The case at `place`: a head row of the image, the readers' mean and deviation and each reader, then the methods.

    names: of all readers, of whom those who read the case are shown.
    Mean and deviation of a method stand below those of the readers, its samples below the readers' masks. A method
    with a single sample is shown by its mean alone, which is that sample.
    """
    readers = np.flatnonzero(gallery.read[place])
    image, masks = gallery.images[place], gallery.masks[place][readers]
    window = crop(masks, image.shape[1:])
    drawn = max((s.shape[1] for s in gallery.samples.values()), default=1)
    wide = max(min(SAMPLES, drawn if drawn > 1 else 0), min(SAMPLES, len(masks)))
    heads = max(1, -(-len(masks) // wide))
    rows = heads + len(gallery.samples)
    width, height = TILE * (3 + wide), 1.1 * TILE * (rows + 0.06) + 0.8
    figure = Figure(figsize=(width, height))
    grid = figure.add_gridspec(
        rows + 1, 3 + wide, height_ratios=[*[1] * rows, 0.06],  # the last row holds the colour bars
        left=0.003, right=0.997, top=1 - 0.25 / height, bottom=0.5 / height, wspace=0.02, hspace=0.1,
    )  # fmt: skip

    def tile(row: int, column: int, pixels: NDArray[Any], title: str, **look: Any) -> Axes:
        ax = figure.add_subplot(grid[row, column])
        ax.imshow(pixels[window], interpolation="nearest", **look)
        ax.set_title(title, fontsize=8, pad=3, y=1)  # a height that is given is not looked for among the ticks
        ax.set_axis_off()
        return ax

    share, spread = moments(masks.astype(float))
    tile(0, 0, pixels(image), "image", **GREY)
    above = [tile(0, 1, share, "readers' mean", **PROBABILITY)]
    above.append(tile(0, 2, spread, "readers' deviation", **DEVIATION))
    for i, (r, mask) in enumerate(zip(readers, masks, strict=True)):
        title = plain(names[int(r)]) + ("" if mask.any() else ": nothing")
        ax = tile(i // wide, 3 + i % wide, pixels(image), title, **GREY)
        outline(ax, mask[window], colors=OUTLINES[r % len(OUTLINES)])
    for row, (label, every) in enumerate(gallery.samples.items(), heads):
        samples = every[place] / 255.0
        equal = np.full(len(samples), 1 / len(samples))
        weights = gallery.weights[label][place] if label in gallery.weights else equal
        mean, deviation = moments(samples, weights)
        marked = np.tensordot(weights, samples >= 0.5, 1)
        outside = 1 - marked[window].sum() / marked.sum() if marked.any() else 0.0
        note = f"\n\n{round(100 * outside)} % of what it marks\nlies outside the crop" if outside >= 0.01 else ""
        name = plain(label).replace("[", "\n[").replace(",", ",\n") + note
        x, y, length, height = grid[row, 0].get_position(figure).bounds
        figure.text(x + length / 2, y + height / 2, name, ha="center", va="center", fontsize=9)
        ax = tile(row, 1, mean, "mean", **PROBABILITY)
        if len(samples) == 1:
            outline(ax, mean[window] >= 0.5)
            continue
        tile(row, 2, deviation, "deviation", **DEVIATION)
        count = min(SAMPLES, len(samples))
        for column in range(count):
            k = (2 * column + 1) * len(samples) // (2 * count)  # evenly over all: those of level sets are in order
            weight = f", weight {weights[k]:.2f}" if label in gallery.weights else ""
            nothing = "" if (samples[k] >= 0.5).any() else ": nothing"
            ax = tile(row, 3 + column, samples[k], f"sample {k + 1}{weight}{nothing}", **PROBABILITY)
            outline(ax, samples[k][window] >= 0.5)
    titles = ("probability, or share of readers", "standard deviation")
    for column, (ax, title) in enumerate(zip(above, titles, strict=True), 1):
        x, y, length, thickness = grid[rows, column].get_position(figure).bounds
        bar = figure.add_axes((x + 0.08 * length, y, 0.84 * length, thickness))
        figure.colorbar(ax.images[0], cax=bar, orientation="horizontal").set_label(title, fontsize=8)
        bar.tick_params(labelsize=8)
    return figure


def moments(samples: Floats, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Mean and standard deviation (H,W) of samples (S,H,W), by default of equal weights."""
    mean = np.average(samples, axis=0, weights=weights)
    return mean, np.sqrt(np.maximum(np.average(samples**2, axis=0, weights=weights) - mean**2, 0))


def crop(masks: NDArray[np.bool_], shape: tuple[int, ...]) -> Window:
    """A square twice as long as what any reader of masks (R,H,W) marked, inside the image; all of it if none did."""
    marked = np.argwhere(masks.any(0))
    if not len(marked):
        return slice(0, shape[0]), slice(0, shape[1])
    first, last = marked.min(0), marked.max(0) + 1
    side = max(LEAST, 2 * int((last - first).max()))
    starts = (first + last - side) // 2
    limits = [(min(side, n), n) for n in shape]
    begins = [int(np.clip(start, 0, n - s)) for start, (s, n) in zip(starts, limits, strict=True)]
    window = [slice(b, b + s) for b, (s, _) in zip(begins, limits, strict=True)]
    return window[0], window[1]


def pixels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (C,H,W) as imshow takes it: three channels as colours, otherwise the first as grey."""
    return np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]


def outline(ax: Axes, mask: NDArray[np.bool_], **look: Any) -> None:
    """The outline of a mask (H,W), if it marks anything."""
    if mask.any():
        # A margin of background: an outline that ends at the image's border is closed there.
        ys, xs = (np.arange(-1, n + 1) for n in mask.shape)
        ax.contour(xs, ys, np.pad(mask, 1), levels=[0.5], **{"linewidths": 1.2, "colors": HYPOTHESIS, **look})
        ax.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def outlined(ax: Axes, image: NDArray[np.uint8], masks: NDArray[np.bool_], read: NDArray[np.bool_]) -> None:
    """Draw an image (C,H,W) with the outline of every reader (R,H,W) who read it (R,) and marked something."""
    ax.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
    for r in np.flatnonzero(read):
        outline(ax, masks[r], linewidths=0.9, **line(int(r)))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def line(reader: int) -> dict[str, Any]:
    """Colour and dash of a reader's outline, as matplotlib's contours take them."""
    dash = DASHES[(reader + reader // len(OUTLINES)) % 4]
    return {"colors": OUTLINES[reader % len(OUTLINES)], "linestyles": dash}
