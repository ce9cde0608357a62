"""What a trained model makes of an image of any size: samples and maps on its own pixels, and whether it is unlike the
images that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, log
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion
from torch import Tensor

from uqseg.data.formats import read_volume
from uqseg.data.images import eight_bits
from uqseg.data.volume import Volume
from uqseg.errors import FileError, UsageError
from uqseg.metrics.maps import binary_entropy
from uqseg.prediction import predict_batches
from uqseg.samples import Drawn, Sampler, Samples

OVERLAP = 0.25  # of neighbouring tiles, as a share of their side
LEVELS = 5.0  # grey levels by which an image may differ from all training images
APART = 1.5  # ratio of spacings from which on an image is unlike the training images
SIDE = 512  # pixels of the side of a picture, about
OUTLINES = ((255, 200, 0), (0, 200, 255), (255, 90, 160), (120, 230, 90))  # colours of the samples
MASK = (255, 40, 40)


@dataclass(frozen=True)
class Segmentation:
    """Samples of one image (C,H,W): prob float32 (S,H,W), weights float64 (S,) that sum to 1, and remarks on what makes
    the image unlike those that the model was trained on."""

    image: NDArray[np.uint8]
    prob: NDArray[np.float32]
    weights: NDArray[np.float64]
    drawn: Drawn
    remarks: tuple[str, ...]

    @property
    def samples(self) -> Samples:
        """The samples as of a batch of this one image."""
        return Samples(torch.from_numpy(self.prob)[None], torch.from_numpy(self.weights)[None], self.drawn)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Probability of each pixel, (H,W)."""
        return self.samples.mean()[0].numpy()

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation over the samples, (H,W) in [0, 0.5]."""
        return self.samples.std()[0].numpy()

    @property
    def entropy(self) -> NDArray[np.float64]:
        """Entropy of `mean` in bits, (H,W) in [0, 1]."""
        return binary_entropy(torch.from_numpy(self.mean)).numpy() / log(2)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Where the probability is at least one half."""
        return self.mean >= 0.5

    @property
    def presence(self) -> float:
        """The share of the samples that mark anything."""
        return float(self.weights @ (self.prob >= 0.5).any((1, 2)))

    @property
    def disagreement(self) -> float:
        """Expected 1 − IoU of two samples, drawn with replacement; two empty ones agree."""
        masks = (self.prob >= 0.5).reshape(len(self.prob), -1).astype(np.float32)
        both, area = masks @ masks.T, masks.sum(1)
        union = area[:, None] + area - both
        apart = np.where(union > 0, 1 - both / np.where(union > 0, union, 1), 0.0)
        return float(self.weights @ apart @ self.weights)

    def picture(self) -> Image.Image:
        """The image; the image with the outlines of the mask (red) and of four samples; the standard deviation."""
        grey = self.image[0] if len(self.image) == 1 else self.image.mean(0)
        scale = max(1, SIDE // max(grey.shape))
        plain = np.repeat(_enlarged(grey.astype(np.uint8), scale)[..., None], 3, 2)
        drawn = plain.copy()
        few = np.linspace(0, len(self.prob) - 1, min(len(self.prob), len(OUTLINES))).round().astype(int)
        for sample, colour in zip(self.prob[few], OUTLINES, strict=False):
            drawn[_outline(_enlarged(sample >= 0.5, scale))] = colour
        drawn[_outline(_enlarged(self.mask, scale))] = MASK
        from matplotlib import colormaps

        spread = (colormaps["magma"](2 * self.std)[..., :3] * 255).astype(np.uint8)
        return Image.fromarray(np.concatenate([plain, drawn, _enlarged(spread, scale)], 1))


def segment(
    model: Sampler,
    image: str | Path | NDArray[np.uint8],
    n: int = 16,
    *,
    seed: int = 0,
    name: str = "image",
    window: tuple[float, float] | None = None,
    spacing: tuple[float, float] | None = None,
) -> Segmentation:
    """What a model from `load_model` makes of one picture: a file, or uint8 (H,W) or (C,H,W).

    Larger images than the model's are cut into overlapping tiles, smaller ones padded, or, where the model was trained
    on stretched images, all are stretched; samples and maps have the size of the image.
    name: decides the samples' noise with `seed`; window: the numbers shown as black and white of an image of more than
    8 bits, default the model's; spacing: mm (rows, columns), default the file's.
    Raises FileError where the file cannot be read, or has several slices, and ValueError where it does not fit the
    model, naming what was expected.
    """
    if window is not None:
        _two_numbers("window", window)
        if not window[0] < window[1]:
            raise ValueError(f"window: expected two ascending numbers, got {window!r}")
    if spacing is not None:
        _two_numbers("spacing", spacing)
        if min(spacing) <= 0:
            raise ValueError(f"spacing: expected two numbers above 0, got {spacing!r}")
    if isinstance(image, str | Path):
        volume = read_volume(Path(image))
        if len(volume.array) != 1:
            raise FileError(f"{image}: expected one picture, got {len(volume.array)} slices; use `uqseg predict`")
        try:
            (array,), spacing = prepared(volume, model, window), spacing or volume.spacing
        except (FileError, UsageError) as error:
            raise type(error)(f"{image}: {error}") from error
    else:
        array = np.asarray(image)[None] if np.ndim(image) == 2 else np.asarray(image)
    return segment_all(model, array[None], [name], n, seed=seed, spacing=spacing)[0]


def _two_numbers(name: str, value: object) -> None:
    """ValueError naming the argument unless it is two finite numbers."""
    pair = value if isinstance(value, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(x, Real) and not isinstance(x, bool) and isfinite(x) for x in pair):
        raise ValueError(f"{name}: expected two numbers, got {value!r}")


def segment_all(
    model: Sampler,
    images: NDArray[np.uint8],
    names: Sequence[str],
    n: int,
    *,
    seed: int = 0,
    spacing: tuple[float, float] | None = None,
) -> list[Segmentation]:
    """`segment` of N images of one size, uint8 (N,C,H,W)."""
    facts: dict[str, Any] = getattr(model, "input", {})
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"image: expected uint8 (C,H,W) with no side of 0, got {images.dtype} {images.shape[1:]}")
    if images.shape[1] != facts.get("channels", images.shape[1]):
        raise ValueError(f"image: expected {facts['channels']} channels, got {images.shape[1]}")
    samples = samples_of(model, images, names, n, seed)
    weights = samples.weights.double() if samples.weights is not None else None
    equal = np.full(samples.prob.shape[1], 1 / samples.prob.shape[1])
    return [
        Segmentation(
            image,
            prob.numpy(),
            equal if weights is None else weights[i].numpy(),
            samples.drawn,
            tuple(remarks(facts, image, spacing)),
        )
        for i, (image, prob) in enumerate(zip(images, samples.prob, strict=True))
    ]


