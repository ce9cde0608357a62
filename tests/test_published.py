"""Figures from the literature: what the files hold, and that what is wrong in one is refused by file and line."""

import pandas as pd
import pytest

from baselines.published import COLUMNS, KNOWN, published, read
from baselines.published.consistency import consistency
from uqseg.errors import FileError

GOOD = "A 2020,LIDC-IDRI,ours,16,unet,test,0.5,dice,0.5,report"


def test_the_seed_reports_tables_are_complete() -> None:
    table = published()
    sizes = table["source"].str.extract(r"Hansen 2020, Table (\w)")[0].value_counts().to_dict()
    assert sizes == {"1": 10, "A": 75, "B": 75, "C": 25}
    seed = table[table["source"].str.endswith("Table B") & (table["split"] == "test")]
    assert seed.set_index(["threshold", "metric"])["value"]["0.5", "sensitivity"] == 0.4587


def test_figures_of_the_literature_are_those_of_their_sources() -> None:
    table = published()
    row = table[(table["method"] == "CCDM") & table["protocol"].str.startswith("Knegt") & (table["metric"] == "ged")]
    assert dict(zip(row["samples"], row["value"], strict=True)) == {16: 0.212, 32: 0.194, 50: 0.187, 100: 0.183}
    assert set(table["known"]) <= set(KNOWN)


def rows(*values: tuple[int, float], method: str = "m") -> pd.DataFrame:
    lines = [f"A 2020,LIDC-IDRI,ours,{samples},{method},test,,ged,{value},paper" for samples, value in values]
    return read("\n".join([",".join(COLUMNS), *lines]), "mine.csv")


def test_geds_of_one_model_at_two_numbers_of_samples_are_held_against_what_they_can_be() -> None:
    # 1/16 − 1/32 = 1/32: 0.016 of it is a quotient of 0.512, with 0.032 for rounding.
    (row,) = consistency(rows((32, 0.184), (16, 0.2))).to_dict("records")
    assert (row["fewer"], row["more"], row["verdict"]) == (16, 32, "possible")
    assert row["quotient"] == pytest.approx(0.512)
    assert row["tolerance"] == pytest.approx(0.032)
    # Rises with S, or falls by more than 1/32: outside only beyond the rounding of 0.001.
    verdicts = [consistency(rows((16, 0.2), (32, v)))["verdict"].item() for v in (0.201, 0.2011, 0.16775, 0.1677)]
    assert verdicts == ["possible", "outside", "possible", "outside"]


def test_only_figures_of_one_model_are_paired() -> None:
    table = pd.concat([rows((16, 0.3)), rows((32, 0.1), method="other")], ignore_index=True)
    assert len(consistency(table)) == 0
    assert len(consistency(rows((16, 0.3), (32, 0.29), (100, 0.28)))) == 3


def test_published_rows_that_no_independent_samples_can_have() -> None:
    table = consistency(published())
    outside = table[table["verdict"] == "outside"]
    assert set(outside["method"]) == {"Probabilistic U-Net", "PHiSeg", "ATFM"}
    atfm = outside[outside["method"] == "ATFM"].iloc[0]
    assert (atfm["fewer"], atfm["more"], round(atfm["quotient"], 2)) == (32, 100, 1.22)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD, "line 3: the same figure as in line 2"),
        (GOOD.replace("report", "unconfirmed"), "line 3: known: expected one of code"),
        (GOOD.replace("test", "all"), "line 3: split"),
        (GOOD.replace("dice", "auc"), "line 3: metric"),
        (GOOD.replace("dice,0.5", "ged,2.5"), "line 3: value: expected 0 to 2 for ged, got '2.5'"),
        (GOOD.replace("dice,0.5", "dice,nan"), "line 3: value: expected 0 to 1"),
        (GOOD.replace("dice,0.5", "dice,high"), "line 3: value: expected a number"),
        (GOOD.replace("0.5,dice", "1.5,dice"), "line 3: threshold"),
        (GOOD.replace(",16,", ",0,"), "line 3: samples"),
        (GOOD.replace("A 2020", ""), "line 3: source"),
        (GOOD.removesuffix(",report"), "line 3: expected 10 fields"),
        (GOOD + ",more", "line 3: expected 10 fields"),
    ],
)
def test_a_wrong_line_is_refused(line: str, message: str) -> None:
    with pytest.raises(FileError, match="mine.csv, " + message):
        read("\n".join([",".join(COLUMNS), GOOD, line]), "mine.csv")


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(FileError, match="line 1: expected the columns source"):
        read(",".join([*COLUMNS, "note"]), "mine.csv")
