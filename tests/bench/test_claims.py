"""Each claim on score tables whose answer is known, turned round, and lacking what it needs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from baselines.published import published
from bench import claims
from bench.report import claims as pages
from bench.report.loaded import Loaded

THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
WEIGHTED = "segnet[pos_weight=99]"


def table(sensitivity: float, false: float, low: float = 0.0, split: str = "test", **columns: float) -> pd.DataFrame:
    """120 images of 60 patients, 100 lesion pixels of 10,000: `sensitivity` of them found and `false` others marked.

    low: added to the sensitivity at threshold 0.1. columns: means of further columns.
    """
    rng = np.random.default_rng(0)
    made: dict[str, object] = {
        "case": [f"{split}{i}" for i in range(120)],
        "patient": [f"{split}{i // 2}" for i in range(120)],
    }
    noise = rng.normal(0, 2, 120)
    for t in THRESHOLDS:
        found = 100 * (sensitivity + low * (t == 0.1)) + noise
        wrong = false + rng.normal(0, 1, 120)
        cells = {"tp": found, "fp": wrong, "fn": 100 - found, "tn": 9900 - wrong}
        made |= {f"{c}_each@{t}": v for c, v in cells.items()}
    means = {"hit_three_quarters": 0.5, "ncc_std": 0.0, "agreement": 0.0} | columns
    made |= {name: mean + rng.normal(0, 0.05, 120) for name, mean in means.items()}
    made["reader_std_mean"] = readers = rng.normal(0, 1, 120)
    made["std_mean"] = means["agreement"] * readers + rng.normal(0, 0.3, 120)
    return pd.DataFrame(made)


def run(sign: float = 1.0) -> dict[str, dict[str, list[pd.DataFrame]]]:
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
    found = claims.examine(run(), starts())
    assert claims.verdicts(found) == dict.fromkeys(claims.CLAIMS, "supported"), found.to_string()
    assert (found["low"] <= found["difference"]).all()
    assert (found["difference"] <= found["high"]).all()
    by = found.set_index("compared")["difference"]
    assert by["sensitivity_mean of unet − sensitivity_mean of segnet"] == pytest.approx(0.1, abs=1e-9)
    assert by["hit_three_quarters of ensemble − 0.5"] == pytest.approx(0.3, abs=0.02)


def test_every_claim_is_refuted_where_the_opposite_holds() -> None:
    found = claims.examine(run(-1), starts(-1))
    assert claims.verdicts(found) == dict.fromkeys(claims.CLAIMS, "not supported"), found.to_string()


def test_equal_methods_and_small_differences_are_undecided() -> None:
    images = run()
    images["test"]["unet"] = images["test"]["segnet"]
    found = claims.examine(images, starts())
    assert (found.loc[found["claim"] == 1, "verdict"] == "undecided").all()


def test_what_a_run_lacks_is_said() -> None:
    found = claims.examine({"test": {"unet": run()["test"]["unet"]}}, {"unet": starts()["unet"]})
    assert set(found["verdict"]) - {"undecided"} == {"supported"}  # threshold 0.1 of the U-Net alone
    notes = set(found["note"])
    assert {"add segnet to --methods", f"add {WEIGHTED}, segnet to --methods", "add unet to --methods"} <= notes
    assert "needs unet[pos_weight=99] with at least 2 repetitions (--seeds 0,1)" in notes
    assert claims.verdicts(found)[7] == "undecided"


def test_the_margin_of_equivalence() -> None:
    within = [claims.verdict(*x, "within") for x in ((-0.01, 0.019), (-0.03, 0.01), (0.021, 0.03), (-0.05, -0.02))]
    assert within == ["supported", "undecided", "not supported", "not supported"]
    assert claims.verdict(float("nan"), 1, "above") == "undecided"


def test_the_spread_of_starts_by_hand() -> None:
    # ln losses 0, 2 (variance 2) and 0, 1 (variance 1/2): half of ln 4; F(1,1) at 0.975 is 647.789.
    losses = {"unet": [1, np.e], "unet[pos_weight=99]": [1, np.e**2]}
    found = claims.examine({}, {k: [history(x) for x in v] for k, v in losses.items()})
    row = found[found["compared"].str.startswith("ln spread")].iloc[0]
    assert row["difference"] == pytest.approx(np.log(2))
    assert [row["low"], row["high"]] == pytest.approx(
        [np.log(2) - np.log(647.789) / 2, np.log(2) + np.log(647.789) / 2]
    )
    assert row["verdict"] == "undecided"


def test_the_published_tables_contradict_themselves() -> None:
    said = claims.published_oddities(published())
    assert "half the published Dice in 37 of 37 rows, and the Jaccard index Dice/(2 − Dice) in 0" in said["iou"]
    assert "unet test 0.4587 at 0.5, 0.5156 at 0.7" in said["sensitivity"]


def test_the_section_and_its_files(tmp_path: Path) -> None:
    loaded = Loaded({"train": {}, "val": {}, **run()}, {}, {})
    text, said = pages.section(tmp_path, loaded, starts())
    assert all(f"**{n}. {claim}: supported.**" in text for n, claim in claims.CLAIMS.items())
    assert pages.write(tmp_path, loaded, starts()) == said
    assert said[1] == "supported"
    assert (tmp_path / "claims.md").read_text(encoding="utf-8") == text + "\n"
    assert pd.read_csv(tmp_path / "claims.csv")["claim"].unique().tolist() == list(claims.CLAIMS)
