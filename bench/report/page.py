"""The report of a run: report.md with its tables as CSV and its pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from baselines.reference import YARDSTICKS
from bench import stats, store
from bench.report import comparison, gallery, tables
from bench.report import figures as pictures
from bench.runner import Data, fit_name, score_name, yardstick_score_name
from bench.spec import Cell, Run, cells
from bench.store import Store
from uqseg import checkpoint
from uqseg.data.source import sources
from uqseg.metrics import figures
from uqseg.metrics.calibration import BINS
from uqseg.train import pick_device

SUMMARY = {"dice@0.5": "Dice at 0.5", "brier": "Brier", "ged": "GED", "hm_iou": "HM-IoU", "ece_active": "ECE, active"}
AMBIGUITY = {
    "ged": "GED",
    "ged_debiased": "GED, debiased",
    "hm_iou": "HM-IoU",
    "coverage": "coverage",
    "validity": "validity",
    "soft_dice": "soft Dice",
    "diversity": "diversity",
}
AGREEMENT = {
    "ncc_variance": "NCC, entropy",
    "ncc_std": "NCC, std",
    "ncc_samples": "NCC, samples",
    "spearman_std": "Spearman, std",
    "spearman_diversity": "Spearman, diversity",
}
PARTS = {
    "ged_cross": "2 E d(sample, reader)",
    "ged_samples": "E d(sample, sample)",
    "ged_readers": "E d(reader, reader)",
}
CALIBRATION = {
    "ece": "ECE",
    "ece_active": "ECE, active",
    "ace": "average CE",
    "mce": "largest CE",
    "brier": "Brier",
    "brier_excess": "Brier, excess",
    "nll": "NLL",
}
PRESENCE = {
    "presence_ece": "presence ECE",
    "presence_brier": "presence Brier",
    "presence_auroc": "AUROC of dispute",
    "nll_joint": "joint NLL (nats)",
    "area_crps": "area CRPS (pixels)",
}
FAILURE = {
    "aurc_mean": "AURC",
    "eaurc_mean": "excess AURC",
    "augrc_mean": "AUGRC",
    "failure_auroc_mean": "AUROC of failure",
    "error_auprc": "AUPRC of wrong pixels",
}
COUNTS = (1, 2, 4, 8, 16, 32, 64, 100)


@dataclass(frozen=True)
class Loaded:
    """Scores of a run: per split and label one table a repetition; meta of the test scores; labels without scores."""

    images: dict[str, dict[str, list[pd.DataFrame]]]
    meta: dict[str, list[dict[str, Any]]]
    cells: dict[str, Cell]

    @property
    def methods(self) -> list[str]:
        return list(self.cells)


def load(run: Run, data: Data, where: Store) -> Loaded:
    """The stored scores of a run; cells that have none (declined or failed) are left out."""
    images: dict[str, dict[str, list[pd.DataFrame]]] = {"train": {}, "val": {}, "test": {}}
    meta: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, Cell] = {}
    for cell in cells(run):
        name = fit_name(cell, data)
        folders = {s: where.score(score_name(name, data.scored(s), s, run.samples)) for s in images}
        if not all(f.exists() for f in folders.values()):
            continue
        found.setdefault(cell.label, cell)
        for split, folder in folders.items():
            table, told = store.read_scores(folder)
            images[split].setdefault(cell.label, []).append(table)
            if split == "test":
                meta.setdefault(cell.label, []).append(told)
    for name in YARDSTICKS:
        for split in images:
            table, told = store.read_scores(where.score(yardstick_score_name(name, data, split, run.samples)))
            images[split][name] = [table]
            if split == "test":
                meta[name] = [told]
    return Loaded(images, meta, found)


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
    _write_csv(stats.summary(boot), folder / "figures.csv")
    if show_data:
        comparison.keep(folder, loaded.images["test"])
    summary = tables.of_figures(boot, SUMMARY, loaded.methods, list(YARDSTICKS))
    cost = _cost(loaded, boot)
    parts = [
        _head(run, record, data, loaded, boot),
        _answer(boot, loaded, cost),
        "## Summary\n\n" + tables.markdown(summary) + "\n\n" + NOTE,
        _ambiguity(boot, loaded, run, folder),
        _calibration(boot, loaded, folder),
        _failure(boot, loaded),
        _thresholds(loaded, folder),
        _cost_section(cost, folder),
        _ranks(boot, loaded, folder),
        _gallery(run, data, where, loaded, folder if show_data else private or folder, device, show_data),
    ]
    checkpoint.write(folder / "report.md", ("\n\n".join(p for p in parts if p) + "\n").encode())
    return tables.markdown(summary).splitlines()


NOTE = (
    f"Values with 95 % intervals from {stats.RESAMPLES} resamples of patients. **Bold**: the best method by value; "
    "≈: a tie, its paired difference from the best has an interval that holds 0 or a Holm-adjusted p of 0.05 or more. "
    "↓ lower is better, ↑ higher is better. In italics the yardsticks: *background* marks nothing, *prevalence* gives "
    "each pixel its frequency in the training set, *consensus* is the readers' own majority, *oracle* draws from the "
    "readers themselves."
)


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    checkpoint.write(path, table.to_csv(index=False, float_format="%.9g").encode())


def _head(run: Run, record: Mapping[str, Any], data: Data, loaded: Loaded, boot: stats.Bootstrap) -> str:
    machine: dict[str, Any] = next((m[0]["machine"] for m in loaded.meta.values() if "machine" in m[0]), {})
    said = sources().get(data.test.name) or sources().get(f"{data.test.name}:PATH", "")
    rows = [
        ("command", f"`{_without_paths(record['command'])}`"),
        ("code", f"commit {record['commit']}"),
        ("data", f"{data.test.name}: {said}" + (" **The images are simulated.**" if data.test.simulated else "")),
    ]
    for split in ("train", "val", "test"):
        part = getattr(data, split)
        scored = data.scored(split)
        rows.append(
            (split, f"{len(part)} images of {part.table['patient'].nunique()} patients, {len(scored)} of them scored")
        )
    rows += [
        ("readers", f"{data.test.readers} an image"),
        ("image", f"{run.size}×{run.size} pixels, {data.test.images.shape[1]} channel(s)"),
        ("recipe", f"{run.recipe_name}: {run.recipe.description}"),
        ("repetitions", ", ".join(f"{label} {len(m)}" for label, m in loaded.meta.items() if label in loaded.cells)),
        ("samples", f"{run.samples} an image; methods with finite support give all they have"),
        ("machine", ", ".join(f"{k} {v}" for k, v in machine.items())),
    ]
    rows += [("declined", f"{label}: {reason}") for label, reason in record.get("declined", {}).items()]
    rows += [("failed", f"{label}: {reason}") for label, reason in record.get("failed", {}).items()]
    body = "\n".join(f"| {k} | {v} |" for k, v in rows)
    return f"# {data.test.name}, recipe {run.recipe_name}\n\n| | |\n|---|---|\n{body}"


def _without_paths(command: str) -> str:
    """The command with the folders of this machine left out: lidc-slices:/home/me/x becomes lidc-slices:PATH."""
    words = command.split(" ")
    return " ".join(w.partition(":/")[0] + ":PATH" if ":/" in w else w for w in words)


def _answer(boot: stats.Bootstrap, loaded: Loaded, cost: pd.DataFrame) -> str:
    """Which method, how sure, what it costs, where it fails: in sentences made from the figures."""
    lines = ["## In short", ""]
    if not loaded.methods:
        return "\n".join([*lines, "No method has scores: see declined and failed above."])
    for name, title in (
        ("ged", "GED (agreement of samples with readers)"),
        ("dice@0.5", "Dice of the mean map at 0.5"),
    ):
        best, ties = stats.best_of(boot, name, loaded.methods)
        if best is None:
            continue
        m, f = boot.labels.index(best), boot.column(name)
        low, high = stats.interval(boot.draws[m, :, f][:, None])
        text = tables.with_interval(boot.point[m, f], float(low[0]), float(high[0]))
        tied = f"; a tie with {', '.join(ties)}" if ties else "; no tie" if len(loaded.methods) > 1 else ""
        lines.append(f"- **Best by {title}:** {best}, {text}{tied}.")
    lines += [
        f"- **What it costs:** {r['method']} trained {r['train_seconds']:.0f} s and takes {r['sample_ms']:.1f} ms for "
        "the samples of an image."
        for r in cost.to_dict("records")
    ]
    lines.append(_beaten(boot, loaded))
    lines.append(_where_it_fails(loaded))
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


def _where_it_fails(loaded: Loaded) -> str:
    texts = []
    for label in loaded.methods:
        table = loaded.images["test"][label][0]
        groups = {
            "all readers marked": table["presence_readers"] == 1,
            "half or fewer marked": table["presence_readers"] <= 0.5,
        }
        said = ", ".join(f"{table.loc[rows, 'ged'].mean():.3f} where {g}" for g, rows in groups.items() if rows.any())
        texts.append(f"{label} {said}")
    return f"- **Where it fails** (GED by how many readers marked the image): {'; '.join(texts)}."


def _ambiguity(boot: stats.Bootstrap, loaded: Loaded, run: Run, folder: Path) -> str:
    labels = [*loaded.methods, "background", "consensus"]
    pictures.ged_of_samples(boot, labels, COUNTS, folder / "ged-samples.png")
    yard = list(YARDSTICKS)
    text = [
        "## Ambiguity: do the samples disagree as the readers do?",
        tables.markdown(tables.of_figures(boot, AMBIGUITY, loaded.methods, yard)),
        f"GED is the squared energy distance between {run.samples} samples (or the whole support) and the readers; it "
        "is 0 only if both disagree in the same way. Debiased removes what a finite number of samples adds. Coverage: "
        "how near the best sample comes to each reader; validity: how near the best reader comes to each sample. "
        "Diversity is the mean distance of two samples: neither high nor low is good, it should equal that of the "
        "readers, which is the *oracle*'s.",
        tables.markdown(tables.of_figures(boot, PARTS, loaded.methods, yard)),
        "The three parts of GED: the first minus the second minus the third.",
        tables.markdown(tables.of_figures(boot, AGREEMENT, loaded.methods, yard)),
        "Correlation between a method's uncertainty and the readers' disagreement, over the pixels of an image (NCC) "
        "and over images (Spearman). 1 is perfect, 0 is none; images where one of them is constant are left out.",
        "![GED against samples](ged-samples.png)",
        "Expected GED of k samples, in closed form from the samples drawn. Networks with one answer are level.",
    ]
    return "\n\n".join(text)


def _calibration(boot: stats.Bootstrap, loaded: Loaded, folder: Path) -> str:
    curves = {}
    for label in loaded.methods:
        table = pd.concat(loaded.images["test"][label])
        n, p, y = (np.array([table[f"rel_{k}_{b:02d}"].sum() for b in range(BINS)], float) for k in "npy")
        full = np.where(n > 0, n, np.nan)
        curves[label] = (p / full, y / full, n)
    pictures.reliability(curves, folder / "reliability.png")
    yard = ["background", "prevalence", "consensus"]
    text = [
        "## Calibration: do the probabilities mean what they say?",
        tables.markdown(tables.of_figures(boot, CALIBRATION, loaded.methods, yard)),
        "ECE over all pixels is small for everybody since nearly all pixels are background; the active one looks only "
        "at pixels predicted with at least 1 %. The excess Brier leaves out the readers' own variance, which no model "
        "can remove.",
        "![Reliability diagram](reliability.png)",
        "Left: of the pixels predicted with a probability, the fraction that readers marked; the grey line is perfect. "
        "Right: how many pixels stand behind each point.",
        tables.markdown(tables.of_figures(boot, PRESENCE, loaded.methods, yard)),
        "Presence: the share of samples that mark anything against the share of readers who did.",
    ]
    return "\n\n".join(text)


def _failure(boot: stats.Bootstrap, loaded: Loaded) -> str:
    return "\n\n".join(
        [
            "## Failure: does the uncertainty find the errors?",
            tables.markdown(tables.of_figures(boot, FAILURE, loaded.methods, [])),
            "Images are ranked by the mean entropy of the mean map; the risk is 1 − Dice against the readers. AURC: "
            "mean risk over all coverages; excess: what a perfect ranking would save; failure: Dice below 0.5.",
        ]
    )


def _thresholds(loaded: Loaded, folder: Path) -> str:
    wanted = figures("threshold")
    text = [
        "## Thresholds",
        "Pooled over images: true and false positives and negatives are summed before the ratio; each reader in turn "
        "is the reference. With the threshold, sensitivity can only fall and specificity only rise. Much better "
        "figures on train than on test are overfitting.",
    ]
    rows = []
    for label in loaded.methods:
        values: dict[str, dict[str, float]] = {}
        for split in ("train", "val", "test"):
            each = [{f.name: f.of(t) for f in wanted} for t in loaded.images[split][label]]
            values[split] = {name: float(np.mean([e[name] for e in each])) for name in each[0]}
        table = tables.of_thresholds(values, "")
        rows.append(table.assign(method=label))
        text += [f"### {label}", tables.markdown(table)]
    if rows:
        _write_csv(pd.concat(rows), folder / "thresholds.csv")
    return "\n\n".join(text)


def _cost(loaded: Loaded, boot: stats.Bootstrap) -> pd.DataFrame:
    rows = []
    for label in loaded.methods:
        costs = [m["cost"] for m in loaded.meta[label]]
        m, f = boot.labels.index(label), boot.column("ged")
        low, high = stats.interval(boot.draws[m, :, f][:, None])
        mean = {k: float(np.mean([c[k] for c in costs])) for k in ("train_seconds", "images_per_second", "sample_ms")}
        rows.append(
            {
                "method": label,
                "parameters": costs[0]["parameters"],
                **mean,
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
    _write_csv(cost, folder / "cost.csv")
    pictures.quality_of_cost(cost, folder / "cost.png")
    shown = pd.DataFrame(
        {
            "method": cost["method"],
            "parameters": [f"{p:,}" for p in cost["parameters"]],
            "training (s)": [f"{s:.0f}" for s in cost["train_seconds"]],
            "training (images/s)": [f"{s:.0f}" for s in cost["images_per_second"]],
            "sampling (ms/image)": [f"{s:.1f}" for s in cost["sample_ms"]],
            "samples": [str(s) for s in cost["samples"]],
            "peak memory (MB)": [f"{m:.0f}" for m in cost["peak_memory_mb"]],
        }
    )
    return "\n\n".join(
        [
            "## Cost",
            tables.markdown(shown),
            "Mean over repetitions. Peak memory is that of the process up to the end of the training, which on a CPU "
            "includes the methods trained before it. Other work on the machine makes times longer.",
            "![Quality against cost](cost.png)",
        ]
    )


def _ranks(boot: stats.Bootstrap, loaded: Loaded, folder: Path) -> str:
    if len(loaded.methods) < 2:
        return ""
    table = stats.ranks(boot, "ged", loaded.methods)
    _write_csv(table, folder / "ranks.csv")
    pictures.rank_plot(table, "GED", folder / "ranks.png")
    against = stats.differences(boot, "ged", table["method"].iloc[0], loaded.methods)
    _write_csv(against, folder / "differences.csv")
    shown = pd.DataFrame(
        {
            "method": against["method"],
            f"GED − GED of {table['method'].iloc[0]}": [
                tables.with_interval(r["difference"], r["low"], r["high"]) for r in against.to_dict("records")
            ],
            "p, Holm": [f"{p:.3f}" for p in against["p_holm"]],
            "": ["tie" if t else "worse" for t in against["tie"]],
        }
    )
    return "\n\n".join(
        [
            "## How sure is the order?",
            tables.markdown(shown),
            "Paired differences on the same resamples of patients and repetitions.",
            "![Ranks](ranks.png)",
            "The line is the 95 % interval of the rank over resamples, the dot the rank by value.",
        ]
    )


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
