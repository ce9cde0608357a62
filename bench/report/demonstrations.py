"""The page of the demonstrations: report.md, its tables as CSV, its pictures, and the page of all metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench import demonstrations, stats
from bench.report import tables
from bench.report.figures import canvas, save, styles
from bench.report.page import without_paths
from bench.report.tables import write_csv
from bench.runner import Data, machine
from bench.spec import Run
from uqseg import checkpoint, metrics
from uqseg.data import AnnotatedSet, toy

SHOWN = 6  # images of toy in the picture


def write(
    folder: Path,
    run: Run,
    record: Mapping[str, Any],
    data: Data,
    found: Mapping[str, list[pd.DataFrame]],
) -> list[str]:
    """Write the page into `folder`; `found`: closeness of the trained methods. Returns its last table as lines."""
    folder.mkdir(parents=True, exist_ok=True)
    boot = demonstrations.compare({**found, **demonstrations.of_yardsticks(data, run.samples)})
    shown = tables.of_figures(boot, demonstrations.CLOSENESS, list(found), [*demonstrations.SHOWN, "truth"])
    write_csv(stats.summary(boot), folder / "closeness.csv")
    parts = [
        _head(run, record, data),
        _calibration(folder),
        _draws(data.test, folder),
        _known(data.test, folder),
        _reach(data.test, folder),
        _closeness(shown, boot, list(found), run, folder),
        "The definitions of all figures: [metrics.md](metrics.md).",
    ]
    checkpoint.write(folder / "report.md", ("\n\n".join(parts) + "\n").encode())
    checkpoint.write(folder / "metrics.md", metrics.markdown().encode())
    return tables.markdown(shown).splitlines()


def _head(run: Run, record: Mapping[str, Any], data: Data) -> str:
    counts = ", ".join(f"{len(getattr(data, s))} {s}" for s in ("train", "val", "test"))
    rows = {
        "command": f"`{without_paths(record['command'])}`",
        "code": f"commit {record['commit']}",
        "data": f"toy, {run.size}×{run.size} pixels, {counts} images, {data.test.readers} readers. "
        "**All images and masks are simulated.**",
        "recipe": f"{run.recipe_name}: {run.recipe.description}; one repetition",
        "samples": f"{run.samples} an image; methods with finite support give all they have",
        "machine": ", ".join(f"{k} {v}" for k, v in machine().items()),
        **{f"declined: {label}": reason for label, reason in record["declined"].items()},
    }
    body = "\n".join(f"| {k} | {v} |" for k, v in rows.items())
    return (
        f"# The figures on a known truth\n\n| | |\n|---|---|\n{body}\n\n"
        "Where the distribution of the readers' masks is known, every figure can be held against what it should be."
    )


def _calibration(folder: Path) -> str:
    found = demonstrations.calibration_by_region()
    write_csv(found.table, folder / "regions.csv")
    figure, (axes,) = canvas(1, 5.2, 4.2)
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    grid = np.linspace(0.005, 1, 200)
    axes.plot(grid, demonstrations.selected_fraction(grid), color="0.3", linewidth=1, linestyle=(0, (1, 2)),
              label="theory, p / (1 − (1 − p)⁴)")  # fmt: skip
    for (region, (prob, fraction, _)), style in zip(found.bins.items(), styles(list(found.bins)).values(), strict=True):
        axes.plot(prob, fraction, markersize=5, label=region, **(style | {"linestyle": "none"}), fillstyle="none")
    axes.set(xlabel="predicted probability", ylabel="readers who marked (fraction)", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    save(figure, folder / "regions.png")
    shown = _with_intervals(found.table, "ECE ↓", "ece", "low", "high")
    return "\n\n".join(
        [
            "## A perfectly calibrated predictor looks miscalibrated on the readers' foreground",
            tables.markdown(shown[["region", "chosen by", "pixels", "ECE ↓"]]),
            "Each pixel has a probability, each of four readers marks it with exactly that probability, and the "
            "predictor knows it: no predictor is better calibrated, and its calibration error should be 0 but for the "
            "finite number of pixels, which can only add to it. It is so over all pixels and over pixels that the "
            "prediction chose. Over the pixels that a reader marked it is not: to choose by the outcome leaves out the "
            "pixels that nobody marked, so that what remains was marked more often than predicted. Lower is better; a "
            "figure that blames the best predictor measures something else. Intervals: 95 %, resampled images.",
            "![Reliability by region](regions.png)",
            "On the line is perfect. The dotted curve is what choosing the marked pixels does to every predictor that "
            "is right.",
        ]
    )


def _with_intervals(table: pd.DataFrame, title: str, value: str, low: str, high: str) -> pd.DataFrame:
    texts = [tables.with_interval(r[value], r[low], r[high]) for r in table.to_dict("records")]
    return table.assign(**{title: texts}).astype(str)


def _draws(test: AnnotatedSet, folder: Path) -> str:
    found = demonstrations.ged_by_draws(test)
    write_csv(found, folder / "draws.csv")
    figure, (left, right) = canvas(2, 8.5, 3.8)
    for axes, name, place in ((left, "ged", 0), (right, "debiased", 1)):
        style = list(styles(["ged", "debiased"]).values())[place] | {"linestyle": "none"}
        gaps = [found[name] - found[f"{name}_low"], found[f"{name}_high"] - found[name]]
        axes.errorbar(found["samples"], found[name], yerr=gaps, capsize=3, label="measured, 95 %", **style)
        axes.set_xscale("log", base=2)
        axes.set_xticks(found["samples"], [str(k) for k in found["samples"]])
        axes.set_xlabel("samples an image (S)")
    left.plot(found["samples"], found["theory"], color="0.3", label="theory, E d(S,S′)/S")
    left.set(yscale="log", ylabel="GED (lower is better)")
    right.axhline(0, color="0.3", label="theory, 0")
    right.set(ylabel="GED, debiased (lower is better)")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)
    save(figure, folder / "draws.png")
    shown = _with_intervals(found, "GED", "ged", "ged_low", "ged_high")
    shown = shown.assign(theory=[f"{t:.4f}" for t in found["theory"]])
    corrected = _with_intervals(found, "debiased", "debiased", "debiased_low", "debiased_high")
    shown["GED, debiased"] = corrected["debiased"]
    return "\n\n".join(
        [
            "## GED of a perfect sampler falls with the number of samples, the debiased one does not",
            tables.markdown(shown[["samples", "theory", "GED", "GED, debiased"]]),
            f"Samples drawn from the exact distribution of each of {len(test)} images, against that distribution. "
            "Nothing is wrong with them, so the figure should be 0; the usual one is too high by the expected distance "
            "of two samples over their number. So a method with 16 samples looks better than the same method with 4. "
            "The debiased figure, undefined for one sample, does not depend on their number, only its spread does. "
            "Lower is better. Intervals: 95 %, resampled patients.",
            "![GED against samples](draws.png)",
        ]
    )


def _known(test: AnnotatedSet, folder: Path) -> str:
    few = test.take(slice(0, SHOWN))
    truth = demonstrations.truth_of(few)
    figure, _ = canvas(1, 1, 1)
    figure.clear()
    rows = 2 + len(toy.KINDS)
    figure.set_size_inches(1.25 * len(few) + 0.8, 1.3 * rows)
    axes = figure.subplots(rows, len(few), squeeze=False)
    for column in range(len(few)):
        axes[0, column].imshow(few.images[column, 0], cmap="gray", vmin=0, vmax=255)
        axes[1, column].imshow(truth.mean[column], cmap="viridis", vmin=0, vmax=1)
        for k in range(len(toy.KINDS)):
            axes[2 + k, column].imshow(truth.masks[column, k], cmap="gray", vmin=0, vmax=1)
            axes[2 + k, column].set_title(f"{float(truth.p[column, k]):.2f}", fontsize=8, pad=2)
    for row, name in enumerate(["image", "mean", *toy.KINDS]):
        axes[row, 0].set_ylabel(name, fontsize=8)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    save(figure, folder / "toy.png")
    return "\n\n".join(
        [
            "## The source toy: a truth that is known",
            f"A disc with a core, a fainter rim, and in half of the images a satellite. A reader draws one of "
            f"{len(toy.KINDS)} masks, independently of the others: misses the disc the likelier the fainter it is, "
            "counts the rim in the likelier the brighter it is, and likewise the satellite. The image shows the "
            "brightness, hence the probabilities.",
            "![Images and their distributions](toy.png)",
            "The first test images (simulated), the exact probability that a reader marks each pixel, and the four "
            "masks with their probabilities.",
        ]
    )


def _reach(test: AnnotatedSet, folder: Path) -> str:
    found = demonstrations.reach(test)
    write_csv(found, folder / "optima.csv")
    shown = _with_intervals(found, "measured − optimum", "difference", "low", "high")
    shown = shown.assign(
        optimum=[f"{v:.5g}" for v in found["optimum"]],
        measured=[f"{v:.5g}" for v in found["measured"]],
        inside=["yes" if i else "**no**" for i in found["inside"]],
    )
    inside = int(found["inside"].sum())
    return "\n\n".join(
        [
            "## The exact distribution reaches the optimum of every figure",
            tables.markdown(
                shown[["prediction", "figure", "optimum", "measured", "measured − optimum", "inside"]].rename(
                    columns={"inside": "0 inside"}
                )
            ),
            f"The exact distribution (whole, or {test.readers} draws from it) is scored like a method against the four "
            "readers of each test image. The optimum is what the figure must be on average over the readers' and "
            "samples' draws, in closed form or by enumeration of all draws. "
            f"{inside} of {len(found)} differences have 0 in their 99 % interval (resampled patients, differences "
            "image by image). No prediction does better than the whole distribution on Brier, likelihood, presence, "
            "CRPS and GED; figures such as coverage or validity reward other things as well. Not in the table: "
            "calibration errors, correlations and areas under curves, which have no such optimum on a finite set.",
        ]
    )


def _closeness(shown: pd.DataFrame, boot: stats.Bootstrap, methods: list[str], run: Run, folder: Path) -> str:
    labels = [*methods, "consensus", "oracle", "truth"]
    style = styles(labels)
    figure, (left, right) = canvas(2, 8.5, 3.8)
    for axes, name, title in ((left, "brier_excess", "Brier excess"), (right, "ged", "GED to the truth")):
        f = boot.column(name)
        for place, label in enumerate(labels):
            m = boot.labels.index(label)
            low, high = (float(v[0]) for v in stats.interval(boot.draws[m, :, f][:, None]))
            value = float(boot.point[m, f])
            axes.errorbar(value, -place, xerr=[[value - low], [high - value]], capsize=3,
                          **(style[label] | {"linestyle": "none"}))  # fmt: skip
        axes.set_yticks(-np.arange(len(labels)), labels)
        axes.set_xlabel(f"{title} (lower is better)")
        axes.axvline(0, color="0.7", linewidth=1)
    save(figure, folder / "closeness.png")
    return "\n\n".join(
        [
            "## How near the trained methods come to the truth",
            tables.markdown(shown),
            "Against the exact distribution, not the four readers, so 0 is perfect in every column. Brier excess: mean "
            "over pixels of the squared difference of the mean map from the exact one, which is the expected Brier "
            "score less the smallest possible. Error of the mean map: mean absolute difference over the pixels that a "
            "reader may mark. GED: against the four masks with their probabilities, debiased for draws. Error of "
            "presence: absolute difference of the share of samples that mark anything from the chance that a reader "
            "does. Diversity: expected distance of two samples less that of two readers, below 0 where the samples are "
            "too much alike. Lower is better in the first four, nearer to 0 in the last. **Bold**: the best by value; "
            f"≈: a tie with it. In italics: *truth* is {run.samples} draws from the exact distribution, whose mean map "
            f"still carries the chance of the draws; *oracle* is {run.samples} draws from the image's own four "
            "readers, who are themselves only four draws: what every figure computed against them must live with; "
            "the others as in every report. Intervals: 95 %, resampled patients.",
            "![Closeness to the truth](closeness.png)",
            "Points are means over the test images with 95 % intervals.",
        ]
    )
