"""A simulated CT crop around a lesion: the readers' outlines are real, every pixel of the image is made here.

The lesion drawn is no reader's mask but a latent shape near the readers' mean. Lengths in mm unless they say pixels;
intensities in Hounsfield units until the window turns them into 8 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from uqseg.data.simulation import anatomy
from uqseg.data.simulation.anatomy import Floats
from uqseg.seeds import seed_of

VERSION = 1
PIXELS = 128
WINDOW = (-1000.0, 400.0)
KNOT = 5.0  # mm along z over which parenchyma changes


@dataclass(frozen=True)
class Nodule:
    """What is known of a nodule: all that its images follow from, with the masks of each slice.

    scan, name: of the scan and the nodule, for the seeds;  spacing, thickness: mm
    contrast: whether contrast agent was given
    centre: row and column of the nodule in the crop, pixels;  outward: unit vector (y, x) to the chest wall
    reach: half axes (y, x, z) in mm;  ratings: mean over the readers;  readers: how many outlined it at all
    """

    scan: str
    name: str
    spacing: float
    thickness: float
    contrast: bool
    centre: tuple[float, float]
    outward: tuple[float, float]
    reach: tuple[float, float, float]
    ratings: Mapping[str, float]
    readers: int


@dataclass(frozen=True)
class Scene:
    """The anatomy of one nodule's neighbourhood, shared by all its slices."""

    nodule: Nodule
    seed: int
    balls: anatomy.Balls
    strands: anatomy.Balls
    wall: anatomy.Wall | None
    fissure: anatomy.Fissure | None
    lung: float
    slope: tuple[float, float]
    texture: Floats  # filter of the parenchyma's texture, (128,65)
    noise: Floats  # filter of the noise, (128,65), with its strength
    blur: float  # pixels
    waves: NDArray[np.float64]  # (K,5): amplitude, three wave numbers in 1/mm, phase, of the latent shape
    fades: NDArray[np.float64]  # (K,3): amplitude, wave number, phase along z of the lesion's strength
    solid: float  # HU of the lesion
    soft: float  # HU of vessels and mediastinum
    bias: float
    knots: dict[tuple[str, int], Floats] = field(default_factory=dict)


def scene(nodule: Nodule, seed: int) -> Scene:
    """The anatomy that follows from the names in `nodule` and `seed`."""
    scan = np.random.default_rng(seed_of("ct-scan", seed, nodule.scan))
    rng = np.random.default_rng(seed_of("ct-nodule", seed, nodule.name))
    outward, reach = np.array(nodule.outward), np.array(nodule.reach)
    lung, soft = -865 + scan.normal(0, 22), 40 + scan.normal(0, 10) + 130 * nodule.contrast
    sharp, dose = scan.uniform(0.13, 0.26), np.exp(scan.normal(0, 0.25))
    blur = scan.uniform(0.5, 0.85)
    strength = 42.0 * dose / np.sqrt(nodule.thickness / 1.25)
    radius = float(reach[:2].mean())
    rating = nodule.ratings
    density = np.interp(rating["texture"], [1, 2, 3, 4, 5], [-640, -570, -420, -180, 10])
    vector = rng.normal(size=(10, 3)) / max(radius, 2.0) * rng.uniform(0.6, 2.2, (10, 1))
    uneven = 0.16 + 0.03 * (rating["lobulation"] + rating["spiculation"] - 2)
    size = (0.25 + uneven * radius) * np.sqrt(2 / 10)
    waves = np.column_stack([np.full(10, size), vector, rng.uniform(0, 2 * np.pi, 10)])
    fades = np.column_stack(
        [rng.normal(0, 0.5, 4), rng.uniform(0.1, 0.8, 4), rng.uniform(0, 2 * np.pi, 4)],
    )
    around = anatomy.joined(anatomy.vessels(rng, -outward), anatomy.spots(rng))
    return Scene(
        nodule=nodule,
        seed=seed,
        balls=around,
        strands=anatomy.spicules(rng, reach, rating["spiculation"]),
        wall=anatomy.wall(rng, outward, reach),
        fissure=anatomy.fissure(rng, reach),
        lung=float(lung),
        slope=(float(rng.normal(0.4, 0.3)), float(rng.normal(0, 0.15))),
        texture=_texture_filter(float(rng.uniform(12, 30)), float(rng.uniform(10, 24)), blur, nodule.spacing),
        noise=_noise_filter(sharp, strength),
        blur=blur,
        waves=waves,
        fades=fades,
        solid=float(density + 40 * nodule.contrast * (rating["texture"] > 3) + rng.normal(0, 45)),
        soft=float(soft),
        bias=float(rng.normal(0, 0.7)),
    )


