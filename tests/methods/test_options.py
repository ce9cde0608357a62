"""What every method promises (see test_contract), with options that take another way through its code."""

from typing import Any

import pytest
import torch

from tests.conftest import discs
from tests.methods.test_contract import arrays, noise, without_gradient
from uqseg import load_model, predict
from uqseg.errors import UsageError
from uqseg.methods import Method, build, find
from uqseg.noise import Noise
from uqseg.training import save_method

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"target": "fraction"}),
    ("unet", {"presence": True}),
    ("segnet", {"target": "fraction", "presence": True}),
    ("mcdropout", {"target": "fraction"}),
    ("probunet", {"readers": "all"}),
    ("probunet", {"hurdle": True}),
    ("probunet", {"readers": "all", "hurdle": True, "prior": "mixture", "balance": 0.8}),
    ("ssn", {"readers": "one"}),
    ("mose", {"sampling": "compact"}),
    ("energy", {"presence": True}),
    ("energy", {"codes": 5}),
    ("ccdm", {"levels": (8, 8)}),
    ("ccdm", {"levels": (4, 100), "blocks": 1}),
]
every_variant = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=lambda value: str(value))


def variant(name: str, options: dict[str, Any]) -> Method[Any]:
    return build(name, find(name).small | options, seed=1)


@every_variant
def test_every_weight_learns_and_the_noise_alone_decides_the_loss(name: str, options: dict[str, Any]) -> None:
    method, batch = variant(name, options), arrays()
    loss = method.loss(*batch, noise())
    assert loss.shape == (6,)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, method.loss(*batch, noise()))
    loss.mean().backward()
    assert without_gradient(method) == []


@every_variant
def test_a_case_depends_neither_on_other_cases_nor_on_absent_readers(name: str, options: dict[str, Any]) -> None:
    images, masks, read = arrays()
    read[:, 2] = False
    method = variant(name, options)
    loss = method.loss(images, masks, read, noise())
    masks[:, 2] = ~masks[:, 2]
    assert torch.equal(method.loss(images, masks, read, noise()), loss)
    method.eval()
    loss = method.loss(images, masks, read, noise())
    for part in (slice(0, 2), slice(2, 6)):
        rows = Noise.for_step(6, "l", rows=part)
        assert torch.allclose(method.loss(images[part], masks[part], read[part], rows), loss[part], rtol=1e-4)


@every_variant
def test_samples_are_those_of_the_case_and_of_the_saved_method(name: str, options: dict[str, Any], tmp_path) -> None:  # type: ignore[no-untyped-def]
    data, method = discs(6), variant(name, options)
    samples = predict(method, data, 5, batch=6, precision="fp32")
    save_method(method, tmp_path)
    again = predict(load_model(tmp_path), data, 5, batch=2, precision="fp32")
    assert torch.allclose(samples.prob, again.prob, atol=1e-6)
    assert samples.prob.shape == (6, method.support or 5, 32, 32)
    assert samples.weights is None or torch.allclose(samples.weights.sum(1), torch.ones(6))
    assert samples.drawn == ("support" if method.support else "stratified" if "sampling" in options else "independent")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("energy", {"c": 0}, "c"),
        ("bcnn", {"moped": 0.1, "pretrain": 0.5, "warmup": 0.8}, "sum of at most 1"),
    ],
)
def test_options_that_cannot_work_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(name, **options)
