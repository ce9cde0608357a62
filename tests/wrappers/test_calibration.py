"""The mathematics of wrappers: symmetries, temperature, presence, and the guarantee of conformal sets."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from tests.conftest import discs
from uqseg import predict
from uqseg.data import AnnotatedSet
from uqseg.errors import UsageError
from uqseg.methods import build as build_method
from uqseg.methods import find as find_method
from uqseg.noise import Noise
from uqseg.samples import Batch, Description, Samples
from uqseg.seeds import generator
from uqseg.wrappers import build
from uqseg.wrappers.conformal import Conformal, highest_threshold, set_figures
from uqseg.wrappers.tta import turned, turned_back


class Shown:
    """A sampler whose samples are the channels of the image: 0 … 255 as 0 … 1."""

    def __init__(self, support: int | None = None, weights: Tensor | None = None) -> None:
        self.support, self.weights = support, weights

    @property
    def describes(self) -> Description:
        return Description("shown", "outcome", self.support)

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        prob = batch.images / 255.0
        prob = prob if self.support else prob[:, :1].expand(-1, n, -1, -1)
        weights = None if self.weights is None else self.weights.expand(len(prob), -1)
        return Samples(prob, weights, "support" if self.support else "independent")


def cases(images: Any, masks: Any, patients: Any = None) -> AnnotatedSet:
    n, readers = masks.shape[:2]
    table = pd.DataFrame({"patient": range(n) if patients is None else patients, "case": range(n)}, dtype=str)
    table["split"] = "val"
    spacing, read = np.full((n, 2), np.nan, np.float32), np.ones((n, readers), bool)
    return AnnotatedSet(np.asarray(images, np.uint8), np.asarray(masks, bool), read, table, spacing, "made")


def test_symmetries_are_eight_different_ones_and_exactly_undone() -> None:
    x = torch.randn(2, 3, 4, 6, generator=generator("x"))
    square = torch.arange(9).view(3, 3)
    assert len({tuple(turned(square, view).flatten().tolist()) for view in range(8)}) == 8
    for view in range(8):
        assert torch.equal(turned_back(turned(x, view), view), x)


def test_a_sampler_that_turns_with_its_image_gives_the_same_map_in_every_view() -> None:
    data = discs(3)
    sampler = build("tta")
    sampler.fit(Shown(1), None)
    samples = predict(sampler, data, 16)
    assert samples.prob.shape == (3, 8, 32, 32)
    assert torch.equal(samples.prob, torch.from_numpy(data.images / np.float32(255)).expand(-1, 8, -1, -1))
    weights = torch.tensor([0.5, 0.3, 0.2])
    sampler.fit(Shown(3, weights), None)
    samples = predict(sampler, discs(3, channels=3), 16)
    assert torch.allclose(samples.weights, (weights / 8).repeat(3, 8))


def test_views_of_a_network_are_its_maps_of_turned_images() -> None:
    data, method = discs(2), build_method("unet", **find_method("unet").small)
    sampler = build("tta")
    sampler.fit(method, None)
    samples = predict(sampler, data, 1, precision="fp32").prob
    for view in range(8):
        images = turned(torch.from_numpy(np.array(data.images)), view).numpy().copy()
        expected = turned_back(predict(method, images, 1, precision="fp32").prob, view)
        assert torch.allclose(samples[:, view], expected[:, 0], atol=1e-6)


def test_independent_draws_of_one_view_use_other_weights_than_those_of_another() -> None:
    """All weights of an image that is the same in all views: 16 draws, 16 different samples."""
    method = build_method("bcnn", **find_method("bcnn").small)
    sampler = build("tta")
    sampler.fit(method, None)
    samples = predict(sampler, np.full((1, 1, 16, 16), 90, np.uint8), 16, precision="fp32")
    sizes = samples.prob.sum((0, 2, 3))
    assert samples.drawn == "independent"
    assert len({round(float(size), 4) for size in sizes}) == 16
    levels = build("levels")
    levels.fit(method, None)
    sampler.fit(levels, None)
    with pytest.raises(UsageError, match="put it innermost"):
        predict(sampler, np.zeros((1, 1, 16, 16), np.uint8), 4)


def test_temperature_finds_the_optimum_that_another_solver_finds() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 3, 8, 8))
    logit = np.log((images + 1) / (256 - images))
    masks = rng.random((20, 4, 8, 8)) < 1 / (1 + np.exp(-(0.5 * logit.mean(1) - 1)))[:, None]
    weights = torch.tensor([0.5, 0.3, 0.2])
    data, sampler = cases(images, masks), build("temperature")
    sampler.fit(Shown(3, weights), data)

    def entropy(x: Any) -> float:
        p = np.clip(images / 255, 1e-6, 1 - 1e-6)
        scaled = 1 / (1 + np.exp(-(np.exp(x[0]) * np.log(p / (1 - p)) + x[1])))
        mean = np.einsum("s,bshw->bhw", weights.numpy(), scaled)
        fraction = masks.mean(1)
        return float(-(fraction * np.log(mean) + (1 - fraction) * np.log(1 - mean)).mean())

    reference = minimize(entropy, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
    assert (sampler.a, sampler.b) == (
        pytest.approx(math.exp(reference.x[0]), rel=1e-3),
        pytest.approx(reference.x[1], abs=1e-3),
    )
    mean = predict(sampler, data, 9).mean().numpy()
    fraction = masks.mean(1)
    assert -(fraction * np.log(mean) + (1 - fraction) * np.log(1 - mean)).mean() == pytest.approx(
        reference.fun, rel=1e-5
    )


def test_presence_gives_marked_samples_the_share_of_readers_who_drew() -> None:
    """Strengths 0.2, ¼, ½, 1; ½, ¼, ½, 1 of the readers drew: the first two are pooled to ⅜."""
    images = np.zeros((4, 4, 8, 8))
    for case, marked in enumerate((0, 1, 2, 4)):
        images[case, :marked, 2, 2] = 255
    images[0, :, 5, 5], images[0, 0, 5, 6] = 50, 20
    masks = np.zeros((4, 4, 8, 8))
    for case, drew in enumerate((2, 1, 2, 4)):
        masks[case, :drew, 2, 2] = 1
    data, sampler = cases(images, masks), build("presence")
    sampler.fit(Shown(4), data)
    assert sampler.strengths == pytest.approx([50 / 255, 0.25, 0.5, 1])
    assert sampler.shares == pytest.approx([0.375, 0.375, 0.5, 1])
    samples = predict(sampler, data, 4)
    assert samples.weights is not None
    assert samples.prob.shape == (4, 5, 8, 8)
    assert torch.all(samples.prob[:, 4] == 0)
    share = torch.einsum("bs,bs->b", samples.weights, samples.hypotheses().flatten(2).any(2).float())
    assert torch.allclose(share, torch.tensor([0.375, 0.375, 0.5, 1.0]))
    # Case 0 has no marked sample: the pixels at half the mean's maximum or above; 5 of 50 are not.
    assert samples.hypotheses()[0, 0].nonzero().tolist() == [[5, 5]]
    assert samples.prob[0, 0, 5, 5:7].tolist() == pytest.approx([1, 0.1])
    assert samples.weights[0].tolist() == pytest.approx([0.375, 0, 0, 0, 0.625])
    assert samples.weights[2].tolist() == pytest.approx([0.25, 0.25, 0, 0, 0.5])


def test_presence_divides_a_soft_sample_by_its_maximum() -> None:
    images = np.zeros((6, 1, 8, 8))
    images[:, 0, 1, 1:4] = 204, 153, 51
    sampler = build("presence")
    sampler.fit(Shown(1), cases(images, np.arange(4)[None, :, None, None] < np.full((6, 4, 8, 8), 3)))
    samples = predict(sampler, images.astype(np.uint8), 1)
    assert samples.prob[0, 0, 1, 1:4].tolist() == pytest.approx([1, 0.75, 0.25])
    assert samples.mean()[0, 1, 1:4].tolist() == pytest.approx([0.75, 0.5625, 0.1875])


def test_presence_of_an_image_without_any_probability_is_nothing() -> None:
    masks = np.ones((6, 4, 8, 8))
    sampler = build("presence")
    sampler.fit(Shown(1), cases(np.full((6, 1, 8, 8), 200), masks))
    samples = predict(sampler, np.zeros((1, 1, 8, 8), np.uint8), 1)
    assert samples.weights is not None
    assert samples.weights.tolist() == [[0, 1]]


def test_presence_where_no_sample_that_marks_has_weight() -> None:
    """Only the empty sample weighs anything, as inside +presence whose share is 0: the mean map, 0, stands for them."""
    images = np.zeros((6, 2, 8, 8), np.uint8)
    images[:, 0, 2, 2] = 255
    masks = np.arange(4)[None, :, None, None] < np.full((6, 4, 8, 8), 3)
    sampler = build("presence")
    sampler.fit(Shown(2, torch.tensor([0.0, 1.0])), cases(images, masks))
    assert sampler.shares == pytest.approx([0.75])
    samples = predict(sampler, images, 2)
    assert samples.weights is not None
    assert samples.weights[0].tolist() == [0, 0, 1]
    soft = images.copy()
    soft[:, 1, 4, 4] = 51
    samples = predict(sampler, soft, 2)
    assert samples.weights is not None
    assert samples.weights[0].tolist() == pytest.approx([0.75, 0, 0.25])
    assert samples.hypotheses()[0, 0].nonzero().tolist() == [[4, 4]]


def test_presence_twice_has_weights_of_sum_one() -> None:
    """Nobody drew anything where the samples are weak: the inner share is 0 there."""
    images = np.zeros((20, 1, 8, 8), np.uint8)
    images[:10, 0, 2, 2], images[10:, 0, 2, 2] = 200, 255
    masks = np.zeros((20, 4, 8, 8), bool)
    masks[10:, :, 2, 2] = True
    data, inner, outer = cases(images, masks), build("presence"), build("presence")
    inner.fit(Shown(1), data)
    assert inner.shares[0] == 0
    outer.fit(inner, data)
    samples = predict(outer, data, 1)
    assert samples.weights is not None
    assert torch.allclose(samples.weights.sum(1), torch.ones(20))


def test_the_threshold_is_the_highest_that_keeps_the_risk() -> None:
    """Nine lesion pixels of one tenth each at 0.1 … 0.9, 19 patients, alpha 0.3: R ≤ (0.3 × 20 − 1) / 19 = 0.263."""
    prob, risk = np.arange(1, 10) / 10, np.full(9, 0.1)
    assert highest_threshold(prob, risk, 19, 0.3) == 0.3  # misses 0.1 and 0.2
    assert highest_threshold(prob, risk, 9, 0.1) == 0.1  # misses nothing
    with pytest.raises(UsageError, match=r"alpha=0.1 with 8 patients.*at least 9 are needed"):
        highest_threshold(prob, risk, 8, 0.1)
    with pytest.raises(UsageError, match="no threshold"):
        highest_threshold(np.r_[0.0, prob], np.r_[0.5, risk], 99, 0.3)


def readers_of(rng: np.random.Generator, patients: int) -> AnnotatedSet:
    """Patients with 1–3 cases of 6×6 pixels, maps that are related to lesions, better for some patients than others."""
    patient = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    n, skill = len(patient), rng.uniform(0, 3, patients)[patient]
    masks = rng.random((n, 2, 6, 6)) < 0.15
    masks &= rng.random((n, 2, 1, 1)) < 0.8
    logit = rng.normal(0, 1, (n, 6, 6)) + skill[:, None, None] * masks.mean(1)
    return cases((255 / (1 + np.exp(-logit)))[:, None], masks, patient)


def test_the_risk_of_conformal_sets_is_alpha_on_average_over_calibrations() -> None:
    """The guarantee is on the expectation: alpha − 2/(n+1) ≤ E risk ≤ alpha, over 200 trials of 40 patients."""
    alpha, n, risks = 0.2, 40, []
    for trial in range(200):
        rng = np.random.default_rng(trial)
        sampler = Conformal(Conformal.Options(alpha=alpha, samples=1))
        sampler.fit(Shown(1), readers_of(rng, n))
        risks.append(set_figures(sampler, readers_of(rng, n), 1)["risk"])
    error = np.std(risks, ddof=1) / math.sqrt(len(risks))
    assert alpha - 2 / (n + 1) - 3 * error <= np.mean(risks) <= alpha + 3 * error


class Drawing(Shown):
    """A sampler of independent hard masks, whose mean map is rough where they are few."""

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        prob = batch.images / 255.0
        return Samples((noise.of_cases((n, *prob.shape[2:]), "uniform") < prob).float(), None, "independent")


def test_sets_are_refused_with_another_number_of_samples_than_they_were_calibrated_with() -> None:
    """Calibrated with 16 and drawn with 2, the mean risk of 100 trials was 0.207 at alpha 0.2."""
    rng = np.random.default_rng(0)
    data, sampler = readers_of(rng, 40), Conformal(Conformal.Options(alpha=0.4))
    sampler.fit(Drawing(), data)
    assert predict(sampler, data, 16).prob.shape[:2] == (len(data), 1)
    with pytest.raises(UsageError, match=r"'conformal': calibrated with 16 samples.*2 are asked for.*samples=2"):
        predict(sampler, data, 2)
    sampler.fit(Shown(1), data)
    assert torch.equal(predict(sampler, data, 2).prob, predict(sampler, data, 16).prob)


def test_figures_of_sets_are_means_over_patients_of_means_over_cases() -> None:
    """Patient a: two cases, one lesion of two pixels half missed and one empty; b: a lesion of one pixel inside."""
    images, masks = np.zeros((3, 1, 8, 8)), np.zeros((3, 2, 8, 8), bool)
    images[0, 0, 0, :3] = images[2, 0, 4, 4] = 255
    masks[0, 0, 0, 2:4] = masks[2, :, 4, 4] = True
    data, sampler = cases(images, masks, ["a", "a", "b"]), Conformal(Conformal.Options())
    sampler.load_state(Shown(1), {"threshold": 0.5})
    figures = set_figures(sampler, data)
    assert figures == {
        "risk": pytest.approx(((0.5 / 2 + 0) / 2 + 0) / 2),
        "size": pytest.approx((3 / 2 + 1) / 2),
        "coverage": pytest.approx((0 + 1) / 2),
    }
    unread = replace(data, read=np.array([[True, False], [True, True], [True, True]]))
    assert set_figures(sampler, unread)["risk"] == pytest.approx(0.5 / 2 / 2)