def _frequency() -> Floats:
    """Radial frequency in cycles per pixel of a real transform of 128×128, (128,65)."""
    return np.hypot(fft.fftfreq(PIXELS)[:, None], fft.rfftfreq(PIXELS)[None]).astype(np.float32)


def _unit(filter_: Floats) -> Floats:
    """The filter scaled to turn white noise of variance 1 into noise of variance 1."""
    both = 2.0 * (filter_**2).sum() - (filter_[:, 0] ** 2).sum() - (filter_[:, -1] ** 2).sum()
    return np.asarray(filter_ * np.float32(PIXELS / np.sqrt(both)), np.float32)


def _texture_filter(coarse: float, fine: float, blur: float, spacing: float) -> Floats:
    """Parenchyma: clouds of about 8 mm and a net of about 1.5 mm, with these standard deviations in HU."""
    f = _frequency()
    clouds = _unit(np.exp(-((f * (16.0 / spacing)) ** 2)))
    net = _unit(f * np.exp(-((f * (3.0 / spacing)) ** 2)))
    return np.asarray((coarse * clouds + fine * net) * np.exp(-2 * (np.pi * blur * f) ** 2), np.float32)


def _noise_filter(sharp: float, strength: float) -> Floats:
    """Noise of filtered back-projection: a ramp at low frequencies, cut off by the kernel (`sharp`, cycles/pixel)."""
    f = _frequency()
    return np.asarray(np.float32(strength) * _unit((f + 0.01) ** 0.7 * np.exp(-((f / sharp) ** 2))), np.float32)


def _white(scene: Scene, what: str, number: object) -> Floats:
    rng = np.random.default_rng(seed_of("ct-field", scene.seed, scene.nodule.name, what, number))
    return rng.standard_normal((PIXELS, PIXELS), dtype=np.float32)


def _parenchyma(scene: Scene, z: float) -> Floats:
    """White noise that changes slowly along z, filtered: float32 (128,128) in HU around the lung's mean."""
    low = int(np.floor(z / KNOT))
    part = (z / KNOT - low) * np.pi / 2
    for k in (low, low + 1):
        if ("knot", k) not in scene.knots:
            scene.knots["knot", k] = _white(scene, "knot", k)
    mixed = (
        np.float32(np.cos(part)) * scene.knots["knot", low] + np.float32(np.sin(part)) * scene.knots["knot", low + 1]
    )
    return np.asarray(fft.irfft2(fft.rfft2(mixed) * scene.texture, s=(PIXELS, PIXELS)), np.float32)


