"""The report of a run: report.md with its tables as CSV and its pictures beside it.

Its order is that of a reader's questions: which method, how sure, at what cost, where does it fail; then the tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from baselines.reference import YARDSTICKS
from bench import stats
from bench.claims import histories_of
from bench.report import claims, comparison, gallery, sections, subgroups, tables
from bench.report import figures as pictures
from bench.report.loaded import SPLITS, Loaded, load
from bench.report.tables import write_csv
from bench.runner import Data, fit_name
from bench.spec import Run
from bench.store import Store
from uqseg import checkpoint
from uqseg.data import AnnotatedSet
from uqseg.data.source import sources
from uqseg.device import pick_device
from uqseg.metrics import figures

SUMMARY = {"ged": "GED", "hm_iou": "HM-IoU", "dice@0.5": "Dice at 0.5", "brier": "Brier", "ece_active": "ECE, active"}
RANKED = {"ged": "GED", "dice@0.5": "Dice at 0.5", "brier": "Brier"}
SUBGROUP_RESAMPLES = 1000
NOTE = (
    f"Values with 95 % intervals from {stats.RESAMPLES} resamples of patients. **Bold**: the best method by value; "
    "≈: a tie, its paired difference from the best has an interval that holds 0 or a Holm-adjusted p of 0.05 or more. "
    "↓ lower is better, ↑ higher is better. In italics the yardsticks: "
    + "; ".join(f"*{name}*: {y.description}" for name, y in YARDSTICKS.items())
    + "."
)


def write(
    folder: Path,
    run: Run,
    record: Mapping[str, Any],
    data: Data,
    where: Store,
    *,
    device: str = "auto",
    show_data: bool = True,
    private: Path | None = None,
) -> list[str]:
    """Write the report into `folder` and return its summary table as lines.

    show_data: put the gallery, which shows images, beside the report; otherwise it goes to the folder `private`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    loaded = load(run, data, where)
    boot = stats.bootstrap(loaded.images["test"], figures())
    write_csv(stats.summary(boot), folder / "figures.csv")
    if show_data:
        comparison.keep(folder, loaded.images["test"])
    summary = tables.of_figures(boot, SUMMARY, loaded.methods, list(YARDSTICKS))
    cost = _cost(loaded, boot)
    parts = [
        _head(run, record, data, loaded),
        _answer(boot, loaded, cost),
        "## Which method?\n\n" + tables.markdown(summary) + "\n\n" + NOTE + "\n\n" + _way(boot, loaded, folder),
        _ranks(boot, loaded, folder),
        _cost_section(cost, folder),
        _where_it_fails(loaded, data, folder),
        sections.ambiguity(boot, loaded, run, folder),
        sections.calibration(boot, loaded, folder),
        sections.failure(boot, loaded, folder),
        sections.thresholds(loaded, folder),
        _claims(run, data, where, loaded, folder),
        _gallery(run, data, where, loaded, folder if show_data else private or folder, device, show_data),
    ]
    checkpoint.write(folder / "report.md", ("\n\n".join(p for p in parts if p) + "\n").encode())
    return tables.markdown(summary).splitlines()