def prepared(
    volume: Volume,
    model: Sampler,
    window: tuple[float, float] | None = None,
    *,
    advice: str = "window=(-1000, 400)",
) -> NDArray[np.uint8]:
    """The slices of a file as the model's images were made: uint8 (Z,C,H,W).

    UsageError where no window is known; advice: how whoever reads that gives one.
    """
    facts: dict[str, Any] = getattr(model, "input", {})
    array, known = volume.array, window or facts.get("window")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if not np.isfinite([low, high]).all():
            raise FileError("expected finite numbers, got NaN or infinity")
        if known is None:
            raise UsageError(
                f"has numbers from {low:g} to {high:g}, and the model was trained on images of 8 bits: give the "
                f"numbers that are shown as black and white, such as {advice} for a lung in HU"
            )
        low, high = (low, high) if known == "own" else known
        array = eight_bits(array.astype(np.float64), low, high)
    if array.ndim == 3:
        return array[:, None]
    if facts.get("channels") == 1 and (array == array[..., :1]).all():
        array = array[..., :1]
    return np.moveaxis(array, -1, 1)


def remarks(facts: dict[str, Any], image: NDArray[np.uint8], spacing: tuple[float, float] | None) -> list[str]:
    """What makes an image (C,H,W) unlike those that a model with these facts was trained on.

    Its grey levels are those of what the model sees: a smaller image is padded, as smaller training images were.
    """
    lines = []
    height, width = image.shape[1:]
    if "size" in facts and [height, width] != facts["size"]:
        trained = "×".join(map(str, facts["size"]))
        lines.append(f"size {height}×{width}, trained on {trained}")
        if facts.get("fit") != "resize":
            image = _padded(image, *facts["size"])
    for name, value in (("mean", image.mean()), ("deviation", image.std())):
        if name in facts and not facts[name][0] - LEVELS <= value <= facts[name][1] + LEVELS:
            lines.append(f"{name} of grey levels {value:.0f}, trained on {facts[name][0]:.0f} to {facts[name][1]:.0f}")
    if spacing is not None and facts.get("spacing"):
        stretch = np.array([height, width]) / facts["size"] if facts.get("fit") == "resize" else 1.0
        own = np.array(spacing) * stretch
        ratios = own / facts["spacing"]
        if (np.maximum(ratios, 1 / ratios) > APART).any():
            lines.append(f"spacing {own[0]:.3g} mm, trained on {facts['spacing'][0]:.3g} mm")
    return lines


