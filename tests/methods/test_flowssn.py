"""Flow-SSN: the Euler path, and a flow that knows the answer."""

from typing import Any

import pytest
import torch

from tests.conftest import discs
from tests.methods.test_contract import arrays, noise
from uqseg.errors import UsageError
from uqseg.methods import build
from uqseg.methods.flowssn import FlowSSN
from uqseg.seeds import generator
from uqseg.training import Training, fit


def small(**options: Any) -> Any:
    return build("flowssn", FlowSSN.small | options).eval()


@torch.no_grad()
def test_the_end_of_the_path_is_that_of_the_differential_equation() -> None:
    method, u = small(steps=7), torch.randn(3, 16, 16, generator=generator("u"))
    y = u
    for step in range(7):
        y = y + (method.seen(y, torch.full((3,), step / 7)).sigmoid() - u) / 7
    assert torch.allclose(method.carry(u), y, atol=1e-5)
    assert (y.amin(), y.amax()) >= (-1e-5, -1e-5)


@torch.no_grad()
def test_a_flow_that_sees_the_same_mask_at_all_times_ends_in_it() -> None:
    method, u = small(steps=5), torch.randn(2, 16, 16, generator=generator("v"))
    method.flow_head.weight.zero_()
    method.flow_head.bias.fill_(1.5)
    assert torch.allclose(method.carry(u), torch.tensor(1.5).sigmoid().expand(2, 16, 16))


def test_the_flow_sees_the_image_only_through_the_noise_around_the_mean() -> None:
    """Without the base network's output all images have the same samples."""
    images, _, _ = arrays()
    method = small()
    with torch.no_grad():
        torch.nn.init.zeros_(method.head.weight)
        other = method.draw(images.flip(0), 2, noise())
        assert torch.equal(method.draw(images, 2, noise()), other)


def test_gradients_reach_the_base_network_through_the_start() -> None:
    method = small()
    method.loss(*arrays(), noise()).sum().backward()
    assert method.head.weight.grad.abs().sum() > 0


def test_one_image_a_step_is_declined_for_batch_norm_would_take_its_time_away() -> None:
    with pytest.raises(UsageError, match="give batch=2 or more"):
        fit(small().train(), discs(4), recipe=Training(steps=2, batch=1), seed=0)
