"""Predictions from files: every layout gives the samples that were written, and what cannot be used is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import discs
from uqseg.data import AnnotatedSet, load
from uqseg.errors import FileError, UsageError
from uqseg.prediction import predict
from uqseg.predictions import Predictions, open_predictions
from uqseg.samples import Drawn

SIZE, S = 16, 3
CASES = discs(4, size=SIZE)
RNG = np.random.default_rng(0)
MASKS = RNG.random((4, S, SIZE, SIZE)) < 0.3
PROB = np.round(RNG.random((4, S, SIZE, SIZE)) * 255) / 255


def opened(folder: Path, kind: Drawn | None = "independent", cases: AnnotatedSet = CASES) -> Predictions:
    return open_predictions("theirs", folder, cases, kind)


def samples(folder: Path, kind: Drawn | None = "independent", cases: AnnotatedSet = CASES) -> NDArray[np.float32]:
    return predict(opened(folder, kind, cases), cases).prob.numpy()


def write(file: Path, array: NDArray[np.generic]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npy":
        np.save(file, array)
    elif file.name.endswith(".nii.gz"):
        save(file, array.T)
    elif file.suffix == ".npz":
        np.savez_compressed(file, array)
    else:
        Image.fromarray(array).save(file)


@pytest.mark.parametrize("name", ["{case}/{s}.png", "{case}/samples/{s}.png", "{case}/s{s}_seg.nii.gz"])
@pytest.mark.parametrize("full", [1, 255])
def test_a_sample_a_file(tmp_path: Path, name: str, full: int) -> None:
    for case, each in zip(CASES.cases, MASKS, strict=True):
        write(tmp_path / f"{case}/mean.png", np.full((SIZE, SIZE), 128, np.uint8)) if "samples" in name else None
        for s, mask in enumerate(each):
            write(tmp_path / name.format(case=case, s=s), (mask * full).astype(np.uint8))
    np.testing.assert_array_equal(samples(tmp_path), MASKS)


@pytest.mark.parametrize("ending", [".npy", ".npz", ".nii.gz"])
@pytest.mark.parametrize(("scale", "kind"), [(1, np.float32), (1, np.float16), (255, np.uint8), (65535, np.uint16)])
def test_samples_on_one_axis(tmp_path: Path, ending: str, scale: int, kind: type[np.generic]) -> None:
    if ending == ".nii.gz" and kind is np.float16:
        pytest.skip("NIfTI has no float16")
    for case, each in zip(CASES.cases, PROB, strict=True):
        write(tmp_path / f"{case}{ending}", (each * scale).astype(kind))
    np.testing.assert_allclose(samples(tmp_path), PROB, atol=5e-4 if kind is np.float16 else 1e-6)


def test_the_axis_of_the_samples_is_known_by_the_sizes(tmp_path: Path) -> None:
    for case, each in zip(CASES.cases, PROB, strict=True):
        write(tmp_path / f"{case}.npy", np.moveaxis(each, 0, -1))
    np.testing.assert_allclose(samples(tmp_path), PROB, atol=1e-6)


def save(file: Path, array: NDArray[np.generic], affine: NDArray[np.float64] | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), file)  # type: ignore[attr-defined]


@pytest.mark.parametrize("axes", [3, 4])
@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_the_last_axis_of_nifti_holds_samples_never_colours(
    tmp_path: Path, axes: int, kind: type[np.floating] | type[np.integer]
) -> None:
    """x, y, samples and x, y, 1, samples, three of them, which colours would be too."""
    for case, each in zip(CASES.cases, PROB, strict=True):
        numbers = (each * (255 if kind is np.uint8 else 1)).round(6).astype(kind).T  # (x,y,S)
        save(tmp_path / f"{case}.nii.gz", numbers if axes == 3 else numbers[:, :, None])
    np.testing.assert_allclose(samples(tmp_path), PROB, atol=1e-6)
    with pytest.raises(UsageError, match="3 samples a case: say how they were drawn"):
        opened(tmp_path, None)


def test_samples_of_several_slices_and_colours_are_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path / "c0.nii.gz", np.zeros((SIZE, SIZE, 2, S), np.uint8))
    save(tmp_path / "c1.nii.gz", RNG.random((SIZE, SIZE, 1, 1, 3)).astype(np.float32))
    save(tmp_path / "c2.nii.gz", np.zeros((SIZE, SIZE, 1, 1), np.uint8))
    save(tmp_path / "c3.nii.gz", np.zeros((SIZE, SIZE, 1, 2, 2), np.uint8))
    left_out = opened(tmp_path, None).left_out
    assert left_out["c0"] == "c0.nii.gz: expected one slice of each sample, got 2 of 3 samples"
    assert left_out["c1"] == "c1.nii.gz: expected one channel, got colours"
    assert left_out["c3"].endswith("expected x, y and z, got the shape (16, 16, 1, 2, 2); save one volume a file")
    assert "c2" not in left_out


def test_what_nnunet_writes_is_one_probability(tmp_path: Path) -> None:
    """nnUNetv2_predict --save_probabilities: labels 0 and 1 as PNG, an npz of classes, a pickle, and records."""
    for case, each in zip(CASES.cases, PROB, strict=True):
        classes = np.stack([1 - each[0], each[0] * 0.75, each[0] * 0.25])[:, None].astype(np.float32)  # (C,1,H,W)
        np.savez_compressed(tmp_path / f"{case}.npz", probabilities=classes)
        write(tmp_path / f"{case}.png", classes.argmax(0)[0].astype(np.uint8))
        (tmp_path / f"{case}.pkl").write_bytes(pickle.dumps({"spacing": (999, 1, 1)}))
    for name in ("dataset.json", "plans.json", "predict_from_raw_data_args.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert opened(tmp_path, None).drawn == "support"
    np.testing.assert_allclose(samples(tmp_path, None), PROB[:, :1], atol=1e-6)
    for file in tmp_path.glob("*.npz"):
        file.unlink()
    labels = np.stack([1 - PROB[:, 0], 0.75 * PROB[:, 0], 0.25 * PROB[:, 0]], 1).argmax(1)
    np.testing.assert_array_equal(samples(tmp_path, None)[:, 0], labels)  # labels alone are masks of 0 and 1


@pytest.mark.extras
def test_what_monai_writes(tmp_path: Path) -> None:
    """SaveImaged with its folders and ending, of images that its own reader has read."""
    transforms = pytest.importorskip("monai.transforms")
    for folder, separate in (("each", True), ("flat", False)):
        for case, mask in zip(CASES.cases, MASKS[:, 0], strict=True):
            write(tmp_path / f"in/{case}.png", np.zeros((SIZE, SIZE), np.uint8))
            data = {"image": str(tmp_path / f"in/{case}.png")}
            data = transforms.Compose([transforms.LoadImaged("image"), transforms.EnsureChannelFirstd("image")])(data)
            image = data["image"]
            data["pred"] = image.new_tensor(mask.T[None])
            data["pred"].meta = image.meta
            save = transforms.SaveImaged(
                "pred", output_dir=tmp_path / folder, output_postfix="seg", separate_folder=separate, print_log=False
            )
            save(data)
        np.testing.assert_array_equal(samples(tmp_path / folder, None)[:, 0], MASKS[:, 0])


@pytest.mark.parametrize("fit", ["crop", "resize"])
def test_predictions_on_the_original_pixels_are_fitted_as_the_masks_were(
    tmp_path: Path, fit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UQSEG_CACHE", str(tmp_path / "cache"))
    root, masks = tmp_path / "set", np.zeros((4, 37, 22), bool)
    (root / "images").mkdir(parents=True)
    (root / "dataset.toml").write_text(f'fit = "{fit}"', encoding="utf-8")
    for i, mask in enumerate(masks):
        mask[12 + i : 22, 6:15] = True
        write(root / f"images/c{i}.png", RNG.integers(0, 255, (37, 22)).astype(np.uint8))
        write(root / f"readers/a/c{i}.png", (mask * 255).astype(np.uint8))
        write(tmp_path / f"out/c{i}.png", (mask * 255).astype(np.uint8))
        write(tmp_path / f"soft/c{i}.npy", mask.astype(np.float32) * 0.5)
    data = load(f"folder:{root}", size=SIZE)
    np.testing.assert_array_equal(samples(tmp_path / "out", None, data)[:, 0], data.masks[:, 0])
    soft = samples(tmp_path / "soft", None, data)
    assert soft.shape == (4, 1, SIZE, SIZE)
    assert soft.max() == pytest.approx(0.5)


def test_a_turned_nifti_is_turned_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UQSEG_CACHE", str(tmp_path / "cache"))
    mask = np.zeros((SIZE, SIZE, 1), np.uint8)
    mask[3:9, 2:5] = 1
    affine = np.diag([-0.5, -0.5, 1, 1])
    files = {"images": RNG.integers(0, 255, mask.shape).astype(np.int16), "readers/a": mask}
    for folder, array in files.items():
        for case in ("p", "q"):
            save(tmp_path / "set" / folder / f"{case}.nii.gz", array, affine)
    data = load(f"folder:{tmp_path / 'set'}", size=SIZE)
    turned = np.diag([0.5, -0.5, 1, 1])
    turned[0, 3] = -0.5 * (SIZE - 1)
    for case in ("p", "q"):
        save(tmp_path / f"out/{case}.nii.gz", mask[::-1], turned)
        both = np.stack([mask[::-1], np.zeros_like(mask)], -1)
        save(tmp_path / f"several/{case}.nii.gz", both, turned)
    np.testing.assert_array_equal(samples(tmp_path / "out", None, data)[:, 0], data.masks[:, 0])
    several = samples(tmp_path / "several", "support", data)
    np.testing.assert_array_equal(several[:, 0], data.masks[:, 0])
    assert not several[:, 1].any()


def test_the_kind_is_asked_for_and_taken_from_the_folder(tmp_path: Path) -> None:
    for case, each in zip(CASES.cases, PROB, strict=True):
        write(tmp_path / f"{case}.npy", each)
    with pytest.raises(
        UsageError, match=r"3 samples a case: say how they were drawn.*independent.*support.*stratified"
    ):
        opened(tmp_path, None)
    (tmp_path / "predictions.toml").write_text('kind = "stratified"', encoding="utf-8")
    assert opened(tmp_path, None).drawn == "stratified"
    assert opened(tmp_path, "support").describes.support == S
    (tmp_path / "predictions.toml").write_text('kind = "some"', encoding="utf-8")
    with pytest.raises(FileError, match=r'predictions.toml: expected kind = "independent"'):
        opened(tmp_path, None)


@pytest.mark.parametrize("kind", ["independent", "stratified", None])
def test_one_sample_a_case_is_a_support_whatever_is_said(tmp_path: Path, kind: Drawn | None) -> None:
    (tmp_path / "predictions.toml").write_text('kind = "independent"', encoding="utf-8")
    for case, mask in zip(CASES.cases, MASKS[:, 0], strict=True):
        write(tmp_path / f"{case}.npy", mask)
    assert opened(tmp_path, kind).describes.support == 1


def test_fewer_independent_draws_are_the_first_ones(tmp_path: Path) -> None:
    for case, each in zip(CASES.cases, PROB, strict=True):
        write(tmp_path / f"{case}.npy", each)
    np.testing.assert_allclose(predict(opened(tmp_path), CASES, 2).prob, PROB[:, :2], atol=1e-6)
    assert predict(opened(tmp_path, "stratified"), CASES, 2).prob.shape[1] == S


def test_weights_and_supports_of_different_sizes(tmp_path: Path) -> None:
    for i, (case, each) in enumerate(zip(CASES.cases, PROB, strict=True)):
        for s in range(S if i else 2):
            write(tmp_path / f"{case}/m{s}.npy", each[s])
    support = predict(opened(tmp_path, "support"), CASES)
    assert support.weights is not None
    np.testing.assert_allclose(support.weights[:2], [[0.5, 0.5, 0], [1 / 3] * 3])
    np.testing.assert_allclose(support.mean()[0], PROB[0, :2].mean(0), atol=1e-6)
    assert opened(tmp_path, "independent").left_out == {"c0": "2 samples, most have 3"}
    lines = [f"{case},m{s},{1 + s}" for i, case in enumerate(CASES.cases) for s in range(S if i else 2)]
    (tmp_path / "weights.csv").write_text("\n".join(["case,sample,weight", *lines]), encoding="utf-8")
    weighted = predict(opened(tmp_path, "support"), CASES)
    np.testing.assert_allclose(weighted.weights[:2], [[1 / 3, 2 / 3, 0], [1 / 6, 2 / 6, 3 / 6]])
    with pytest.raises(FileError, match="independent samples have equal weights"):
        opened(tmp_path, "independent")
    (tmp_path / "weights.csv").write_text("\n".join(["case,sample,weight", *lines[1:]]), encoding="utf-8")
    with pytest.raises(FileError, match="a weight of at least 0 for each of 2 samples of case 'c0'"):
        opened(tmp_path, "support")


def test_stratified_samples_may_have_weights_and_batches_of_equal_ones_join_others(tmp_path: Path) -> None:
    for case, each in zip(CASES.cases, PROB, strict=True):
        write(tmp_path / f"{case}.npy", each)
    lines = [f"{case},{s},{s if case == 'c3' else 1}" for case in CASES.cases for s in range(S)]
    (tmp_path / "weights.csv").write_text("\n".join(["case,sample,weight", *lines]), encoding="utf-8")
    drawn = predict(opened(tmp_path, "stratified"), CASES, batch=2)
    assert drawn.drawn == "stratified"
    np.testing.assert_allclose(drawn.weights, [[1 / 3] * 3] * 3 + [[0, 1 / 3, 2 / 3]])


def test_what_cannot_be_used_is_left_out_by_name(tmp_path: Path) -> None:
    write(tmp_path / "c0.npy", PROB[0, 0])
    write(tmp_path / "c1.npy", PROB[1, 0] + 3)
    write(tmp_path / "c2.npy", PROB[2, 0, :7])
    left_out = opened(tmp_path, None).left_out
    assert left_out["c3"] == "no file"
    assert left_out["c1"].startswith("c1.npy: expected masks or probabilities in [0,1], got numbers from 3")
    assert left_out["c2"] == "c2.npy: expected samples of 16×16 pixels, got 7×16"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="cases named as 'c0', got nothing of 4 cases"):
        opened(tmp_path / "empty", None)


def test_labels_of_several_classes_are_refused(tmp_path: Path) -> None:
    for case in CASES.cases:
        write(tmp_path / f"{case}.png", RNG.integers(0, 4, (SIZE, SIZE)).astype(np.uint8))
    with pytest.raises(FileError, match="whole numbers up to 3 are neither masks"):
        opened(tmp_path, None)


def test_low_probabilities_need_the_scale(tmp_path: Path) -> None:
    for case, each in zip(CASES.cases, PROB, strict=True):
        write(tmp_path / f"{case}.npy", (each * 100).astype(np.uint8))
    with pytest.raises(FileError, match=r"up to 100 are neither.*predictions.toml there what 1 is: scale = 255 or"):
        opened(tmp_path)
    settings, digests = tmp_path / "predictions.toml", set()
    for scale in (255, 65535):
        settings.write_text(f"scale = {scale}", encoding="utf-8")
        np.testing.assert_allclose(samples(tmp_path), (PROB * 100).astype(np.uint8) / scale, atol=1e-6)
        digests.add(opened(tmp_path).digest)
    assert len(digests) == 2
    for wrong in ("scale = 256", 'scale = "255"', "scale = true"):
        settings.write_text(wrong, encoding="utf-8")
        with pytest.raises(FileError, match=r"predictions.toml: expected kind = .*scale = 255 or 65535, got scale: "):
            opened(tmp_path)
    settings.write_text("scale = 255", encoding="utf-8")
    write(tmp_path / "c0.npy", np.full((S, SIZE, SIZE), 256, np.uint16))
    with pytest.raises(FileError, match="expected whole numbers up to scale = 255, got 256"):
        opened(tmp_path)


def test_the_scale_is_not_that_of_other_numbers(tmp_path: Path) -> None:
    """Floating point and true or false mean what they say; whole numbers of 0 and 1 are small with a scale."""
    (tmp_path / "predictions.toml").write_text("scale = 255", encoding="utf-8")
    for case, mask in zip(CASES.cases, MASKS[:, 0], strict=True):
        for kind in (np.float32, np.bool_, np.uint8):
            write(tmp_path / f"{case}/{kind.__name__}.npy", mask.astype(kind))
    assert sorted(samples(tmp_path).max((0, 2, 3)).tolist()) == pytest.approx([1 / 255, 1, 1])


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    for case, each in zip(CASES.cases, PROB, strict=True):
        write(tmp_path / f"a/{case}.npy", each)
        write(tmp_path / f"b/{case}.npy", each)
    same = opened(tmp_path / "a")
    assert opened(tmp_path / "b").digest == same.digest
    assert opened(tmp_path / "b", "support").digest != same.digest
    write(tmp_path / "b/c3.npy", PROB[0])
    assert opened(tmp_path / "b").digest != same.digest
    assert opened(tmp_path / "b").only(["c0", "c1"]).digest == same.only(["c0", "c1"]).digest