def render(scene: Scene, z: float, masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image of the slice at `z` (mm from the nodule's centre) on which readers drew `masks` bool (R,128,128)."""
    nodule = scene.nodule
    cy, cx = nodule.centre
    y = ((np.arange(PIXELS, dtype=np.float32) - np.float32(cy)) * np.float32(nodule.spacing))[:, None]
    x = ((np.arange(PIXELS, dtype=np.float32) - np.float32(cx)) * np.float32(nodule.spacing))[None, :]
    half = nodule.thickness / 2
    hu = scene.lung + y * np.float32(scene.slope[0]) + x * np.float32(scene.slope[1]) + _parenchyma(scene, z)
    if scene.fissure is not None:
        ny, nx, nz = scene.fissure.normal
        off = y * np.float32(ny) + x * np.float32(nx) + np.float32(nz * z - scene.fissure.distance)
        width = 0.6 + abs(nz) * half
        hu += np.float32(110 / width) * np.exp(-((off / np.float32(width)) ** 2))
    filled = anatomy.draw(scene.balls, z, half, nodule.centre, nodule.spacing, PIXELS)
    hu += filled * (np.float32(scene.soft) - hu)
    _add_lesion(scene, z, masks, hu)
    if scene.wall is not None:
        depth, along = anatomy.depth_of(scene.wall, y, x, z)
        behind = (depth / np.float32(nodule.spacing) + np.float32(0.5)).clip(0, 1)
        if behind.any():
            hu += behind * (anatomy.tissue(scene.wall, depth, along, z, scene.soft) - hu)
    hu = ndimage.gaussian_filter(hu.astype(np.float32), scene.blur, mode="nearest", truncate=3)
    white = _white(scene, "noise", round(z, 3))
    hu += fft.irfft2(fft.rfft2(white) * scene.noise, s=(PIXELS, PIXELS))
    return windowed(hu)


def windowed(hu: Floats) -> NDArray[np.uint8]:
    """Hounsfield units in 8 bits: the lung window from 0 to 255, what lies beyond cut off."""
    low, high = WINDOW
    return np.asarray(((hu - low) * np.float32(255 / (high - low))).round().clip(0, 255), np.uint8)


def _add_lesion(scene: Scene, z: float, masks: NDArray[np.bool_], hu: Floats) -> None:
    """Draw the latent lesion of this slice into `hu` (128,128), in place."""
    drawn = masks[masks.any((1, 2))]
    if not len(drawn):
        return
    rating = scene.nodule.ratings
    edge = float(np.interp(rating["margin"], [1, 3, 5], [2.4, 1.2, 0.45]))
    around = 6 + int(2 * edge)
    rows, columns = (np.flatnonzero(drawn.any((0, axis))) for axis in (2, 1))
    box = tuple(slice(max(int(n[0]) - around, 0), int(n[-1]) + around + 1) for n in (rows, columns))
    shape, spread = _latent(scene, z, drawn[:, *box], (box[0].start, box[1].start))
    soft = np.sqrt(edge**2 + (0.35 * spread) ** 2)
    alpha = 1 / (1 + np.exp(-(shape * np.float32(1.7) / soft).clip(-30, 30)))
    density = _density(scene, shape, z, box)
    logit = (
        0.9
        + 0.45 * (rating["subtlety"] - 3.5)
        + 0.25 * (scene.nodule.readers - 2.5)
        + 0.35 * (len(drawn) - 2.5)
        + scene.bias
        + (scene.fades[:, 0] * np.sin(scene.fades[:, 1] * z + scene.fades[:, 2])).sum()
    )
    strength = np.float32(0.35 + 0.65 / (1 + np.exp(-logit)))
    strands = anatomy.draw(
        scene.strands, z, scene.nodule.thickness / 2, scene.nodule.centre, scene.nodule.spacing, PIXELS
    )
    alpha = np.maximum(alpha, 0.7 * strands[box])
    window = hu[box]
    window += alpha * strength * (density - window).clip(0)


def _latent(scene: Scene, z: float, drawn: NDArray[np.bool_], corner: tuple[int, int]) -> tuple[Floats, Floats]:
    """Signed distance in pixels to the latent outline (positive inside), and how far readers are apart there."""
    signed = np.stack([ndimage.distance_transform_edt(m) - ndimage.distance_transform_edt(~m) for m in drawn]).astype(
        np.float32
    )
    mean = ndimage.gaussian_filter(signed.mean(0), 1.0)
    spread = ndimage.gaussian_filter(signed.std(0), 1.5)
    y, x = _millimetres(scene, corner, mean.shape)
    amplitude, wy, wx, wz, phase = scene.waves.T.astype(np.float32)
    rows = wy[:, None, None] * y + (wz * np.float32(z) + phase)[:, None, None]
    uneven = (amplitude[:, None, None] * np.sin(rows + wx[:, None, None] * x)).sum(0) / scene.nodule.spacing
    # Small lesions must not vanish: what is taken away stays below half of the depth of the readers' mean.
    least = -0.5 * max(float(mean.max()), 0.5)
    return mean + np.maximum(uneven, np.float32(least)).astype(np.float32), spread


def _millimetres(scene: Scene, corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """y (H,1) and x (1,W) in mm from the nodule's centre, of a window of the crop."""
    y, x = (
        (np.arange(n, dtype=np.float32) + np.float32(first - c)) * np.float32(scene.nodule.spacing)
        for n, first, c in zip(shape, corner, scene.nodule.centre, strict=True)
    )
    return y[:, None], x[None]


def _density(scene: Scene, shape: Floats, z: float, box: tuple[slice, ...]) -> Floats:
    """HU of the lesion: a denser core where it is part-solid, and calcium where the readers saw it."""
    rating = scene.nodule.ratings
    hu = np.full_like(shape, scene.solid)
    peak = max(float(shape.max()), 1.0)
    inner = (shape / np.float32(peak) - np.float32(0.45)).clip(0, 0.55) / np.float32(0.55)
    if 1.5 < rating["texture"] < 4.5:
        hu += inner * np.float32(350)
    if rating["calcified"] > 0.5:
        y, x = _millimetres(scene, (box[0].start, box[1].start), shape.shape)
        _, wy, wx, wz, phase = scene.waves[0].astype(np.float32)
        patchy = 0.5 + 0.5 * np.sin(2 * (wy * y + wx * x + wz * np.float32(z)) + phase)
        bright = np.float32(550 * rating["calcified"])
        hu += bright * (np.maximum(inner, 0.7) if rating["calcification"] < 3.5 else inner * patchy * 1.3)
    return hu
