"""Level sets of the mean map: nested masks whose mean is that map, from any sampler and without training."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from uqseg.noise import Noise
from uqseg.samples import Batch, Samples
from uqseg.wrappers.wrapper import Options, Wrapper, wrapper

BELOW_HALF = 0.5 - 2**-25  # the largest float32 that is no hypothesis


def level_sets(mean: Tensor, n: int) -> Tensor:
    """Probability samples float32 (B,n,H,W) of a mean map (B,H,W) in [0,1].

    Their hypotheses are [mean ≥ 1 − (s−½)/n], s = 1…n, and their mean is the map (to float32). Where k of the n levels
    hold a pixel and t = n·mean, samples inside are 1 and outside (t−k)/(n−k) if t ≥ k, else t/k inside and 0 outside:
    the values nearest to a hard mask that keep the mean.
    """
    mean = mean.double()
    levels = 1 - (torch.arange(n, device=mean.device, dtype=torch.float64) + 0.5) / n
    inside = mean[:, None] >= levels[:, None, None]
    k, t = inside.sum(1), n * mean
    within = torch.where(t >= k, 1.0, t / k.clamp_min(1))
    beyond = ((t - k) / (n - k).clamp_min(1)).clamp(0, BELOW_HALF)
    return torch.where(inside, within[:, None], beyond[:, None]).float()


def rescaled(mean: Tensor, presence: Tensor) -> Tensor:
    """A mean map (B,H,W) times a number for each image, so that its maximum is `presence` (B,); 0 stays 0."""
    maximum = mean.amax((1, 2))
    factor = torch.where(maximum > 0, presence.to(mean.dtype) / maximum, 0.0)
    return (mean * factor[:, None, None]).clamp(0, 1)


def weighted_level_sets(mean: Tensor, n: int) -> Samples:
    """n ≥ 2 weighted samples of a mean map (B,H,W) in [0,1]: an empty one, and level sets of the map over its maximum.

    The empty one weighs 1 − the maximum, the others share the rest, so their mean is the map. No sample is spent on
    saying how often nothing is drawn, and that share is exact where n equal samples round it to a multiple of 1/n.
    """
    mean = mean.double()
    maximum = mean.amax((1, 2))
    marked = level_sets(rescaled(mean, torch.ones_like(maximum)), n - 1)
    weights = torch.cat([(1 - maximum)[:, None], maximum[:, None].expand(-1, n - 1) / (n - 1)], 1)
    return Samples(torch.cat([torch.zeros_like(marked[:, :1]), marked], 1), weights.float(), "stratified")


class LevelsOptions(Options):
    """Whether an empty sample is set apart."""

    weighted: bool = Field(
        False,
        description="one sample is empty and weighs the share of readers who draw nothing; the others share the rest",
    )


@wrapper("levels")
class Levels(Wrapper[LevelsOptions]):
    """Level sets of the mean map, one at each of n evenly spaced levels: nested samples with the same mean.

    Where the method predicts how many readers draw anything, the map is first scaled so that its maximum, which is the
    share of level sets that mark anything, is that prediction.
    """

    Options = LevelsOptions
    version, varies = 1, "outcome"

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """n stratified samples; the wrapped sampler is asked for n samples, whose mean decides."""
        mean, presence = self.sampler.sample(batch, n, noise).mean(), self.predicted_presence(batch)
        if presence is not None:
            mean = rescaled(mean, presence)
        if self.options.weighted and n > 1:
            return weighted_level_sets(mean, n)
        return Samples(level_sets(mean, n), None, "stratified")
