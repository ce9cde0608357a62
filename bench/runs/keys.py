"""Keys of weights and scores: what they depend on, by content and declared version, never by path or source text.

Statistics are no part of a key: each is stored with its own version, and only stale or missing ones are computed.
"""

from __future__ import annotations

import hashlib
import json

from baselines.yardsticks import YARDSTICKS
from bench.runs.spec import Cell, method_name
from bench.runs.splits import Splits
from uqseg import methods, wrappers
from uqseg.methods import source_hash
from uqseg.predictions import VERSION, Predictions
from uqseg.training import TRAINING_VERSION

PRECISION = "auto"  # of sampling: bf16 where the device computes it


def key_of(*parts: object) -> str:
    """SHA-256 of the parts as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def fit_key(cell: Cell, data: Splits) -> str:
    """Of a cell's weights: data, method, options, training, repetition."""
    cls = methods.find(cell.method)
    method = (
        method_name(cell.method),
        cls.version,
        source_hash(cls),
        cell.options.model_dump(mode="json", exclude_defaults=True),
    )
    training = (TRAINING_VERSION, cell.training.model_dump(mode="json", exclude_defaults=True))
    return key_of(data.train.key, data.val.key, method, training, cell.repetition)


def score_key(sampler: str, data: Splits, split: str, n: int) -> str:
    """Of the scores of a split; sampler: the key of what is scored."""
    return key_of(sampler, data.keys[split], split, n, PRECISION)


def sampler_key(cell: Cell, data: Splits) -> str:
    """Of the weights with the wrappers around them."""
    chain = [(name, options.model_dump(mode="json", exclude_defaults=True)) for name, options in cell.wrappers]
    classes = [wrappers.find(name) for name, _ in chain]
    versions = [(cls.version, source_hash(cls)) for cls in classes]
    return key_of(fit_key(cell, data), chain, versions) if chain else fit_key(cell, data)


def yardstick_key(name: str, data: Splits) -> str:
    """Of a yardstick, which may look at the training images."""
    return key_of(name, YARDSTICKS[name].version, data.train.key)


def predictions_key(predictions: Predictions) -> str:
    """Of somebody's predictions: the content of their files."""
    return key_of("predictions", predictions.digest, VERSION)
