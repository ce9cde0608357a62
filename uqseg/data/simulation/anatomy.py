"""What surrounds a lesion in a simulated CT: vessels, spots, wall, fissure. Lengths in mm, from the nodule's centre."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TREES = 11
GENERATIONS = 5
STEPS = 28  # balls that make up one piece of a vessel
HALF_FIELD = 60.0
HALF_DEPTH = 45.0


@dataclass(frozen=True)
class Balls:
    """Vessels and spots as balls: place (P,3: y, x, z), radius (P,), and half of what a line along z cuts (P,)."""

    place: Floats
    radius: Floats
    half_chord: Floats


@dataclass(frozen=True)
class Wall:
    """A boundary between lung and soft tissue: `distance` from the nodule's centre along the unit vector `normal`."""

    normal: tuple[float, float]
    distance: float
    bend: float  # 1/mm, towards the lung
    slant: float  # mm per mm of z
    waves: Floats  # (K,3): amplitude in mm, wave number in 1/mm, phase
    ribs: bool
    rib_period: float
    rib_phase: float


@dataclass(frozen=True)
class Fissure:
    """A plane: its unit normal (y, x, z), and its distance from the nodule's centre in mm."""

    normal: tuple[float, float, float]
    distance: float


def vessels(rng: np.random.Generator, hilum: NDArray[np.float64]) -> Balls:
    """Trees of vessels that come from the side of `hilum` (unit vector y, x) and fork into thinner ones."""
    n = TREES
    start = rng.uniform(-1, 1, (n, 3)) * (HALF_FIELD, HALF_FIELD, HALF_DEPTH)
    start[:, :2] += 0.4 * HALF_FIELD * hilum
    direction = rng.normal(size=(n, 3)) * (1.0, 1.0, 0.8)
    direction[:, :2] -= 0.7 * hilum
    radius = rng.uniform(0.9, 1.5, n) * np.exp(rng.normal(0.0, 0.35, n))
    parts = []
    for _ in range(GENERATIONS):
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = (5.0 + 6.0 * radius) * rng.uniform(0.6, 1.5, len(radius))
        side = _across(rng, direction)
        bow = rng.normal(0.0, 0.12, (len(radius), 1)) * length[:, None] * side
        end = start + direction * length[:, None]
        parts.append(_piece(start, end, bow, radius, radius * 0.85))
        angle = rng.uniform(0.25, 0.75, (2, len(radius), 1))
        fork = _across(rng, direction)
        direction = np.concatenate([direction + angle[0] * fork, direction - angle[1] * fork])
        start = np.concatenate([end, end])
        radius = np.tile(radius, 2) * rng.uniform(0.55, 0.85, 2 * len(radius))
    return joined(*parts)


def spots(rng: np.random.Generator) -> Balls:
    """Unmarked nodules below 3 mm, round, anywhere."""
    n = int(rng.poisson(10))
    place = rng.uniform(-1, 1, (n, 3)) * (HALF_FIELD * 0.8, HALF_FIELD * 0.8, 20.0)
    radius = rng.uniform(0.6, 1.5, n)
    return Balls(*(a.astype(np.float32) for a in (place, radius, radius)))


