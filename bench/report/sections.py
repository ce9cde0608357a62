"""The tables of a report, a section a function: figures in, Markdown out, CSV and pictures beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from baselines.reference import YARDSTICKS
from bench import stats
from bench.report import figures as pictures
from bench.report import tables
from bench.report.loaded import SPLITS, Loaded
from bench.report.tables import write_csv
from bench.spec import Run
from uqseg.metrics import figures
from uqseg.metrics.ambiguity import CURVE, hit_counts
from uqseg.metrics.calibration import BINS

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
    "ece_adaptive": "ECE, adaptive",
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
    "area_crps_mm2": "area CRPS (mm²)",
}
FAILURE = {
    "aurc_mean": "AURC",
    "eaurc_mean": "excess AURC",
    "augrc_mean": "AUGRC",
    "failure_auroc_mean": "AUROC of failure",
    "error_auprc": "AUPRC of wrong pixels",
}
AGGREGATIONS = {"mean": "mean", "sum": "sum", "patch": "10×10 patch", "top": "foreground quantile"}
ENTROPY = {"entropy": "total", "expected_entropy": "within samples", "mutual_information": "between samples"}


def ambiguity(boot: stats.Bootstrap, loaded: Loaded, run: Run, folder: Path) -> str:
    """GED and its parts, coverage, correlation with the readers' disagreement, GED against samples."""
    labels = [*loaded.methods, "background", "consensus"]
    pictures.ged_of_samples(boot, labels, CURVE, folder / "ged-samples.png")
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
    return "\n\n".join([*text, *_hits(loaded, folder)])


def _hits(loaded: Loaded, folder: Path) -> list[str]:
    """In how many images 0, 1, … samples touch the majority lesion, of methods with several but finitely many."""
    text, rows = [], []
    for label in loaded.methods:
        members = loaded.meta[label][0]["support"]
        if members is None or members < 2:
            continue
        count = hit_counts(loaded.pooled(label)["member_hits"].to_numpy(float), members)
        rows += [(label, k, int(n)) for k, n in enumerate(count)]
        shares = {f"{k} of {members}": f"{n / max(1, count.sum()):.1%}" for k, n in enumerate(count)}
        text.append(tables.markdown(pd.DataFrame([{"members that touch it": label} | shares])))
    if rows:
        write_csv(pd.DataFrame(rows, columns=["method", "hits", "images"]), folder / "hits.csv")
        text.append("Images by how many members touch the lesion that at least half of the readers marked.")
    return text


def _curve(table: pd.DataFrame, prefix: str) -> pictures.Curve:
    """Mean probability, reader fraction and pixels of each bin of the columns `prefix`_n, _p, _y."""
    n, p, y = (np.array([table[f"{prefix}_{k}_{b:02d}"].sum() for b in range(BINS)], float) for k in "npy")
    full = np.where(n > 0, n, np.nan)
    return p / full, y / full, n


def _presence_curve(table: pd.DataFrame) -> pictures.Curve:
    """The same over images: P̂, the share of readers who drew anything, and images in ten bins of P̂."""
    bins = np.minimum((table["presence"].to_numpy(float) * 10).astype(int), 9)
    n = np.bincount(bins, minlength=10).astype(float)
    full = np.where(n > 0, n, np.nan)
    p, y = (np.bincount(bins, table[c], minlength=10) / full for c in ("presence", "presence_readers"))
    return p, y, n


