"""The report of a run, a pure function of its results folder: report.md and report.html, which say the same, the
tables as CSV and the pictures beside them.

Its order is that of a reader's questions: which method, how sure, at what cost, where does it fail; then the tables.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from bench import stats
from bench.report import beside, cost, explorer, gallery, plots, sections, sets, subgroups, tables, verdicts, webpage
from bench.report.blocks import Block, Fold, Live, Table, anchor, markdown
from bench.report.context import Report
from bench.report.origin import key_of
from bench.report.tables import code, escape
from bench.runs.identity import differences
from bench.runs.results import RULES, SPLITS, Results, read_results
from uqseg.files import write as write_file
from uqseg.metrics import figure, figures, older_figures

BEST_BY = {
    "ged_limit": "whether the samples disagree as the readers do",
    "dice@0.5": "overlap of the mean map with each reader",
}
"""The figures of the page's first sentences, in which samples of any kind and number can be compared; the first decides
which method the rest speaks of."""


SAME_BITS = (
    "with the same machine, versions and number of threads, also after interruptions; another number of threads or "
    "other instructions round sums in another order, and weights differ after some tens of steps"
)


def write(folder: Path, *, pictures: Literal["png", "svg"] = "png") -> list[str]:
    """Write the report of the results in `folder` there: report.md, report.html, tables/*.csv, pictures/*.

    Returns its summary table as lines. Reads that folder alone: no data, no weights, no torch. Tables and pictures of
    an earlier report that this one does not have are removed. UsageError or FileError where the folder cannot be read.
    """
    results = read_results(folder)
    if not results.cells:
        nothing = "No method has scores: see above what is not finished, declined or failed."
        _write(
            results, warnings_of(results, stats.FEW), [nothing, *sets.section(results, sets.table(results))], pictures
        )
        return [nothing]
    boot = stats.bootstrap(results.tested, figures(), common_among=list(results.cells))
    report = Report(folder, pictures, results, boot)
    summary = Table(report.of([f for f in figures(table="summary") if report.has(f)]))
    body = [
        _answer(report),
        "## Which method?",
        summary,
        _note(report),
        *_way(report),
        *sections.ranks(report),
        *cost.section(report),
        *subgroups.section(report),
        *sections.ambiguity(report),
        *sections.calibration(report),
        *sections.failure(report),
        *sections.thresholds(report),
        *_sets(report),
        *sections.further(report),
        *_levels(report),
        *_claims(report),
        *_literature(report),
        *_gallery(report),
        _files(report),
    ]
    report.remove_others()
    _write(results, [*warnings_of(results, boot.patients)], body, pictures)
    return markdown([summary]).splitlines()


def _write(results: Results, warnings: Sequence[Block], body: Sequence[Block], pictures: str) -> None:
    """The two pages of the same blocks."""
    head = [_head(results), *warnings]
    text = markdown(body)
    page = markdown([*head, _contents(text), text])
    write_file(results.folder / "report.md", f"{page}\n".encode())
    live = webpage.page(results.run["name"], [*head, *body], results.folder, key_of(results.folder, pictures))
    write_file(results.folder / "report.html", live.encode())


def _head(results: Results) -> str:
    run, data, spec = results.run, results.run["data"], results.run["spec"]
    sentences = [f"{code(data['text'])}: {escape(data['description'].removesuffix('.'))}"]
    sentences += ["**The images are simulated**"] if data["simulated"] else []
    sentences += [f"Folder {code(data['folder'])}"] if data["folder"] else []
    rows = [
        ("command", code(without_paths(run["command"]))),
        ("code", f"version {escape(run['version'])}, commit {escape(run['commit'])}"),
        ("data", "".join(f"{sentence}. " for sentence in sentences).rstrip()),
    ]
    for split in SPLITS:
        part = data["splits"][split]
        rows.append((split, f"{part['images']} images of {part['patients']} patients, {part['scored']} of them scored"))
    counts = ", ".join(f"{escape(label)} {len(cells)}" for label, cells in (results.cells | results.sets).items())
    of_cells = {"threads": run["threads"]} if "threads" in run else {}  # who planned it may have had others
    rows += [
        ("readers", _readers(data)),
        ("image", f"{data['size']}×{data['size']} pixels, {data['channels']} channel(s)"),
        ("recipe", _recipe(spec)),
        ("repetitions", counts),
        ("samples", f"{spec['samples']} for each image; methods with finite support give all they have"),
        ("machine", ", ".join(f"{escape(k)} {escape(v)}" for k, v in (run["machine"] | of_cells).items())),
        ("same bits", SAME_BITS),
    ]
    rows += [("merged", _part(part)) for part in run.get("merged", [])]
    if data["problems"]:
        rows.append(("problems", f"{data['problems']} found in the data, see {code('uqseg data ' + data['text'])}"))
    rows += [("note", escape(remark)) for remark in data.get("remarks", [])]
    rows += [("declined", f"{escape(label)}: {escape(reason)}") for label, reason in run.get("declined", {}).items()]
    rows += [("failed", f"{escape(label)}: {escape(reason)}") for label, reason in results.failed.items()]
    body = "\n".join(f"| {k} | {v} |" for k, v in rows)
    return f"# {escape(run['name'])}\n\n| | |\n|---|---|\n{body}"


def _recipe(spec: dict[str, Any]) -> str:
    """What the recipe is, and what this run asked for that it does not say."""
    recipe, settings = spec.get("recipe", {}), spec.get("settings", {})
    text = f"{escape(spec['recipe_name'])}: {escape(recipe.get('description', ''))}"
    protocol = {k: recipe[k] for k in ("size", "samples") if k in recipe} | {"limit": recipe.get("limit", {})}
    changed = differences(protocol, {k: spec[k] for k in protocol if k in spec})
    changed += [f"{of}.{name} {value}" for of, values in settings.items() for name, value in values.items()]
    return f"{text}. **Changed for this run:** {escape('; '.join(changed))}" if changed else text


def _part(part: dict[str, Any]) -> str:
    """One of the runs that a merged one was made of."""
    words = f"{code(without_paths(part['command']))}, commit {escape(part['commit'])}"
    return f"{escape(part['name'])}: {words}, on {escape(part['machine'].get('device', 'an unknown machine'))}"


def _readers(data: dict[str, Any]) -> str:
    least, most = data["read_per_case"]
    if least == data["readers"]:
        text = f"{least} for each image"
    else:
        text = f"{data['readers']}, of whom {f'{least} to {most}' if least < most else least} read each image"
    if data["readers_are_persons"]:
        return text
    slots = "A reader number is a slot, not one person over the images: what learns from one number learns no person"
    return f"{text}. {slots}"


def without_paths(command: str) -> str:
    """The command with the folders of this machine left out: lidc-slices:/home/me/x becomes lidc-slices:PATH."""
    words = shlex.split(command)
    return shlex.join(re.sub(r"""(^|[:=,"'])[/~][^:,"'\[+]*""", r"\1PATH", word) for word in words)


def warnings_of(results: Results, patients: int) -> list[str]:
    """What a reader must know before any number: cells still missing, few test patients, older versions."""
    warnings = []
    if results.missing:
        warnings.append(f"> **Not finished.** Without scores so far: {'; '.join(map(escape, results.missing))}.")
    counts = {label: len(cells) for label, cells in results.cells.items()}
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{escape(label)} {count}" for label, count in counts.items())
        alone = " That of a single one does not tell how far another training would come out." * (1 in counts.values())
        warnings.append(
            f"> **Not all methods have the same number of repetitions:** {each}. Values and intervals are of those "
            f"that there are.{alone}"
        )
    if nothing := list(_mark_nothing(results)):
        warnings.append(
            f"> **Trained, but no sample marks anything in any test image:** {'; '.join(nothing)}. Values and "
            "intervals of these methods hold that training too."
        )
    if patients < stats.FEW:
        held = ", ".join(f"{round(100 * share)} % with {n}" for n, share in stats.COVERAGE.items())
        measured = f"In simulations, intervals meant to hold the truth in 95 % of data sets held it in {held} patients."
        consequence = (
            f"With fewer than {stats.FEWEST} no interval is given, nothing is tested and nothing is bold."
            if patients < stats.FEWEST
            else "So the intervals below are too narrow, and ties and bold are less sure than they look."
        )
        warnings.append(f"> **Only {patients} test patients.** {measured} {consequence}")
    versions = {name: min(v) for name, v in results.statistics.items()}
    if older := older_figures(versions):
        names = ", ".join(map(code, older))
        warnings.append(f"> **Computed by an older version of their statistics** than this program's: {names}.")
    return warnings


def _mark_nothing(results: Results) -> Iterator[str]:
    """The trainings of each method whose samples are all empty, as "unet, repetition 2 of 0, 1, 2"; of one "unet"."""
    for label, cells in results.cells.items():
        scores = {cell.repetition: cell.scores["test"] for cell in cells if "test" in cell.scores}
        empty = [k for k, s in scores.items() if s.has("presence") and not s.column("presence").any()]
        if empty:
            of_several = f", repetition {', '.join(map(str, empty))} of {', '.join(map(str, scores))}"
            yield f"{escape(label)}{of_several if len(scores) > 1 else ''}"


def _contents(body: str) -> str:
    heads = re.findall(r"^## (.+)$", body, re.MULTILINE)
    return "\n".join(f"- [{head}](#{anchor(head)})" for head in heads)


def _answer(report: Report) -> str:
    """Which method, how sure, what it costs, where it fails: in sentences made from the figures."""
    boot, methods, lines = report.boot, report.methods, ["## In short", ""]
    main = next(iter(BEST_BY))
    chosen = methods[0]
    for f in map(figure, reversed(BEST_BY)):
        best, ties = boot.best(f.name, methods)
        if best is None:
            continue
        chosen = best
        value = tables.with_interval(boot.estimate(best, f.name))
        tied = f"; a tie with {', '.join(map(escape, ties))}" if ties else "; no tie" if len(methods) > 1 else ""
        doubt = "" if boot.learned(best, f.name) else "; **not shown to be better than an answer that sees no image**"
        untested = boot.fewest(f.name, best) < stats.FEWEST
        sure = "; not tested, too few patients" if untested else tied + doubt
        lines.insert(2, f"- **Best by {f.title}** ({BEST_BY[f.name]})**:** {escape(best)}, {value}{sure}.")
    if boot.patients >= stats.FEWEST:
        lines.append(_beaten(report))
    if (failing := boot.estimate(chosen, "failure_auroc_mean")).high < 0.5:
        lines.append(
            f"- **What it does not know:** the uncertainty of {escape(chosen)}, as the mean over an image, ranks "
            f"failures worse than chance: {figure('failure_auroc_mean').title} {tables.with_interval(failing)}."
        )
    costs = cost.costs_of(report)
    for row in costs[costs["method"] == chosen].to_dict("records") if len(costs) else []:
        column, _ = plots.training_cost(costs)
        seconds = f"{row[column]:.0f} {'CPU s' if column == 'cpu_seconds' else 's'}"
        lines.append(
            f"- **What it costs:** {escape(chosen)} trained for {seconds} and takes "
            f"{row['sample_ms']:.1f} ms for the samples of an image; the others are under *What does it cost?*."
        )
    readers, ged = report.mean(chosen, "presence_readers"), report.mean(chosen, main)
    groups = {
        "no reader marked": readers == 0,
        "some readers marked": (readers > 0) & (readers < 1),
        "all readers marked": readers == 1,
    }
    parts = [
        f"{np.nanmean(ged[rows]):.3f} where {name}" for name, rows in groups.items() if np.isfinite(ged[rows]).any()
    ]
    if len(parts) > 1:
        more = "; more under *Where does it fail?*" if subgroups.any_in(report) else ""
        lines.append(f"- **Where it fails:** {figure(main).title} of {escape(chosen)} is {', '.join(parts)}{more}.")
    return "\n".join(lines)


def _beaten(report: Report) -> str:
    """Which methods do not beat the better of background and prevalence on each of BEST_BY beyond doubt."""
    short = {f.title: [m for m in report.methods if not report.boot.learned(m, f.name)] for f in map(figure, BEST_BY)}
    texts = [f"{', '.join(map(escape, labels))} on {title}" for title, labels in short.items() if labels]
    if not texts:
        return f"- **Against an answer that sees no image:** every method is better on {', '.join(short)}."
    return f"- **Against an answer that sees no image:** not shown to be better: {'; '.join(texts)}."


def _note(report: Report) -> str:
    boot = report.boot
    entries = report.results.run["yardsticks"]
    known = "; ".join(
        f"*{escape(e['label'])}*" + (f": {escape(e['description'])}" if "description" in e else "") for e in entries
    )
    marks = (
        f"Values with 95 % intervals from {boot.draws.shape[1]} resamples of the {boot.patients} patients of "
        f"{boot.images} test images and of the repetitions, where {stats.FEWEST} patients or more have a value. "
        "**Bold**: the best method by value, where it beats the better of *background* and *prevalence*; ≈: a tie, its "
        "paired difference from the best has an interval that holds 0 or a Holm-adjusted p of 0.05 or more. Figures "
        "that depend on how many samples there are, and of which kind, have a best only among methods with the same."
    )
    if boot.patients < stats.FEWEST:
        marks = f"Values without intervals, over {boot.images} test images of {boot.patients} patients."
    return (
        f"{marks} ↓ lower is better, ↑ higher is better. In italics the yardsticks: {known}. Every figure: "
        f"{report.csv(boot.summary(), 'figures')}."
    )


def _way(report: Report) -> list[Block]:
    """The summary's figures as shares of the way from background to oracle."""
    if not {"background", "oracle"} <= set(report.yardsticks):
        return []
    labels = [*report.methods, *(["consensus"] if "consensus" in report.yardsticks else [])]
    columns, rows = {"method": [escape(n) if n in report.methods else f"*{n}*" for n in labels]}, []
    for f in [f for f in figures(table="summary") if report.has(f)]:
        shares = [report.boot.share_of_way(f.name, label) for label in labels]
        if any(np.isfinite(s.value) for s in shares):
            columns[f.title] = [tables.percent(s) for s in shares]
            rows += [(label, f.name, *s) for label, s in zip(labels, shares, strict=True)]
    if not rows:  # as where no reader marks anything, and the two ends are the same
        return []
    csv = report.csv(pd.DataFrame(rows, columns=["method", "figure", "share", "low", "high"]), "shares")
    text = f"The same as a share of the way from *background* (0 %) to *oracle* (100 %): {csv}."
    return [Table(pd.DataFrame(columns)), text]


def _sets(report: Report) -> list[Block]:
    table = sets.table(report.results)
    return [*sets.section(report.results, table), f"All in {report.csv(table, 'sets')}."] if len(table) else []


def _levels(report: Report) -> list[Block]:
    blocks, table = verdicts.of_levels(report.results)
    return [] if table is None else [*blocks, f"All in {report.csv(table, 'levels')}."]


def _claims(report: Report) -> list[Block]:
    """The seed report's claims, where the run is a test of them: on LIDC's CT, with the two networks they are about."""
    if not beside.on_lidc(report.results) or not {"segnet", "unet"} <= set(report.methods):
        return []
    blocks, table = verdicts.of_report(report.results)
    return [*blocks, f"All in {report.csv(table, 'claims')}."]


def _literature(report: Report) -> list[Block]:
    """Published figures beside those of this run: long tables, so folded."""
    blocks = beside.section(report.results, report.boot)
    intro, figures = blocks[:2], blocks[2:]
    return [*intro, *([Fold("The tables, one for each figure", figures)] if figures else [])]


def _gallery(report: Report) -> list[Block]:
    kept = report.results.gallery
    if kept is None:
        return [Live("", ["## Gallery", "Not shown here: this folder holds no pictures of the data."])]
    simulated = " The images are simulated." if report.results.run["data"]["simulated"] else ""
    text: list[Block] = [
        f"Test cases chosen by rule, not by hand, cropped around what the readers marked.{simulated} First row: the "
        "image, mean and standard deviation of the readers, and each reader's outline; then each method's mean and "
        "standard deviation below those of the readers, and some of its samples, evenly over all, with the outline of "
        "what is at least 0.5."
    ]
    for place, case in enumerate(kept.cases):
        rules = [rule for rule, chosen in kept.rules.items() if chosen == case]
        if not rules:  # one of those that only the browser's page shows
            continue
        reasons = "; ".join(f"{rule}: {RULES.get(rule, 'chosen by rule')}" for rule in rules)
        name = f"gallery-{'-'.join(rules).replace(' ', '-')}"
        picture = report.picture(gallery.draw(kept, place, report.reader_names), name, escape(rules[0]))
        text += [f"**{escape(reasons)}** ({escape(case)})", picture]
    return ["## Gallery", Live(explorer.panel(report), text)]


def _files(report: Report) -> str:
    names = [path.name for path in report.written if path.suffix == ".csv"]
    return "## Files\n\n" + "\n".join(f"- [{name}](tables/{name})" for name in names)
