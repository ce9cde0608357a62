"""Subgroups of test cases: who is in which group, and figures that equal those of the group alone."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bench.report import subgroups
from tests.conftest import discs
from uqseg.data import AnnotatedSet
from uqseg.metrics import figures, score


def drawn(areas: list[list[int]], spacing: float) -> AnnotatedSet:
    """Cases whose readers marked so many pixels."""
    data = discs(len(areas), len(areas[0]), 16)
    masks = np.zeros(data.masks.shape, bool)
    for i, row in enumerate(areas):
        for r, area in enumerate(row):
            masks[i, r].flat[:area] = True
    return replace(data, masks=masks, spacing=np.full((len(areas), 2), spacing, np.float32))


def test_groups_by_readers_who_marked_and_by_size_in_mm() -> None:
    data = drawn([[0, 0], [4, 0], [16, 16], [64, 64]], spacing=0.5)
    groups = subgroups.groups_of(data)
    assert {k: v.tolist() for k, v in groups["readers who marked"].items()} == {
        "0 of 2": [True, False, False, False],
        "1 of 2": [False, True, False, False],
        "2 of 2": [False, False, True, True],
    }
    # Areas 1, 4 and 16 mm² are discs of 1.13, 2.26 and 4.51 mm; the case that nobody marked has no size.
    low, high = np.quantile(2 * np.sqrt(np.array([1, 4, 16]) / np.pi), [1 / 3, 2 / 3])
    assert list(groups["lesion size"]) == [
        f"below {low:.1f} mm",
        f"{low:.1f} to {high:.1f} mm",
        f"above {high:.1f} mm",
    ]
    assert [v.tolist().index(True) for v in groups["lesion size"].values()] == [1, 2, 3]
    assert next(iter(subgroups.groups_of(drawn([[4, 0], [9, 9]], np.nan))["lesion size"])).endswith("pixels")


def test_absent_readers_count_as_shares_and_ratings_are_groups_where_known() -> None:
    data = drawn([[4, 0, 0], [4, 4, 0], [4, 4, 4], [0, 0, 0]], 1.0)
    read = np.array([[True, True, True], [True, True, False], [True, True, True], [True, False, False]])
    rated = data.table.assign(texture=[1.0, 3.0, 5.0, np.nan])
    groups = subgroups.groups_of(replace(data, read=read, table=rated))
    assert {k: np.flatnonzero(v).tolist() for k, v in groups["readers who marked"].items()} == {
        "none": [3],
        "fewer than half": [0],
        "all": [1, 2],
    }
    assert {k: np.flatnonzero(v).tolist() for k, v in groups["texture"].items()} == {
        "ground glass": [0],
        "part-solid": [1],
        "solid": [2],
    }


def test_figures_of_a_group_are_those_of_its_cases_alone() -> None:
    data = discs(24)
    samples = np.random.default_rng(0).random((24, 4, 32, 32))
    about = data.table[["case", "patient"]]
    images = pd.concat([about, score(samples, data.masks)], axis=1)
    found = subgroups.table({"a": [images]}, ["a"], data, resamples=50)
    rows = subgroups.groups_of(data)["readers who marked"]["4 of 4"]
    got = found[(found["level"] == "4 of 4") & (found["figure"] == "ged")].iloc[0]
    ged = next(f for f in figures() if f.name == "ged")
    assert got["value"] == pytest.approx(ged.of(images[rows]))
    assert got["images"] == rows.sum()
    assert got["low"] <= got["value"] <= got["high"]
