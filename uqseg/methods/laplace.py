"""Last-layer Laplace approximation (Daxberger 2021): a Gaussian over the weights of the 1×1 head of a trained U-Net."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from uqseg.methods.losses import reader_fraction
from uqseg.methods.method import method
from uqseg.methods.unet import SingleNetwork, SingleOptions
from uqseg.noise import Noise


class LaplaceOptions(SingleOptions):
    """Options of the network and of its curvature."""

    pixels: float = Field(128.0, gt=0, description="pixels that count as one observation: they are not independent")
    images: int = Field(1000, ge=1, description="training images that the curvature is taken from")


def precision_of_prior(curvatures: Tensor, weights: Tensor) -> float:
    """The precision λ of a prior N(0, 1/λ) that maximises the marginal likelihood (MacKay's fixed point).

    curvatures: eigenvalues of the loss's Hessian at `weights`.
    """
    precision = 1.0
    for _ in range(100):
        determined = float((curvatures / (curvatures + precision)).sum())
        precision = determined / float(weights.square().sum())
    return precision


@method("laplace")
class Laplace(SingleNetwork[LaplaceOptions]):
    """Laplace: a trained U-Net, the weights of its last layer drawn from the Gaussian that its curvature gives."""

    Options = LaplaceOptions
    version, small, varies = 1, {"width": 4, "depth": 3}, "weights"
    factor: Tensor

    def __init__(self, options: LaplaceOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        # Deviations of [weights, bias] are factor @ normal numbers: none before training ends.
        self.register_buffer("factor", torch.zeros(self.network.width + 1, self.network.width + 1))
        self.trained_on = 1

    @property
    def support(self) -> int | None:
        """None: each sample draws the last layer anew."""
        return None

    def before_steps(self, images: int, steps: int) -> None:
        """Take note of how many images it is trained on, which the curvature is scaled to."""
        self.trained_on = images

    def last_layer(self) -> Tensor:
        """Weights and bias of the head as one vector."""
        return torch.cat([p.flatten() for p in self.head.parameters()])

    @torch.no_grad()
    def curvature(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """Gauss–Newton matrix Σ c p(1−p) [f,1][f,1]ᵀ over the pixels of all training images, divided by `pixels`; c is
        what the cross-entropy counts there: 1, and pos_weight in the foreground."""
        total, images, o = torch.zeros_like(self.factor, dtype=torch.float64), 0, self.options
        for batch, masks, read in batches:
            teachers = read / read.sum(1, keepdim=True)
            if o.reader is not None:
                teachers = F.one_hot(torch.tensor(o.reader, device=read.device), self.readers) * read
            counts = teachers.sum(1)[:, None, None] + (o.pos_weight - 1) * reader_fraction(masks, teachers)
            features = self.network(batch)
            p = self.head(features).float().sigmoid().flatten()
            slope = p * (1 - p) * counts.flatten()
            rows = F.pad(features, (0, 0, 0, 0, 0, 1), value=1.0).double().transpose(0, 1).flatten(1)
            total += (rows * slope) @ rows.t()
            images += len(batch)
            if images >= self.options.images:
                break
        return total * (self.trained_on / images / self.options.pixels)

    @torch.no_grad()
    def finish(self, train: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Fit the posterior of the last layer: a factor of its covariance."""
        self.eval()
        values, vectors = torch.linalg.eigh(self.curvature(train))
        precision = precision_of_prior(values.clamp_min(0), self.last_layer().double())
        self.factor.copy_(vectors * (values.clamp_min(0) + precision).rsqrt())

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor:
        """Probabilities (B,n,H,W): sample k is one draw of the last layer, the same for all cases."""
        features = self.network(images).float()
        normal = torch.stack([noise.shared(k, (len(self.factor),)) for k in range(n)])
        with torch.autocast(images.device.type, enabled=False):  # bf16 would round the small deviations away
            weights = self.last_layer() + normal @ self.factor.t()
            return F.conv2d(features, weights[:, :-1, None, None], weights[:, -1]).sigmoid_()
