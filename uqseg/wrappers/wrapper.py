"""What a wrapper is: a sampler around a trained one, whose fit it shares; and the registry of wrappers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.split import evenly
from uqseg.errors import UsageError
from uqseg.noise import Noise
from uqseg.prediction import predict_batches
from uqseg.registry import Options, Registered, Registry
from uqseg.samples import Batch, Description, Sampler, Samples, Varies
from uqseg.seeds import seed_of

__all__ = ["Options", "Wrapper", "build", "find", "names", "options", "wrapper"]

O = TypeVar("O", bound=Options)  # noqa: E741


class Wrapper(Registered, ABC, Generic[O]):
    """Base of every wrapper: a Sampler once `fit` gave it the sampler to wrap. An author writes `sample`."""

    small: ClassVar[dict[str, Any]] = {}
    """Options of the contract tests."""
    varies: ClassVar[Varies | None] = None
    """What varies between samples; None: as in the wrapped sampler."""
    gives: ClassVar[Literal["samples", "set"]] = "samples"
    """What comes out: samples of what readers would draw; or one set of pixels, which is not scored as samples are."""
    holds_out: ClassVar[bool] = False
    """Whether the cases that it learns from must be new to all inside it; see `wrap`."""
    fitted: ClassVar[tuple[str, ...]] = ()
    """Attributes that `fit` sets: numbers or lists of numbers."""

    def __init__(self, options: O) -> None:
        self.options = options

    def fit(self, sampler: Sampler, val: AnnotatedSet | None) -> None:
        """Take the sampler to wrap, and learn from its samples of validation cases: here nothing.

        Raises UsageError where it needs validation cases and there are none.
        """
        self.sampler = sampler

    def state(self) -> dict[str, Any]:
        """What `fit` learnt, for JSON."""
        return {name: getattr(self, name) for name in self.fitted}

    def load_state(self, sampler: Sampler, state: Mapping[str, Any]) -> None:
        """Take the sampler to wrap and what an earlier `fit` around it learnt."""
        self.sampler = sampler
        for name in self.fitted:
            setattr(self, name, state[name])

    @abstractmethod
    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """n samples of each case, made from those of the wrapped sampler."""

    def predicted_presence(self, batch: Batch) -> Tensor | None:
        """The share of readers expected to mark anything (B,), where the wrapped sampler predicts it; else None."""
        predict = getattr(self.sampler, "predicted_presence", None)
        return None if predict is None else predict(batch)

    @property
    def support(self) -> int | None:
        """How many samples there are if their number is finite, else None."""
        return None

    @property
    def describes(self) -> Description:
        """The wrapped sampler's name with its own after a plus, what varies, and its support."""
        inner = self.sampler.describes
        return Description(f"{inner.name}+{self.label()}", self.varies or inner.varies, self.support)

    @property
    def device(self) -> torch.device:
        """Where the wrapped sampler computes."""
        return getattr(self.sampler, "device", torch.device("cpu"))

    @property
    def input(self) -> dict[str, Any]:
        """Facts of the images that the wrapped method was trained on."""
        return getattr(self.sampler, "input", {})

    @property
    def needs_readers(self) -> bool:
        """Whether the wrapped sampler looks at the readers."""
        return getattr(self.sampler, "needs_readers", False)


class CalibrationOptions(Options):
    """Options of a wrapper that learns from samples of validation cases."""

    cases: int = Field(1000, ge=1, description="validation cases that it learns from, drawn evenly over patients")
    samples: int = Field(16, ge=1, le=10_000, description="samples of each of them; in a run those of --samples")


C = TypeVar("C", bound=CalibrationOptions)


class Calibration(Wrapper[C]):
    """Base of wrappers that learn from samples of validation cases; an author writes `calibrate` and `sample`."""

    def fit(self, sampler: Sampler, val: AnnotatedSet | None) -> None:
        """Learn from some of the validation cases. Raises UsageError where one has no reader or there are none."""
        super().fit(sampler, val)
        if val is None or not len(val):
            raise UsageError(f"wrapper '{self.label()}' learns from validation cases, and there are none")
        if not val.read.any(1).all():
            case = val.cases[~val.read.any(1)][0]
            raise UsageError(f"wrapper '{self.label()}': expected a reader of every case, got none of case '{case}'")
        self.calibrate(val.take(evenly(val.table["patient"].tolist(), self.options.cases, 0)))

    @abstractmethod
    def calibrate(self, val: AnnotatedSet) -> None:
        """Learn from these cases: set the attributes named in `fitted`."""

    def answers(self, val: AnnotatedSet) -> Iterator[tuple[Batch, Samples]]:
        """The cases in batches with the wrapped sampler's samples, on the processor."""
        for part, samples in predict_batches(self.sampler, val, self.options.samples):
            yield val.batch(part), samples.to("cpu")


def halves(val: AnnotatedSet) -> tuple[AnnotatedSet, AnnotatedSet]:
    """Two sets of about half of the patients each; a patient's name alone decides."""
    second = np.array([seed_of("half", patient) % 2 == 1 for patient in val.table["patient"]], bool)
    return val.take(np.flatnonzero(~second)), val.take(np.flatnonzero(second))


def wrap(sampler: Sampler, wrappers: Sequence[Wrapper[Any]], val: AnnotatedSet | None) -> Sampler:
    """The sampler inside the wrappers, the first innermost, each fitted on `val`.

    Where one of them holds cases out, it has the second of `halves` of the patients, the others have the first; nothing
    may have chosen the sampler on `val` then, as a training with keep="best" does.
    """
    held_out = val is not None and any(wrapper.holds_out for wrapper in wrappers)
    first, second = halves(val) if val is not None and held_out else (val, val)
    for wrapper in wrappers:
        wrapper.fit(sampler, second if wrapper.holds_out else first)
        sampler = wrapper
    return sampler


_registry: Registry[Wrapper[Any]] = Registry("wrapper", "uqseg.wrappers", Wrapper)  # type: ignore[type-abstract]
wrapper, names, find, options = _registry.register, _registry.names, _registry.find, _registry.options


def build(label: str, **values: Any) -> Wrapper[Any]:
    """A new wrapper with these options, to be given its sampler by `fit`."""
    return _registry.concrete(label)(options(label, **values))
