"""What every registered source promises, on the smallest set of each."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uqseg.data import AnnotatedSet, load, sources
from uqseg.data.load import _sources
from uqseg.errors import UsageError

PATIENTS = 24
ELSEWHERE = {"lidc-sim", "lidc-dicom", "toy", "toy-crossing"}  # their smallest sets are large: see their own tests


def picture(file: Path, size: int, low: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((size, size), np.uint8)
    array[low : size // 2 + 4, size // 2 : size // 2 + 9] = 255
    Image.fromarray(array).save(file)


def slices(root: Path) -> Path:
    for p in range(PATIENTS):
        for part in ("images", "mask-0", "mask-1", "mask-2", "mask-3"):
            picture(root / f"p{p}/nodule-0/{part}/slice-0.png", 128, 60 - p)
    return root


def crops(root: Path) -> Path:
    for p in range(PATIENTS):
        split = ("train", "val", "test")[p % 3]
        picture(root / f"{split}/images/p{p}/z-1.5_c0.png", 180, 80 - p)
        for r in range(4):
            picture(root / f"{split}/gt/p{p}/z-1.5_c0_l{r}.png", 180, 80)
    return root


def one_pickle(root: Path) -> Path:
    grid, masks = np.linspace(0, 1, 128 * 128).reshape(128, 128), [np.eye(128)] * 4
    held = {p: {"image": grid / (p + 1), "masks": masks, "series_uid": f"1.2.{p}"} for p in range(PATIENTS)}
    root.write_bytes(pickle.dumps(held))
    return root


def folder(root: Path) -> Path:
    for p in range(PATIENTS):
        picture(root / f"images/p{p}.png", 150, 70 - p)
        picture(root / f"readers/a/p{p}.png", 150, 70)
    return root


MAKERS: dict[str, Callable[[Path], Path]] = {
    "lidc-slices": slices,
    "lidc-crops": crops,
    "lidc-pickle": one_pickle,
    "folder": folder,
}


def test_every_source_is_described_and_checked_here_or_by_itself() -> None:
    names = {name.removesuffix(":PATH") for name in sources()}
    assert set(MAKERS) == names - ELSEWHERE, "give a new source a maker here"
    for name, text in sources().items():
        assert text, name
        assert name.endswith(":PATH") == (_sources[name.removesuffix(":PATH")].stamp is not None)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_source_keeps_the_promises_of_load(name: str, tmp_path: Path) -> None:
    typed = f"{name}:{MAKERS[name](tmp_path / 'set')}"

    def ask(**options: object) -> AnnotatedSet:
        return load(typed, size=64, cache=tmp_path / "cache", **options)  # type: ignore[arg-type]

    whole = ask()
    assert len(whole) == PATIENTS
    assert whole.images.shape[2:] == whole.masks.shape[2:] == (64, 64)
    assert whole.table["case"].is_unique
    assert whole.masks[whole.read].any()
    assert not whole.masks[~whole.read].any()
    assert not whole.simulated
    assert isinstance(whole.images, np.memmap)
    parts = {split: ask(split=split) for split in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == PATIENTS
    assert len({p for part in parts.values() for p in part.table["patient"]}) == PATIENTS
    assert len({whole.key, *(part.key for part in parts.values())}) == 4
    again = ask(split="train")
    assert again.key == parts["train"].key
    assert again.table.equals(parts["train"].table)
    few = ask(split="train", limit=2)
    assert len(few) == 2
    assert set(few.table["case"]) < set(again.table["case"])
    assert load(typed, size=32, cache=tmp_path / "cache").key != whole.key
    assert len(list((tmp_path / "cache").iterdir())) == 2
    with pytest.raises(UsageError, match="needs a path"):
        load(name)
