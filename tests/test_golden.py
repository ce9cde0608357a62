"""Numbers of version 0.1, kept in tests/golden: the same weights give the same statistics and figures today.

The files hold a tiny data set (the last 12 of its 36 cases are scored), trained weights, and every column and every
figure that version 0.1 gave for five methods, for one of them also with weights, and for five yardsticks.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines import yardsticks
from tests.golden import GOLDEN, METHODS, golden_sets, golden_weights
from uqseg import predict
from uqseg.methods import build
from uqseg.metrics import Scores, figure, figures, leave_one_out, read_scores, score, write_scores
from uqseg.metrics.calibration import active
from uqseg.metrics.distances import CURVE
from uqseg.metrics.threshold import CELLS, THRESHOLDS
from uqseg.samples import Samples

LABELS = [*METHODS, "weighted", "background", "prevalence", "consensus", "oracle", "human"]
INDEPENDENT = ("mcdropout", "probunet", "weighted", "oracle", "human")
CHANGED = {
    "area_crps": "the fair form for independent draws",
    "area_crps_mm2": "the fair form for independent draws",
    "diversity_ratio": "a ratio of means over images, of the distances of different samples and of different readers",
    "eaurc_mean": "the optimum takes images of equal risk one by one",
    "eaurc_sum": "the optimum takes images of equal risk one by one",
    "eaurc_patch": "the optimum takes images of equal risk one by one",
    "eaurc_top": "the optimum takes images of equal risk one by one",
}
"""What has other values than in version 0.1, and why."""
ONE_READER = ("soft_dice", "hit_share", "hit_three_quarters", "error_auprc", "member_hits")
"""What version 0.1 gave for `human` too, against one reader's mask in the place of a majority; undefined now."""


def samples_of(label: str) -> Samples:
    train, test = golden_sets()
    if label in yardsticks.YARDSTICKS:
        return predict(yardsticks.build(label, train), test, 8, precision="fp32")
    if label == "weighted":
        weights = torch.arange(1, 9).double().repeat(12, 1)
        return Samples(samples_of("probunet").prob, weights / weights.sum(1, keepdim=True), "independent")
    method = build(label, **METHODS[label])
    method.load_state_dict(golden_weights(label))
    return predict(method, test, 8, precision="fp32")


@cache
def scores_of(label: str) -> Scores:
    test = golden_sets()[1]
    readers = torch.from_numpy(test.masks.copy()), torch.from_numpy(test.read.copy())
    facts = {"spacing": test.spacing.copy(), "cases": test.table["case"], "patients": test.table["patient"]}
    return leave_one_out(*readers, **facts) if label == "human" else score(samples_of(label), *readers, **facts)


def column_of(scores: Scores, old: str) -> np.ndarray:
    """What version 0.1 called `old`: one number for each case."""
    name, _, at = old.partition("@")
    cell, _, reference = name.partition("_")
    prefix, bin_ = name[:6], name[6:]
    if cell in CELLS:
        column = scores.column(f"cells_{reference}".removesuffix("_each"))
        return column[:, THRESHOLDS.index(float(at)), CELLS.index(cell)]
    if "_image" in name:
        return scores.column(name)[:, THRESHOLDS.index(float(at))]
    if at:
        return scores.column("ged_by_draws")[:, CURVE.index(int(at))]
    if bin_.isdigit() and prefix.startswith("act"):
        return active(scores.values)[:, "npy".index(prefix[4]), int(bin_)]
    if bin_.isdigit() and prefix.startswith("rel"):
        return scores.column("reliability")[:, "npy".index(prefix[4]), int(bin_)]
    if name.startswith("fine_"):
        return scores.column("reliability_fine")[:, "npy".index(name[5]), int(name[7:])]
    return scores.column({"reader_disagreement": "reader_diversity"}.get(name, name))


FLOAT32_LOGARITHMS = ("mutual_information", "expected_entropy")  # processors round the logarithm of a pixel differently


@pytest.mark.parametrize("label", LABELS)
def test_every_column_has_the_value_of_version_0_1(label: str) -> None:
    golden = np.load(GOLDEN / "statistics.npz")
    scores, compared = scores_of(label), 0
    for name, values in zip(golden["names"], golden["values"], strict=True):
        of, _, column = str(name).partition("/")
        changed = column == "diversity_ratio" or (column.startswith("area_crps") and label in INDEPENDENT)
        if of != label or changed or (label == "human" and column in ONE_READER):
            continue
        least = 1e-8 if column in FLOAT32_LOGARITHMS else 1e-9
        assert column_of(scores, column) == pytest.approx(values, rel=1e-6, abs=least, nan_ok=True), column
        compared += 1
    assert compared == 464 + 2 * (label not in INDEPENDENT) - 5 * (label == "human")


@pytest.mark.parametrize("label", LABELS)
def test_every_figure_has_the_value_of_version_0_1_also_when_read_from_a_file(label: str, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "figures.json").read_text())["figures"][label]
    scores = scores_of(label)
    write_scores(tmp_path, {"test": scores})
    stored = read_scores(tmp_path)["test"]
    for name, value in golden.items():
        rank = figure(name).kind == "cases"
        value = np.nan if label == "human" and name in ONE_READER else value
        for kept in (scores, stored):
            if name not in CHANGED or (name.startswith("area_crps") and label not in INDEPENDENT):
                tolerance = {"rel": 1e-4} if rank else {"rel": 1e-6, "abs": 2e-8}
                assert figure(name).value(kept) == pytest.approx(value, nan_ok=True, **tolerance), name
    assert set(golden) <= {f.name for f in figures()}
    for f in figures():
        assert f.value(stored) == pytest.approx(f.value(scores), rel=1e-4, abs=1e-6, nan_ok=True), f.name
