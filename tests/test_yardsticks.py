"""Yardsticks: they reach the ends of the scale that they stand for, in the numbers of version 0.1."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.yardsticks import YARDSTICKS, build
from tests.conftest import discs
from tests.golden import GOLDEN, golden_sets
from uqseg import predict
from uqseg.data import AnnotatedSet, load
from uqseg.errors import UsageError
from uqseg.samples import Samples

NEW = {"nested/brier": 0.021193893, "nested/ged": 0.009994543}
"""Of a yardstick that version 0.1 had not."""


def samples_of(name: str, data: AnnotatedSet, n: int = 16, train: AnnotatedSet | None = None) -> Samples:
    return predict(build(name, train or data), data, n)


def distance(a: Tensor, b: Tensor, wa: Tensor, wb: Tensor) -> float:
    """Expected 1 − |A∩B|/|A∪B| of masks (S,P) of weights (S,); 0 for two empty ones."""
    both = (a[:, None] & b).sum(2).double()
    union = (a[:, None] | b).sum(2).double()
    return float(wa.double() @ torch.where(union > 0, 1 - both / union.clamp_min(1), 0.0) @ wb.double())


def ged(samples: Samples, data: AnnotatedSet) -> float:
    """Mean squared generalised energy distance."""
    total, hypotheses = 0.0, samples.hypotheses().flatten(2)
    for i, masks in enumerate(data.masks):
        s, y = hypotheses[i], torch.from_numpy(masks[data.read[i]]).flatten(1)
        w = torch.ones(len(s)) / len(s) if samples.weights is None else samples.weights[i]
        v = torch.ones(len(y)) / len(y)
        total += 2 * distance(s, y, w, v) - distance(s, s, w, w) - distance(y, y, v, v)
    return total / len(data)


def test_the_scale_has_its_order() -> None:
    data = discs(60)
    value = {name: ged(samples_of(name, data), data) for name in YARDSTICKS}
    assert value["human"] == pytest.approx(0, abs=1e-6), "the readers' own masks; leave_one_out scores it"
    assert value["nested"] < value["oracle"] < value["consensus"] < value["background"]


@pytest.mark.parametrize("name", ["background", "prevalence", "consensus", "oracle", "nested"])
def test_the_numbers_are_those_of_version_one(name: str) -> None:
    """Its Brier score and its GED: a change of samples needs a version."""
    train, test = golden_sets()
    samples, read = samples_of(name, test, 8, train), torch.from_numpy(test.read)
    stored = np.load(GOLDEN / "statistics.npz")
    values = dict(zip(stored["names"].tolist(), stored["values"].mean(1), strict=True)) | NEW
    errors = (samples.mean()[:, None] - torch.from_numpy(test.masks).double()).square().mean((2, 3))
    brier = float(((errors * read).sum(1) / read.sum(1)).mean())
    assert (brier, ged(samples, test)) == pytest.approx((values[f"{name}/brier"], values[f"{name}/ged"]), abs=1e-6)
    assert YARDSTICKS[name].version == 1


def test_what_each_yardstick_says_of_its_samples() -> None:
    data = discs(3)
    drawn = {name: samples_of(name, data, 9) for name in YARDSTICKS}
    count = {"background": 1, "prevalence": 1, "consensus": 1, "oracle": 9, "nested": 4, "human": 4}
    assert {name: samples.prob.shape[1] for name, samples in drawn.items()} == count
    assert {name for name, samples in drawn.items() if samples.drawn == "independent"} == {"oracle"}
    for name in YARDSTICKS:
        yardstick = build(name, data)
        assert yardstick.describes == (name, "outcome", None if name == "oracle" else count[name])
        assert yardstick.description
    assert [name for name, cls in YARDSTICKS.items() if cls.leave_one_out] == ["human"]


def test_prevalence_is_calibrated_where_it_was_counted() -> None:
    data = discs(60)
    prob = samples_of("prevalence", data).prob
    assert torch.allclose(prob[0, 0], torch.from_numpy(data.masks).float().mean((0, 1)), atol=1e-6)


def test_absent_readers_are_neither_drawn_nor_counted() -> None:
    data = discs(30)
    data.read[:, 1] = False
    data.masks[:, 1] = True
    for name in ("consensus", "oracle", "nested", "human"):
        samples = samples_of(name, data, 9)
        assert not samples.hypotheses().flatten(2).all(2).any(), name
        if name in ("nested", "human"):
            assert samples.weights is not None
            assert samples.weights.unique().tolist() == pytest.approx([0, 1 / 3])
            assert torch.allclose(samples.mean(), torch.from_numpy(data.masks[:, [0, 2, 3]]).double().mean(1))


def test_nested_by_hand() -> None:
    """Of readers who marked pixels 0 1, 1 2 and 1, one absent: {0 1 2}, {1}, {1} of weight 1/3 each."""
    data = discs(1)
    data.masks[:], data.read[0, 3] = False, False
    for reader, pixels in enumerate(([0, 1], [1, 2], [1])):
        data.masks[0, reader, 0, pixels] = True
    samples = samples_of("nested", data)
    assert samples.weights is not None
    assert samples.weights[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert samples.prob[0, :, 0, :3].tolist() == [[1, 1, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_what_is_unknown_or_has_no_readers_is_refused() -> None:
    data = discs(2)
    with pytest.raises(UsageError, match="Did you mean 'oracle'"):
        build("oracl", data)
    with pytest.raises(ValueError, match="yardstick 'oracle': expected a batch with masks and read"):
        predict(build("oracle", data), data.images, 3)


@pytest.mark.skipif("UQSEG_LIDC_SLICES" not in os.environ, reason="UQSEG_LIDC_SLICES does not name the real slices")
def test_on_real_slices_the_scale_is_as_it_was_measured(tmp_path: Path) -> None:
    """Another 20 % of the patients gave GED 0.784 and 0.272; slices of 141 patients gave nested 0.008."""
    data = load(f"lidc-slices:{os.environ['UQSEG_LIDC_SLICES']}", split="test", size=64, cache=tmp_path)
    assert ged(samples_of("background", data), data) == pytest.approx(0.784, abs=0.03)
    assert ged(samples_of("consensus", data), data) == pytest.approx(0.272, abs=0.03)
    assert ged(samples_of("nested", data), data) == pytest.approx(0.008, abs=0.003)
