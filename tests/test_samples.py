"""Samples, batches and noise: the values that everything passes."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from uqseg import predict
from uqseg.noise import Noise
from uqseg.prediction import predict_batches
from uqseg.samples import Batch, Description, Samples
from uqseg.seeds import generator


def samples(weights: list[list[float]] | None = None) -> Samples:
    prob = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 0.5]]).view(1, 2, 1, 3)
    return Samples(prob, None if weights is None else torch.tensor(weights), "independent")


def test_mean_std_and_hypotheses_by_hand() -> None:
    equal, weighted = samples(), samples([[0.75, 0.25]])
    assert equal.mean().tolist() == [[[0.5, 1.0, 0.5]]]
    assert equal.mean().dtype == torch.float64
    assert equal.std().tolist() == [[[0.5, 0.0, 0.0]]]
    assert weighted.mean().tolist() == [[[0.25, 1.0, 0.5]]]
    assert weighted.std().squeeze().tolist() == pytest.approx([(0.75 * 0.25) ** 0.5, 0, 0])
    assert equal.hypotheses().squeeze().tolist() == [[False, True, True], [True, True, True]]


def test_equal_weights_are_no_weights() -> None:
    prob = torch.rand(3, 5, 4, 4, generator=generator("s"))
    equal = Samples(prob, torch.full((3, 5), 0.2), "independent")
    plain = Samples(prob, None, "independent")
    assert torch.allclose(equal.mean(), plain.mean(), atol=1e-6)
    assert torch.allclose(equal.std(), plain.std(), atol=1e-6)


def test_parts_are_joined_and_taken_with_their_weights() -> None:
    prob, weights = torch.rand(5, 2, 4, 4, generator=generator("p")), torch.tensor([[0.3, 0.7]]).expand(5, 2)
    both = Samples(prob, weights, "support")
    joined = Samples.concatenate([both.rows(slice(0, 2)), both.rows(slice(2, 5))])
    assert torch.equal(joined.prob, prob)
    assert joined.weights is not None
    assert torch.equal(joined.weights, weights)
    assert joined.drawn == "support"
    with pytest.raises(ValueError, match="one kind"):
        Samples.concatenate([both, Samples(prob, None, "support")])
    with pytest.raises(ValueError, match="one kind"):
        Samples.concatenate([both, Samples(prob, weights, "independent")])


@pytest.mark.parametrize(
    ("prob", "weights", "drawn", "reason"),
    [
        (torch.zeros(2, 4, 4), None, "support", r"samples: expected \(B,S,H,W\)"),
        (torch.zeros(2, 0, 4, 4), None, "support", "S at least 1"),
        (torch.zeros(2, 3, 4, 4), torch.ones(3), "support", r"weights: expected \(2, 3\), got \(3,\)"),
        (torch.zeros(2, 3, 4, 4), None, "exact", "drawn: expected one of independent, support, stratified"),
    ],
)
def test_wrong_shapes_are_refused(prob, weights, drawn, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Samples(prob, weights, drawn)


def test_a_case_has_its_own_numbers_whatever_its_batch() -> None:
    noise = Noise.for_cases(["a", "b", "c"], "sample", 3)
    both = noise.of_cases((4,)), noise.of_cases((2, 2), "uniform")
    source = generator("sample", 3, "b")
    assert torch.equal(both[0][1], torch.randn(4, generator=source))
    assert torch.equal(both[1][1], torch.rand(2, 2, generator=source))
    part = Noise.for_cases(["a", "b", "c"], "sample", 3).rows(slice(1, 3))
    assert torch.equal(part.of_cases((4,)), both[0][1:])
    assert Noise.for_cases([], "sample", 3).of_cases((4,)).shape == (0, 4)


def test_shared_numbers_are_those_of_the_sample_in_every_batch() -> None:
    noise = Noise.for_cases(["a", "b"], "sample", 3)
    first = noise.shared(0, (4,)), noise.shared(0, (4,))
    assert not torch.equal(*first)
    for other in (noise.rows(slice(1, 2)), Noise.for_cases(["z"], "sample", 3)):
        assert torch.equal(other.shared(0, (4,)), first[0])
        assert torch.equal(other.shared(0, (4,)), first[1])
        assert not torch.equal(other.shared(1, (4,)), first[0])
    assert not torch.equal(Noise.for_cases(["z"], "sample", 4).shared(0, (4,)), first[0])


def test_a_step_draws_for_the_global_batch_and_keeps_its_rows() -> None:
    everything = Noise.for_step(6, "step", 1, 2)
    parts = [Noise.for_step(6, "step", 1, 2, rows=rows) for rows in (slice(0, 2), slice(2, 6))]
    source = generator("step", 1, 2)
    for shape, distribution, draw in (((3,), "normal", torch.randn), ((), "uniform", torch.rand)):
        drawn = everything.of_cases(shape, distribution)
        assert torch.equal(drawn, torch.cat([part.of_cases(shape, distribution) for part in parts]))
        assert torch.equal(drawn, draw(6, *shape, generator=source))
    assert torch.equal(parts[0].shared(0, (2,)), parts[1].shared(0, (2,)))
    with pytest.raises(ValueError, match="got that of a training step"):
        everything.rows(slice(0, 2))


class Recorder:
    """A sampler that keeps the batches it was shown."""

    describes = Description("recorder", "outcome", 1)

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        self.batches.append(batch)
        return Samples(batch.images[:, :1].float() / 255, None, "support")


class Reading(Recorder):
    needs_readers = True


def test_readers_are_shown_to_those_that_need_them_alone(small) -> None:
    plain, yardstick = Recorder(), Reading()
    for sampler in (plain, yardstick):
        assert len(predict(sampler, small, 3, batch=5)) == 12
    assert [len(batch) for batch in plain.batches] == [5, 5, 2]
    assert all(batch.masks is None and batch.read is None for batch in plain.batches)
    masks = [batch.masks for batch in yardstick.batches if batch.masks is not None]
    assert np.array_equal(torch.cat(masks).numpy(), small.masks)
    assert [key for batch in plain.batches for key in batch.keys] == small.table["case"].tolist()
    list(predict_batches(plain, small, 3, with_readers=True))
    assert plain.batches[-1].read is not None
    list(predict_batches(plain, small.images, 3, keys=range(12)))
    assert plain.batches[-1].keys == [str(i) for i in range(12)]


def test_what_cannot_be_predicted_is_refused(small) -> None:
    for data, keywords, reason in (
        (small.images.astype(float), {}, "images: expected uint8"),
        (small.images, {"keys": ["a"]}, "keys: expected one for each of 12"),
        (small.images, {"batch": 0}, "batch: expected a whole number from 1"),
        (small.images[:0], {}, "at least one image"),
    ):
        with pytest.raises(ValueError, match=reason):
            predict(Recorder(), data, **keywords)


def test_parts_of_a_batch_are_views_and_may_lose_their_readers(small) -> None:
    batch = Batch(torch.zeros(3, 1, 4, 4), ["a", "b", "c"], torch.ones(3, 2, 4, 4), torch.ones(3, 2), torch.ones(3, 2))
    part = batch.to("cpu").rows(slice(1, 3))
    assert part.keys == ["b", "c"]
    assert part.masks is not None
    assert len(part) == len(part.masks) == len(part.spacing) == 2
    assert part.without_readers().masks is None


def test_seeds_errors_and_files_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\nimport uqseg, uqseg.seeds, uqseg.errors, uqseg.files, uqseg.outside\n"
    )
    code += "assert uqseg.__version__ and uqseg.seeds.seed_of('a')"
    subprocess.run([sys.executable, "-c", code], check=True)