def _head(run: Run, record: Mapping[str, Any], data: Data, loaded: Loaded) -> str:
    machine: dict[str, Any] = next((m[0]["machine"] for m in loaded.meta.values() if "machine" in m[0]), {})
    said = sources().get(data.test.name) or sources().get(f"{data.test.name}:PATH", "")
    rows = [
        ("command", f"`{without_paths(record['command'])}`"),
        ("code", f"commit {record['commit']}"),
        ("data", f"{data.test.name}: {said}" + (". **The images are simulated.**" if data.test.simulated else "")),
    ]
    for split in SPLITS:
        part = getattr(data, split)
        scored = data.scored(split)
        rows.append(
            (split, f"{len(part)} images of {part.table['patient'].nunique()} patients, {len(scored)} of them scored")
        )
    rows += [
        ("readers", _readers(data.test)),
        ("image", f"{run.size}×{run.size} pixels, {data.test.images.shape[1]} channel(s)"),
        ("recipe", f"{run.recipe_name}: {run.recipe.description}"),
        ("repetitions", ", ".join(f"{label} {len(loaded.meta[label])}" for label in loaded.methods)),
        ("samples", f"{run.samples} an image; methods with finite support give all they have"),
        ("machine", ", ".join(f"{k} {v}" for k, v in machine.items())),
    ]
    rows += [("problems", f"{len(data.test.problems)} found in the data, see `python -m bench data`")] * bool(
        data.test.problems
    )
    rows += [("declined", f"{label}: {reason}") for label, reason in record.get("declined", {}).items()]
    rows += [("failed", f"{label}: {reason}") for label, reason in record.get("failed", {}).items()]
    body = "\n".join(f"| {k} | {v} |" for k, v in rows)
    return f"# {data.test.name}, recipe {run.recipe_name}\n\n| | |\n|---|---|\n{body}"


def _readers(data: AnnotatedSet) -> str:
    least, most = int(data.read.sum(1).min()), int(data.read.sum(1).max())
    if least == data.readers:
        return f"{least} an image"
    return f"{data.readers}, of whom {f'{least} to {most}' if least < most else least} read an image"


def without_paths(command: str) -> str:
    """The command with the folders of this machine left out: lidc-slices:/home/me/x becomes lidc-slices:PATH."""
    return re.sub(r"(^|[\s:=])[/~]\S*", r"\1PATH", command)


def _answer(boot: stats.Bootstrap, loaded: Loaded, cost: pd.DataFrame) -> str:
    """Which method, how sure, what it costs, where it fails: in sentences made from the figures."""
    lines = ["## In short", ""]
    if not loaded.methods:
        return "\n".join([*lines, "No method has scores: see declined and failed above."])
    chosen = None
    for name, title in (
        ("ged", "GED (agreement of samples with readers)"),
        ("dice@0.5", "Dice of the mean map at 0.5"),
        ("brier", "Brier score of the mean map"),
    ):
        best, ties = stats.best_of(boot, name, loaded.methods)
        if best is None:
            continue
        chosen = chosen or best
        m, f = boot.labels.index(best), boot.column(name)
        low, high = stats.interval(boot.draws[m, :, f][:, None])
        text = tables.with_interval(boot.point[m, f], float(low[0]), float(high[0]))
        tied = f"; a tie with {', '.join(ties)}" if ties else "; no tie" if len(loaded.methods) > 1 else ""
        lines.append(f"- **Best by {title}:** {best}, {text}{tied}.")
    lines.append(_beaten(boot, loaded))
    row = cost[cost["method"] == chosen].iloc[0]
    lines.append(
        f"- **What it costs:** {chosen} trained for {row['train_seconds']:.0f} s and takes {row['sample_ms']:.1f} ms "
        "for the samples of an image; the others are under *What does it cost?*."
    )
    table = loaded.pooled(str(chosen))
    groups = {
        "no reader marked": table["presence_readers"] == 0,
        "some readers marked": (table["presence_readers"] > 0) & (table["presence_readers"] < 1),
        "all readers marked": table["presence_readers"] == 1,
    }
    said = ", ".join(f"{table.loc[rows, 'ged'].mean():.3f} where {g}" for g, rows in groups.items() if rows.any())
    lines.append(f"- **Where it fails:** GED of {chosen} is {said}; more under *Where does it fail?*.")
    return "\n".join(lines)


def _beaten(boot: stats.Bootstrap, loaded: Loaded) -> str:
    """Which methods do not beat background and prevalence on Dice, Brier and GED beyond doubt."""
    short = []
    for name in ("dice@0.5", "brier", "ged"):
        sign = 1 if boot.figures[boot.column(name)].direction == "higher" else -1
        for yardstick in ("background", "prevalence"):
            against = stats.differences(boot, name, yardstick, loaded.methods)
            for row in against.to_dict("records"):
                if row["tie"] or sign * row["difference"] < 0:
                    short.append(f"{row['method']} on {name} against {yardstick}")
    if not short:
        return "- **Against doing nothing:** every method beats *background* and *prevalence* on Dice, Brier and GED."
    return f"- **Against doing nothing:** not shown to be better: {'; '.join(short)}."


