"""Each claim on score tables whose answer is known, turned round, and lacking what it needs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines.published import published
from bench import claims
from bench.report import verdicts
from bench.runs.results import read_results
from tests.bench import synthetic
from uqseg.metrics import Scores, figure

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
SOME = {label: synthetic.METHODS[label] for label in ("segnet", "unet")}
WEIGHTED = "segnet[pos_weight=99]"


def table(sensitivity: float, false: float, low: float = 0.0, split: str = "test", **columns: float) -> Scores:
    """120 images of 60 patients, 100 lesion pixels of 10,000: `sensitivity` of them found and `false` others marked.

    low: added to the sensitivity at threshold 0.1. columns: means of further statistics.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, 120)
    cells = []
    for t in THRESHOLDS:
        hits = 100 * (sensitivity + low * (t == 0.1)) + noise
        wrong = false + rng.normal(0, 1, 120)
        cells.append(np.stack([hits, wrong, 100 - hits, 9900 - wrong], -1))
    means = {"hit_three_quarters": 0.5, "ncc_std": 0.0, "agreement": 0.0} | columns
    values = {"cells": np.stack(cells, 1)} | {n: mean + rng.normal(0, 0.05, 120) for n, mean in means.items()}
    values["reader_std_mean"] = readers = rng.normal(0, 1, 120)
    values["std_mean"] = means["agreement"] * readers + rng.normal(0, 0.3, 120)
    names = [np.array([f"{split}{i // k}" for i in range(120)]) for k in (1, 2)]
    return Scores(names[0], names[1], values, 1, "support")


def run(sign: float = 1.0) -> dict[str, dict[str, list[Scores]]]:
    """A run for which every claim holds; sign −1: for which none does."""
    hits = {"hit_three_quarters": 0.5 + 0.3 * sign}
    agree = {"ncc_std": 0.4 * sign, "agreement": sign}
    test = {
        "background": table(0.0, 50 - 49 * sign),
        "segnet": table(0.6 - 0.05 * sign, 20, 0.02 * sign),
        "unet": table(0.6 + 0.05 * sign, 20, 0.02 * sign),
        "ensemble": table(0.6 + 0.15 * sign, 20, **hits),
        "mcdropout": table(0.6, 20, **agree),
        "probunet": table(0.6, 20, **agree),
        WEIGHTED: table(0.6 + 0.2 * sign, 20 + 80 * (sign > 0)),
    }
    if sign < 0:  # background, marking 99 wrong, still beats networks that mark 200 wrong
        test["segnet"], test["unet"] = table(0.65, 200, -0.1), table(0.5, 200, -0.1)
        test[WEIGHTED] = table(0.6, 20)
        test["ensemble"] = table(0.4, 200, **hits)
    higher = {s: {n: [table(0.6 + d * sign, 20 if sign > 0 else 200, split=s)] for n in ("segnet", "unet")}
              for s, d in (("val", 0.15), ("train", 0.3))}  # fmt: skip
    return {"test": {label: [part] for label, part in test.items()}, **higher}


def history(first: float) -> list[dict[str, float]]:
    return [{"step": step, "loss": first if step <= 100 else 0.1} for step in range(10, 1001, 10)]


def starts(sign: int = 1) -> dict[str, list[list[dict[str, float]]]]:
    apart, alike = [0.1, 0.4, 1.6, 0.2, 0.9], [9.9, 10.0, 10.1, 10.05, 9.95]
    losses = (
        {"unet": apart, "unet[pos_weight=99]": alike} if sign > 0 else {"unet": alike, "unet[pos_weight=99]": apart}
    )
    return {label: [history(x) for x in values] for label, values in losses.items()}


def test_every_claim_is_supported_where_it_holds() -> None:
    examined = claims.examine(run(), starts())
    assert claims.verdicts(examined) == dict.fromkeys(claims.CLAIMS, "supported"), examined.to_string()
    assert (examined["low"] <= examined["difference"]).all()
    assert (examined["difference"] <= examined["high"]).all()
    by = examined.set_index("compared")["difference"]
    assert by["sensitivity_mean of unet − sensitivity_mean of segnet"] == pytest.approx(0.1, abs=1e-9)
    assert by["hit_three_quarters of ensemble − 0.5"] == pytest.approx(0.3, abs=0.02)


