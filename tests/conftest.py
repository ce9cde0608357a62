"""What tests share: a small set of images with four readers, made from a seed."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import settings

from uqseg.data import AnnotatedSet

settings.register_profile("busy", deadline=None)  # whether an example holds does not depend on how busy a machine is
settings.load_profile("busy")
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start; another number of threads rounds differently
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One test process has all modules that share the finished run, which takes half a minute to make."""
    shared = {item.path for item in items if "finished" in getattr(item, "fixturenames", ())}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("finished" if item.path in shared else str(item.path)))


def discs(n: int = 12, readers: int = 4, size: int = 32, channels: int = 1, seed: int = 0) -> AnnotatedSet:
    """Bright discs on noise; readers draw them larger or smaller, or not at all."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    centre = rng.uniform(0.35, 0.65, (n, 2)) * size
    distance = np.hypot(y - centre[:, 0, None, None], x - centre[:, 1, None, None])
    radius = rng.uniform(0.1, 0.25, (n, 1)) * size * rng.uniform(0.7, 1.2, (n, readers))
    radius *= rng.random((n, readers)) > 0.2
    masks = distance[:, None] < radius[..., None, None]
    light = 60 + 80 * (distance < 0.2 * size) + rng.normal(0, 15, (channels, n, size, size))
    images = light.clip(0, 255).astype(np.uint8).swapaxes(0, 1)
    table = pd.DataFrame({"patient": [f"p{i // 2}" for i in range(n)], "case": [f"c{i}" for i in range(n)]})
    table["split"] = "train"
    spacing = np.full((n, 2), np.nan, np.float32)
    read = np.ones((n, readers), bool)
    return AnnotatedSet(images, masks, read, table, spacing, "discs")


@pytest.fixture
def small() -> AnnotatedSet:
    return discs()
