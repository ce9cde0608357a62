"""The claims of the 2020 student report as a section: a verdict for each, with its differences and intervals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from baselines.published import published
from bench import claims
from bench.report import tables
from bench.report.blocks import Block, Fold, Table, markdown
from bench.runs.results import Results, read_results
from bench.stats import Estimate
from uqseg.files import write as write_file


def write(folder: Path, to: Path) -> dict[int, str]:
    """Write claims.md and claims.csv of a results folder into `to`; the verdict of each claim."""
    table = examine(read_results(folder))
    write_file(to / "claims.md", f"{markdown(section(table))}\n".encode())
    write_file(to / "claims.csv", table.to_csv(index=False, float_format="%.9g").encode())
    return claims.verdicts(table)


def examine(results: Results) -> pd.DataFrame:
    """The table of `claims.examine` of a run."""
    return claims.examine(claims.scores_of(results), claims.histories_of(results))


def section(table: pd.DataFrame) -> list[Block]:
    """All claims, from the table of `examine`."""
    verdicts = claims.verdicts(table)
    lines: list[Block] = [
        "## The claims of the 2020 student report",
        "Tested on the test images of this run against each reader in turn. Differences with 95 % intervals over "
        "patients and repetitions; undecided: the interval holds 0 or the margin, or the run lacks what is needed. "
        "A claim is supported if all its comparisons are, and not supported if one is not.",
    ]
    for claim, text in claims.CLAIMS.items():
        part = table[table["claim"] == claim]
        columns = {
            "compared": map(tables.escape, part["compared"]),
            "difference": [tables.with_interval(Estimate(*r)) for r in part[["difference", "low", "high"]].to_numpy()],
            "verdict": part["verdict"],
            "note": map(tables.escape, part["note"]),
        }
        lines.append(Fold(f"{claim}. {text}: <b>{verdicts[claim]}</b>", [Table(pd.DataFrame(columns))]))
    lines.append("Of the published tables themselves: " + " ".join(claims.published_oddities(published()).values()))
    return lines
