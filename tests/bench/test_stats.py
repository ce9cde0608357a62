"""The bootstrap against plain loops and simulated truth; Holm, ties and ranks against values worked out by hand."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from bench import stats
from bench.report import tables
from uqseg.metrics import Figure, figures


def mean_figure(name: str) -> Figure:
    return Figure(name, "ambiguity", "lower", (-10, 10), "a mean", "this test", (name,))


def scores(patients: list[str], columns: dict[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame({"case": [f"c{i}" for i in range(len(patients))], "patient": patients, **columns})


def every_column(patients: list[str], seed: int) -> pd.DataFrame:
    """Random counts and values for every column that a figure reads; one in eight values of a mean undefined."""
    rng, n = np.random.default_rng(seed), len(patients)
    columns = {}
    for figure in figures():
        for name in figure.columns:
            counted = figure.kind == "pooled" and "_image" not in name
            values = rng.integers(0, 50, n).astype(float) if counted else rng.integers(0, 9, n) / 8
            columns[name] = values if counted else np.where(rng.random(n) < 0.125, np.nan, values)
    return scores(patients, columns)


def test_every_figure_equals_a_loop_over_resampled_tables() -> None:
    patients = [f"p{k}" for k in np.random.default_rng(0).integers(0, 7, 30)]
    table = every_column(patients, 1)
    boot = stats.bootstrap({"a": [table]}, figures(), resamples=4)
    weights, codes = stats.patient_weights(patients, 4)
    assert {f.kind for f in figures()} == {"mean", "pooled", "across"}
    for k in range(4):
        again = table.loc[np.repeat(np.arange(30), weights[k, codes].astype(int))].reset_index(drop=True)
        plain = [figure.of(again) for figure in figures()]
        np.testing.assert_allclose(boot.draws[0, k], plain, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(boot.point[0], [f.of(table) for f in figures()], rtol=1e-9, atol=1e-12)


def test_a_resampled_rank_correlation_equals_that_of_scipy() -> None:
    patients = [f"p{i // 3}" for i in range(30)]
    table = every_column(patients, 2)
    figure = next(f for f in figures() if f.name == "spearman_std")
    boot = stats.bootstrap({"a": [table]}, [figure], resamples=5)
    weights, codes = stats.patient_weights(patients, 5)
    for k in range(5):
        again = table.loc[np.repeat(np.arange(30), weights[k, codes].astype(int)), list(figure.columns)].dropna()
        assert boot.draws[0, k, 0] == pytest.approx(spearmanr(*again.to_numpy().T).statistic)


def test_intervals_of_patients_cover_the_truth_and_intervals_of_slices_do_not() -> None:
    """1,500 simulated data sets, one a column: patient effect and slice noise of equal variance, 1 to 12 slices."""
    simulations, patients = 1500, 200
    rng = np.random.default_rng(5)
    owner = np.repeat(np.arange(patients), rng.integers(1, 13, patients))
    values = 3 + rng.normal(size=(patients, simulations))[owner] + rng.normal(size=(len(owner), simulations))
    names = [f"x{i}" for i in range(simulations)]
    covered = {}
    for unit, labels in (("patient", [f"p{k}" for k in owner]), ("slice", [f"s{i}" for i in range(len(owner))])):
        table = pd.concat([scores(labels, {}), pd.DataFrame(values, columns=names)], axis=1)
        boot = stats.bootstrap({"m": [table]}, [mean_figure(n) for n in names], resamples=1000)
        low, high = stats.interval(boot.draws[0])
        covered[unit] = float(np.mean((low <= 3) & (high >= 3)))
    assert 0.93 <= covered["patient"] <= 0.97
    assert covered["slice"] < 0.80


def test_draws_do_not_depend_on_the_order_of_images_or_methods() -> None:
    patients = [f"p{i // 4}" for i in range(24)]
    a, b = (scores(patients, {"x": np.random.default_rng(k).normal(size=24)}) for k in (0, 1))
    one = stats.bootstrap({"a": [a], "b": [b]}, [mean_figure("x")], resamples=50)
    turned = {"b": [b.iloc[::-1].reset_index(drop=True)], "a": [a.iloc[::-1].reset_index(drop=True)]}
    other = stats.bootstrap(turned, [mean_figure("x")], resamples=50)
    np.testing.assert_allclose(one.draws, other.draws[::-1], atol=1e-12)


def test_other_cases_are_refused() -> None:
    table = scores(["p", "q"], {"x": np.array([1.0, 2.0])})
    with pytest.raises(ValueError, match="'b' was scored on other cases"):
        stats.bootstrap({"a": [table], "b": [table.iloc[:1]]}, [mean_figure("x")])


def test_undefined_values_are_left_out_of_point_and_draws() -> None:
    table = scores(["p", "p", "q"], {"x": np.array([1.0, np.nan, 3.0]), "y": np.full(3, np.nan)})
    boot = stats.bootstrap({"a": [table]}, [mean_figure("x"), mean_figure("y")], resamples=200)
    assert boot.point[0, 0] == 2
    assert set(boot.draws[0, :, 0]) == {1.0, 2.0, 3.0}
    low, high = stats.interval(boot.draws[0, :, 1])
    assert np.isnan([boot.point[0, 1], low, high]).all()


def test_images_left_out_are_counted_and_marked() -> None:
    """Three images: x lacks one of them, y all, z none; "both" needs x and z; the second repetition lacks nothing."""
    table = scores(["p", "p", "q"], {"x": np.array([1.0, np.nan, 3.0]), "y": np.full(3, np.nan), "z": np.arange(3.0)})
    both = dataclasses.replace(mean_figure("both"), columns=("x", "z"), kind="across", over=lambda v, w: w @ v["x"])
    chosen = [mean_figure("x"), mean_figure("y"), mean_figure("z"), both]
    whole = table.fillna(2.0)
    boot = stats.bootstrap({"a": [table], "b": [table, whole], "c": [whole, whole]}, chosen, resamples=20)
    assert boot.left_out.tolist() == [[1, 3, 0, 1], [1, 3, 0, 1], [0, 0, 0, 0]]
    assert stats.summary(boot)["left_out"].tolist() == boot.left_out.ravel().tolist()
    shown = tables.of_figures(boot, {f.name: f.name for f in chosen}, ["a"], ["c"])
    marks = [[text.partition(" †")[2] for text in row[1:]] for row in shown.to_numpy().tolist()]
    assert marks == [["1", "", "", "1"], ["", "", "", ""]]  # y has no value that images could be left out of
    assert tables.markdown(shown).endswith(tables.LEFT_OUT)
    assert tables.LEFT_OUT not in tables.markdown(shown.iloc[1:])


def test_the_interval_widens_with_the_repetitions_variance() -> None:
    patients = [f"p{i}" for i in range(60)]
    values = np.random.default_rng(0).normal(size=60)
    same = [scores(patients, {"x": values})] * 3
    apart = [scores(patients, {"x": values + shift}) for shift in (-1, 0, 1)]
    boot = stats.bootstrap({"same": same, "apart": apart, "one": same[:1]}, [mean_figure("x")])
    wide = {label: float(np.ptp(stats.interval(boot.draws[m, :, 0]))) for m, label in enumerate(boot.labels)}
    assert boot.point[0, 0] == pytest.approx(boot.point[1, 0])
    assert wide["same"] == pytest.approx(wide["one"])  # nothing varies between repetitions
    sigma = np.sqrt(values.var() / 60 + (2 / 3) / 3)  # variances of the two levels add
    assert wide["apart"] == pytest.approx(2 * 1.96 * sigma, rel=0.1)
    assert boot.repetitions == {"same": 3, "apart": 3, "one": 1}


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; the running maximum ends at 0.06.
    found = stats.holm(np.array([0.03, 0.01, np.nan, 0.04, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, np.nan, 0.06, 0.06])
    np.testing.assert_allclose(stats.holm(np.array([0.6, 0.9])), [1.0, 1.0])


def test_a_difference_whose_interval_holds_zero_is_a_tie() -> None:
    rng = np.random.default_rng(3)
    patients = [f"p{i // 2}" for i in range(100)]
    base = rng.normal(size=100)
    shifted = {"a": base, "same": base, "near": base + rng.normal(0, 1, 100), "far": base + 1 + rng.normal(0, 1, 100)}
    boot = stats.bootstrap({k: [scores(patients, {"x": x})] for k, x in shifted.items()}, [mean_figure("x")])
    table = stats.differences(boot, "x", "a").set_index("method")
    assert table.loc["same", ["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    assert table["tie"].to_dict() == {"same": True, "near": True, "far": False}
    assert table.loc["far", "p"] == pytest.approx(2 / 2001)
    assert table.loc["far", "p_holm"] == pytest.approx(6 / 2001)
    alone = stats.bootstrap({"far": [scores(patients, {"x": shifted["far"] - base})]}, [mean_figure("x")])
    np.testing.assert_allclose(table.loc["far", ["low", "high"]].tolist(), stats.interval(alone.draws[0, :, 0]))
    assert stats.best_of(boot, "x", ["same", "far"]) == ("same", [])


def test_ranks_split_first_places_among_ties() -> None:
    figure = mean_figure("x")
    drawn = np.array([[1, 1, 3, np.nan], [1, 2, 2, np.nan], [5, 5, 1, np.nan]], float)[..., None]
    boot = stats.Bootstrap(
        ["a", "b", "c"], [figure], np.array([[1.0], [1.0], [4.0]]), drawn, 2, 2, {}, np.zeros((3, 1), int)
    )
    table = stats.ranks(boot, "x", ["a", "b", "c"]).set_index("method")
    assert table["rank"].to_dict() == {"a": 1, "b": 1, "c": 3}
    # Ranks in the three defined resamples: a 1.5, 1, 3; b 1.5, 2, 2; c 3, 3, 1.
    np.testing.assert_allclose(table["first"], [1.5 / 3, 0.5 / 3, 1 / 3])
    np.testing.assert_allclose(table.loc["a", ["low", "high"]].tolist(), np.quantile([1.5, 1, 3], [0.025, 0.975]))
