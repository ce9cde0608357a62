"""What a wrapper is: a sampler around a trained one, whose fit it shares; and the registry of wrappers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import torch

from uqseg.data.annotated import AnnotatedSet
from uqseg.noise import Noise
from uqseg.registry import Options, Registered, Registry
from uqseg.samples import Batch, Description, Sampler, Samples, Varies

__all__ = ["Options", "Wrapper", "build", "find", "names", "options", "wrapper"]

O = TypeVar("O", bound=Options)  # noqa: E741


class Wrapper(Registered, ABC, Generic[O]):
    """Base of every wrapper: a Sampler once `fit` gave it the sampler to wrap. An author writes `sample`."""

    small: ClassVar[dict[str, Any]] = {}
    """Options of the contract tests."""
    varies: ClassVar[Varies | None] = None
    """What varies between samples; None: as in the wrapped sampler."""

    def __init__(self, options: O) -> None:
        self.options = options

    def fit(self, sampler: Sampler, val: AnnotatedSet | None) -> None:
        """Take the sampler to wrap, and learn from its samples of validation cases: here nothing.

        Raises UsageError where it needs validation cases and there are none.
        """
        self.sampler = sampler

    @abstractmethod
    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """n samples of each case, made from those of the wrapped sampler."""

    @property
    def support(self) -> int | None:
        """How many samples there are if their number is finite, else None."""
        return None

    @property
    def describes(self) -> Description:
        inner = self.sampler.describes
        return Description(f"{inner.name}+{self.label()}", self.varies or inner.varies, self.support)

    @property
    def device(self) -> torch.device:
        return getattr(self.sampler, "device", torch.device("cpu"))

    @property
    def needs_readers(self) -> bool:
        return getattr(self.sampler, "needs_readers", False)


_registry: Registry[Wrapper[Any]] = Registry("wrapper", "uqseg.wrappers", Wrapper)  # type: ignore[type-abstract]
wrapper, names, find, options = _registry.register, _registry.names, _registry.find, _registry.options


def build(label: str, **values: Any) -> Wrapper[Any]:
    """A new wrapper with these options, to be given its sampler by `fit`."""
    return _registry.concrete(label)(options(label, **values))