def calibration(boot: stats.Bootstrap, loaded: Loaded, folder: Path) -> str:
    """Calibration of pixels, of presence and of areas, with their diagrams."""
    pooled = {label: loaded.pooled(label) for label in loaded.methods}
    panels = {
        title: {label: _curve(table, prefix) for label, table in pooled.items()}
        for title, prefix in (("all pixels", "rel"), ("pixels with probability ≥ 1 %", "act"))
    }
    pictures.reliability(panels, "predicted probability", "pixels", folder / "reliability.png")
    presence = {"a lesion is present": {label: _presence_curve(table) for label, table in pooled.items()}}
    pictures.reliability(presence, "share of samples that mark anything", "images", folder / "presence.png")
    yard = [name for name in YARDSTICKS if name != "oracle"]
    known = {k: v for k, v in PRESENCE.items() if np.isfinite(boot.point[:, boot.column(k)]).any()}
    text = [
        "## Calibration: do the probabilities mean what they say?",
        tables.markdown(tables.of_figures(boot, CALIBRATION, loaded.methods, yard)),
        "ECE over all pixels is small for everybody since nearly all pixels are background; the active one looks only "
        "at pixels predicted with at least 1 %. The excess Brier leaves out the readers' own variance, which no model "
        "can remove.",
        "![Reliability diagram](reliability.png)",
        "Above: of the pixels predicted with a probability, the fraction that readers marked; on the grey line the "
        "probabilities are right, below it they are too high. Under it: how many pixels stand behind each point.",
        tables.markdown(tables.of_figures(boot, known, loaded.methods, yard)),
        "Presence: the share of samples that mark anything against the share of readers who did. Joint NLL asks for "
        "whole masks, not pixels. Area CRPS: how far the samples' areas are from each reader's.",
        "![Presence diagram](presence.png)",
        "The same diagram for whole images: of the images where this share of samples marks anything, the share of "
        "readers who did. Networks with one answer say 0 or 1.",
    ]
    return "\n\n".join(text)


def _aggregations(boot: stats.Bootstrap, loaded: Loaded) -> pd.DataFrame:
    """AURC of each method for each way to make one number of an uncertainty map."""
    wanted = {f"aurc_{how}": title for how, title in AGGREGATIONS.items()}
    return tables.of_figures(boot, wanted, loaded.methods, [])


def failure(boot: stats.Bootstrap, loaded: Loaded, folder: Path) -> str:
    """Whether images and pixels with much uncertainty are those that are wrong."""
    curves = {}
    for label in loaded.methods:
        each = [t.sort_values("uncertainty_mean", kind="stable")["risk"] for t in loaded.images["test"][label]]
        curves[label] = np.mean([np.cumsum(r.to_numpy()) / np.arange(1, len(r) + 1) for r in each], axis=0)
    pictures.risk_coverage(curves, folder / "risk-coverage.png")
    kinds = {label: loaded.meta[label][0]["samples_are"] for label in loaded.methods}
    named = "; ".join(f"{label}: {kind}" for label, kind in kinds.items())
    return "\n\n".join(
        [
            "## Failure: does the uncertainty find the errors?",
            tables.markdown(tables.of_figures(boot, FAILURE, loaded.methods, [])),
            "Images are ranked by the mean entropy of the mean map; the risk is 1 − Dice against the readers. AURC: "
            "mean risk over all coverages; excess: what a perfect ranking would save; failure: Dice below 0.5.",
            "![Risk against coverage](risk-coverage.png)",
            "Mean risk of the images kept, surest first. A useful uncertainty makes the line rise to the right.",
            tables.markdown(_aggregations(boot, loaded)),
            "AURC by how the map becomes one number an image: its mean, its sum, the mean of its largest 10×10 patch, "
            "the mean of as many of its largest pixels as are predicted foreground.",
            tables.markdown(tables.of_figures(boot, ENTROPY, loaded.methods, [])),
            "Entropy in nats a pixel: total = within + between samples. The part between samples is what the samples "
            f"stand for: {named} (epistemic: the weights vary; aleatoric: the outcome varies).",
        ]
    )


def thresholds(loaded: Loaded, folder: Path) -> str:
    """Tables A to C of the seed report: five thresholds and their average, on the three splits."""
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
        for split in SPLITS:
            each = [{f.name: f.of(t) for f in wanted} for t in loaded.images[split][label]]
            values[split] = {name: float(np.mean([e[name] for e in each])) for name in each[0]}
        table = tables.of_thresholds(values, "")
        rows.append(table.assign(method=label))
        text += [f"### {label}", tables.markdown(table)]
    if rows:
        write_csv(pd.concat(rows), folder / "thresholds.csv")
    return "\n\n".join(text)
