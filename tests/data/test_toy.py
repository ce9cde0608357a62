"""The source toy: its promises, and that its readers follow the distribution that it states."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from uqseg.data import load
from uqseg.data.sources import toy
from uqseg.errors import UsageError


def kinds_drawn(masks: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Which of the K masks of the truth each reader drew: bool (N,R,K)."""
    return (masks[:, :, None] == kinds[:, None]).all((3, 4))


@pytest.mark.parametrize("size", [16, 22, 64])
def test_toy_keeps_the_promises_of_load(size: int, tmp_path: Path) -> None:
    whole = load("toy", size=size, cache=tmp_path)
    assert whole.images.shape == (2000, 1, size, size)
    assert whole.masks.shape == (2000, 4, size, size)
    assert whole.read.all()
    assert whole.simulated
    assert isinstance(whole.images, np.memmap)
    assert whole.table["case"].is_unique
    parts = [load("toy", split=s, size=size, cache=tmp_path) for s in ("train", "val", "test")]
    assert sum(map(len, parts)) == 2000
    assert len(set.union(*(set(p.table["patient"]) for p in parts))) == 1000
    assert len({whole.key, *(p.key for p in parts)}) == 4
    few = load("toy", split="test", size=size, limit=5, cache=tmp_path)
    assert set(few.table["case"]) < set(parts[2].table["case"])
    kinds, p = toy.truth(whole.table, size)
    assert (kinds.sum((2, 3))[:, 1:] > 0).all()
    assert (np.diff(kinds.sum((2, 3)), axis=1) > 0).all()  # four different masks in every image
    assert np.allclose(p.sum(1), 1)
    drawn = kinds_drawn(whole.masks, kinds)
    assert (drawn.sum(2) == 1).all()
    table = toy.cases()
    order = table.set_index("case").index.get_indexer(whole.table["case"])
    assert np.array_equal(drawn.argmax(2), toy.choices(table)[order])


def test_odd_and_large_sizes_are_refused(tmp_path: Path) -> None:
    for size in (33, 130):
        with pytest.raises(UsageError, match="an even size up to 128"):
            load("toy", size=size, cache=tmp_path)


def test_probabilities_worked_out_by_hand() -> None:
    table = toy.cases().head(3).assign(contrast=[1.0, 0.0, 0.5], rim=[1.0, 0.0, 0.5], satellite=[0.0, 1.0, 0.5])
    expected = [[0, 0, 1, 0], [0.6, 0.4, 0, 0], [0.3, 0.35, 0.21, 0.14]]
    assert np.allclose(toy.probabilities(table), expected)


def test_readers_follow_the_stated_distribution_and_each_their_own() -> None:
    """Chi-square over ten groups of images by probability, for each kind of mask; and agreement of two readers."""
    table = toy.cases()
    p, drawn = toy.probabilities(table), toy.choices(table)[:, :, None] == np.arange(4)
    for kind in range(4):
        order = np.array_split(np.argsort(p[:, kind], kind="stable"), 10)
        groups = [g for g in order if p[g, kind].sum() > 0]
        assert not any(drawn[g, :, kind].any() for g in order if p[g, kind].sum() == 0)
        gap = np.array([drawn[g, :, kind].sum() - 4 * p[g, kind].sum() for g in groups])
        variance = np.array([4 * (p[g, kind] * (1 - p[g, kind])).sum() for g in groups])
        assert (gap**2 / variance).sum() < chi2.ppf(0.999, len(groups))
    same = (p**2).sum(1)
    for a, b in combinations(range(4), 2):
        agree = (drawn[:, a] & drawn[:, b]).any(1)
        assert abs((agree - same).sum()) < 3.3 * np.sqrt((same * (1 - same)).sum())


def test_the_image_shows_what_the_probabilities_depend_on(tmp_path: Path) -> None:
    data = load("toy", size=32, limit=200, cache=tmp_path)
    kinds, p = toy.truth(data.table, 32)
    _, core, disc, both = kinds.swapaxes(0, 1)
    light = data.images[:, 0].astype(float) - toy.BACKGROUND
    of_core, of_rim, of_satellite = (
        (light * part).sum((1, 2)) / part.sum((1, 2)) for part in (core, disc & ~core, both & ~disc)
    )
    seen = data.table.assign(
        contrast=(of_core - toy.FAINTEST) / toy.RANGE, rim=of_rim / of_core, satellite=of_satellite / of_core
    )
    assert np.abs(toy.probabilities(seen) - p).max() < 0.1
    assert np.abs(toy.probabilities(seen) - p).mean() < 0.01
