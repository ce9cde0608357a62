"""How a method is trained: the options of the loop."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from uqseg.checked import Checked
from uqseg.device import Precision

TRAINING_VERSION = 1
"""Raised when the loop's code changes the weights that come out: it is part of every fit key."""


class Training(Checked):
    """How a method is trained. Exactly one of steps and epochs is set."""

    steps: int | None = Field(None, ge=1, le=10**9, description="optimiser steps")
    epochs: float | None = Field(None, gt=0, le=10**6, description="passes over the training images")
    batch: int = Field(24, ge=1, le=4096, description="images per step")
    optimizer: Literal["adam", "adamw"] = Field("adamw", description="optimiser")
    lr: float = Field(1e-3, gt=0, description="highest learning rate")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay")
    schedule: Literal["constant", "onecycle", "cosine", "steps"] = Field(
        "onecycle", description="course of the learning rate; steps: five equal falls to a hundredth"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; unset: no limit")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay per step of an average of the weights, which is validated and kept"
    )
    augment: bool = Field(True, description="flips, rotations, small affine and intensity changes")
    precision: Precision = Field("auto", description="auto: bf16 where the device computes it")
    keep: Literal["best", "last"] = Field("last", description="weights kept: best validation score, or last")
    validate_every: int = Field(200, ge=1, description="steps between validations")
    validate_images: int = Field(200, ge=1, description="validation images looked at")
    validate_samples: int = Field(8, ge=1, le=10_000, description="samples per image in validation")
    checkpoint_every: float = Field(30.0, gt=0, description="seconds between checkpoints")

    @model_validator(mode="after")
    def _one_length(self) -> Training:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"set exactly one of steps and epochs, got steps={self.steps}, epochs={self.epochs}")
        return self

    def total_steps(self, images: int) -> int:
        """Steps of the whole training on `images` images."""
        return self.steps or max(1, round((self.epochs or 0) * images / self.batch))


def rate(recipe: Training, step: int, total: int) -> float:
    """Learning rate of `step` (0 … total−1)."""
    done = step / total
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "steps":
        return float(recipe.lr * 0.01 ** (min(int(done * 6), 5) / 5))
    warm = 0.15 if recipe.schedule == "onecycle" else 0.0
    if done < warm:
        return recipe.lr * (0.04 + 0.96 * done / warm)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
