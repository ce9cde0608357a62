"""Temperature scaling (Guo 2017) with a shift (Platt 1999), of the logits of every sample."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from uqseg.data.annotated import AnnotatedSet
from uqseg.noise import Noise
from uqseg.samples import Batch, Samples
from uqseg.wrappers.wrapper import Calibration, CalibrationOptions, wrapper

LEAST = 1e-6
"""Probabilities nearer to 0 or 1 are taken as this near."""


def logits(prob: Tensor) -> Tensor:
    """Logits of probabilities, those nearer than LEAST to an end taken as that."""
    return prob.float().clamp(LEAST, 1 - LEAST).logit()


@wrapper("temperature")
class Temperature(Calibration[CalibrationOptions]):
    """Temperature: the logits of every sample times a plus b, such that their mean fits the readers best."""

    Options = CalibrationOptions
    version, fitted = 1, ("a", "b")
    a: float
    b: float

    @property
    def support(self) -> int | None:
        """As inside."""
        return self.sampler.describes.support

    def calibrate(self, val: AnnotatedSet) -> None:
        """a > 0 and b that minimise the cross-entropy of the mean of the samples against the readers."""
        cases = [(logits(samples.prob), samples, *_readers(batch)) for batch, samples in self.answers(val)]
        pairs = sum(float(read.sum()) for *_, read in cases)
        log_a, b = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
        solver = torch.optim.LBFGS(
            [log_a, b], max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
        )

        def loss() -> float:
            solver.zero_grad()
            total = 0.0
            for logit, samples, marked, read in cases:
                scaled = (logit * log_a.exp().float() + b.float()).sigmoid()
                mean = replace(samples, prob=scaled).mean().clamp(LEAST, 1 - LEAST)
                entropy = -(marked * mean.log() + (read - marked) * (-mean).log1p()).mean((1, 2)).sum() / pairs
                entropy.backward()  # type: ignore[no-untyped-call]
                total += float(entropy.detach())
            return total

        solver.step(loss)  # type: ignore[no-untyped-call]
        self.a, self.b = float(log_a.detach().exp()), float(b.detach())

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """The wrapped samples with a · logit + b in place of each pixel's logit."""
        samples = self.sampler.sample(batch, n, noise)
        return replace(samples, prob=(logits(samples.prob) * self.a + self.b).sigmoid())


def _readers(batch: Batch) -> tuple[Tensor, Tensor]:
    """How many readers marked each pixel (B,H,W), and how many read the image (B,1,1)."""
    assert batch.masks is not None
    assert batch.read is not None
    return (batch.masks & batch.read[..., None, None]).sum(1), batch.read.sum(1)[:, None, None]
