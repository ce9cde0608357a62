"""What a method is: a module that gives a training loss and draws samples; and the registry of methods."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from uqseg.errors import UsageError, unknown
from uqseg.seeds import seeded

Noise = torch.Generator | Sequence[torch.Generator] | None
"""Where a method draws from: one generator, or one an image, so that an image's samples do not depend on its batch."""


class Options(BaseModel):
    """A method's options: frozen, typed, every field described; an unknown key or a wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Method(nn.Module):
    """Base of every method. Subclasses set Options and write `loss` and `sample`; the first docstring line is its
    description in `python -m bench list methods`."""

    Options: ClassVar[type[Options]] = Options
    name: ClassVar[str] = ""
    samples_are: ClassVar[Literal["epistemic", "aleatoric"]] = "aleatoric"
    """What varies between samples: the weights (epistemic) or the outcome (aleatoric)."""

    def __init__(self, options: Any, *, channels: int, readers: int) -> None:
        super().__init__()
        self.options, self.channels, self.readers = options, channels, readers

    @property
    def support(self) -> int | None:
        """How many samples the method has if their number is finite (one network: 1, an ensemble: K), else None."""
        return None

    def loss(self, images: Tensor, masks: Tensor, read: Tensor, generator: torch.Generator) -> Tensor:
        """Training loss of images float (B,C,H,W) against masks bool (B,R,H,W) of readers who read (B,R) bool."""
        raise TypeError(f"{type(self).__name__} does not define loss")

    def sample(self, images: Tensor, n: int, generator: Noise = None) -> Tensor:
        """n samples an image: float (B,S,H,W) foreground probabilities; S = n, or `support` where that is finite."""
        raise TypeError(f"{type(self).__name__} does not define sample")

    def weights(self, images: Tensor, n: int) -> Tensor | None:
        """Weights (B,S) of the samples, rows summing to 1, or None where they are equal."""
        return None

    def declines(self, *, channels: int, readers: int, size: tuple[int, int]) -> str | None:
        """Why this method cannot be used on such data, or None if it can."""
        return None

    def watch(self) -> dict[str, float]:
        """Figures of the last loss to write into the history (for example the KL); a method may leave it empty."""
        return {}

    def warning(self) -> str | None:
        """What the training loop should warn of now (for example a collapsed latent), or None."""
        return None


M = TypeVar("M", bound=type[Method])
_METHODS: dict[str, type[Method]] = {}


def method(name: str) -> Callable[[M], M]:
    """Register a Method under a name."""

    def register(cls: M) -> M:
        cls.name = name
        _METHODS[name] = cls
        return cls

    return register


def _discover() -> None:
    package = importlib.import_module("uqseg.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"uqseg.methods.{module.name}")


def names() -> list[str]:
    """Names of all registered methods, sorted."""
    _discover()
    return sorted(_METHODS)


def find(name: str) -> type[Method]:
    """The class registered as `name`, or the class that "package.module:Class" names."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"method '{name}': expected importable package.module:Class, got {error}") from error
        if not (inspect.isclass(found) and issubclass(found, Method)):
            raise UsageError(f"method '{name}': expected a subclass of uqseg.methods.Method, got {found!r}")
        return found
    _discover()
    if name not in _METHODS:
        raise unknown("method", name, _METHODS)
    return _METHODS[name]


def options(name: str, **values: Any) -> Options:
    """The method's options with `values` set; an unknown key or a wrong type is a UsageError naming what exists."""
    cls = find(name).Options
    try:
        return cls(**values)
    except ValidationError as error:
        lines = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())
        raise UsageError(f"method '{name}': {lines}. Options: {', '.join(cls.model_fields)}.") from error


def build(name: str, *, channels: int = 1, readers: int = 4, seed: int = 0, **values: Any) -> Method:
    """A new method with weights drawn from `seed`; global random state is left as it was."""
    chosen = options(name, **values)
    with seeded(seed):
        return find(name)(chosen, channels=channels, readers=readers)
