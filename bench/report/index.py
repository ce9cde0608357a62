"""The page over all reports in a folder: the best of each, and how stable the ranks of methods are across them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from bench import stats
from bench.report import plots, tables, webpage
from bench.report.blocks import Block, Picture, Table
from bench.report.sections import RANKED
from bench.report.tables import code, escape
from bench.runs.results import Results, read_results
from bench.stats import Bootstrap, Estimate
from uqseg.errors import FileError, UsageError
from uqseg.files import write as write_file
from uqseg.metrics import figure

FEWEST = 3  # methods, below which an order says nothing


@dataclass(frozen=True)
class Scored:
    """A report with the figures of its methods and yardsticks."""

    results: Results
    boot: Bootstrap

    @property
    def methods(self) -> list[str]:
        """Labels of the methods, in the run's order."""
        return list(self.results.cells)


def write(folder: Path) -> list[str]:
    """Write index.html, ranks.png and ranks.csv of the reports in `folder`; what became of each folder, a line each.

    UsageError where there is none. Folders without scores are linked where they have a page.
    """
    reports: dict[str, Scored] = {}
    lines, others = [], []
    for path in sorted(p for p in folder.glob("*/") if p.is_dir()):
        page = next((path / n for n in ("report.html", "report.md") if (path / n).exists()), None)
        try:
            reports[path.name] = scored(read_results(path))
        except (FileError, UsageError) as error:
            other = page and not (path / "run.json").exists()
            lines.append(
                f"{path.name}: " + ("listed as another page, without scores" if other else f"no scores ({error})")
            )
            others += [f"- [{escape(path.name)}]({path.name}/{page.name})"] if page else []
        else:
            lines.append(f"{path.name}: {len(reports[path.name].methods)} methods")
    if not reports:
        raise UsageError(f"there is no report with scores in '{folder}'; give a folder of results folders.")
    blocks: list[Block] = ["# Reports", *_best(folder, reports), *_stability(folder, reports)]
    if others:
        blocks += ["## Other pages", "\n".join(others)]
    write_file(folder / "index.html", webpage.page("Reports", blocks, folder).encode())
    return lines


def scored(results: Results) -> Scored:
    """A report's figures of RANKED, bootstrapped. UsageError where it has no scores of a method."""
    if not results.cells:
        raise UsageError("no method has scores")
    return Scored(results, stats.bootstrap(results.tested, [figure(name) for name in RANKED]))


def _best(folder: Path, reports: Mapping[str, Scored]) -> list[Block]:
    """A row for each report: its data, and the best method by each figure with its interval and number of ties."""
    rows = []
    for name, report in reports.items():
        data, boot = report.results.run["data"], report.boot
        page = "report.html" if (folder / name / "report.html").exists() else "report.md"
        row = {
            "report": f"[{escape(name)}]({name}/{page})",
            "data": code(data["text"]) + (", simulated" if data["simulated"] else ""),
            "test": f"{boot.images} images, {boot.patients} patients",
            "methods": str(len(report.methods)),
        }
        for f in map(figure, RANKED):
            best, ties = boot.best(f.name, report.methods)
            value = tables.with_interval(boot.estimate(best, f.name)) if best else "–"
            tied = f", {len(ties)} tied" if ties else ""
            row[f.title + tables.ARROWS[f.direction]] = f"{value} {escape(best)}{tied}" if best else value
        rows.append(row)
    text = (
        "The best method of each report by value and the number of methods that tie with it, by figures in which "
        f"samples of any kind and number can be compared; {tables.INTERVALS}. Values of different data are not "
        "comparable."
    )
    return [text, Table(pd.DataFrame(rows))]


