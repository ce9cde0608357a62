"""The bootstrap against plain loops and simulated truth; Holm, ties, marks and ranks against values worked by hand."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from bench import stats
from bench.report import page, sections, tables
from uqseg.metrics import Figure, Scores, figure, figures, score
from uqseg.metrics.ranks import weighted_spearman


def mean_figure(name: str, **change: object) -> Figure:
    plain = Figure(name, name, (name,), "lower", ("ambiguity",), "a mean", "this test", (-10, 10))
    return dataclasses.replace(plain, **change)  # type: ignore[arg-type]


def scores(patients: list[str], values: dict[str, np.ndarray], samples: int = 1, drawn: str = "support") -> Scores:
    return Scores(np.array([f"c{i}" for i in range(len(patients))]), np.array(patients), values, samples, drawn)  # type: ignore[arg-type]


def random_scores(patients: list[str], seed: int) -> Scores:
    """Every statistic of random samples, kept for each case."""
    rng, n = np.random.default_rng(seed), len(patients)
    prob = rng.random((n, 3, 6, 6), dtype=np.float32) ** 2 * (rng.random((n, 3, 1, 1)) < 0.8)
    masks = (rng.random((n, 3, 6, 6)) < 0.3) & (rng.random((n, 3, 1, 1)) < 0.7)
    spacing = np.full((n, 2), 0.5, np.float32)
    return score(prob.astype(np.float32), masks, spacing=spacing, cases=[f"c{i}" for i in range(n)], patients=patients)


def boot_of(values: dict[str, np.ndarray], patients: list[str], **change: object) -> stats.Bootstrap:
    return stats.bootstrap({k: [scores(patients, {"x": x})] for k, x in values.items()}, [mean_figure("x", **change)])


def test_every_figure_equals_a_loop_over_resampled_cases() -> None:
    patients = [f"p{k}" for k in np.random.default_rng(0).integers(0, 7, 30)]
    table = random_scores(patients, 1)
    boot = stats.bootstrap({"a": [table]}, figures(), resamples=4)
    weights, codes = stats.patient_weights(patients, 4)
    assert {f.kind for f in figures()} == {"sums", "cases"}
    for k in range(4):
        again = table.take(np.repeat(np.arange(30), weights[k, codes].astype(int)))
        plain = [f.value(again) for f in figures()]
        # The best order of excess AURC takes the copies of a case together, and a table of copies one by one.
        copies = np.array([f.name.startswith("eaurc") for f in figures()])
        np.testing.assert_allclose(boot.draws[0, k, ~copies], np.array(plain)[~copies], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(boot.draws[0, k, copies], np.array(plain)[copies], atol=0.005)
    np.testing.assert_allclose(boot.point[0], [f.value(table) for f in figures()], rtol=1e-9, atol=1e-12)


def test_a_resampled_rank_correlation_equals_that_of_scipy() -> None:
    patients = [f"p{i // 3}" for i in range(30)]
    rng = np.random.default_rng(2)
    table = scores(
        patients, {"x": rng.integers(0, 9, 30) / 8, "y": np.where(rng.random(30) < 0.1, np.nan, rng.random(30))}
    )
    rank = mean_figure("rank", of=("x", "y"), from_cases=lambda v, w: weighted_spearman(v["x"], v["y"], w))
    boot = stats.bootstrap({"a": [table]}, [rank], resamples=5)
    weights, codes = stats.patient_weights(patients, 5)
    for k in range(5):
        rows = np.repeat(np.arange(30), weights[k, codes].astype(int))
        x, y = (table.values[n][rows] for n in "xy")
        assert boot.draws[0, k, 0] == pytest.approx(spearmanr(x[np.isfinite(y)], y[np.isfinite(y)]).statistic)


def test_intervals_of_patients_cover_the_truth_and_intervals_of_slices_do_not() -> None:
    """1,500 simulated data sets, one a column: patient effect and slice noise of equal variance, 1 to 12 slices."""
    simulations, patients = 1500, 200
    rng = np.random.default_rng(5)
    owner = np.repeat(np.arange(patients), rng.integers(1, 13, patients))
    values = 3 + rng.normal(size=(patients, simulations))[owner] + rng.normal(size=(len(owner), simulations))
    names = [f"x{i}" for i in range(simulations)]
    covered = {}
    for unit, labels in (("patient", [f"p{k}" for k in owner]), ("slice", [f"s{i}" for i in range(len(owner))])):
        table = scores(labels, dict(zip(names, values.T, strict=True)))
        boot = stats.bootstrap({"m": [table]}, [mean_figure(n) for n in names], resamples=1000)
        summary = boot.summary()
        covered[unit] = float(((summary["low"] <= 3) & (summary["high"] >= 3)).mean())
    assert 0.93 <= covered["patient"] <= 0.97
    assert covered["slice"] < 0.80


def test_draws_do_not_depend_on_the_order_of_cases_or_methods() -> None:
    patients = [f"p{i // 4}" for i in range(24)]
    a, b = (scores(patients, {"x": np.random.default_rng(k).normal(size=24)}) for k in (0, 1))
    one = stats.bootstrap({"a": [a], "b": [b]}, [mean_figure("x")], resamples=50)
    back = np.arange(24)[::-1]
    other = stats.bootstrap({"b": [b.take(back)], "a": [a.take(back)]}, [mean_figure("x")], resamples=50)
    np.testing.assert_allclose(one.draws, other.draws[::-1], atol=1e-12)


def test_other_cases_are_refused() -> None:
    table = scores(["p", "q"], {"x": np.array([1.0, 2.0])})
    with pytest.raises(ValueError, match="'b' was scored on other cases"):
        stats.bootstrap({"a": [table], "b": [table.take([0])]}, [mean_figure("x")])


def test_undefined_values_are_left_out_of_point_and_draws() -> None:
    table = scores(["p", "p", "q"], {"x": np.array([1.0, np.nan, 3.0]), "y": np.full(3, np.nan)})
    boot = stats.bootstrap({"a": [table]}, [mean_figure("x"), mean_figure("y"), mean_figure("z")], resamples=200)
    value, drawn = boot.values("a", "x")
    assert value == 2
    assert set(drawn) == {1.0, 2.0, 3.0}
    assert np.isnan([*boot.estimate("a", "y"), *boot.estimate("a", "z")]).all()  # z was never scored


def test_cases_left_out_are_counted_and_marked() -> None:
    """Three cases: x lacks one of them, y all, z none; "both" needs x and z; the second repetition lacks nothing."""
    table = scores(["p", "p", "q"], {"x": np.array([1.0, np.nan, 3.0]), "y": np.full(3, np.nan), "z": np.arange(3.0)})
    both = mean_figure("both", of=("x", "z"), from_cases=lambda v, w: w @ v["x"])
    chosen = [mean_figure("x"), mean_figure("y"), mean_figure("z"), both]
    full = scores(["p", "p", "q"], {n: np.nan_to_num(x, nan=2.0) for n, x in table.values.items()})
    boot = stats.bootstrap({"a": [table], "b": [table, full], "c": [full, full]}, chosen, resamples=20)
    assert boot.undefined.tolist() == [[1, 3, 0, 1], [1, 3, 0, 1], [0, 0, 0, 0]]
    assert boot.summary()["left_out"].tolist() == boot.undefined.ravel().tolist()
    table_of = tables.of_figures(boot, chosen, ["a"], ["c"])
    marks = [[text.partition(" †")[2] for text in row[1:]] for row in table_of.to_numpy().tolist()]
    assert marks == [["1", "", "", "1"], ["", "", "", ""]]  # y has no value that cases could be left out of
    assert tables.markdown(table_of).endswith(tables.LEFT_OUT)
    assert tables.LEFT_OUT not in tables.markdown(table_of.iloc[1:])


def test_left_out_of_a_figure_at_one_threshold_are_cases_undefined_at_that_one() -> None:
    """Nothing is predicted at 0.9 in two of three images, nor in one of these at 0.1."""
    prob = np.array([1, 0.5, 0], np.float32)[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32)
    table = score(prob, np.ones((3, 1, 4, 4), bool), cases=list("abc"), patients=list("pqr"))
    names = ["precision_image@0.1", "precision_image@0.9", "precision_image_mean", "precision@0.9"]
    boot = stats.bootstrap({"a": [table]}, [figure(name) for name in names], resamples=20)
    assert [boot.left_out("a", name) for name in names] == [1, 2, 1, 0]


def test_figures_on_common_cases_use_those_that_every_method_has() -> None:
    """Case 0 is undefined for a, case 3 for b; the yardstick y has case 1 alone and does not shrink the others."""
    nan = np.nan
    columns = {"a": [nan, 2, 4, 9], "b": [5, 6, 10, nan], "y": [nan, 1, nan, nan], "never": [nan] * 4}
    tables_ = {k: [scores(list("pqrs"), {"x": np.array(x, float)})] for k, x in columns.items()}
    boot = stats.bootstrap(tables_, [mean_figure("x", common_cases=True)], common_among=["a", "b", "never"])
    assert [boot.values(label, "x")[0] for label in ("a", "b", "y")] == [3, 8, 1]
    assert boot.undefined[:, 0].tolist() == [2, 2, 3, 4]


def test_the_interval_widens_with_the_repetitions_variance() -> None:
    patients = [f"p{i}" for i in range(60)]
    values = np.random.default_rng(0).normal(size=60)
    same = [scores(patients, {"x": values})] * 3
    apart = [scores(patients, {"x": values + shift}) for shift in (-1, 0, 1)]
    boot = stats.bootstrap({"same": same, "apart": apart, "one": same[:1]}, [mean_figure("x")])
    estimates = {label: boot.estimate(label, "x") for label in boot.labels}
    wide = {label: e.high - e.low for label, e in estimates.items()}
    assert estimates["same"].value == pytest.approx(estimates["apart"].value)
    assert wide["same"] == pytest.approx(wide["one"])  # nothing varies between repetitions
    sigma = np.sqrt(values.var() / 60 + (2 / 3) / 3)  # variances of the two levels add
    assert wide["apart"] == pytest.approx(2 * 1.96 * sigma, rel=0.1)
    assert boot.repetitions == {"same": 3, "apart": 3, "one": 1}


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; the running maximum ends at 0.06.
    adjusted = stats.holm(np.array([0.03, 0.01, np.nan, 0.04, 0.02]))
    np.testing.assert_allclose(adjusted, [0.06, 0.04, np.nan, 0.06, 0.06])
    np.testing.assert_allclose(stats.holm(np.array([0.6, 0.9])), [1.0, 1.0])


def test_a_difference_whose_interval_holds_zero_is_a_tie() -> None:
    rng = np.random.default_rng(3)
    patients = [f"p{i // 2}" for i in range(100)]
    base = rng.normal(size=100)
    shifted = {"a": base, "same": base, "near": base + rng.normal(0, 1, 100), "far": base + 1 + rng.normal(0, 1, 100),
               "never": np.full(100, np.nan)}  # fmt: skip
    boot = boot_of(shifted, patients)
    table = boot.differences("x", "a").set_index("method")
    assert table.loc["same", ["difference", "low", "high", "p"]].tolist() == [0, 0, 0, 1]
    assert table["verdict"].to_dict() == {"same": "tie", "near": "tie", "far": "worse", "never": ""}
    assert table["bound"].to_dict() == {"same": False, "near": False, "far": True, "never": False}
    assert table.loc["far", "p"] == pytest.approx(2 / 2001)
    assert table.loc["far", "p_holm"] == pytest.approx(6 / 2001)
    assert tables.p_value(*table.loc["far", ["p_holm", "bound"]]) == f"≤{tables.GLUE}0.003"
    assert tables.p_value(*table.loc["never", ["p_holm", "bound"]]) == "–"
    alone = boot_of({"far": shifted["far"] - base}, patients).estimate("far", "x")
    np.testing.assert_allclose(table.loc["far", ["low", "high"]].tolist(), alone[1:])
    error = np.std((shifted["far"] - base).reshape(50, 2).mean(1)) / np.sqrt(50)
    assert table.loc["far", "detectable"] == pytest.approx(2.8 * error, rel=0.1)
    assert boot.best("x", ["same", "far", "never"]) == ("same", [])
    assert (
        boot_of({"a": base, "far": base + 1}, patients, direction="higher").differences("x", "a")["verdict"][0]
        == "better"
    )


def test_resamples_grow_with_the_number_of_comparisons() -> None:
    patients = [f"p{i}" for i in range(12)]
    few, many = (boot_of({f"m{k}": np.arange(12.0) + k for k in range(n)}, patients) for n in (3, 21))
    assert [boot.draws.shape[1] for boot in (few, many)] == [2000, 4000]
    assert (many.differences("x", "m0")["p_holm"] < 0.05).all()  # 20 comparisons at the floor are still decided


def test_below_ten_patients_nothing_is_tested() -> None:
    values = {"a": np.arange(9.0), "b": np.arange(9.0) + 5, "background": np.arange(9.0) + 9}
    boot = boot_of(values, [f"p{i}" for i in range(9)])
    assert boot.estimate("a", "x").value == 4
    assert np.isnan(boot.estimate("a", "x")[1:]).all()
    table = boot.differences("x", "a")
    assert table["verdict"].tolist() == ["", ""]
    assert table[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert boot.best("x", ["a", "b"]) == ("a", [])
    assert boot.marks("x", ["a", "b"]) == {}


def test_the_patients_that_count_are_those_in_whom_the_figure_has_a_value() -> None:
    """Of twelve patients two have a lesion: pooled or per image, their sensitivity has no interval and no test."""
    rng = np.random.default_rng(0)
    masks = np.zeros((12, 1, 4, 4), bool)
    masks[:2] = True
    several = {n: score(rng.random((12, 1, 4, 4), np.float32), masks, cases=list("abcdefghijkl")) for n in ("a", "b")}
    names = ["sensitivity@0.5", "sensitivity_image@0.5", "accuracy@0.5"]
    boot = stats.bootstrap({n: [each] for n, each in several.items()}, [figure(name) for name in names])
    assert boot.defined.tolist() == [[2, 2, 12]] * 2
    for name in names:
        tested = name == "accuracy@0.5"
        assert np.isfinite(boot.estimate("a", name).low) == tested
        assert np.isfinite(boot.differences(name, "a")["p"].iloc[0]) == tested
        assert np.isfinite(boot.rank(name, ["a", "b"])["low"]).all() == tested
        assert bool(boot.marks(name, ["a", "b"])) == tested


def test_nothing_is_marked_that_learned_nothing() -> None:
    patients = [f"p{i}" for i in range(40)]
    base = np.random.default_rng(0).normal(size=40)
    values = {"good": base, "alike": base + 0.001 * base[::-1], "background": base + 3, "prevalence": base + 1}
    assert boot_of(values, patients).marks("x", ["good", "alike"]) == {"good": "best", "alike": "tie"} or (
        boot_of(values, patients).marks("x", ["good", "alike"]) == {"alike": "best", "good": "tie"}
    )
    for yardstick in ("background", "prevalence"):  # the better of the two counts
        assert boot_of(values | {yardstick: base - 0.5}, patients).marks("x", ["good", "alike"]) == {}
    without = {label: x for label, x in values.items() if label in ("good", "alike")}
    assert set(boot_of(without, patients).marks("x", ["good", "alike"])) == {"good", "alike"}


def test_figures_that_depend_on_samples_are_marked_within_a_kind_and_number() -> None:
    patients = [f"p{i}" for i in range(40)]
    kinds = {"a": (1, "support"), "b": (1, "support"), "c": (16, "independent"), "d": (16, "independent"),
             "e": (4, "independent")}  # fmt: skip
    each = {n: [scores(patients, {"x": np.full(40, float(k))}, *kind)] for k, (n, kind) in enumerate(kinds.items())}
    apart = stats.bootstrap(each, [mean_figure("x", depends_on_samples=True)])
    assert apart.marks("x", list(kinds)) == {"a": "best", "c": "best"}
    together = stats.bootstrap(each, [mean_figure("x")])
    assert together.marks("x", list(kinds)) == {"a": "best"}


def test_ranks_split_first_places_among_ties() -> None:
    drawn = np.array([[1, 1, 3, np.nan], [1, 2, 2, np.nan], [5, 5, 1, np.nan]], float)[..., None]
    boot = stats.Bootstrap(
        ["a", "b", "c"],
        [mean_figure("x")],
        np.array([[1.0], [1.0], [4.0]]),
        drawn,
        np.zeros((3, 1), int),
        np.full((3, 1), 20),
        20,
        20,
        {},
        {},
    )
    table = boot.rank("x", ["a", "b", "c"]).set_index("method")
    assert table["rank"].to_dict() == {"a": 1, "b": 1, "c": 3}
    # Ranks in the three defined resamples: a 1, 1, 3; b 1, 2, 2; c 3, 3, 1, of equals the better, as by value.
    np.testing.assert_allclose(table["first"], [1.5 / 3, 0.5 / 3, 1 / 3])
    np.testing.assert_allclose(table.loc["a", ["low", "high"]].tolist(), np.quantile([1, 1, 3], [0.025, 0.975]))


def test_the_share_of_the_way_by_hand() -> None:
    patients = [f"p{i}" for i in range(12)]
    ends = {"background": np.full(12, 0.8), "oracle": np.full(12, 0.2), "m": np.full(12, 0.5), "bad": np.full(12, 1.1)}
    boot = boot_of(ends, patients)
    assert list(boot.share_of_way("x", "m")) == pytest.approx([0.5] * 3)
    assert boot.share_of_way("x", "bad").value == pytest.approx(-0.5)
    level = boot_of(ends | {"oracle": ends["background"]}, patients)
    assert np.isnan(level.share_of_way("x", "m").value)


@pytest.mark.parametrize("name", [*page.BEST_BY, *sections.RANKED])
def test_what_the_first_sentences_and_the_ranks_compare_can_be_compared(name: str) -> None:
    assert not figure(name).depends_on_samples
    assert figure(name).direction != "none"