def _way(boot: stats.Bootstrap, loaded: Loaded, folder: Path) -> str:
    """The summary's figures as shares of the way from the worst yardstick to the best."""
    labels = [*loaded.methods, "consensus"]
    parts, columns = [], {"method": [*loaded.methods, "*consensus*"]}
    for name, title in SUMMARY.items():
        found = stats.share_of_way(boot, name, labels)
        if found["share"].notna().any():
            parts.append(found.assign(figure=name))
            columns[title] = [_percent(r["share"], r["low"], r["high"]) for r in found.to_dict("records")]
    if not parts:
        return ""
    write_csv(pd.concat(parts), folder / "shares.csv")
    said = "The same as a share of the way from *background* (0 %) to *oracle* (100 %)."
    return f"{tables.markdown(pd.DataFrame(columns))}\n\n{said}"


def _percent(share: float, low: float, high: float) -> str:
    if not np.isfinite(share):
        return "–"
    return f"{share:.0%} [{low:.0%}, {high:.0%}]".replace("%", " %").replace("-0 %", "0 %")


def _ranks(boot: stats.Bootstrap, loaded: Loaded, folder: Path) -> str:
    """Rank intervals by three figures, and paired differences of GED from the best method and from the U-Net."""
    if len(loaded.methods) < 2:
        return ""
    ranked = {title: stats.ranks(boot, name, loaded.methods) for name, title in RANKED.items()}
    ties = {title: stats.best_of(boot, name, loaded.methods)[1] for name, title in RANKED.items()}
    write_csv(pd.concat([t.assign(figure=title) for title, t in ranked.items()]), folder / "ranks.csv")
    pictures.rank_plot(ranked, ties, folder / "ranks.png")
    best = str(ranked["GED"]["method"].iloc[0])
    references = [best, *(["unet"] if "unet" in loaded.methods and best != "unet" else [])]
    found = {r: stats.differences(boot, "ged", r, loaded.methods) for r in references}
    write_csv(pd.concat([t.assign(reference=r) for r, t in found.items()]), folder / "differences.csv")
    text = ["## How sure is that?"]
    for reference, table in found.items():
        shown = pd.DataFrame(
            {
                "method": table["method"],
                f"GED − GED of {reference}": [
                    tables.with_interval(r["difference"], r["low"], r["high"]) for r in table.to_dict("records")
                ],
                "p, Holm": [f"{p:.3f}" for p in table["p_holm"]],
                "": np.where(table["tie"], "tie", np.where(table["difference"] < 0, "better", "worse")),
            }
        )
        text.append(tables.markdown(shown))
    text += [
        "Paired differences on the same resamples of patients and repetitions; below 0 is better than the reference.",
        "![Ranks](ranks.png)",
        "The dot is the rank by value (hollow: a tie with the best), the line its 95 % interval over resamples; in "
        "brackets how often the method came first.",
    ]
    return "\n\n".join(text)


def _cost(loaded: Loaded, boot: stats.Bootstrap) -> pd.DataFrame:
    rows = []
    for label in loaded.methods:
        costs = [m["cost"] for m in loaded.meta[label]]
        m, f = boot.labels.index(label), boot.column("ged")
        low, high = stats.interval(boot.draws[m, :, f][:, None])
        names = ("train_seconds", "cpu_seconds", "images_per_second", "sample_ms")
        rows.append(
            {
                "method": label,
                "parameters": costs[0]["parameters"],
                **{k: float(np.mean([c[k] for c in costs])) for k in names},
                "samples": loaded.meta[label][0]["samples"],
                "peak_memory_mb": max(c["peak_memory_bytes"] for c in costs) / 2**20,
                "device": costs[0]["device"],
                "ged": boot.point[m, f],
                "low": float(low[0]),
                "high": float(high[0]),
            }
        )
    return pd.DataFrame(rows)


