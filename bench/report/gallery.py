"""The gallery: cases chosen by rule, cropped around their lesion, and what each method makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.report.plots import COLOURS, DASHES, canvas, plain
from bench.runs.results import Gallery

SAMPLES = 4  # drawn of each method
LEAST = 32  # pixels: the shortest side of a crop, so that something around a small lesion is seen
TILE = 2.0  # inches
DPI = 110  # a tile has 220 pixels
# Seen on dark images: yellow and white in place of black, blue last.
OUTLINES = (*COLOURS[1:6], "#F0E442", "#FFFFFF", COLOURS[0])
Floats = NDArray[np.float64]
Window = tuple[slice, slice]


def draw(gallery: Gallery, place: int) -> Figure:
    """The case at `place`: a head row of the image, the readers' mean and deviation and each reader, then the methods.

    Mean and deviation of a method stand below those of the readers, its samples below the readers' masks. A method
    with a single sample is shown by its mean alone, which is that sample.
    """
    image, masks = gallery.images[place], gallery.masks[place][gallery.read[place]]
    window = crop(masks, image.shape[1:])
    drawn = max((s.shape[1] for s in gallery.samples.values()), default=1)
    wide = max(min(SAMPLES, drawn if drawn > 1 else 0), min(SAMPLES, len(masks)))
    heads = max(1, -(-len(masks) // wide))
    rows = heads + len(gallery.samples)
    figure, flat = canvas(3 + wide, TILE * (3 + wide), TILE * 1.12 * rows + 0.5, rows)
    axes = np.array(flat).reshape(rows, 3 + wide)
    for ax in flat:
        ax.set_axis_off()
    share = masks.mean(0)
    _tile(axes[0, 0], _pixels(image), window, "image", cmap="gray", vmin=0, vmax=255)
    _mean_and_deviation(axes[0], share, np.sqrt(share * (1 - share)), window, "readers'")
    for r, mask in enumerate(masks):
        ax = axes[r // wide, 3 + r % wide]
        _tile(ax, _pixels(image), window, f"reader {r + 1}" + ("" if mask.any() else ": nothing"), cmap="gray",
              vmin=0, vmax=255)  # fmt: skip
        outline(ax, mask[window], colors=OUTLINES[r % len(OUTLINES)])
    for row, label in zip(axes[heads:], gallery.samples, strict=True):
        _method(row, gallery, label, place, window)
    bars = {1: ("viridis", 1.0, "probability, or share of readers"), 2: ("magma", 0.5, "standard deviation")}
    for column, (_, _, title) in bars.items():
        figure.colorbar(
            axes[0, column].images[0], ax=list(axes[:, column]), location="bottom", shrink=0.9, pad=0.01, aspect=14
        ).set_label(title, fontsize=8)
    figure.set_dpi(DPI)
    return figure


def _method(row: NDArray[Any], gallery: Gallery, label: str, place: int, window: Window) -> None:
    """A row of one method: its name, mean, standard deviation and first samples, each with its outline at 0.5."""
    samples = gallery.samples[label][place] / 255.0
    weights = gallery.weights[label][place] if label in gallery.weights else np.full(len(samples), 1 / len(samples))
    mean = np.tensordot(weights, samples, 1)
    deviation = np.sqrt(np.maximum(np.tensordot(weights, samples**2, 1) - mean**2, 0))
    outside = 1 - mean[window].sum() / mean.sum() if mean.sum() > 0 else 0.0
    note = f"\n\n{outside:.0%} of its probability\nlies outside the crop" if outside >= 0.01 else ""
    name = plain(label).replace("[", "\n[").replace(",", ",\n")
    row[0].text(0.5, 0.5, name + note, ha="center", va="center", fontsize=9, transform=row[0].transAxes)
    _mean_and_deviation(row, mean, deviation if len(samples) > 1 else None, window, "")
    if len(samples) == 1:
        outline(row[1], mean[window] >= 0.5)
        return
    for k, ax in enumerate(row[3 : 3 + len(samples)]):
        empty = "" if (samples[k] >= 0.5).any() else ": nothing"
        share = "" if label not in gallery.weights else f", weight {weights[k]:.2f}"
        _tile(ax, samples[k], window, f"sample {k + 1}{share}{empty}", cmap="viridis", vmin=0, vmax=1)
        outline(ax, samples[k][window] >= 0.5)


def _mean_and_deviation(row: NDArray[Any], mean: Floats, deviation: Floats | None, window: Window, whose: str) -> None:
    _tile(row[1], mean, window, f"{whose} mean".strip(), cmap="viridis", vmin=0, vmax=1)
    if deviation is not None:
        _tile(row[2], deviation, window, f"{whose} deviation".strip(), cmap="magma", vmin=0, vmax=0.5)


def _tile(ax: Axes, pixels: NDArray[Any], window: Window, title: str, **look: Any) -> None:
    ax.imshow(pixels[window], interpolation="nearest", **look)
    ax.set_title(title, fontsize=8, pad=3)


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


def _pixels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image (C,H,W) as imshow takes it: three channels as colours, otherwise the first as grey."""
    return np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]


def outline(ax: Axes, mask: NDArray[np.bool_], **look: Any) -> None:
    """The outline of a mask (H,W), if it marks anything."""
    if mask.any():
        # A margin of background: an outline that ends at the image's border is closed there.
        ys, xs = (np.arange(-1, n + 1) for n in mask.shape)
        ax.contour(xs, ys, np.pad(mask, 1), levels=[0.5], **{"linewidths": 1.2, "colors": "#E69F00", **look})
        ax.set(xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def outlined(ax: Axes, image: NDArray[np.uint8], masks: NDArray[np.bool_], read: NDArray[np.bool_]) -> None:
    """Draw an image (C,H,W) with the outline of every reader (R,H,W) who read it (R,) and marked something."""
    ax.imshow(_pixels(image), cmap="gray", vmin=0, vmax=255)
    for r in np.flatnonzero(read):
        outline(ax, masks[r], linewidths=0.9, **line(r))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def line(reader: int) -> dict[str, Any]:
    """Colour and dash of a reader's outline, as matplotlib's contours take them."""
    dash = DASHES[(reader + reader // len(OUTLINES)) % 4]
    return {"colors": OUTLINES[reader % len(OUTLINES)], "linestyles": dash}