def samples_of(model: Sampler, images: NDArray[np.uint8], names: Sequence[str], n: int, seed: int) -> Samples:
    """n samples of each of N images of one size (N,C,H,W), on their own pixels.

    An image's tiles have the same noise; where they overlap, their samples are averaged, more of each near its middle.
    """
    facts: dict[str, Any] = getattr(model, "input", {})
    H, W = images.shape[2:]
    h, w = facts.get("size", (H, W))
    if facts.get("fit") == "resize" and (h, w) != (H, W):
        stretched = np.stack([_stretched(image, h, w) for image in images])
        samples = _drawn(model, stretched, names, n, seed)
        back = torch.nn.functional.interpolate(samples.prob, (H, W), mode="bilinear", align_corners=False)
        return Samples(back.clamp(0, 1), samples.weights, samples.drawn)
    padded = _padded(images, h, w)
    corners = [(y, x) for y in _starts(padded.shape[2], h) for x in _starts(padded.shape[3], w)]
    share = torch.from_numpy(np.minimum.outer(_ramp(h), _ramp(w)).astype(np.float32))
    prob: Tensor | None = None
    weights: Tensor | None = None
    total = torch.zeros(padded.shape[2:])
    for y, x in corners:
        tile = _drawn(model, padded[:, :, y : y + h, x : x + w], names, n, seed)
        if prob is None:
            prob = torch.zeros(*tile.prob.shape[:2], *padded.shape[2:])
        prob[:, :, y : y + h, x : x + w] += tile.prob * share
        total[y : y + h, x : x + w] += share
        if tile.weights is not None:
            weights = tile.weights / len(corners) + (0 if weights is None else weights)
        drawn = tile.drawn
    assert prob is not None
    (top, _), (left, _) = _margins(H, h), _margins(W, w)
    own = (prob / total)[:, :, top : top + H, left : left + W].clamp(0, 1)
    return Samples(own.contiguous(), weights, drawn)


def _drawn(model: Sampler, images: NDArray[np.uint8], names: Sequence[str], n: int, seed: int) -> Samples:
    parts = [samples.to("cpu") for _, samples in predict_batches(model, images, n, seed=seed, keys=names)]
    return Samples.concatenate(parts)


def _padded(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Images (…,H,W) with as much 0 around them as they are smaller."""
    margins = [_margins(images.shape[-2], height), _margins(images.shape[-1], width)]
    return np.pad(images, [(0, 0)] * (images.ndim - 2) + margins)


def _margins(length: int, side: int) -> tuple[int, int]:
    """Pixels before and after a length that is shorter than `side`, as `crop_or_pad` adds them."""
    missing = max(0, side - length)
    return missing // 2, missing - missing // 2


def _starts(length: int, side: int) -> list[int]:
    """Where tiles of a side begin that cover a length, overlapping by at least OVERLAP."""
    count = ceil((length - side) / (side * (1 - OVERLAP))) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def _ramp(side: int) -> NDArray[np.float64]:
    """1, 2, … and back: how much a tile counts, by the distance from its nearer end."""
    steps = np.arange(side)
    return np.minimum(steps, side - 1 - steps) + 1.0


def _stretched(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    channels = [Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR) for channel in image]
    return np.stack([np.asarray(channel) for channel in channels])


def _enlarged(array: NDArray[Any], scale: int) -> NDArray[Any]:
    return array.repeat(scale, 0).repeat(scale, 1)


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels of a mask (H,W) within two of its outside."""
    return mask & ~binary_erosion(mask, iterations=2)
