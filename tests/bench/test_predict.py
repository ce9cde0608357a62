"""New images through a trained model: what lies in the folder afterwards, geometry, resuming, bad files, and export."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from bench.runs.results import read_results
from tests.bench.conftest import SIZE, Run, bench
from tests.bench.test_errors import refused
from uqseg import load_model
from uqseg.data.images import read_picture

FILES = {"mask", "mean", "std", "entropy", "overlay", "answer", "samples"}


@pytest.fixture(scope="module")
def model(finished: Run) -> str:
    """A folder of weights with wrappers, whose window for numbers of more than 8 bits is not known."""
    return f"{finished.folder}/mcdropout"


@pytest.fixture
def new(images: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "new"
    (folder / "clinic").mkdir(parents=True)
    shutil.copy(images / "images/c00.png", folder / "like.png")
    shutil.copy(images / "images/c01.png", folder / "clinic/like.png")
    Image.fromarray(np.tile(np.asarray(Image.open(folder / "like.png")), (2, 3))).save(folder / "large.png")
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no image", encoding="utf-8")
    return folder


def test_a_folder_becomes_a_folder(model: str, new: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("predict", model, new, "--to", out, "--samples", "3", "--device", "cpu")
    answer = bench(*words)
    refused(answer, 1, "1 of 4 images have no prediction", "cannot read", "bad.png")
    assert "3 of 4 images predicted" in answer.out
    table = pd.read_csv(out / "summary.csv").set_index("case")
    assert set(table.index) == {"bad", "like", "clinic/like", "large"}
    for case in ("like", "clinic/like", "large"):
        assert {f.stem for f in (out / case).iterdir()} == FILES
        mask = read_picture(out / case / "mask.png")
        assert set(np.unique(mask)) <= {0, 255}
        assert table.loc[case, "area_pixels"] == (mask > 0).sum()
        samples = [read_picture(file) for file in sorted((out / case / "samples").iterdir())]
        assert len(samples) == 3
        presence = np.mean([(s >= 128).any() for s in samples])
        assert table.loc[case, "presence"] == pytest.approx(presence)
        assert np.abs(np.mean(samples, 0) - read_picture(out / case / "mean.png")).max() <= 1
    assert table.loc["large", "unlike_training"] == f"size {2 * SIZE}×{3 * SIZE}, trained on {SIZE}×{SIZE}"
    assert pd.isna(table.loc["like", "unlike_training"])
    assert "cannot read" in table.loc["bad", "error"]


def test_it_goes_on_where_it_was_and_makes_a_changed_image_anew(model: str, new: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("predict", model, new, "--to", out, "--samples", "3", "--device", "cpu")
    bench(*words)
    before = {f: f.stat().st_mtime_ns for f in out.rglob("answer.json")}
    shutil.copy(new / "like.png", new / "bad.png")
    shutil.copy(new / "clinic/like.png", new / "like.png")
    shutil.rmtree(out / "large")
    answer = bench(*words)
    assert answer.code == 0, answer.err
    assert "4 of 4 images predicted, 1 of them before" in answer.out
    after = {f: f.stat().st_mtime_ns for f in out.rglob("answer.json")}
    assert [f.parent.name for f in before if after[f] == before[f]] == ["like"]
    assert not list(out.glob(".*"))
    refused(bench(*words[:-4], "--samples", "4"), 2, "holds predictions of another model, samples, seed or window")
    refused(bench("predict", model, new, "--to", new), 2, "is not empty and holds no predictions")


def test_the_answers_can_be_scored(finished: Run, images: Path, tmp_path: Path) -> None:
    """What `predict` writes, `score` reads: the figures are those of the run, to 8 bits."""
    cases = pd.read_csv(images / "cases.csv")
    for case in cases["case"][cases["split"] == "test"]:
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(images / f"images/{case}.png", tmp_path / "in")
    bench("predict", f"{finished.folder}/ensemble-r0", tmp_path / "in", "--to", tmp_path / "out", "--device", "cpu")
    assert (tmp_path / "out/predictions.toml").read_text(encoding="utf-8") == 'kind = "support"\nscale = 255\n'
    given = [
        "--data",
        f"folder:{images}",
        "--size",
        str(SIZE),
        "--no-gallery",
        "--no-report",
        "--out",
        tmp_path / "runs",
    ]
    answer = bench("score", tmp_path / "out", "--label", "again", *given)
    assert answer.code == 0, answer.err
    (file,) = (tmp_path / "runs").glob("*/run.json")
    again, ours = read_results(file.parent).cells["again"][0], read_results(finished.folder).cells["ensemble"][0]
    assert again.scores["test"].drawn == "support"
    for name in ("ged_cross", "ged_samples", "brier"):
        np.testing.assert_allclose(again.scores["test"].column(name), ours.scores["test"].column(name), atol=0.02)


def test_answers_in_which_no_image_was_predicted_are_taken_over(model: str, tmp_path: Path) -> None:
    new, out = tmp_path / "new", tmp_path / "out"
    new.mkdir()
    Image.fromarray(np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 9).save(new / "deep.png")
    (new / "cut.png").write_bytes((new / "deep.png").read_bytes()[:-20])
    words = ("predict", model, new, "--to", out, "--samples", "2", "--device", "cpu")
    refused(bench(*words), 1, "--window=-1000,400", "cut.png: is no readable PNG, it ends too early")
    header = (out / "summary.csv").read_text(encoding="utf-8").partition("\n")[0]
    answer = bench(*words, "--window=0,2000")
    assert "1 of 2 images predicted" in answer.out
    lines = (out / "summary.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == header
    assert lines[2].startswith("deep,deep.png,1,")
    refused(bench(*words), 2, "holds predictions of another model, samples, seed or window")


def test_nifti_and_dicom_keep_their_geometry(model: str, tmp_path: Path) -> None:
    new, out = tmp_path / "new", tmp_path / "out"
    new.mkdir()
    rng = np.random.default_rng(0)
    affine = np.array([[0, -0.8, 0, 5.0], [0.9, 0, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(rng.integers(-1000, 400, (40, 33, 2)).astype(np.int16), affine)  # type: ignore[attr-defined]
    image.header.set_xyzt_units("mm")
    nibabel.save(image, new / "volume.nii.gz")  # type: ignore[attr-defined]
    shutil.copy(str(get_testdata_file("CT_small.dcm")), new / "slice")  # a scanner's name, without an ending
    words = ("predict", model, new, "--to", out, "--samples", "2", "--device", "cpu")
    refused(bench(*words), 1, "trained on images of 8 bits", "--window=-1000,400")
    shutil.rmtree(out)
    answer = bench(*words, "--window=-1000,400")
    assert answer.code == 0, answer.err
    for name in ("mask", "mean", "std", "entropy", "samples/001"):
        written = nibabel.load(out / f"volume/{name}.nii.gz")  # type: ignore[attr-defined]
        assert written.shape == (40, 33, 2)
        np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    table = pd.read_csv(out / "summary.csv").set_index("case")
    assert table.loc["volume", "slices"] == 2
    assert table.loc["volume", "area_mm2"] == pytest.approx(0.72 * table.loc["volume", "area_pixels"])
    data = pydicom.dcmread(new / "slice")
    written = nibabel.load(out / "slice/mask.nii.gz")  # type: ignore[attr-defined]
    x, y, z = (float(v) for v in data.ImagePositionPatient)
    np.testing.assert_allclose(written.affine[:3, 3], [-x, -y, z], atol=1e-4)
    assert written.header.get_zooms()[:2] == pytest.approx([float(data.PixelSpacing[1]), float(data.PixelSpacing[0])])


@pytest.mark.extras
def test_a_dicom_image_can_have_a_dicom_seg(model: str, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom")
    source = str(get_testdata_file("CT_small.dcm"))
    words = ("predict", model, source, "--to", tmp_path, "--window=-1000,400", "--dicom-seg", "--device", "cpu")
    answer = bench(*words)
    assert answer.code == 0, answer.err
    seg = highdicom.seg.segread(tmp_path / "CT_small/mask.dcm")
    mask = np.asarray(nibabel.load(tmp_path / "CT_small/mask.nii.gz").dataobj)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(seg.pixel_array.squeeze(), mask[..., 0].T)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == pydicom.dcmread(source).SeriesInstanceUID


def test_a_cell_is_exported_with_a_card_and_used_by_its_folder(finished: Run, new: Path, tmp_path: Path) -> None:
    to = tmp_path / "model"
    refused(bench("export", f"{finished.folder}/unet", "--to", to), 2, "--credit: say whose data 'folder' is")
    answer = bench(
        "export", f"{finished.folder}/unet", "--to", to, "--credit", "- Data: discs, CC0.", "--device", "cpu"
    )
    assert answer.code == 0, answer.err
    assert {f.name for f in to.iterdir()} == {"weights.safetensors", "model.json", "CARD.md"}
    card = (to / "CARD.md").read_text(encoding="utf-8")
    assert "- Data: discs, CC0." in card
    assert "lesion" not in card, "of a folder it is not known what is marked"
    assert "Not for clinical use" in card
    assert "| figure | as stored | as trained |" in card
    row = next(line for line in card.splitlines() if line.startswith("| Brier"))
    stored, before = (float(cell.split()[0]) for cell in row.strip("| ").split(" | ")[1:])
    assert stored == pytest.approx(before, abs=2e-3)
    assert load_model(to).input["size"] == [SIZE, SIZE]
    (new / "bad.png").unlink()
    assert bench("predict", to, new, "--to", tmp_path / "out", "--device", "cpu").code == 0
    refused(bench("export", f"{finished.folder}/unet", "--to", to, "--credit", "x"), 2, "is not empty")
    below = to / "CARD.md" / "model"
    refused(
        bench("export", f"{finished.folder}/unet", "--to", below, "--credit", "x"), 1, "cannot write", "another --to"
    )


def test_a_request_that_cannot_be_met(finished: Run, model: str, tmp_path: Path) -> None:
    out = ("--to", tmp_path / "out")
    refused(bench("predict", "nosuch", tmp_path, *out), 2, "there is no image below")
    (tmp_path / "a.png").write_bytes(b"")
    refused(bench("predict", "lidc64/nosuch", tmp_path, *out), 2, "unknown model, or folder of one, 'lidc64/nosuch'")
    refused(bench("predict", f"{finished.folder}/unett", tmp_path, *out), 2, "has no 'unett'; its methods are ensemble")
    refused(bench("predict", model, "/no/such", *out), 2, "there is no file or folder '/no/such'")
    for window in "5", "-inf,400", "0,inf", "nan,1", "2,1":
        refused(bench("predict", model, tmp_path, *out, f"--window={window}"), 2, "--window: expected two ascending")
    refused(bench("export", "/no/run", *out), 2, "there is no run at '/no/run'")
    assert not (tmp_path / "out").exists()
