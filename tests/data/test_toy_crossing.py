"""The source toy-crossing: its readers follow the stated distribution, which no nested masks can stand for."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from baselines import yardsticks
from bench.demonstrations import distances_to, truth_of
from uqseg import predict
from uqseg.data import load
from uqseg.data.sources import toy, toy_crossing
from uqseg.metrics import score
from uqseg.samples import Samples
from uqseg.wrappers.levels import level_sets


@pytest.mark.parametrize("size", [16, 22, 64])
def test_two_bars_cross_in_a_fifth_of_their_pixels_and_each_reader_draws_one(size: int, tmp_path: Path) -> None:
    data = load("toy-crossing", size=size, cache=tmp_path)
    assert data.images.shape == (2000, 1, size, size)
    assert data.masks.shape == (2000, 4, size, size)
    assert data.simulated
    kinds, p = toy_crossing.truth(data.table, size)
    assert (p == 0.5).all()
    both = kinds.all(1).sum((1, 2))
    assert (both > 0).all()
    assert (kinds.sum((2, 3)) == 3 * both[:, None]).all()
    assert (kinds.any(1).sum((1, 2)) == 5 * both).all()
    standing = (data.masks == kinds[:, None, 1]).all((2, 3))
    assert np.array_equal(standing, ~(data.masks == kinds[:, None, 0]).all((2, 3)))
    table = toy_crossing.cases()  # the same choices at every size
    order = table.set_index("case").index.get_indexer(data.table["case"])
    chosen = toy.draws("toy-crossing", toy_crossing.probabilities(table))
    assert np.array_equal(standing, chosen[order] == 1)


def test_readers_draw_either_bar_half_of_the_time_and_each_their_own() -> None:
    chosen = toy.draws("toy-crossing", toy_crossing.probabilities(toy_crossing.cases()))
    assert set(np.unique(chosen)) == {0, 1}
    error = 0.5 / np.sqrt(len(chosen))
    assert np.abs(chosen.mean(0) - 0.5).max() < 3.5 * error
    for a, b in combinations(range(4), 2):
        assert abs((chosen[:, a] == chosen[:, b]).mean() - 0.5) < 3.5 * error


def test_the_image_shows_the_cross_and_not_who_draws_what(tmp_path: Path) -> None:
    data = load("toy-crossing", size=32, limit=200, cache=tmp_path)
    kinds, _ = toy_crossing.truth(data.table, 32)
    grey = data.images[:, 0].astype(float) - toy.BACKGROUND
    level = (toy.FAINTEST + toy.RANGE * data.table["contrast"].to_numpy())[:, None, None]
    assert np.abs(grey - level * kinds.any(1)).mean() < toy.NOISE


def test_nested_masks_are_far_from_the_readers(tmp_path: Path) -> None:
    """Bars A, B of 3 squares, crossing I of 1, union U of 5: d(A,B) = d(I,U) = 4/5, d(A,I) = 2/3, d(A,U) = 2/5.

    Two readers each: level sets U and I, half and half: 2·½(2/3 + 2/5) − ½·4/5 − ½·4/5 = 4/15. Three and one:
    U, A, A, I: 2·(¼·2/5 + ½·¼·4/5 + ¼·2/3) − 3/8·4/5 − (¼·2/5 + ⅛·4/5 + ¼·2/3) = 1/15. All four alike: 0.
    """
    data = load("toy-crossing", split="test", size=32, cache=tmp_path)
    kinds, _ = toy_crossing.truth(data.table, 32)
    lying = (data.masks == kinds[:, None, 0]).all((2, 3)).sum(1)
    by_hand = np.array([0, 1, 4, 1, 0])[lying] / 15

    def ged(name: str) -> np.ndarray:
        samples = predict(yardsticks.build(name, data), data, 16)
        return score(samples, data.masks, statistics=["ged_cross", "ged_samples", "ged_readers"]).column("ged")

    nested = ged("nested")
    assert np.allclose(nested, by_hand, atol=1e-6)
    assert nested.mean() == pytest.approx(2 / 15, abs=0.015)  # ½·1/15 + ⅜·4/15 on average
    assert ged("oracle").mean() < nested.mean() / 5


def test_the_distance_from_the_truth_is_known_of_levels_and_of_the_truth(tmp_path: Path) -> None:
    """Level sets of the exact mean map are U and I, half and half."""
    truth = truth_of(load("toy-crossing", split="test", size=16, limit=20, cache=tmp_path))
    own = distances_to(truth, Samples(truth.masks.float(), truth.p, "support"))
    assert max(float(value.abs().max()) for value in own.values()) < 1e-6
    levels = distances_to(truth, Samples(level_sets(truth.mean, 16), None, "stratified"))
    assert levels["ged"].numpy() == pytest.approx(4 / 15, abs=1e-6)
    assert levels["brier_excess"].abs().max() < 1e-6
