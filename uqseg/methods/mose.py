"""Mixture of stochastic experts (Gao 2023): weighted samples, matched to all readers by optimal transport."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from uqseg.methods.losses import reader_weights
from uqseg.methods.method import Method, method
from uqseg.methods.unet import UNetOptions
from uqseg.nets.conditioned import ConditionedHead
from uqseg.nets.pooled import PooledHead
from uqseg.nets.unet import UNet
from uqseg.noise import Noise
from uqseg.samples import Samples

SMOOTH = 1.0
"""Added to numerator and denominator of the soft IoU, in pixels."""
SPREAD = 0.8
"""Share of the steps after which a sample may serve all readers; before it, half of them, so that no expert dies."""


class MoSEOptions(UNetOptions):
    """Options of the network and of its experts."""

    experts: int = Field(4, ge=1, le=1000, description="experts, each a Gaussian of one dimension")
    draws: int = Field(4, ge=1, le=1000, description="draws of each expert in training")
    beta: float = Field(1.0, ge=0, description="weight of the gate's divergence from the mass that was transported")
    sampling: Literal["standard", "compact"] = Field(
        "standard", description="independent draws; or as many of each expert, weighted by the gate"
    )


def transport(cost: NDArray[np.floating], weights: NDArray[np.floating], capacity: float) -> NDArray[np.float64]:
    """The cheapest plan (R,S): reader r gives all of its mass, no sample takes more than `capacity` of the whole.

    cost (R,S); weights (R,): 0 or the same number for each reader who read. Readers have equal masses, so the plan may
    be taken whole: each reader goes to one sample, which has as many places as the capacity holds readers.
    """
    from scipy.optimize import linear_sum_assignment  # a half second that only few commands need

    present = np.flatnonzero(weights)
    places = min(max(1, int(capacity * len(present) + 1e-6)), len(present))
    if places * cost.shape[1] < len(present):
        places = -(-len(present) // cost.shape[1])  # so few samples must take more
    rows, columns = linear_sum_assignment(np.repeat(cost[present], places, axis=1))
    plan = np.zeros(cost.shape)
    plan[present[rows], columns // places] = weights[present[rows]]
    return plan


def soft_distance(prob: Tensor, masks: Tensor) -> Tensor:
    """1 − soft IoU (B,R,S) of probabilities (B,S,P) and masks (B,R,P)."""
    both = masks @ prob.transpose(1, 2)
    either = masks.sum(2)[:, :, None] + prob.sum(2)[:, None] - both
    return 1 - (both + SMOOTH) / (either + SMOOTH)


@method("mose")
class MoSE(Method[MoSEOptions]):
    """Mixture of stochastic experts: weighted samples of a few experts, matched to all readers by optimal transport."""

    Options = MoSEOptions
    version, small = 1, {"width": 4, "depth": 3, "draws": 2}

    progress: Tensor

    def __init__(self, options: MoSEOptions, *, channels: int, readers: int) -> None:
        super().__init__(options, channels=channels, readers=readers)
        self.network = UNet(channels, options.width, options.depth)
        self.gate = PooledHead(self.network.deepest, options.experts)
        self.head = ConditionedHead(options.width, 1)
        self.mean = nn.Parameter(torch.linspace(-1, 1, options.experts) if options.experts > 1 else torch.zeros(1))
        self.log_deviation = nn.Parameter(torch.full((options.experts,), -2.0))
        self.register_buffer("progress", torch.zeros(()))

    def latents(self, expert: Tensor, draws: Tensor) -> Tensor:
        """Latents (B,S,1) of the experts' numbers (B,S), from standard normal numbers (B,S)."""
        return (self.mean[expert] + self.log_deviation[expert].exp() * draws)[..., None]

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Cost of the cheapest transport from readers to samples + β/S · KL(mass that arrives ‖ gate)."""
        o = self.options
        deepest, features = self.network.features(images)
        expert = torch.arange(o.experts, device=images.device).repeat_interleave(o.draws).expand(len(images), -1)
        logits = self.head(features, self.latents(expert, noise.of_cases((o.experts * o.draws,))))
        log_gate = (self.gate(deepest).log_softmax(1) - np.log(o.draws)).gather(1, expert)
        with torch.autocast(images.device.type, enabled=False):
            cost = soft_distance(logits.float().sigmoid().flatten(2), masks.flatten(2).float())
        weights, capacity = reader_weights(read, noise), 0.5 if self.progress < SPREAD else 1.0
        each = zip(cost.detach().double().cpu().numpy(), weights.double().cpu().numpy(), strict=True)
        plan = torch.from_numpy(np.stack([transport(*one, capacity) for one in each])).to(cost)
        mass = plan.sum(1)
        divergence = torch.xlogy(mass, mass).sum(1) - (mass * log_gate).sum(1)
        loss: Tensor = (plan * cost).sum((1, 2)) + o.beta / expert.shape[1] * divergence
        return loss

    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor | Samples:
        """n samples: independent draws (B,n,H,W), or by option `sampling` stratified ones with weights."""
        o = self.options
        deepest, features = self.network.features(images)
        gate, draws = self.gate(deepest).softmax(1), noise.of_cases((n,))
        if o.sampling == "standard":
            chosen = torch.searchsorted(gate.cumsum(1), noise.of_cases((n,), "uniform")).clamp_max(o.experts - 1)
            return self.head(features, self.latents(chosen, draws)).float().sigmoid()  # type: ignore[no-any-return]
        # Each expert in turn; of fewer samples than experts those of the largest shares.
        turns = torch.arange(n, device=images.device) % o.experts
        expert = gate.argsort(1, descending=True)[:, :n] if n < o.experts else turns.expand(len(images), -1)
        shares = gate.gather(1, expert) / torch.bincount(turns)[turns]
        prob = self.head(features, self.latents(expert, draws)).float().sigmoid()
        return Samples(prob, shares / shares.sum(1, keepdim=True), "stratified")

    def after_step(self, step: int, total: int) -> None:
        """Take note of the progress, which decides how much a sample may take."""
        self.progress.fill_(step / total)

    def watch(self) -> dict[str, float]:
        """The mean of each expert's latent."""
        return {f"expert_{k}": mean for k, mean in enumerate(self.mean.tolist())}
