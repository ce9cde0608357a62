"""Chains of wrappers: what they declare, what they learn from, what can be stored of them."""

import json
from typing import Any

import pytest
import torch

from tests.conftest import discs
from uqseg import predict
from uqseg.errors import UsageError
from uqseg.methods import build as build_method
from uqseg.methods import find as find_method
from uqseg.samples import Sampler
from uqseg.wrappers import Wrapper, build, find, names, wrap
from uqseg.wrappers.wrapper import Calibration, CalibrationOptions

every_wrapper = pytest.mark.parametrize("name", names())


def trained(inner: str) -> Sampler:
    """Not trained, but as sure of its masks as trained methods are."""
    method: Any = build_method(inner, seed=1, **find_method(inner).small)
    for head in [method.head] if hasattr(method, "head") else [member.head for member in method.members]:
        torch.nn.init.zeros_(head.bias)
    return method


def wrapped(name: str, inner: str) -> Wrapper[Any]:
    wrapper = build(name, **find(name).small)
    wrapper.fit(trained(inner), discs(24, seed=3))
    return wrapper


@every_wrapper
@pytest.mark.parametrize("inner", ["unet", "mcdropout", "deepensemble"])
def test_a_finite_support_has_the_number_of_samples_that_was_declared(name: str, inner: str) -> None:
    sampler = wrapped(name, inner)
    samples = predict(sampler, discs(5), 16, precision="fp32")
    assert (samples.drawn == "support") == (sampler.describes.support is not None)
    assert sampler.describes.support in (None, samples.prob.shape[1])


@every_wrapper
def test_what_a_wrapper_learnt_passes_through_json(name: str) -> None:
    fitted, data = wrapped(name, "mcdropout"), discs(3)
    restored = build(name, **find(name).small)
    restored.load_state(fitted.sampler, json.loads(json.dumps(fitted.state())))
    first, second = predict(fitted, data, 16), predict(restored, data, 16)
    assert torch.equal(first.prob, second.prob)
    assert first.weights is None or torch.equal(first.weights, second.weights)


@pytest.mark.parametrize("name", [name for name in names() if issubclass(find(name), Calibration)])
def test_without_cases_or_readers_a_wrapper_that_learns_says_so(name: str) -> None:
    with pytest.raises(UsageError, match=f"wrapper '{name}' learns from validation cases, and there are none"):
        build(name).fit(trained("unet"), None)
    data = discs(24, seed=3)
    data.read[3] = False
    with pytest.raises(UsageError, match=f"wrapper '{name}': expected a reader of every case, got none of case '"):
        build(name, **find(name).small).fit(trained("unet"), data)


@pytest.mark.parametrize(
    ("chain", "count", "drawn"),
    [
        (["tta", "levels"], 16, "stratified"),
        (["tta", "presence"], 17, "stratified"),
        (["temperature", "tta", "levels"], 16, "stratified"),
        (["presence", "levels"], 16, "stratified"),
        (["levels", "presence"], 17, "stratified"),
        (["temperature", "conformal"], 1, "support"),
    ],
)
def test_wrappers_combine(chain: list[str], count: int, drawn: str) -> None:
    sampler = wrap(trained("mcdropout"), [build(name, **find(name).small) for name in chain], discs(40, seed=3))
    samples = predict(sampler, discs(3), 16)
    assert samples.prob.shape == (3, count, 32, 32)
    assert samples.drawn == drawn
    assert sampler.describes.name == "+".join(["mcdropout", *chain])


class Recorder(Calibration[CalibrationOptions]):
    """Keeps the patients that it learns from."""

    def calibrate(self, val: Any) -> None:
        self.patients = set(val.table["patient"])

    def sample(self, batch: Any, n: int, noise: Any) -> Any:
        return self.sampler.sample(batch, n, noise)


class Holding(Recorder):
    """The same, for cases that are new to what it wraps."""

    holds_out = True


def test_a_wrapper_that_holds_cases_out_shares_no_patient_with_those_inside() -> None:
    data = discs(60)
    inside, outside, alone = (cls(CalibrationOptions()) for cls in (Recorder, Holding, Recorder))
    wrap(trained("unet"), [inside, outside], data)
    wrap(trained("unet"), [alone], data)
    assert inside.patients.isdisjoint(outside.patients)
    assert inside.patients | outside.patients == alone.patients == set(data.table["patient"])
    assert min(len(inside.patients), len(outside.patients)) > 5