def test_every_claim_is_refuted_where_the_opposite_holds() -> None:
    examined = claims.examine(run(-1), starts(-1))
    assert claims.verdicts(examined) == dict.fromkeys(claims.CLAIMS, "not supported"), examined.to_string()


def test_equal_methods_and_small_differences_are_undecided() -> None:
    images = run()
    images["test"]["unet"] = images["test"]["segnet"]
    examined = claims.examine(images, starts())
    assert (examined.loc[examined["claim"] == 1, "verdict"] == "undecided").all()


def test_what_a_run_lacks_is_said() -> None:
    examined = claims.examine({"test": {"unet": run()["test"]["unet"]}}, {"unet": starts()["unet"]})
    assert set(examined["verdict"]) - {"undecided"} == {"supported"}  # threshold 0.1 of the U-Net alone
    notes = set(examined["note"])
    assert {"add segnet to --methods", f"add {WEIGHTED}, segnet to --methods", "add unet to --methods"} <= notes
    assert "needs unet[pos_weight=99] with at least 2 repetitions (--seeds 0,1)" in notes
    assert claims.verdicts(examined)[7] == "undecided"


def test_the_margin_of_equivalence() -> None:
    within = [claims.verdict(*x, "within") for x in ((-0.01, 0.019), (-0.03, 0.01), (0.021, 0.03), (-0.05, -0.02))]
    assert within == ["supported", "undecided", "not supported", "not supported"]
    assert claims.verdict(float("nan"), 1, "above") == "undecided"


def test_the_spread_of_starts_by_hand() -> None:
    # ln losses 0, 2 (variance 2) and 0, 1 (variance 1/2): half of ln 4; F(1,1) at 0.975 is 647.789.
    losses = {"unet": [1, np.e], "unet[pos_weight=99]": [1, np.e**2]}
    examined = claims.examine({}, {k: [history(x) for x in v] for k, v in losses.items()})
    row = examined[examined["compared"].str.startswith("ln spread")].iloc[0]
    assert row["difference"] == pytest.approx(np.log(2))
    assert [row["low"], row["high"]] == pytest.approx(
        [np.log(2) - np.log(647.789) / 2, np.log(2) + np.log(647.789) / 2]
    )
    assert row["verdict"] == "undecided"


def test_the_published_tables_contradict_themselves() -> None:
    oddities = claims.published_oddities(published())
    assert "half the published Dice in 37 of 37 rows, and the Jaccard index Dice/(2 − Dice) in 0" in oddities["iou"]
    assert "unet test 0.4587 at 0.5, 0.5156 at 0.7" in oddities["sensitivity"]


def test_too_few_patients_decide_nothing() -> None:
    some = {
        split: {n: [t.take(range(18)) for t in each] for n, each in labels.items()} for split, labels in run().items()
    }
    examined = claims.examine(some, {})
    assert set(claims.verdicts(examined).values()) == {"undecided"}
    assert "too few patients" in set(examined["note"])


def test_the_section_names_every_verdict() -> None:
    text = verdicts.section(claims.examine(run(), starts()))
    assert all(f"<summary>{n}. {claim}: <b>supported</b></summary>" in text for n, claim in claims.CLAIMS.items())


def test_claims_are_read_from_a_results_folder(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "run", methods=SOME, gallery=False, yardsticks=("background",))
    answers = verdicts.write(folder, tmp_path / "to")
    assert answers.keys() == claims.CLAIMS.keys()
    table = pd.read_csv(tmp_path / "to/claims.csv")
    assert claims.verdicts(table) == answers
    assert table["claim"].unique().tolist() == list(claims.CLAIMS)
    above = table.set_index("compared")["difference"]["iou_mean of unet − iou_mean of segnet"]
    results = read_results(folder)
    values = {n: np.mean([figure("iou_mean").value(c.scores["test"]) for c in results.cells[n]])
              for n in ("unet", "segnet")}  # fmt: skip
    assert above == pytest.approx(values["unet"] - values["segnet"])
    assert "The claims of the 2020 student report" in (tmp_path / "to/claims.md").read_text(encoding="utf-8")
