"""The claims of the 2020 student report as a section: a verdict each, with its differences and intervals."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from baselines.published import published
from bench import claims
from bench.report import tables
from bench.report.loaded import Loaded
from uqseg import checkpoint


def section(folder: Path, loaded: Loaded, histories: claims.Histories) -> tuple[str, dict[int, str]]:
    """Markdown of all claims on a run's scores, with claims.csv in `folder`; and the verdict of each claim.

    histories: from `claims.histories_of`.
    """
    table = claims.examine(loaded.images, histories)
    tables.write_csv(table, folder / "claims.csv")
    return _markdown(table), claims.verdicts(table)


def write(folder: Path, loaded: Loaded, histories: claims.Histories) -> dict[int, str]:
    """Write claims.md and claims.csv into `folder`; the verdict of each claim."""
    folder.mkdir(parents=True, exist_ok=True)
    text, said = section(folder, loaded, histories)
    checkpoint.write(folder / "claims.md", (text + "\n").encode())
    return said


def _markdown(table: pd.DataFrame) -> str:
    said = claims.verdicts(table)
    lines = [
        "## The claims of the 2020 student report",
        "Tested on the test images of this run against each reader in turn. Differences with 95 % intervals over "
        "patients and repetitions; undecided: the interval holds 0 or the margin, or the run lacks what is needed. "
        "A claim is supported if all its comparisons are, and not supported if one is not.",
    ]
    for claim, text in claims.CLAIMS.items():
        part = table[table["claim"] == claim]
        shown = pd.DataFrame(
            {
                "compared": part["compared"],
                "difference": [tables.with_interval(*r) for r in part[["difference", "low", "high"]].to_numpy()],
                "verdict": part["verdict"],
                "note": part["note"],
            }
        )
        lines += [f"**{claim}. {text}: {said[claim]}.**", tables.markdown(shown)]
    lines.append("Of the published tables themselves: " + " ".join(claims.published_oddities(published()).values()))
    return "\n\n".join(lines)