def _comparable(reports: Mapping[str, Scored]) -> tuple[dict[str, Scored], list[str]]:
    """Of each data set the report with the most methods, and the methods that these reports have in common.

    From the largest on, a report that would leave fewer than FEWEST in common is left out.
    """
    largest: dict[str, str] = {}
    for name in sorted(reports, key=lambda name: -len(reports[name].methods)):
        largest.setdefault(reports[name].results.run["data"]["text"], name)
    chosen: list[str] = []
    common: list[str] = []
    for name in largest.values():
        methods = reports[name].methods
        shared = [label for label in common if label in methods] if chosen else methods
        if len(shared) >= FEWEST:
            chosen, common = [*chosen, name], shared
    return {name: report for name, report in reports.items() if name in chosen}, common


def _stability(folder: Path, reports: Mapping[str, Scored]) -> list[Block]:
    """Ranks of the methods that reports of several data sets have in common; nothing where these are few."""
    several, common = _comparable(reports)
    if len(several) < 2:
        return []
    boots = {name: report.boot for name, report in several.items()}
    table = ranks(boots, common)
    write_file(folder / "ranks.csv", table.to_csv(index=False, float_format="%.9g").encode())
    titles = {name: f"rank by {figure(name).title}" for name in RANKED}
    plots.save(plots.rank_stability(table, titles, plots.styles(common)), folder / "ranks.png")
    rows = []
    for name in RANKED:
        for label in common:
            part = table[(table["figure"] == name) & (table["method"] == label)]
            ranked = {row["report"]: _rank(row["rank"], row["low"], row["high"]) for row in part.to_dict("records")}
            cells = {report: ranked.get(report, "–") for report in several}
            rows.append({"figure": figure(name).title, "method": escape(label)} | cells)
    columns = {report: escape(report) for report in several}
    return [
        "## Are ranks the same on other data?",
        Picture("ranks.png", "Ranks of the methods in each report"),
        f"The {len(common)} methods that {', '.join(map(escape, several))} have in common, 1 the best, with "
        f"{tables.INTERVALS} ([ranks.csv](ranks.csv)). Of each data set it is the report with the "
        "most methods.",
        Table(pd.DataFrame(rows).rename(columns=columns), 2),
        Table(_agreement(boots, common)),
        "Kendall's τ of two reports: the share of pairs of methods that stand in the same order in both, less the "
        "share in the opposite order. 1: the same ranks; 0: one says nothing about the other.",
    ]


def ranks(boots: Mapping[str, Bootstrap], among: list[str]) -> pd.DataFrame:
    """Bootstrapped ranks among some methods in each report: figure, report, method, rank, low, high, first."""
    return pd.concat(
        [
            boot.rank(name, among).assign(figure=name, report=report)
            for name in RANKED
            for report, boot in boots.items()
            if any(np.isfinite(boot.values(label, name)[0]) for label in among)
        ],
        ignore_index=True,
    )


def _rank(rank: float, low: float, high: float) -> str:
    return f"{rank:.0f}" + (f" [{low:.0f},{tables.GLUE}{high:.0f}]" if np.isfinite(low) else "")


def _agreement(boots: Mapping[str, Bootstrap], among: list[str]) -> pd.DataFrame:
    names = list(boots)
    rows = []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            row = {"reports": f"{escape(a)}, {escape(b)}"}
            row |= {f"τ by {figure(f).title}": tables.with_interval(agreement(boots[a], boots[b], f, among))
                    for f in RANKED}  # fmt: skip
            rows.append(row)
    return pd.DataFrame(rows)


def agreement(a: Bootstrap, b: Bootstrap, name: str, among: list[str]) -> Estimate:
    """Kendall's τ of the orders of some methods by a figure in two reports, ties as 0; its interval over both."""
    signs = []
    for boot in (a, b):
        values = np.array([np.r_[boot.values(label, name)[0], boot.values(label, name)[1]] for label in among])
        upper = np.triu_indices(len(among), 1)
        signs.append(np.sign(values[upper[0]] - values[upper[1]]))
    count = min(part.shape[1] for part in signs)
    tau = (signs[0][:, :count] * signs[1][:, :count]).mean(0)
    return stats.estimate(float(tau[0]), tau[1:], min(a.fewest(name, *among), b.fewest(name, *among)))
