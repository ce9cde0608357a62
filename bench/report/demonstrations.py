"""The page of the demonstrations, a pure function of what was computed: report.md, tables/*.csv, pictures/*.

The definitions of all figures stand beside it in metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.report import plots, tables
from bench.report.blocks import Block, Fold, Table, markdown
from bench.report.context import Files
from bench.report.page import without_paths
from bench.report.tables import code, escape
from bench.stats import Bootstrap, Estimate
from uqseg import metrics
from uqseg.files import write as write_file
from uqseg.metrics import figure

Floats = NDArray[np.float64]
DRAWN = ("brier_excess", "ged")  # of the closeness, in the picture


@dataclass(frozen=True)
class Regions:
    """ECE by region: table (region, chosen by, pixels, ece, low, high), and per region the curve of its bins."""

    table: pd.DataFrame
    curves: Mapping[str, plots.Curve]
    readers: int


@dataclass(frozen=True)
class Examples:
    """Images uint8 (N,H,W), mean (N,H,W) of the truth, its masks bool (N,K,H,W) with probabilities (N,K) and names."""

    images: NDArray[np.uint8]
    mean: Floats
    masks: NDArray[np.bool_]
    p: Floats
    kinds: Sequence[str]


@dataclass(frozen=True)
class Demonstrations:
    """What the page is made from.

    facts: the rows of its head. samples, readers, images: how many. draws, reach, definitions, consistency: the tables
    of `bench.demonstrations` and `baselines.published`. closeness: of methods and yardsticks. model: the method whose
    samples are scored under every definition.
    """

    facts: Mapping[str, str]
    samples: int
    readers: int
    images: int
    methods: Sequence[str]
    yardsticks: Sequence[str]
    regions: Regions
    draws: pd.DataFrame
    examples: Examples
    reach: pd.DataFrame
    closeness: Bootstrap
    model: str
    definitions: pd.DataFrame
    consistency: pd.DataFrame


def write(folder: Path, computed: Demonstrations) -> list[str]:
    """Write the page into `folder`, without what an earlier one left there; its closing table as lines."""
    files = Files(folder, "png")
    boot = computed.closeness
    closeness = Table(tables.of_figures(boot, boot.figures, computed.methods, computed.yardsticks))
    page = markdown(
        [
            _head(computed.facts),
            *_regions(computed.regions, files),
            *_draws(computed, files),
            *_examples(computed.examples, files),
            *_reach(computed, files),
            *_closeness(computed, closeness, files),
            *_definitions(computed, files),
            *_consistency(computed.consistency, files),
            "The definitions of all figures, and whose published numbers each can stand beside: "
            "[metrics.md](metrics.md).",
        ]
    )
    write_file(folder / "report.md", f"{page}\n".encode())
    write_file(folder / "metrics.md", metrics.markdown().encode())
    files.remove_others()
    return markdown([closeness]).splitlines()


def _head(facts: Mapping[str, str]) -> str:
    texts = {name: escape(text) for name, text in facts.items()}
    texts["command"] = code(without_paths(facts["command"]))
    texts["data"] += ". **All images and masks are simulated.**"
    body = "\n".join(f"| {escape(name)} | {text} |" for name, text in texts.items())
    return (
        f"# The figures on a known truth\n\n| | |\n|---|---|\n{body}\n\n"
        "When the distribution of the readers' masks is known, every figure can be held against what it should be."
    )


def _intervals(table: pd.DataFrame, value: str, low: str = "low", high: str = "high") -> list[str]:
    return [tables.with_interval(Estimate(*row)) for row in table[[value, low, high]].to_numpy(float)]


def _regions(regions: Regions, files: Files) -> list[Block]:
    table, styles = regions.table, plots.styles(list(regions.curves))
    plot, (axes,) = plots.canvas(1, 5.6, 4.2)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="right")
    p = np.linspace(0.005, 1, 200)
    axes.plot(p, p / (1 - (1 - p) ** regions.readers), color="0.3", linestyle=":", label="marked by a reader, theory")
    for region, (prob, fraction, _) in regions.curves.items():
        look = styles[region] | {"linestyle": "none", "fillstyle": "none"}  # points of two regions lie on each other
        axes.plot(prob, fraction, markersize=5, label=region, **look)
    axes.set(xlabel="predicted probability", ylabel="readers who marked (fraction)", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    columns = {"region": table["region"], "chosen by": table["chosen by"], "pixels": table["pixels"].astype(str)}
    return [
        "## A perfectly calibrated predictor looks miscalibrated on the readers' foreground",
        Table(pd.DataFrame({**columns, "ECE ↓": _intervals(table, "ece")})),
        f"Each pixel has a probability, each of {regions.readers} readers marks it with exactly that probability, "
        "and the predictor knows it: no predictor is better calibrated, and its calibration error should be 0 but "
        "for the finite number of pixels, which can only add to it. It is so over all pixels and over pixels that "
        "the prediction chose. Over the pixels that a reader marked it is not: to choose by the outcome leaves out "
        "the pixels that nobody marked, so that what remains was marked more often than predicted. Lower is "
        "better: a figure that blames the best predictor measures something else. Intervals: 95 %, resampled "
        f"images. Numbers: {files.csv(table, 'regions')}.",
        files.picture(plot, "regions", "Reliability by region"),
        f"On the grey line is perfect. The dotted curve, p / (1 − (1 − p)^{regions.readers}), is what choosing "
        "the marked pixels does to every predictor that is right.",
    ]


def _draws(computed: Demonstrations, files: Files) -> list[Block]:
    table = computed.draws
    plot, axes = plots.canvas(2, plots.WIDTH, 3.8)
    styles = plots.styles(["ged", "debiased"])
    for ax, name in zip(axes, ("ged", "debiased"), strict=True):
        for row in table.to_dict("records"):
            ends = Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])
            label = "measured, 95 %" if row["samples"] == table["samples"].iloc[-1] else None
            plots.error_bar(ax, row["samples"], ends, {**styles[name], "label": label})
        ax.set_xscale("log", base=2)
        ax.set_xticks(table["samples"], [str(k) for k in table["samples"]])
        ax.minorticks_off()
        ax.set_xlabel("samples for each image (S), log scale")
    axes[0].plot(table["samples"], table["theory"], color="0.3", label="theory, E d(S,S′)/S")
    axes[0].set(yscale="log", ylabel="GED, log scale (lower is better)")
    axes[1].axhline(0, color="0.3", label="theory, 0")
    axes[1].set(ylabel="GED, debiased (lower is better)")
    for ax in axes:
        ax.legend(frameon=False, fontsize=8)
    columns = {"samples": table["samples"].astype(str), "theory": [f"{t:.4f}" for t in table["theory"]]}
    columns["GED ↓"] = _intervals(table, "ged", "ged_low", "ged_high")
    columns["GED, debiased ↓"] = _intervals(table, "debiased", "debiased_low", "debiased_high")
    return [
        "## GED of a perfect sampler falls with the number of samples, the debiased one does not",
        Table(pd.DataFrame(columns)),
        f"Samples drawn from the exact distribution of each of {computed.images} images, against that "
        "distribution. Nothing is wrong with them, so the figure should be 0; the usual one is too high by the "
        "expected distance of two samples over their number. So a method with 16 samples looks better than "
        "the same method with 4. The debiased figure, undefined for one sample, does not depend on their number, "
        f"only its spread does. Lower is better. Intervals: 95 %, resampled patients. Numbers: "
        f"{files.csv(table, 'draws')}.",
        files.picture(plot, "draws", "GED against samples"),
    ]


def _examples(examples: Examples, files: Files) -> list[Block]:
    number, kinds = len(examples.images), len(examples.kinds)
    plot, axes = plots.canvas(number, plots.WIDTH, 1.2 * (2 + kinds), 2 + kinds)
    grid = np.array(axes).reshape(2 + kinds, number)
    for column in range(number):
        grid[0, column].imshow(examples.images[column], cmap="gray", vmin=0, vmax=255)
        grid[1, column].imshow(examples.mean[column], cmap="viridis", vmin=0, vmax=1)
        for k in range(kinds):
            grid[2 + k, column].imshow(examples.masks[column, k], cmap="gray", vmin=0, vmax=1)
            grid[2 + k, column].set_title(f"{examples.p[column, k]:.2f}", fontsize=8, pad=2)
    for row, name in enumerate(["image", "mean", *examples.kinds]):
        grid[row, 0].set_ylabel(name, fontsize=8)
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    return [
        "## The source toy: a truth that is known",
        f"A disc with a core, a fainter rim, and in half of the images a satellite. A reader draws one of {kinds} "
        "masks, independently of the others: misses the disc the likelier the fainter it is, counts the rim in the "
        "likelier the brighter it is, and likewise the satellite. The image shows the brightness, hence the "
        "probabilities.",
        files.picture(plot, "toy", "Images and their distributions"),
        "The first test images (simulated), the exact probability that a reader marks each pixel, and the "
        f"{kinds} masks with their probabilities.",
    ]


def _reach(computed: Demonstrations, files: Files) -> list[Block]:
    table = computed.reach
    columns = {
        "prediction": table["prediction"],
        "figure": map(code, table["figure"]),
        "optimum": [f"{v:.5g}" for v in table["optimum"]],
        "measured": [f"{v:.5g}" for v in table["measured"]],
        "measured − optimum": _intervals(table, "difference"),
        "0 inside": ["yes" if inside else "**no**" for inside in table["inside"]],
    }
    return [
        "## The exact distribution reaches the optimum of every figure",
        Table(pd.DataFrame(columns), 2),
        f"The exact distribution (itself, or {computed.readers} draws from it) is scored like a method against the "
        f"{computed.readers} readers of each test image. The optimum is what the figure must be on average over "
        "the readers' and samples' draws, in closed form or by enumeration of all draws. "
        f"{int(table['inside'].sum())} of {len(table)} differences have 0 in their 99 % interval (resampled "
        "patients, differences image by image). No prediction does better than the distribution itself on Brier, "
        "likelihood, presence, CRPS and GED; figures such as coverage or validity reward other things as well. Not "
        "in the table: calibration errors, correlations and areas under curves, which have no such optimum on a "
        f"finite set. Numbers: {files.csv(table, 'optima')}.",
    ]


def _closeness(computed: Demonstrations, table: Table, files: Files) -> list[Block]:
    boot = computed.closeness
    drawn = [*computed.methods, *computed.yardsticks]
    styles = plots.styles(computed.methods, computed.yardsticks)
    titles = {f.name: f"{f.title}\n{plots.BETTER[f.direction].strip()}" for f in boot.figures}
    plot, axes = plots.canvas(2, plots.WIDTH, 1.2 + 0.3 * len(drawn))
    for ax, name in zip(axes, DRAWN, strict=True):
        for place, label in enumerate(drawn):
            plots.error_bar(ax, -place, boot.estimate(label, name), styles[label], across=True)
        labels = list(map(plots.plain, drawn)) if ax is axes[0] else [""] * len(drawn)
        ax.set_yticks(-np.arange(len(drawn)), labels, fontsize=8)
        ax.set_xlabel(titles[name])
        ax.axvline(0, color="0.7", linewidth=1)
    return [
        "## How near the trained methods come to the truth",
        table,
        "Against the exact distribution, not the readers, so 0 is perfect in every column. Brier excess: mean over "
        "pixels of the squared difference of the mean map from the exact one, which is the expected Brier score "
        "less the smallest possible. Error of the mean map: mean absolute difference over the pixels that a reader "
        "may mark. GED: against the masks with their probabilities, debiased for independent draws. Error of "
        "presence: absolute difference of the share of samples that mark anything from the chance that a reader "
        "does. Diversity: expected distance of two samples less that of two readers, below 0 where the samples are "
        "too much alike. Lower is better in all but the last, where nearer to 0 is. **Bold**: the best by value, "
        "where it beats an answer that sees no image; ≈: a tie with it. In italics: *truth* is "
        f"{computed.samples} draws from the exact distribution, whose mean map still carries the chance of the "
        f"draws; *oracle* is {computed.samples} draws from the image's own {computed.readers} readers, who are "
        f"themselves only {computed.readers} draws: what every figure computed against them must live with; the "
        f"others as in every report. Intervals: 95 %, resampled patients. Numbers: "
        f"{files.csv(boot.summary(), 'closeness')}.",
        files.picture(plot, "closeness", "Closeness to the truth"),
        "Points are means over the test images with 95 % intervals.",
    ]


def _definitions(computed: Demonstrations, files: Files) -> list[Block]:
    table = computed.definitions
    own = (table["definition"] == "this project").to_numpy()
    columns = {
        "figure": [escape(figure(f).title) if first else "" for f, first in zip(table["figure"], own, strict=True)],
        "definition": [f"**{text}**" if first else text for text, first in zip(table["definition"], own, strict=True)],
        "value": [f"{v:.4f}" if np.isfinite(v) else "–" for v in table["value"]],
        "left out": [str(n) if n else "" for n in table["left_out"]],
        "whose": table["whose"],
    }
    return [
        "## One model, every published definition",
        Table(pd.DataFrame(columns).map(lambda text: text.replace("|", "\\|"))),
        f"The same samples of {escape(computed.model)} for each of {computed.images} test images, scored under "
        "this project's definition and under what the code of papers computes by the same name. Numbers under "
        "different definitions cannot stand beside each other; how far apart they lie depends on the data, above "
        "all on how many masks are empty. *left out*: images without a value. *whose*: who else computes this, "
        "with file and commit where it was read. Each is a function of a few lines in "
        f"`baselines/published/definitions.py`. Numbers: {files.csv(table, 'definitions')}.",
    ]


def _consistency(table: pd.DataFrame, files: Files) -> list[Block]:
    columns = {
        "method": map(escape, table["method"]),
        "as given by": map(escape, table["source"]),
        "protocol": map(escape, table["protocol"]),
        "S": [f"{a}, {b}" for a, b in zip(table["fewer"], table["more"], strict=True)],
        "GED": [f"{a:.3f}, {b:.3f}" for a, b in zip(table["ged_fewer"], table["ged_more"], strict=True)],
        "quotient": [f"{q:.2f} ± {t:.2f}" for q, t in zip(table["quotient"], table["tolerance"], strict=True)],
        "": [v if v == "possible" else f"**{v}**" for v in table["verdict"]],
    }
    text, outside = pd.DataFrame(columns), (table["verdict"] != "possible").to_numpy()
    return [
        "## Published GEDs at two numbers of samples",
        Table(text[outside]),
        "For independent samples of one model under one definition, the expected GED of S samples is that of "
        "infinitely many plus D/S, with D the expected distance of two samples, which lies between 0 and 1. So "
        "does the quotient (GED_S − GED_S′)/(1/S − 1/S′), for rows that are what the test assumes; ± is what "
        f"rounding to three digits can do to it. {int(outside.sum())} of {len(table)} pairs lie outside by more "
        "than that, which the expectation of such samples cannot. Nothing else is said of them: a table may quote "
        f"its columns from different papers. Numbers: {files.csv(table, 'consistency')}.",
        Fold(f"All {len(table)} pairs", [Table(text)]),
    ]
