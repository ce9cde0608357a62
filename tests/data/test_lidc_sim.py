"""lidc-sim: what is known of the readers' outlines, and what the simulated images promise."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from uqseg.data import load
from uqseg.data.lidc import database
from uqseg.data.sources import lidc_sim
from uqseg.data.split import split_of

LIMIT = 40


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def table(cache: Path) -> pd.DataFrame:
    """All cases; grouping the annotations into nodules takes seconds, so it is done once and kept in `cache`."""
    load("lidc-sim", split="test", size=128, limit=LIMIT, cache=cache)
    (kept,) = cache.glob("lidc-sim-cases-*.parquet")
    return pd.read_parquet(kept)


@pytest.fixture(scope="module")
def jobs(table: pd.DataFrame) -> list[lidc_sim.Job]:
    """The first nodules of the database."""
    some = table.head(24)
    ids = some[[f"annotation_{r}" for r in range(4)]].to_numpy()
    contours = database.read_contours(database.locate(), np.unique(ids[ids >= 0]).tolist())
    return lidc_sim._jobs(some, contours)


def test_the_database_holds_what_is_known_of_it() -> None:
    file = database.locate()
    scans, annotations = database.read_scans(file), database.read_annotations(file)
    contours = database.read_contours(file)
    assert (len(scans), scans["patient"].nunique(), len(annotations)) == (1018, 1010, 6859)
    assert len(contours.table) == 41406
    assert (~contours.table["inclusion"]).sum() == 992
    assert contours.points.min() >= 0
    assert contours.points.max() < 512
    assert scans["pixel_spacing"].between(0.46, 0.98).all()


def test_the_nodules_are_as_many_as_the_literature_counts(table: pd.DataFrame) -> None:
    # The LIDC paper counts 2,669 lesions of 3 mm and more, outlined on some 15.8 thousand slices.
    assert table["nodule"].nunique() == pytest.approx(2660, abs=20)
    assert len(table) == pytest.approx(15_800, rel=0.01)
    assert table["case"].is_unique
    shares = table["n_marked"].value_counts()
    for readers, count in {4: 5161, 3: 2820, 2: 2863, 1: 4868}.items():
        assert shares[readers] == pytest.approx(count, rel=0.05), readers
    assert table["nodule_readers"].between(1, 4).all()
    assert (table["n_marked"] <= table["nodule_readers"]).all()


def test_patients_are_split_by_name_and_share_nothing(table: pd.DataFrame) -> None:
    assert len(table[["patient", "split"]].drop_duplicates()) == len(set(table["patient"]))
    assert (table["split"] == table["patient"].map(split_of)).all()
    shares = table.drop_duplicates("patient")["split"].value_counts(normalize=True)
    assert shares.to_dict() == pytest.approx({"train": 0.6, "val": 0.2, "test": 0.2}, abs=0.04)


def test_no_slot_is_a_reader_of_its_own(table: pd.DataFrame) -> None:
    marked = [int((table[f"annotation_{r}"] >= 0).sum()) for r in range(4)]
    assert max(marked) - min(marked) < 0.03 * len(table), "filled from slot 0, shares would be 1, 0.7, 0.5 and 0.3"
    assert sum(marked) == table["n_marked"].sum()


def test_the_same_pixels_from_one_process_or_two(jobs: list[lidc_sim.Job]) -> None:
    images = sum(len(job.slices) for job in jobs)
    one, two = (list(lidc_sim.render_all(jobs, 64, images, [], processes=n)) for n in (1, 2))
    assert len(one) == len(two) == images
    for a, b in zip(one, two, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_case_has_the_same_pixels_in_any_company_and_size(table: pd.DataFrame, cache: Path) -> None:
    small = load("lidc-sim", split="test", limit=10, size=64, cache=cache)
    whole = load("lidc-sim", split="test", size=128, limit=LIMIT, cache=cache)
    assert (small.simulated, whole.simulated) == (True, True)
    assert small.read.all()
    assert whole.masks.any((1, 2, 3)).mean() > 0.9, "a few outlines are too small to have an interior"
    index = pd.Index(whole.table["case"]).get_indexer(small.table["case"])
    assert (index >= 0).all(), "a smaller limit draws a subset"
    assert np.array_equal(whole.images[index, :, 32:96, 32:96], small.images)
    assert np.array_equal(whole.masks[index, :, 32:96, 32:96], small.masks)
    assert small.key != whole.key
    assert whole.images.std((2, 3)).min() > 5


def test_a_second_load_takes_no_time(table: pd.DataFrame, cache: Path) -> None:
    started = time.process_time()  # not the wall clock: others may be busy
    again = load("lidc-sim", split="test", size=128, limit=LIMIT, cache=cache)
    assert time.process_time() - started < 1
    assert isinstance(again.images, np.memmap)


def test_the_image_does_not_tell_whose_mask_is_whose(jobs: list[lidc_sim.Job]) -> None:
    job = next(job for job in jobs if sum(bool(outlines) for outlines in job.slices[0][1]) >= 2)
    turned = replace(job, slices=[(z, [readers[k] for k in (2, 0, 3, 1)]) for z, readers in job.slices])
    images, masks, _ = lidc_sim.render_job(job)
    others, moved, _ = lidc_sim.render_job(turned)
    assert np.array_equal(images, others)
    assert np.array_equal(masks[:, [2, 0, 3, 1]], moved)
    assert not np.array_equal(masks, moved)


def test_the_lesion_is_no_filled_mask(jobs: list[lidc_sim.Job]) -> None:
    alike, levels = [], []
    for job in jobs:
        images, masks, _ = lidc_sim.render_job(job)
        for image, four in zip(images.astype(float), masks, strict=True):
            one = four[four.any((1, 2))][0]
            if 40 < one.sum() < one.size / 4:
                alike.append(abs(np.corrcoef(image.ravel(), one.ravel())[0, 1]))
                levels.append(len(np.unique(image[one])))
    assert len(alike) >= 5
    assert max(alike) < 0.95, "the image is no copy of a mask"
    assert min(levels) > 10, "the lesion is textured"
