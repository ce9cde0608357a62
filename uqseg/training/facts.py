"""What a trained method knows of its images: so that new ones can be prepared alike, and unlike ones be noticed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.load import window_of

LOOKED_AT = 1000  # images whose brightness is measured


def facts_of(train: AnnotatedSet) -> dict[str, Any]:
    """Facts of the images of a set, for JSON.

    spacing: the median in mm, null where unknown. fit: "crop" or "resize", how larger images became this size.
    window: the numbers that became 0 and 255; "own": those of each file; null where the images had 8 bits.
    mean, deviation: least and greatest mean and standard deviation of an image.
    """
    known = train.spacing[np.isfinite(train.spacing).all(1)]
    few = np.linspace(0, len(train) - 1, min(len(train), LOOKED_AT)).astype(np.intp)
    means, deviations = zip(*((image.mean(), image.std()) for image in (train.images[i] for i in few)), strict=True)
    return {
        "source": train.name,
        "key": train.key,
        "simulated": train.simulated,
        "channels": train.images.shape[1],
        "size": list(train.images.shape[2:]),
        "spacing": np.median(known, 0).tolist() if len(known) else None,
        "fit": "resize" if "fit" in train.table and (train.table["fit"] == "resize").any() else "crop",
        "window": _window(train),
        "mean": [round(float(end), 2) for end in (min(means), max(means))],
        "deviation": [round(float(end), 2) for end in (min(deviations), max(deviations))],
    }


def _window(train: AnnotatedSet) -> list[float] | str | None:
    if "window" not in train.table:
        window = window_of(train.name)
        return None if window is None else list(window)
    different = set(train.table["window"].dropna())
    return json.loads(different.pop()) if len(different) == 1 else "own" if different else None
