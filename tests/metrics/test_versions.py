"""Stored values of every statistic on one input: what computes others must have another version.

`python -m tests.metrics.test_versions` writes them anew; it refuses where values changed and the version did not.
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from uqseg.metrics import score, statistics
from uqseg.metrics.registry import Columns

STORED = Path(__file__).parent / "values.npz"
SINGLE = ("nll", "nll_joint", "ncc_samples", "ncc_variance", "mutual_information", "entropy", "uncertainty_patch",
          "uncertainty_top", "std_mean", "ncc_std")  # fmt: skip
"""Computed in float32 in part, where processors round differently."""
RENEW = "raise its version and run python -m tests.metrics.test_versions"


ALL = statistics() | statistics(of_set=True)


def values() -> Columns:
    """Every statistic: of samples, and those of a set of pixels of the first of them."""
    rng = np.random.default_rng(3)
    samples = rng.integers(0, 257, (4, 5, 12, 10)) / np.float32(256) * (rng.random((4, 5, 1, 1)) > 0.2)
    masks = rng.random((4, 3, 12, 10)) > 0.6
    read = np.array([[True, True, True], [True, False, True], [False, True, True], [True, True, True]])
    masks[0], samples[1, 2:] = False, 0
    weights = rng.integers(1, 9, (4, 5)).astype(float)
    spacing = np.array([[0.5, 0.75], [1, 1], [np.nan, np.nan], [2, 0.5]])
    weights /= weights.sum(1, keepdims=True)
    of_samples = score(samples.astype(np.float32), masks, read, weights=weights, spacing=spacing)
    of_set = score(samples[:, :1] >= 0.5, masks, read, statistics=list(statistics(of_set=True)))
    return of_samples.values | of_set.values


@cache
def changed() -> list[str]:
    """Statistics that are not stored in their version, or whose values are not those of it."""
    stored, computed, names = np.load(STORED) if STORED.exists() else {}, values(), []
    for name, s in ALL.items():
        key, tolerance = f"{name} {s.version}", 1e-6 if name in SINGLE else 1e-9
        if key not in stored or not np.allclose(stored[key], computed[name], tolerance, tolerance, equal_nan=True):
            names.append(name)
    return names


@pytest.mark.parametrize("name", ALL)
def test_values_change_only_with_the_version(name: str) -> None:
    version = ALL[name].version
    assert f"{name} {version}" in np.load(STORED), f"no values of version {version} of {name}: {RENEW}"
    assert name not in changed(), f"{name} gives other values than version {version} did: {RENEW}"


def test_nothing_is_stored_that_no_statistic_gives() -> None:
    assert set(np.load(STORED)) == {f"{name} {s.version}" for name, s in ALL.items()}, RENEW


if __name__ == "__main__":
    kept = np.load(STORED) if STORED.exists() else {}
    if same_version := [n for n in changed() if f"{n} {ALL[n].version}" in kept]:
        sys.exit(f"other values in the same version: {', '.join(same_version)}; raise their versions first")
    computed = values()
    np.savez_compressed(STORED, **{f"{n} {s.version}": computed[n] for n, s in ALL.items()})