def _cost_section(cost: pd.DataFrame, folder: Path) -> str:
    if cost.empty:
        return ""
    write_csv(cost, folder / "cost.csv")
    pictures.quality_of_cost(cost, folder / "cost.png")
    shown = pd.DataFrame(
        {
            "method": cost["method"],
            "parameters": [f"{p:,}" for p in cost["parameters"]],
            "training (s)": [f"{s:.0f}" for s in cost["train_seconds"]],
            "training (CPU s)": [f"{s:.0f}" for s in cost["cpu_seconds"]],
            "training (images/s)": [f"{s:.0f}" for s in cost["images_per_second"]],
            "sampling (ms/image)": [f"{s:.1f}" for s in cost["sample_ms"]],
            "samples": [str(s) for s in cost["samples"]],
            "peak memory (MB)": [f"{m:.0f}" for m in cost["peak_memory_mb"]],
        }
    )
    return "\n\n".join(
        [
            "## What does it cost?",
            tables.markdown(shown),
            "Mean over repetitions. Peak memory is that of the process up to the end of the training, which on a CPU "
            "includes the methods trained before it. Other work on the machine makes times longer, CPU seconds less "
            "so: they count what all threads of the training computed.",
            "![Quality against cost](cost.png)",
        ]
    )


def _where_it_fails(loaded: Loaded, data: Data, folder: Path) -> str:
    """GED and Dice of every method in subgroups of the test cases."""
    if not loaded.methods:
        return ""
    found = subgroups.table(loaded.images["test"], loaded.methods, data.test, SUBGROUP_RESAMPLES)
    if found.empty:
        return ""
    write_csv(found, folder / "subgroups.csv")
    pictures.subgroups(found, {"ged": "GED (lower is better)", "dice@0.5": "Dice at 0.5"}, folder / "subgroups.png")
    ged = found[found["figure"] == "ged"]
    ged = ged.assign(text=[tables.with_interval(r["value"], r["low"], r["high"]) for r in ged.to_dict("records")])
    keys = ["trait", "level", "images", "patients"]
    wide = ged.pivot_table(index=keys, columns="method", values="text", aggfunc="first", sort=False).reset_index()
    wide[["images", "patients"]] = wide[["images", "patients"]].astype(str)
    return "\n\n".join(
        [
            "## Where does it fail?",
            tables.markdown(wide[[*keys, *loaded.methods]]),
            "GED of groups of test cases with 95 % intervals over patients; lower is better. Sizes are the diameter of "
            "a disc with the mean area of the masks drawn.",
            "![Figures by subgroup](subgroups.png)",
        ]
    )


def _claims(run: Run, data: Data, where: Store, loaded: Loaded, folder: Path) -> str:
    """The seed report's claims, where the run has the two networks that they are about."""
    if not {"segnet", "unet"} <= set(loaded.methods):
        return ""
    return claims.section(folder, loaded, histories_of(run, data, where))[0]


def _gallery(run: Run, data: Data, where: Store, loaded: Loaded, folder: Path, device: str, beside: bool) -> str:
    if not loaded.methods:
        return ""
    chosen = gallery.choose({label: loaded.images["test"][label][0] for label in loaded.methods})
    fitted = {
        label: checkpoint.load(where.fit(fit_name(cell, data)), pick_device(device))
        for label, cell in loaded.cells.items()
    }
    simulated = " The images are simulated." if data.test.simulated else ""
    text = ["## Gallery", "Test cases chosen by rule, not by hand." + simulated]
    for rule, case in chosen.items():
        file = f"gallery-{rule.replace(' ', '-')}.png"
        gallery.draw(case, data.test, fitted, run.samples, folder / file)
        if beside:
            text += [f"**{rule.capitalize()}** ({gallery.RULES[rule]}): {case}", f"![{rule}]({file})"]
    if not beside:
        text = ["## Gallery", "Not shown here: the pictures of these data stay in the folder of the run."]
    return "\n\n".join(text)
