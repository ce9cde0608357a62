"""Shares of the way from background to oracle."""

import numpy as np
import pandas as pd
import pytest

from bench.stats import bootstrap, share_of_way
from uqseg.metrics import figures

GED = [f for f in figures("ambiguity") if f.name == "ged"]


def table(values: list[float]) -> pd.DataFrame:
    n = len(values)
    return pd.DataFrame({"case": range(n), "patient": [f"p{i}" for i in range(n)], "ged": values})


def test_share_is_0_at_background_1_at_oracle_and_linear_between() -> None:
    background, oracle = np.array([1.0, 0.8, 0.6, 0.4]), np.array([0.2, 0.1, 0.1, 0.2])
    between = background + 0.25 * (oracle - background)
    tables = {"background": background, "oracle": oracle, "net": between, "worse": 2 * background - oracle}
    boot = bootstrap({k: [table(list(v))] for k, v in tables.items()}, GED, resamples=200)
    shares = share_of_way(boot, "ged", ["background", "oracle", "net", "worse"])
    assert shares["method"].tolist() == ["background", "oracle", "net", "worse"]
    for column in ("share", "low", "high"):  # the same resamples, so that the ratio does not vary
        assert shares[column].tolist() == pytest.approx([0, 1, 0.25, -1])


def test_share_without_a_way_is_undefined_and_without_a_yardstick_refused() -> None:
    boot = bootstrap({k: [table([0.5, 0.5])] for k in ("background", "oracle", "net")}, GED, resamples=20)
    assert share_of_way(boot, "ged", ["net"])[["share", "low", "high"]].isna().all(axis=None)
    boot = bootstrap({"background": [table([0.5, 0.5])]}, GED, resamples=20)
    with pytest.raises(ValueError, match="boot: expected the yardstick 'oracle'"):
        share_of_way(boot, "ged", ["background"])
