"""Conformal risk control (Angelopoulos 2024) of the share of a reader's lesion that a set of pixels misses."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from uqseg.data.annotated import AnnotatedSet
from uqseg.errors import UsageError
from uqseg.noise import Noise
from uqseg.prediction import predict_batches
from uqseg.samples import Batch, Sampler, Samples
from uqseg.wrappers.wrapper import Calibration, CalibrationOptions, wrapper

Floats = NDArray[np.float64]


class ConformalOptions(CalibrationOptions):
    """Options of the calibration and its bound."""

    alpha: float = Field(0.1, gt=0, lt=1, description="bound of the expected share of a reader's lesion that is missed")
    samples: int = Field(
        16, ge=1, le=10_000, description="samples of each of them, and of what it answers; in a run those of --samples"
    )


def lesion_pixels(mean: Tensor, masks: Tensor, read: Tensor) -> tuple[Floats, Floats, NDArray[np.intp]]:
    """For each pixel of a reader's lesion: the mean map there, its share of the case's risk, and the case.

    A case's risk is the mean over those who read it of the share of their lesion that is missed: 0 for a reader who
    drew nothing. mean: (B,H,W); masks: bool (B,R,H,W); read: bool (B,R).
    """
    drawn = masks & read[..., None, None]
    share = 1 / (drawn.sum((2, 3)).clamp_min(1) * read.sum(1, keepdim=True)).double()
    case, reader, row, column = drawn.nonzero(as_tuple=True)
    return mean[case, row, column].double().numpy(), share[case, reader].numpy(), case.numpy()


def highest_threshold(prob: Floats, risk: Floats, patients: int, alpha: float) -> float:
    """The highest t such that {p ≥ t} misses lesion pixels of a risk R with (n·R + 1)/(n + 1) ≤ alpha, n = patients.

    prob: the map at each lesion pixel; risk: what missing it adds to the mean risk R of a patient. Then the expected
    risk of a patient exchangeable with these is at most alpha. Raises UsageError where only the set of all pixels
    would do.
    """
    bound = (alpha * (patients + 1) - 1) / patients
    values, index = np.unique(prob, return_inverse=True)
    missed = np.r_[0, np.cumsum(np.bincount(index, risk))[:-1]]  # below each value
    within = np.flatnonzero(missed <= bound)
    if not len(within) or values[within[-1]] <= 0:
        raise UsageError(
            f"wrapper 'conformal': no threshold holds the missed share at alpha={alpha} with {patients} patients for "
            f"calibration (at least {int(np.ceil(1 / alpha - 1 - 1e-9))} are needed); raise alpha or give more patients"
        )
    return float(values[within[-1]])


@wrapper("conformal")
class Conformal(Calibration[ConformalOptions]):
    """Conformal: the set of pixels that misses at most a share alpha of a reader's lesion, for a patient on average."""

    Options = ConformalOptions
    version, fitted, gives, holds_out, small = 1, ("threshold",), "set", True, {"alpha": 0.6}
    threshold: float

    @property
    def support(self) -> int | None:
        """One set."""
        return 1

    def calibrate(self, val: AnnotatedSet) -> None:
        """Take the highest threshold of the mean map that keeps the bound, each patient of equal weight."""
        patients = np.asarray(val.table["patient"].tolist(), object)
        names, index, cases = np.unique(patients, return_inverse=True, return_counts=True)
        probs, risks, first = [], [], 0
        for batch, samples in self.answers(val):
            assert batch.masks is not None
            assert batch.read is not None
            prob, risk, case = lesion_pixels(samples.mean(), batch.masks, batch.read)
            probs.append(prob)
            risks.append(risk / (cases[index[first + case]] * len(names)))
            first += len(batch)
        joined = np.concatenate(probs), np.concatenate(risks)
        self.threshold = highest_threshold(*joined, len(names), self.options.alpha)

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """The set as one mask. It is no sample of what a reader would draw; `set_figures` judges it.

        Raises UsageError where n is not the number of samples that it was calibrated with: the mean map of fewer is
        rougher, and the sets miss more. A finite support is the same map whatever n is.
        """
        calibrated = self.options.samples
        if self.sampler.describes.support is None and n != calibrated:
            raise UsageError(
                f"wrapper 'conformal': calibrated with {calibrated} samples, for which its guarantee holds, and {n} "
                f"are asked for; ask for {calibrated}, or fit it with samples={n}"
            )
        mean = self.sampler.sample(batch, n, noise).mean()
        return Samples((mean >= self.threshold).float()[:, None], None, "support")


def set_figures(sampler: Sampler, data: AnnotatedSet, n: int = 16, *, seed: int = 0) -> dict[str, float]:
    """Risk, size and coverage of the sets of a sampler that gives sets, on test cases.

    risk: mean share of a reader's lesion that is missed; size: mean number of pixels; coverage: share of the drawn
    lesions that lie wholly inside (NaN where none is drawn). Each is a mean over patients of the mean over their cases
    (coverage: over their drawn lesions).
    """
    columns: dict[str, list[Tensor]] = {"risk": [], "size": [], "covered": [], "lesions": []}
    for part, samples in predict_batches(sampler, data, n, seed=seed):
        batch, region = data.batch(part), samples.to("cpu").hypotheses()
        assert batch.masks is not None
        assert batch.read is not None
        drawn = batch.masks & batch.read[..., None, None]
        area, outside = drawn.sum((2, 3)), (drawn & ~region).sum((2, 3))
        columns["risk"].append((outside / area.clamp_min(1)).sum(1).double() / batch.read.sum(1))
        columns["size"].append(region.sum((1, 2, 3)).double())
        columns["covered"].append(((area > 0) & (outside == 0)).sum(1).double())
        columns["lesions"].append((area > 0).sum(1).double())
    table = data.table[["patient"]].assign(**{name: torch.cat(parts).numpy() for name, parts in columns.items()})
    patients = table.groupby("patient").agg({"risk": "mean", "size": "mean", "covered": "sum", "lesions": "sum"})
    coverage = (patients["covered"] / patients["lesions"].where(patients["lesions"] > 0)).mean()
    return {"risk": float(patients["risk"].mean()), "size": float(patients["size"].mean()), "coverage": float(coverage)}
