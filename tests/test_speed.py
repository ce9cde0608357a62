"""The fast ways stay faster than the plain ones: ratios of processor time in turns, with margins for a busy machine.

And work that is done again and again keeps no memory.
"""

import time
from collections.abc import Iterator

import pytest
import torch

from baselines.peers import plain
from bench.timing.measure import Work, in_turns, operations, ratio
from bench.timing.scale import own_memory
from bench.timing.sections import blob_samples, channels_first, noise_set, plain_sampling_work, sampling_work
from uqseg.methods import build
from uqseg.metrics import ambiguity, score
from uqseg.prediction import predict


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def times_faster(slow: Work, fast: Work) -> float:
    seconds = in_turns({"slow": slow, "fast": fast}, 5, clock=time.process_time)
    return ratio(seconds["slow"], seconds["fast"]).median


@pytest.mark.parametrize(("name", "n", "least"), [("probunet", 50, 1.4), ("mcdropout", 8, 1.2)])
def test_sampling_is_faster_than_the_plain_way(name: str, n: int, least: float) -> None:
    images, method = noise_set(2, 64).images, build(name).eval()
    slow = channels_first(method, torch.device("cpu"))
    fast = method.to(memory_format=torch.channels_last)
    assert times_faster(plain_sampling_work(slow, images, n), sampling_work(fast, images, n)) > least


def test_pairwise_metrics_are_faster_than_loops() -> None:
    hypotheses, readers = blob_samples(1, 40, 64) >= 0.5, torch.from_numpy(noise_set(1, 64).masks)
    slow = lambda: plain.ged(hypotheses[0].numpy(), readers[0].numpy())  # noqa: E731
    assert times_faster(slow, lambda: ambiguity.ged(hypotheses, readers)) > 4


def test_operations_of_a_product_are_counted() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert operations(lambda: a @ b) == 2 * 3 * 5 * 7


@pytest.mark.soak
@pytest.mark.skipif(not own_memory(), reason="the system does not tell how much memory is a process's own")
def test_sampling_and_scoring_again_and_again_keep_no_memory() -> None:
    data, method = noise_set(16, 64), build("probunet", levels=(8, 16)).eval()
    masks = torch.from_numpy(data.masks)

    def rounds(number: int) -> int:
        for _ in range(number):
            score(predict(method, data, 16), masks)
        return own_memory()

    warm = rounds(20)
    assert rounds(200) - warm < 50e6  # the samples of one round are 4 MB, what it computes in between much more
