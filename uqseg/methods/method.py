"""What a method is: a module that gives a training loss and draws samples; and the registry of methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from uqseg.data.annotated import AnnotatedSet
from uqseg.errors import UsageError
from uqseg.noise import Noise
from uqseg.registry import Options, Registered, Registry
from uqseg.samples import Batch, Description, Samples, Varies
from uqseg.seeds import seeded

if TYPE_CHECKING:
    from uqseg.training.recipe import Training

__all__ = ["Method", "Options", "Widths", "build", "find", "method", "names", "normalise", "options", "size_of"]

O = TypeVar("O", bound=Options)  # noqa: E741
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=10)]
"""Type of an option: channels of each level of a network."""
MOST = 2**32  # bytes of a method's tensors: a hundred classical U-Nets, and training takes four times as much


def normalise(images: Tensor) -> Tensor:
    """uint8 images as the float32 that methods see: 0…255 becomes −1…1."""
    return images.float() / 127.5 - 1


class Method(Registered, nn.Module, ABC, Generic[O]):
    """Base of every method: a Sampler that is trained. An author sets Options and small, and writes `loss` and `draw`
    on normalised float images."""

    small: ClassVar[dict[str, Any]] = {}
    """Options of the contract tests: a network that trains and samples in moments."""
    varies: ClassVar[Varies] = "outcome"
    """What varies between samples."""
    cached: ClassVar[int] = 2**16
    """Pixels that a processor samples at a time: more in one piece only fill memory instead of its caches."""
    couples_cases: ClassVar[bool] = False
    """Whether an image's loss depends on the other images of its batch (other than by batch normalisation): such a
    training is not split over processes."""

    def __init__(self, options: O, *, channels: int, readers: int) -> None:
        super().__init__()
        self.options, self.channels, self.readers = options, channels, readers
        self.input: dict[str, Any] = {}
        """Facts of the images it was trained on: size, channels, source, ...; empty before training."""

    @abstractmethod
    def loss(self, images: Tensor, masks: Tensor, read: Tensor, noise: Noise) -> Tensor:
        """Training loss of each image: float32 (B,); the loop averages.

        images: float (B,C,H,W) in −1…1; masks: bool (B,R,H,W); read: bool (B,R), who read the image.
        """

    @abstractmethod
    def draw(self, images: Tensor, n: int, noise: Noise) -> Tensor | Samples:
        """Samples of images float (B,C,H,W): probabilities (B,S,H,W), S = n or `support` where that is finite; or
        Samples, where they have weights or are stratified."""

    @property
    def support(self) -> int | None:
        """How many samples the method has if their number is finite (one network: 1, an ensemble: K), else None."""
        return None

    @property
    def most(self) -> int | None:
        """The most samples that it can draw, where there is a limit though their number is not finite; else None."""
        return None

    def declines(self, train: AnnotatedSet) -> str | None:
        """Why this method cannot be trained on `train`, or None if it can."""
        return None

    def declines_recipe(self, recipe: Training) -> str | None:
        """Why this method cannot be trained by `recipe`, or None if it can."""
        return None

    def watch(self) -> dict[str, float]:
        """Numbers of the last loss to write into the history (for example the KL)."""
        return {}

    def warning(self) -> str | None:
        """What the training loop should warn of now (for example a collapsed latent), or None."""
        return None

    def before_steps(self, images: int, steps: int) -> None:
        """Called before the first step, also of a training that is resumed: how many training images and steps."""

    def after_step(self, step: int, total: int) -> None:
        """Called after each optimiser step (1 … total), for example to average weights."""

    def finish(self, train: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Called once, when the weights that are kept are in place, with one pass over the training set in random
        order: images, masks and read as `loss` gets them, not augmented; for example to fit a posterior."""

    def presence_of(self, images: Tensor) -> Tensor | None:
        """The share of readers (B,) in [0,1] expected to mark anything on images float (B,C,H,W), from a method that
        was trained to predict it; else None. `+levels` scales the mean map by it."""
        return None

    @property
    def device(self) -> torch.device:
        """Where it computes: where its weights are."""
        return next(self.parameters()).device

    @property
    def describes(self) -> Description:
        """Its registered name, what varies, and its support."""
        return Description(self.label(), self.varies, self.support)

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """Samples of a batch, float32 on the method's device: n each, or the whole support.

        Raises ValueError where the images have other channels than the method, or `draw` breaks its promise.
        """
        pieces = self.pieces(batch)
        return Samples.concatenate(
            [self._checked(self.draw(images, n, noise.rows(part)), images, n) for part, images in pieces]
        )

    def predicted_presence(self, batch: Batch) -> Tensor | None:
        """`presence_of` a batch, on the method's device."""
        shares = [self.presence_of(images) for _, images in self.pieces(batch)]
        return None if shares[0] is None else torch.cat([share for share in shares if share is not None])

    def pieces(self, batch: Batch) -> list[tuple[slice, Tensor]]:
        """The batch in pieces to evaluate, a few images at a time on a processor: rows and their normalised images."""
        if batch.images.shape[1] != self.channels:
            raise ValueError(f"images: expected {self.channels} channels, got {batch.images.shape[1]}")
        if self.training:
            self.eval()
        images = normalise(batch.images.to(self.device)).contiguous(memory_format=torch.channels_last)
        few = len(images) if images.is_cuda else max(1, self.cached // (images.shape[2] * images.shape[3]))
        parts = [slice(first, first + few) for first in range(0, len(images), few)]
        return [(part, images[part]) for part in parts]

    def _checked(self, drawn: Tensor | Samples, images: Tensor, n: int) -> Samples:
        if not isinstance(drawn, Tensor | Samples):
            raise ValueError(f"draw: expected a tensor (B,S,H,W) in [0,1] or Samples, got {type(drawn).__name__}")
        prob, (B, _, H, W) = drawn if isinstance(drawn, Tensor) else drawn.prob, images.shape
        if not prob.is_floating_point():
            raise ValueError(f"draw: expected floating point numbers in [0,1], got {prob.dtype}")
        expected = (B, (self.support or n) if isinstance(drawn, Tensor) else prob.shape[1], H, W)
        if prob.shape != expected:
            raise ValueError(f"draw: expected {_text(expected)} in [0,1], got {_text(prob.shape)}")
        low, high = (float(end) for end in prob.aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"draw: expected {_text(expected)} in [0,1], got numbers from {low:.4g} to {high:.4g}")
        if isinstance(drawn, Samples):
            if drawn.weights is not None and not _are_weights(drawn.weights):
                raise ValueError(f"draw: expected weights of at least 0 that sum to 1, got {drawn.weights[0].tolist()}")
            return Samples(prob.float(), drawn.weights, drawn.drawn)
        return Samples(prob.float(), None, "support" if self.support else "independent")


def _are_weights(weights: Tensor) -> bool:
    """Whether each row (B,S) is not negative and sums to 1."""
    return bool((weights >= 0).all()) and bool(((weights.double().sum(1) - 1).abs() < 1e-5).all())


def _text(shape: Iterable[int]) -> str:
    return f"({','.join(map(str, shape))})"


_registry: Registry[Method[Any]] = Registry("method", "uqseg.methods", Method)  # type: ignore[type-abstract]
method, names, find, options = _registry.register, _registry.names, _registry.find, _registry.options
concrete = _registry.concrete


def build(
    label: str,
    named: Mapping[str, Any] | None = None,
    /,
    *,
    channels: int = 1,
    readers: int = 4,
    seed: int = 0,
    **values: Any,
) -> Method[Any]:
    """A new method with weights drawn from `seed`; global random state is left as it was.

    Options are given as keywords, or in `named`, as one that is called `readers` must be.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UsageError(f"seed: expected a whole number, got {seed!r}")
    chosen = options(label, **(named or {}), **values)
    if (size := size_of(label, chosen, channels, readers)) > MOST:
        given = ", ".join(f"{name}={getattr(chosen, name)}" for name in chosen.model_fields_set) or "the defaults"
        raise UsageError(
            f"method '{label}': {given} with {channels} channels and {readers} readers ask for weights of "
            f"{size / 1e9:.3g} GB, expected at most {MOST / 1e9:.3g} GB; choose smaller ones"
        )
    with seeded(seed):
        return _registry.concrete(label)(chosen, channels=channels, readers=readers)


def size_of(label: str, chosen: Options, channels: int, readers: int) -> int:
    """Bytes of the tensors of a method of this project, without taking them; 0 for one from outside, whose
    constructor may do anything. UsageError where channels or readers cannot be."""
    for name, value in (("channels", channels), ("readers", readers)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
            raise UsageError(f"{name}: expected a whole number from 1 to 1000, got {value!r}")
    if ":" in label:
        return 0
    with torch.device("meta"):  # shapes alone
        planned = _registry.concrete(label)(chosen, channels=channels, readers=readers)
    return sum(tensor.nbytes for tensor in planned.state_dict().values())
