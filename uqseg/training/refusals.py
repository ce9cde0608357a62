"""Refusals: what is wrong with a training, its data or its method, each in one line."""

from __future__ import annotations

from numbers import Integral
from pathlib import Path
from typing import Any

from torch import Tensor

from uqseg.data.annotated import AnnotatedSet
from uqseg.errors import UsageError
from uqseg.methods import Method
from uqseg.prediction import predict_batches
from uqseg.seeds import seeded
from uqseg.training.parallel import Ranks
from uqseg.training.recipe import Training


def check_arguments(method: object, train: object, val: object, recipe: object, seed: object, out: object) -> None:
    """Raise UsageError naming the first argument of `fit` that is not what it should be, before anything is done."""
    for name, value, kind in (("method", method, Method), ("train", train, AnnotatedSet),
                              ("val", val, AnnotatedSet | None), ("recipe", recipe, Training)):  # fmt: skip
        if not isinstance(value, kind):
            expected = getattr(kind, "__name__", "AnnotatedSet or None")
            raise UsageError(f"{name}: expected {expected}, got {type(value).__name__}")
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise UsageError(f"seed: expected a whole number, got {seed!r}")
    if not isinstance(out, str | Path | None):
        raise UsageError(f"out: expected a folder or None, got {out!r}")
    assert isinstance(method, Method)
    assert isinstance(recipe, Training)
    if recipe.keep == "best" and val is None:
        raise UsageError("val: expected images to validate on, as the recipe keeps the best weights, got None")
    for name, data in (("train", train), ("val", val)):
        if not isinstance(data, AnnotatedSet):
            continue
        if not len(data) or 0 in data.images.shape:
            raise UsageError(f"{name}: expected at least one image of at least one pixel, got {data.images.shape}")
        if data.images.shape[1] != method.channels:
            raise UsageError(f"{name}: expected images of {method.channels} channels, got {data.images.shape[1]}")
        if not data.read.any(1).all():
            case = data.cases[~data.read.any(1)][0]
            raise UsageError(f"{name}: expected at least one reader of every image, got none of case '{case}'")


def refuse(method: Method[Any], train: AnnotatedSet, val: AnnotatedSet | None, recipe: Training, ranks: Ranks) -> None:
    """Raise UsageError where the method declines data or recipe, or cannot be trained by so many processes."""
    if reason := method.declines(train):
        raise UsageError(f"method '{method.label()}' declines the data: {reason}")
    if reason := method.declines_recipe(recipe):
        raise UsageError(f"method '{method.label()}' declines the recipe: {reason}")
    if val is not None and method.most is not None and recipe.validate_samples > method.most:
        raise UsageError(
            f"validate_samples: method '{method.label()}' has {method.most} at most, got {recipe.validate_samples}"
        )
    if ranks.size > 1 and method.couples_cases:
        raise UsageError(f"method '{method.label()}' couples the cases of a batch; train it with one process")
    if recipe.batch < ranks.size:
        raise UsageError(f"batch: expected an image for each of {ranks.size} processes, got {recipe.batch}")


def try_drawing(method: Method[Any], train: AnnotatedSet, recipe: Training) -> None:
    """Draw two samples of one image. Raises UsageError naming the method where `draw` breaks its promise: otherwise
    that would be seen after the training."""
    try:
        with seeded(0):
            list(predict_batches(method, train.take(slice(0, 1)), 2, precision=recipe.precision))
    except Exception as error:  # whatever somebody's method raises
        text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise UsageError(f"method '{method.label()}', tried on one image: {' '.join(text.split())}") from error


def one_for_each(losses: object, images: int) -> Tensor:
    """What a method's `loss` returned. Raises ValueError unless it is one number for each image."""
    if not isinstance(losses, Tensor):
        raise ValueError(f"loss: expected a tensor ({images},), got {type(losses).__name__}")
    if losses.shape != (images,) or not losses.is_floating_point():
        raise ValueError(
            f"loss: expected float ({images},), one for each image, got {losses.dtype} {tuple(losses.shape)}"
        )
    return losses
