"""The yardstick `human`: each reader against the others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from uqseg.metrics import figure, figures, leave_one_out, score
from uqseg.seeds import generator

NAMES = ("ged", "ged_limit", "ged_presence", "ged_place", "hm_iou", "coverage", "dice_match", "brier", "area_crps",
         "reliability", "cells", "dice_image")  # fmt: skip


def test_human_is_each_reader_against_the_others() -> None:
    noise = generator("human")
    masks = torch.rand(3, 4, 8, 8, generator=noise) > 0.5
    read = torch.ones(3, 4, dtype=torch.bool)
    read[1, 2] = False
    read[2, 1:] = False
    scores = leave_one_out(masks, read)
    assert (scores.samples, scores.drawn, scores.averaged) == (3, "independent", True)
    for b, present in ((0, [0, 1, 2, 3]), (1, [0, 1, 3])):
        rows = []
        for r in present:
            others = [k for k in present if k != r]
            rows.append(score(masks[b : b + 1, others].float(), masks[b : b + 1, [r]]))
        for name in NAMES:
            expected = np.mean([row.column(name)[0] for row in rows], axis=0)
            assert scores.column(name)[b] == pytest.approx(expected, abs=1e-6, nan_ok=True), name
        assert scores.column("dice_image_first")[b] == pytest.approx(rows[0].column("dice_image")[0])
    assert all(np.isnan(x[2]).all() for x in scores.values.values())
    for name in ("dice_majority@0.5", "presence_ece", "presence_auroc", "aurc_mean", "spearman_std", "ncc_variance",
                 "hit_share", "hit_three_quarters", "error_auprc", "soft_dice"):  # fmt: skip
        assert np.isnan(figure(name).value(scores)), name


def test_figures_against_the_majority_of_one_reader_are_undefined_in_stored_scores_too() -> None:
    scores = leave_one_out(torch.rand(2, 3, 8, 8, generator=generator("stored")) > 0.5)
    stored = replace(scores, values=scores.values | {"soft_dice": np.ones(2)})
    assert np.isnan(figure("soft_dice").value(stored))
    assert np.isfinite(figure("ged").value(stored))


def test_nothing_is_derived_from_means_over_readers() -> None:
    scores = leave_one_out(torch.rand(2, 3, 8, 8, generator=generator("means")) > 0.5)
    assert {c for f in figures() for c in f.of} == set(scores.values)
    assert not scores.has("overlaps")
    assert np.isnan(figure("ged").value(leave_one_out(torch.ones(1, 2, 4, 4, dtype=torch.bool), statistics=["pixels"])))


def test_one_reader_leaves_nobody() -> None:
    with pytest.raises(ValueError, match="masks: expected at least two readers"):
        leave_one_out(torch.ones(1, 1, 4, 4, dtype=torch.bool))
