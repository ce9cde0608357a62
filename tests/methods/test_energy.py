"""Energy: the distance, its gradient, its optimum, and the head that is computed in pieces."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.methods.test_contract import arrays, noise
from uqseg.methods import build
from uqseg.methods.energy import Energy, energy_distance, ruzicka, ruzicka_to_masks
from uqseg.nets import conditioned
from uqseg.nets.conditioned import ConditionedHead, decode, decode_in_cache
from uqseg.seeds import generator


def uniform(*shape: int, name: str = "energy") -> Tensor:
    return torch.rand(shape, generator=generator(name, *shape), dtype=torch.float64)


def test_ruzicka_is_jaccard_between_masks_and_zero_of_a_map_to_itself() -> None:
    p, y = uniform(2, 3, 30), (uniform(2, 4, 30) > 0.6).double()
    both, either = y @ y.transpose(1, 2), (y[:, :, None] + y[:, None]).clamp(max=1).sum(3)
    assert torch.allclose(ruzicka(y, y, 0.0), 1 - both / either)
    assert torch.equal(ruzicka(p, p, 4.0).diagonal(dim1=1, dim2=2), torch.zeros(2, 3).double())
    largest = torch.maximum(p[:, :, None], y[:, None]).sum(3)
    expected = (p[:, :, None] - y[:, None]).abs().sum(3) / (largest + 4)
    assert torch.allclose(ruzicka(p, y, 4.0), expected)
    assert torch.allclose(ruzicka_to_masks(p, y, 4.0), expected)
    empty = torch.zeros(1, 1, 9).double()
    assert ruzicka(empty, empty, 0.0).isnan().all()
    assert not ruzicka(empty, empty, 4.0).any()


@pytest.mark.parametrize("drawn", [True, False])
def test_gradient_against_finite_differences(drawn: bool) -> None:
    prob, masks, weights = uniform(2, 3, 10), (uniform(2, 4, 10) > 0.5).double(), uniform(2, 4)
    weights = weights / weights.sum(1, keepdim=True)
    prob = 0.05 + 0.9 * prob.requires_grad_()

    def energy(p: Tensor) -> Tensor:
        return energy_distance(p, masks, weights, 4.0, drawn=drawn)

    assert torch.autograd.gradcheck(energy, prob)


def test_energy_of_a_whole_support_is_least_at_the_readers_themselves() -> None:
    masks, weights = (uniform(1, 4, 40) > 0.7).double(), torch.full((1, 4), 0.25).double()
    at_readers = float(energy_distance(masks, masks, weights, 4.0, drawn=False))
    assert at_readers == pytest.approx(float(ruzicka(masks, masks, 4.0).mean()))  # 2·E − E of the readers
    for k in range(20):
        moved = (masks + 0.3 * (uniform(1, 4, 40, name=f"m{k}") - 0.5)).clamp(0, 1)
        assert float(energy_distance(moved, masks, weights, 4.0, drawn=False)) > at_readers


def test_energy_of_draws_does_not_depend_on_their_number() -> None:
    """Mean over draws from a fixed set of maps: the U-statistic of two equals the exact energy of the set."""
    maps, masks, weights = uniform(1, 5, 30), (uniform(1, 4, 30) > 0.7).double(), torch.full((1, 4), 0.25).double()
    pairs = [energy_distance(maps[:, [i, j]], masks, weights, 4.0) for i in range(5) for j in range(5)]
    exact = energy_distance(maps, masks, weights, 4.0, drawn=False)
    assert torch.allclose(torch.stack(pairs).mean(), exact)


@pytest.mark.parametrize("pieces", [16, 10**6])
def test_the_head_in_pieces_has_the_values_and_gradients_of_the_plain_one(
    pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditioned, "CACHED", 4 * 5 * 32 * pieces)
    head = ConditionedHead(4, 3)
    features = uniform(2, 4, 6, 7).float().requires_grad_()
    pixels, (scale, shift) = head.of_features(features), head.of_latent(uniform(2, 5, 3).float() - 0.5).chunk(2, -1)
    upper = uniform(2, 5, 6, 7).float()
    results = []
    for function in (decode, decode_in_cache):
        logits = function(pixels, shift, head.layers, 1 + scale)
        inputs = [features, *head.parameters()]
        results.append([logits, *torch.autograd.grad((logits * upper).sum(), inputs, retain_graph=True)])
    for plain, in_pieces in zip(*results, strict=True):
        assert torch.allclose(plain, in_pieces, atol=1e-5)


def test_loss_weighs_energy_mean_and_presence() -> None:
    images, masks, read = arrays()

    def loss(**options: Any) -> Tensor:
        return build("energy", Energy.small | options, seed=4).eval().loss(images, masks, read, noise())

    parts = loss(mean_weight=0.0), loss(energy_weight=0.0)
    assert torch.allclose(loss(), sum(parts), rtol=1e-5)  # type: ignore[arg-type]
    assert (loss(presence=True) > loss()).all()


def test_learned_codes_are_the_whole_support() -> None:
    images = arrays()[0]
    method: Any = build("energy", Energy.small | {"codes": 5})
    assert method.support == method.describes.support == 5
    with torch.no_grad():
        assert torch.equal(method.eval().draw(images, 3, noise()), method.draw(images, 9, noise()))


@pytest.mark.parametrize(("width", "dtype"), [(32, torch.float32), (64, torch.bfloat16)])
def test_the_head_rounds_to_bf16_only_where_that_saves_time(width: int, dtype: torch.dtype) -> None:
    """Of 100 samples in bf16, 32 channels take 1.1 times as long as in float32, 64 as long, 128 two thirds."""
    layers = [torch.nn.Conv2d(width, 1, 1)]
    pixels, shift = torch.randn(2, width, 4, 4).bfloat16(), torch.randn(2, 3, width).bfloat16()
    assert decode_in_cache(pixels, shift, layers).dtype == dtype