def spicules(rng: np.random.Generator, reach: NDArray[np.float64], spiculation: float) -> Balls:
    """Thin strands from the centre of a lesion with half axes `reach` (y, x, z), more of them the higher the rating."""
    n = int(rng.poisson(max(0.0, spiculation - 1.5) * 3.0))
    direction = rng.normal(size=(n, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True) + 1e-9
    end = direction * reach * rng.uniform(1.1, 1.9, (n, 1))
    radius = rng.uniform(0.25, 0.55, n)
    bow = _across(rng, direction) * rng.normal(0.0, 0.8, (n, 1))
    return _piece(direction * reach * 0.5, end, bow, radius, radius * 0.5)


def _across(rng: np.random.Generator, direction: NDArray[np.float64]) -> NDArray[np.float64]:
    """A random unit vector at right angles to each direction (n,3)."""
    side = rng.normal(size=direction.shape)
    side -= (side * direction).sum(1, keepdims=True) * direction
    return np.asarray(side / (np.linalg.norm(side, axis=1, keepdims=True) + 1e-9))


def _piece(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    bow: NDArray[np.float64],
    first: NDArray[np.float64],
    last: NDArray[np.float64],
) -> Balls:
    """Bowed pieces (n,3) that taper from one radius (n,) to another."""
    t = np.linspace(0, 1, STEPS)[None, :, None]
    place = start[:, None] + (end - start)[:, None] * t + 4 * bow[:, None] * t * (1 - t)
    radius = first[:, None] + (last - first)[:, None] * t[..., 0]
    along = end - start
    flat = np.linalg.norm(along[:, :2], axis=1) / (np.linalg.norm(along, axis=1) + 1e-9)
    chord = radius / np.maximum(flat, 0.1)[:, None]  # a vessel along z fills the slice however thin it is
    return Balls(*(a.astype(np.float32) for a in (place.reshape(-1, 3), radius.ravel(), chord.ravel())))


def joined(*parts: Balls) -> Balls:
    """All balls together."""
    return Balls(
        np.concatenate([p.place for p in parts]),
        np.concatenate([p.radius for p in parts]),
        np.concatenate([p.half_chord for p in parts]),
    )


def draw(balls: Balls, z: float, half: float, centre: tuple[float, float], spacing: float, size: int) -> Floats:
    """How much of each pixel of the slice at `z` with half thickness `half` the balls fill: float32 (size,size)."""
    dz = balls.place[:, 2] - np.float32(z)
    at = balls.place[:, :2] / np.float32(spacing) + np.asarray(centre, np.float32)
    radius = balls.radius / np.float32(spacing)
    near = (np.abs(dz) < half + balls.radius) & (at > -radius[:, None]).all(1) & (at < size + radius[:, None]).all(1)
    out = np.zeros(size * size, np.float32)
    dz, at, radius, chord = dz[near], at[near], radius[near], balls.half_chord[near]
    part = (np.minimum(dz + chord, half) - np.maximum(dz - chord, -half)) / (2 * half)
    edges = (0.0, 1.5, 4.0, np.inf)
    for low, high in pairwise(edges):
        chosen = (radius > low) & (radius <= high)
        if chosen.any():
            _draw_alike(out, at[chosen], radius[chosen], part[chosen].clip(0, 1), size)
    return out.reshape(size, size)


def _draw_alike(out: Floats, at: Floats, radius: Floats, part: Floats, size: int) -> None:
    """Draw balls of similar radius (pixels) into the flat `out`, the largest share of a pixel winning."""
    k = int(np.ceil(radius.max() + 0.5))
    offset = np.arange(-k, k + 1)
    first = np.floor(at).astype(np.int32)
    y = first[:, 0, None, None] + offset[:, None]
    x = first[:, 1, None, None] + offset[None, :]
    distance = np.hypot(y - at[:, 0, None, None], x - at[:, 1, None, None])
    # Thinner than a pixel: the share of the pixel, not its whole.
    wide = np.maximum(radius, 0.6)
    share = (part * (radius / wide) ** 2)[:, None, None] * (wide[:, None, None] - distance + 0.5).clip(0, 1)
    seen = (y >= 0) & (y < size) & (x >= 0) & (x < size) & (share > 0)
    np.maximum.at(out, (y * size + x)[seen], share[seen].astype(np.float32))


def wall(rng: np.random.Generator, outward: NDArray[np.float64], reach: NDArray[np.float64]) -> Wall | None:
    """Chest wall, outwards, in about half of the nodules, or now and then mediastinum, inwards; never on the lesion."""
    kind = rng.choice(3, p=(0.5, 0.1, 0.4))
    angle = np.arctan2(outward[0], outward[1]) + rng.normal(0.0, 0.45) + (np.pi if kind == 1 else 0.0)
    normal = np.array([np.sin(angle), np.cos(angle)])
    gap = rng.exponential(10.0) * (rng.random() > 0.25) + (8.0 if kind == 1 else -0.8)
    distance = float(np.hypot(*(normal * reach[:2])) + gap)
    waves = np.column_stack(
        [rng.normal(0, 1, 5) * (1.6, 1.1, 0.8, 0.5, 0.3), rng.uniform(0.7, 1.3, 5) * (0.05, 0.1, 0.18, 0.3, 0.5)]
    )
    waves = np.column_stack([waves, rng.uniform(0, 2 * np.pi, 5)])
    bend, slant = 1 / rng.uniform(60, 160), rng.normal(0, 0.15)
    period, phase = rng.uniform(45, 75), rng.uniform(0, 2 * np.pi)
    if kind == 2:
        return None
    return Wall(
        (float(normal[0]), float(normal[1])), distance, bend, slant, waves.astype(np.float32), kind == 0, period, phase
    )


def depth_of(wall: Wall, y: Floats, x: Floats, z: float) -> tuple[Floats, Floats]:
    """Depth behind the boundary (negative: lung) and place along it, in mm, at y (H,1) and x (1,W)."""
    ny, nx = (np.float32(n) for n in wall.normal)
    along = y * -nx + x * ny
    line = np.arange(-128.0, 128.0, 0.5, dtype=np.float32)  # the boundary's shape is one-dimensional: a table of it
    table = np.zeros_like(line)
    for amplitude, number, phase in wall.waves:
        table += amplitude * np.sin(number * line + phase + np.float32(0.04 * z))
    table += np.float32(wall.bend / 2) * line**2
    index = ((along + 128) * 2).astype(np.int32).clip(0, len(line) - 1)
    bumps = table[index]
    return y * ny + x * nx + bumps - np.float32(wall.distance - wall.slant * z), along


def tissue(wall: Wall, depth: Floats, along: Floats, z: float, soft: float) -> Floats:
    """HU behind the boundary: muscle, ribs with bright rims and fat; or the mediastinum's soft tissue."""
    if not wall.ribs:
        return np.full_like(depth, soft)
    turn = np.float32(2 * np.pi / wall.rib_period)
    u = np.sin((along + np.float32(0.9 * z)) * turn / 2 + np.float32(wall.rib_phase)) * np.float32(wall.rib_period / 3)
    rim = 1 - ((depth - 7.5) / 4.5) ** 2 - (u / 13) ** 2
    fat = ((depth - 15.0) / 3.0).clip(0, 1)
    hu = np.float32(45) - np.float32(130) * fat
    bone = np.where(rim > 0.35, np.float32(220), np.float32(520))
    return np.where(rim > 0, bone, hu).astype(np.float32)


def fissure(rng: np.random.Generator, reach: NDArray[np.float64]) -> Fissure | None:
    """A fissure, a thin bright sheet beside the lesion, in about a quarter of the nodules."""
    normal = rng.normal(size=3) * (1.0, 1.0, 0.6)
    normal /= np.linalg.norm(normal)
    distance = float(np.linalg.norm(normal * reach) + rng.exponential(15.0))
    if rng.random() > 0.25:
        return None
    return Fissure((float(normal[0]), float(normal[1]), float(normal[2])), distance)
