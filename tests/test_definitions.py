"""What papers compute under one name, worked out by hand, and against this project's figures where they agree."""

import numpy as np
import pytest

from baselines.published import definitions
from baselines.published.definitions import DEFINITIONS, compared
from uqseg.metrics import ambiguity, figure, score

NOTHING, LEFT, BOTH = ([0, 0], [1, 0], [1, 1])  # masks of an image of two pixels


def sets(*masks: list[int]) -> np.ndarray:
    """(1,n,1,2)."""
    return np.array(masks, bool)[None, :, None]


def probabilities(*maps: list[float]) -> np.ndarray:
    return np.array(maps, float)[None, :, None]


# Samples: nothing, and both pixels; readers: nothing, and the left one. Distances of a pair: nothing to nothing 0,
# nothing to a lesion 1, both to left 1/2. Cross: (0 + 1 + 1 + 1/2)/4 = 5/8; samples (0 + 1 + 1 + 0)/4; readers too.
SAMPLES, READERS = sets(NOTHING, BOTH).astype(float), sets(NOTHING, LEFT)


def test_ged_and_what_becomes_of_empty_sets() -> None:
    assert definitions.ged(SAMPLES, READERS) == pytest.approx(2 * 5 / 8 - 1 / 2 - 1 / 2)
    # Each of the three means has one pair of empty sets out of four, whose distance is now 1.
    assert definitions.ged_of_far_empty_sets(SAMPLES, READERS) == pytest.approx(2 * 7 / 8 - 3 / 4 - 3 / 4)
    assert np.isnan(definitions.ged_without_empty_pairs(SAMPLES, READERS)).all()
    # Without an empty sample: cross (1 + 1/2)/2, samples 0, readers (1 + 1 + 0)/3, their empty pair left out.
    assert definitions.ged_without_empty_pairs(SAMPLES[:, 1:], READERS) == pytest.approx(2 * 3 / 4 - 2 / 3)


def test_ged_without_diagonals() -> None:
    assert definitions.ged_without_diagonals(SAMPLES, READERS) == pytest.approx(2 * 5 / 8 - 1 - 1)
    assert np.isnan(definitions.ged_without_diagonals(SAMPLES[:, :1], READERS)).all()


def test_ged_pooled_over_pairs() -> None:
    # Cross: 1 pixel in common; sizes (0+0) + (0+1) + (2+0) + (2+1) = 6, Dice 2/6. Samples: 2 in common of 0+2+2+4 = 8,
    # Dice 4/8. Readers: 1 of 0+1+1+2 = 4, Dice 2/4.
    assert definitions.ged_pooled(SAMPLES, READERS) == pytest.approx(2 * (1 - 1 / 3) - 1 / 2 - 1 / 2)
    nobody = sets(NOTHING, NOTHING)
    assert definitions.ged_pooled(nobody.astype(float), nobody) == pytest.approx(2 * 1 - 1 - 1)


def test_ged_of_pairs_out_of_step() -> None:
    assert definitions.ged_out_of_step(SAMPLES, READERS) == pytest.approx(definitions.ged(SAMPLES, READERS))
    # Four samples, two readers: entry (i,j) is sample (2i + j) mod 4 with reader (4j + i) mod 2 = i mod 2, so the first
    # two samples meet the first reader only, the last two the second: (0 + 1)/2 and (1 + 1/2)/2.
    four = sets(NOTHING, BOTH, NOTHING, BOTH).astype(float)
    assert definitions.ged_out_of_step(four, READERS) == pytest.approx(2 * 5 / 8 - 1 / 2 - 1 / 2)
    sorted_ = sets(NOTHING, NOTHING, BOTH, BOTH).astype(float)
    assert definitions.ged_out_of_step(sorted_, READERS) == pytest.approx(2 * (0 + 1 / 2) / 2 - 1 / 2 - 1 / 2)


def test_matching_on_the_rectangular_matrix_takes_the_best_samples_only() -> None:
    three = sets(NOTHING, BOTH, BOTH).astype(float)
    assert definitions.hm_iou_rectangular(three, READERS) == pytest.approx((1 + 1 / 2) / 2)


def test_coverage_and_validity_where_empty_sets_do_not_agree() -> None:
    # Dice of both and left: 2/3. The empty reader is covered by nothing.
    assert definitions.coverage_with_empty_at_0(SAMPLES, READERS) == pytest.approx((0 + 2 / 3) / 2)
    assert definitions.validity_with_empty_at_0(SAMPLES, READERS) == pytest.approx((0 + 2 / 3) / 2)


