"""Subgroups of test cases: who is in which group, and figures that equal those of the group alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench import stats
from bench.report import plots, subgroups
from bench.runs.results import read_results
from tests.bench import synthetic
from uqseg.metrics import figure

SOME = {"ensemble": synthetic.METHODS["ensemble"]}


def cases(areas: list[list[float]], spacing: float, **more: list[float]) -> pd.DataFrame:
    """Cases whose readers marked so many pixels; NaN: did not read."""
    table = np.array(areas, float)
    columns = {
        "read": np.isfinite(table).sum(1),
        "marked": (table > 0).sum(1),
        "spacing_y": spacing,
        "spacing_x": spacing,
    }
    return pd.DataFrame({**columns, **{f"area_{r}": table[:, r] for r in range(table.shape[1])}, **more})


def test_groups_by_readers_who_marked_and_by_size_in_mm() -> None:
    groups = subgroups.groups_of(cases([[0, 0], [4, 0], [16, 16], [64, 64]], spacing=0.5))
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
    assert subgroups.in_no_group(cases([[0, 0], [4, 0], [16, 16], [64, 64]], spacing=0.5)) == {"lesion size": 1}
    assert next(iter(subgroups.groups_of(cases([[4, 0], [9, 9]], np.nan))["lesion size"])).endswith("pixels")


def test_absent_readers_count_as_shares_and_ratings_are_groups_where_known() -> None:
    nan = np.nan
    areas = [[4, 0, 0], [4, 4, nan], [4, 4, 4], [0, nan, nan]]
    groups = subgroups.groups_of(cases(areas, 1.0, texture=[1.0, 3.0, 5.0, nan]))
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


def test_cases_of_which_nothing_is_known_have_no_groups() -> None:
    assert subgroups.groups_of(cases([[0.0], [0.0]], np.nan)) == {}


def test_figures_of_a_group_are_those_of_its_cases_alone(tmp_path: Path) -> None:
    results = read_results(synthetic.write(tmp_path / "run", repetitions=1, gallery=False, methods=SOME, yardsticks=()))
    test = results.cases[results.cases["split"] == "test"].reset_index(drop=True)
    scores = results.cells["ensemble"][0].scores["test"]
    wanted = [figure("ged_limit"), figure("brier")]
    groups = subgroups.groups({"ensemble": [scores]}, wanted, test)
    assert {g.boot.draws.shape[1] for g in groups} == {stats.RESAMPLES}, "as many as ties and the best are decided with"
    table = subgroups.table(groups)
    for trait, levels in subgroups.groups_of(test).items():
        for level, rows in levels.items():
            row = table[(table["trait"] == trait) & (table["level"] == level) & (table["figure"] == "ged_limit")].iloc[
                0
            ]
            assert row["value"] == pytest.approx(scores.column("ged_limit")[rows].mean())
            assert row["images"] == rows.sum()
            assert row["patients"] == test.loc[rows, "patient"].nunique()
            if row["patients"] >= 10:
                assert row["low"] <= row["value"] <= row["high"]
            else:
                assert np.isnan(row["low"])


def test_where_nobody_marked_there_is_no_overlap(tmp_path: Path) -> None:
    results = read_results(synthetic.write(tmp_path / "run", repetitions=1, gallery=False, methods=SOME, yardsticks=()))
    test = results.cases[results.cases["split"] == "test"].reset_index(drop=True)
    test.loc[:9, "marked"] = 0
    scores = {"ensemble": [results.cells["ensemble"][0].scores["test"]]}
    table = subgroups.table(subgroups.groups(scores, [figure("ged_limit"), figure("dice@0.5")], test))
    table = table[table["trait"] == "readers who marked"]
    levels = table["level"].unique().tolist()
    assert levels[0] == "0 of 4"
    assert set(table.loc[table["figure"] == "ged_limit", "level"]) == set(levels)
    assert set(table.loc[table["figure"] == "dice@0.5", "level"]) == set(levels[1:])
    names = {"ged_limit": "GED", "dice@0.5": "Dice"}
    axes = plots.subgroups(table, names, plots.styles(["ensemble"])).axes
    for ax, first in zip(axes, (0, 1), strict=True):  # the row of the group stays empty, the others keep theirs
        heights = [container.lines[0].get_ydata()[0] for container in ax.containers]
        assert heights == pytest.approx([-row for row in range(first, len(levels))])


def test_ratings_in_words_are_groups_of_their_own() -> None:
    words = cases([[1, 1]] * 4, spacing=1.0).assign(texture=["solid", "ground glass", None, "solid"])
    groups = subgroups.groups_of(words)["texture"]
    assert {k: v.tolist() for k, v in groups.items()} == {
        "ground glass": [False, True, False, False],
        "solid": [True, False, False, True],
    }
