"""Claims on a page: a verdict for each, with its differences and intervals; and one claim in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from baselines.published import published
from bench import claimfiles, claims
from bench.expressions import parse
from bench.report import tables
from bench.report.blocks import Block, Fold, Table, markdown
from bench.runs.results import Results, read_results
from bench.stats import Estimate
from uqseg.errors import UsageError
from uqseg.files import write as write_file

REPORT = "seed2020"  # the claims of the 2020 student report
LEVELS = "levels"


def write(folder: Path, to: Path, file: str = REPORT) -> tuple[dict[str, str], Path]:
    """Write NAME.md and NAME.csv of a results folder into `to`; the verdict of each claim, by its text, and NAME.md.

    file: of claims, or the name of one that comes with the project; NAME is its name without folder and ending.
    UsageError where NAME.md would be the page of a run.
    """
    page = to / f"{Path(file).stem}.md"
    if page.name == "report.md":
        raise UsageError(f"--file: the claims of '{file}' would overwrite a run's report.md; rename the file.")
    evidence = claims.of_results(read_results(folder))
    title, groups = claimfiles.read(file, evidence)
    table = claims.examine(groups, evidence)
    notes = _of_the_report() if file == REPORT else ""
    write_file(page, f"{markdown([*section(title, groups, table), notes])}\n".encode())
    write_file(page.with_suffix(".csv"), table.to_csv(index=False, float_format="%.9g").encode())
    return {f"{k}. {groups[k - 1].text}": v for k, v in claims.verdicts(groups, table).items()}, page


def of_report(results: Results) -> tuple[list[Block], pd.DataFrame]:
    """The section of the 2020 student report's claims for the page of a run, and its table."""
    evidence = claims.of_results(results)
    title, groups = claimfiles.read(REPORT, evidence)
    table = claims.examine(groups, evidence)
    return [*section(title, groups, table), _of_the_report()], table


def of_levels(results: Results) -> tuple[list[Block], pd.DataFrame | None]:
    """The same of level sets against trained samplers, of those level sets that the run has; nothing without both."""
    evidence = claims.of_results(results)
    title, groups = claimfiles.read(LEVELS, evidence)
    own = [g for g in groups if all(term.label in evidence.methods for part in g.parts for _, term in part.terms)]
    if not own:
        return [], None
    table = claims.examine(own, evidence)
    text = (
        "Level sets of a mean map need no training of their own. The 0.01 is part of each difference: below 0 the "
        "sampler is not that much better. Where a method was trained once, the interval is that of the patients alone."
    )
    return [*section(title, own, table), text], table


def section(title: str, groups: Sequence[claims.Group], table: pd.DataFrame) -> list[Block]:
    """All claims, from the table of `claims.examine`."""
    verdicts = claims.verdicts(groups, table)
    lines: list[Block] = [
        f"## {tables.escape(title)}",
        f"Tested on the test images of this run, unless a split is named. Differences with {tables.INTERVALS}; "
        "undecided: the interval holds 0 or the margin, or the run lacks what is needed. A claim is supported if all "
        "its comparisons are, and not supported if one is not. Each interval is of its comparison alone: of twenty "
        "comparisons without any difference, one excludes 0 by chance.",
    ]
    for claim, group in enumerate(groups, 1):
        part = table[table["claim"] == claim]
        columns = {
            "compared": map(tables.escape, part["compared"]),
            "difference": [tables.with_interval(Estimate(*r)) for r in part[["difference", "low", "high"]].to_numpy()],
            "verdict": part["verdict"],
            "note": map(tables.escape, part["note"]),
        }
        summary = f"{claim}. {tables.escape(group.text)}: <b>{verdicts[claim]}</b>"
        lines.append(Fold(summary, [Table(pd.DataFrame(columns))]))
    return lines


def _of_the_report() -> str:
    return "Of the published tables themselves: " + " ".join(claims.published_oddities(published()).values())


def of_claim(text: str, folder: Path, difference: float | None = None) -> Iterator[str]:
    """One claim tested on a results folder, in lines; difference: for which to say how many patients would show it.

    Raises UsageError for a claim that is not understood, or names what the run has not.
    """
    claim = parse(text)
    if difference is not None and not difference > 0:
        raise UsageError(f"--difference: expected a number above 0, got {difference:g}.")
    evidence = claims.of_results(read_results(folder))
    answer = claims.test(claim, evidence)
    for _, term in claim.terms:
        if term.label not in (known := evidence.labels(term.split)):
            raise UsageError(
                f"claim: '{folder}' has no '{term.label}' on {term.split}. It has: {', '.join(known) or 'nothing'}."
            )
    yield f"claim       {text}"
    interval = tables.with_interval(Estimate(answer.difference, answer.low, answer.high))
    yield f"difference  {answer.compared} = {interval}, claimed to be {_claimed(claim.expected, claim.margin)}"
    if np.isfinite(answer.p):
        basis = f"{answer.patients} patients" if answer.patients else answer.note
        yield f"p           {tables.p_value(answer.p, answer.at_floor)}, interval of 95 %, {basis}"
    if np.isfinite(answer.detectable):
        yield f"could see   a difference of {answer.detectable:.2g} from what is claimed, with a chance of 80 %"
        if difference is not None:
            needed = claims.patients_needed(answer, difference)
            yield f"patients    {needed} to see one of {difference:g} with that chance"
    if answer.note and answer.patients:
        yield f"note        {answer.note}"
    yield f"verdict     {answer.verdict}: {_reason(answer, claim.expected, claim.margin)}"


def _claimed(expected: str, margin: float) -> str:
    return f"within {margin:g} of 0" if expected == "within" else f"{expected} 0"


def _reason(answer: claims.Answer, expected: str, margin: float) -> str:
    if not np.isfinite(answer.low):
        return answer.note
    if answer.verdict == claims.UNDECIDED:
        bound = f"an end of the margin of {margin:g}" if expected == "within" else "0"
        return f"the interval holds {bound}; these data do not tell"
    side = "inside" if answer.verdict == claims.SUPPORTED else "outside"
    if expected == "within":
        return f"the whole interval lies {side} the margin"
    return f"the whole interval lies {expected if side == 'inside' else 'on the other side of'} 0"
