"""Figures from the literature: what the files hold, and that what is wrong in one is refused by file and line."""

import pytest

from baselines.published import COLUMNS, published, read
from uqseg.errors import FileError

GOOD = "A 2020,LIDC-IDRI,ours,16,unet,test,0.5,dice,0.5,report"


def test_the_seed_reports_tables_are_whole_and_nothing_unconfirmed_is_given_out() -> None:
    table = published()
    assert "unconfirmed" not in set(table["known"])
    assert table.loc[table["method"] == "CCDM", "metric"].tolist() == ["seconds_per_image"]  # its GED is unconfirmed
    sizes = table["source"].str.extract(r"Table (\w)")[0].value_counts().to_dict()
    assert sizes == {"1": 10, "A": 75, "B": 75, "C": 25}
    seed = table[table["source"].str.endswith("Table B") & (table["split"] == "test")]
    assert seed.set_index(["threshold", "metric"])["value"]["0.5", "sensitivity"] == 0.4587


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (GOOD, "line 3: the same figure as in line 2"),
        (GOOD.replace("report", "hearsay"), "line 3: known: expected one of code"),
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
def test_a_wrong_line_is_refused(line: str, said: str) -> None:
    with pytest.raises(FileError, match="mine.csv, " + said):
        read("\n".join([",".join(COLUMNS), GOOD, line]), "mine.csv")


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(FileError, match="line 1: expected the columns source"):
        read(",".join([*COLUMNS, "note"]), "mine.csv")
