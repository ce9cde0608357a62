"""Other people's packages give this project's numbers where they mean the same."""

import numpy as np
import pytest
import torch

from baselines.peers import packages, public
from uqseg.metrics import Scored, calibration, maps


def test_a_package_that_is_not_installed_is_named() -> None:
    assert "No module" in str(packages.missing("no_such_package"))


def sets() -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.random((2, 3, 16, 16)) > 0.6), torch.from_numpy(rng.random((2, 4, 16, 16)) > 0.6)


def test_torchmetrics_and_sklearn_agree() -> None:
    pytest.importorskip("torchmetrics")
    pytest.importorskip("sklearn")
    samples, readers = sets()
    iou = 1 - Scored(samples, readers).distances[:, :3, 3:]
    assert np.allclose(packages.sklearn_iou(samples, readers), iou)
    assert np.allclose(packages.torchmetrics_iou(samples, readers), iou)
    prob = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    n, p, y = calibration.reliability(prob, readers).sum(0)
    assert float(packages.torchmetrics_ece(prob, readers)) == pytest.approx(
        float((p - y).abs().sum() / n.sum()), abs=1e-5
    )
    wrong = readers[:, 0].flatten(1)
    theirs = packages.sklearn_average_precision(prob.flatten(1), wrong)
    assert np.allclose(theirs, maps.average_precision(prob.flatten(1), wrong))


@pytest.mark.extras
def test_monai_agrees() -> None:
    pytest.importorskip("monai")
    samples, readers = sets()
    assert torch.allclose(packages.monai_dice(samples, readers).double(), Scored(samples, readers).dice, atol=1e-6)


def test_the_public_probabilistic_unet_learns_and_its_samples_differ() -> None:
    torch.manual_seed(0)
    network, images = public.ProbUNet((4, 8)), torch.rand(2, 1, 16, 16)
    network.loss(images, (images[:, 0] > 0.5).float()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    samples = network.samples(images, 3)
    assert samples.shape == (2, 3, 16, 16)
    assert (samples[:, 0] != samples[:, 1]).any()
