"""Calibrated presence: how many samples mark anything, learnt by isotonic regression on validation patients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from uqseg.data.annotated import AnnotatedSet
from uqseg.noise import Noise
from uqseg.samples import Batch, Drawn, Samples
from uqseg.wrappers.wrapper import Calibration, CalibrationOptions, wrapper


def strength(samples: Samples) -> Tensor:
    """Mean over samples of their largest probability: (B,) in [0,1]. Of hard masks the share that marks anything."""
    largest = samples.prob.double().amax((2, 3))
    return largest.mean(1) if samples.weights is None else (largest * samples.weights).sum(1)


@wrapper("presence")
class Presence(Calibration[CalibrationOptions]):
    """Presence: the samples that mark anything share a calibrated weight g, one empty sample has 1 − g.

    g is a rising function of `strength`. As the weights say whether, the samples only say where: each that marks
    anything is divided by its maximum, which changes soft ones alone (whose mean would hold the doubt about presence
    twice). g holds for as many samples as it was calibrated with: of fewer, strength is rougher. Where no sample of any
    weight marks anything, the mean map divided by its maximum stands for them.
    """

    Options = CalibrationOptions
    version, fitted = 1, ("strengths", "shares")
    strengths: list[float]
    shares: list[float]

    @property
    def support(self) -> int | None:
        """One more than inside: the empty sample."""
        inner = self.sampler.describes.support
        return None if inner is None else inner + 1

    def calibrate(self, val: AnnotatedSet) -> None:
        """g: the isotonic regression of the share of readers who drew anything on `strength`, linear in between."""
        from scipy.optimize import isotonic_regression  # a half second that only few commands need

        x = np.concatenate([strength(samples).numpy() for _, samples in self.answers(val)])
        drew = (val.masks.any((2, 3)) & val.read).sum(1) / val.read.sum(1)
        values, index, counts = np.unique(x, return_inverse=True, return_counts=True)
        g = isotonic_regression(np.bincount(index, drew) / counts, weights=counts).x
        # Inside a block of equal g only its ends matter.
        ends = np.r_[True, np.diff(g) != 0] | np.r_[np.diff(g) != 0, True]
        self.strengths, self.shares = values[ends].tolist(), g[ends].clip(0, 1).tolist()

    def predicted_presence(self, batch: Batch) -> Tensor | None:
        """None: the samples' weights say it."""
        return None

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """The wrapped samples that mark anything, together of weight g, and an empty one of weight 1 − g."""
        samples = self.sampler.sample(batch, n, noise)
        g = np.interp(strength(samples).cpu().numpy(), self.strengths, self.shares)
        share = torch.from_numpy(g).to(samples.prob)
        marks = samples.hypotheses().flatten(2).any(2)
        weights = marks / samples.prob.shape[1] if samples.weights is None else marks * samples.weights
        silent = weights.sum(1) == 0  # nothing marks, or only what weighs nothing
        prob, mean = samples.prob.clone(), samples.mean().to(samples.prob)
        prob[silent, 0], weights[silent, 0] = mean[silent], 1
        largest = prob.amax((2, 3), keepdim=True)
        prob = torch.where((weights > 0)[..., None, None] & (largest > 0), prob / largest, prob)
        share = torch.where(mean.amax((1, 2)) > 0, share, 0)
        weights = weights / weights.sum(1, keepdim=True) * share[:, None]
        drawn: Drawn = "stratified" if self.support is None else "support"
        empty = torch.zeros_like(prob[:, :1])
        return Samples(torch.cat([prob, empty], 1), torch.cat([weights, 1 - share[:, None]], 1), drawn)