def test_a_pixel_of_two_in_four_readers_is_lost_above_one_half() -> None:
    four = sets(LEFT, LEFT, BOTH, NOTHING)[:, [2, 2, 0, 3]]  # both, both, left, nothing: fractions 3/4 and 1/2
    mean = probabilities([0.75, 0.75])
    assert definitions.majority_dice_above(mean, four) == pytest.approx(2 / 3)  # both pixels, against the left one
    # > 0.1, 0.3: both agree, 1; 0.5: 2/3; 0.7: the left one against both, 2/3; 0.9: nothing twice, 1.
    assert definitions.soft_dice_above(mean, four) == pytest.approx((1 + 1 + 2 / 3 + 2 / 3 + 1) / 5)


def test_ncc_of_raised_probabilities() -> None:
    # One sample of 0.9 and 0.1. Its own cross-entropy is the same in both pixels: constant, undefined.
    assert np.isnan(definitions.ncc_of_raised_probabilities(probabilities([0.9, 0.1]), sets(LEFT))).all()
    # 0.9 and 0.5: own entropy grows to the right, and so does −log p of a reader who drew both.
    assert definitions.ncc_of_raised_probabilities(probabilities([0.9, 0.5]), sets(BOTH)) == pytest.approx(1)


def test_ece_of_each_image_does_not_cancel_between_images() -> None:
    mean = np.full((2, 1, 1, 2), 0.5)
    masks = np.array([[[[1, 1]]], [[[0, 0]]]], bool)
    assert definitions.ece_per_image(mean, masks).tolist() == [0.5, 0.5]  # pooled it is 0


def test_areas_under_risk_curves() -> None:
    # Three sure images, then less sure: risks 0, 1, 0 in the order of uncertainty; selective risks 0, 1/2, 1/3.
    mean = np.array([0.99, 0.9, 0.8])[:, None, None, None]
    masks = np.array([1, 0, 1], bool)[:, None, None, None]
    assert definitions.risk(mean, masks).tolist() == [0, 1, 0]
    assert definitions.aurc_of_trapezoids(mean, masks) == pytest.approx((0 / 2 + 1 / 2 + 1 / 3 / 2) / 3)
    # Joint risks 0, 1/3, 1/3: trapezoids 1/6 and 1/3 times 1/3, over 1 − 1/3.
    assert definitions.augrc_from_first(mean, masks) == pytest.approx((1 / 6 + 1 / 3) / 3 / (2 / 3))


def test_one_threshold_for_all_images() -> None:
    # Two of the four pixels are foreground, so the threshold is the median of the entropies, which are 0.33 and 0.67 in
    # the first image and 0.67 and 0.50 in the second: 0.6 and 0.4 lie above it.
    mean = np.array([[0.9, 0.6], [0.4, 0.2]])[:, None, None]
    masks = np.array([[1, 1], [1, 0]], bool)[:, None, None]
    # Both images have one pixel above, with the same entropy; the first, of risk 0, stays first: (0 + 1/2)/2.
    assert definitions.risk(mean, masks).tolist() == [0, 1]
    assert definitions.aurc_above_one_threshold(mean, masks) == pytest.approx(1 / 4)


def random_sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    prob = (rng.random((6, 5, 8, 8)) ** 3).astype(np.float32)
    return prob, rng.random((6, 4, 8, 8)) > 0.7


def test_shared_parts_give_this_projects_figures() -> None:
    prob, masks = random_sets()
    prob[0, :2], masks[0, 1] = 0, False
    assert np.allclose(definitions.ged(prob, masks), ambiguity.ged(prob >= 0.5, masks).numpy())
    scores = score(prob, masks)
    without = definitions.ged_without_diagonals(prob, masks)
    assert np.allclose(without, scores.column("ged_unbiased"))
    assert np.allclose(definitions.risk(prob, masks), scores.column("risk"), atol=1e-6)
    assert np.allclose(definitions.entropy(prob).mean((1, 2)), scores.column("entropy"), atol=1e-6)
    clear = prob[1:].clip(0.01, 0.99)  # where neither the raising nor the clipping shows
    ours = score(clear, masks[1:], statistics=["ncc_samples"]).column("ncc_samples")
    assert np.allclose(definitions.ncc_of_raised_probabilities(clear, masks[1:]), ours, atol=1e-5)


def test_the_table_holds_every_definition_beside_this_projects_value() -> None:
    prob, masks = random_sets()
    table = compared(prob, masks, "independent")
    own = table[table["definition"] == "this project"].set_index("figure")["value"]
    assert set(own.index) == {d.figure for d in DEFINITIONS}
    assert len(table) == len(own) + len(DEFINITIONS)
    assert own["ged"] == pytest.approx(figure("ged").value(score(prob, masks)))
    others = table[table["definition"] != "this project"]
    assert others["whose"].str.len().min() > 0
    assert np.isfinite(others["value"]).sum() >= len(others) - 1
