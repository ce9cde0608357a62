"""Numbers of version 0.1, stored before the code was rebuilt: a tiny data set, trained weights, statistics, figures."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import load_file
from torch import Tensor

from uqseg.data import AnnotatedSet

GOLDEN = Path(__file__).parent
METHODS: dict[str, dict[str, Any]] = {
    "segnet": {"width": 4, "depth": 2, "reader": 0},
    "unet": {"width": 4, "depth": 3, "reader": 0},
    "ensemble": {"width": 4, "depth": 3},
    "mcdropout": {"width": 4, "depth": 3, "reader": 0},
    "probunet": {"levels": (4, 8, 8)},
}


@cache
def golden_sets() -> tuple[AnnotatedSet, AnnotatedSet]:
    """The 24 training and 12 test cases."""
    arrays = np.load(GOLDEN / "arrays.npz")
    shape, n = arrays["masks_shape"], len(arrays["images"])
    masks = np.unpackbits(arrays["masks"])[: np.prod(shape)].reshape(shape).astype(bool)
    names = {"patient": [f"p{i // 2:02d}" for i in range(n)], "case": [f"case-{i}" for i in range(n)]}
    table = pd.DataFrame(names | {"split": ["train"] * 24 + ["test"] * 12})
    data = AnnotatedSet(arrays["images"], masks, arrays["read"], table, arrays["spacing"], "golden")
    return data.take(slice(0, 24)), data.take(slice(24, n))


def golden_weights(name: str) -> dict[str, Tensor]:
    """The trained weights of a method of METHODS."""
    weights = load_file(GOLDEN / "weights.safetensors")
    return {key.removeprefix(f"{name}/"): t for key, t in weights.items() if key.startswith(f"{name}/")}
