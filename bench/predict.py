"""New images in, masks and maps out: a folder of files through a trained model, each with what makes it doubtful.

OUT/<case>/mask, mean, std, entropy (bits), samples/000, …   PNG of pictures, NIfTI of volumes and DICOM, on their grid
OUT/<case>/overlay.png                                       image, outlines of mask and samples, standard deviation
OUT/<case>/answer.json                                       written last: the case's line of the summary
OUT/summary.csv, model.json, predictions.toml                `uqseg score OUT` reads the last
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from bench.runs import results, spec
from bench.runs.splits import load_splits
from bench.runs.store import STORE, Store
from uqseg import trained, wrappers
from uqseg.data.formats import is_dicom, read_volume
from uqseg.data.names import VOLUMES, ignored, plain, stem
from uqseg.data.volume import LPS_TO_RAS, Volume
from uqseg.errors import FileError, UsageError, message_of
from uqseg.files import beside, is_taken, mend, read_json, sha256, unwritable, write
from uqseg.methods import Method
from uqseg.predictions import SETTINGS
from uqseg.segmentation import Segmentation, prepared, segment_all
from uqseg.training.checkpoint import MODEL, load_method
from uqseg.wrappers import Wrapper

ANSWER, SUMMARY = "answer.json", "summary.csv"
FULL = 255  # what 1 is in a picture
COLUMNS = ("case", "file", "slices", "area_pixels", "area_mm2", "area_samples", "area_samples_std", "presence",
           "disagreement", "unlike_training", "samples", "drawn", "error")  # fmt: skip
WHOLE = ("slices", "area_pixels", "samples")  # columns of whole numbers, empty where an image has an error
MAPS = ("mean", "std", "entropy")


@dataclass(frozen=True)
class Request:
    """What is predicted: with which model, called by what its files hold; samples a slice; seed; window; DICOM-SEG."""

    model: Method[Any] | Wrapper[Any]
    identity: str
    samples: int
    seed: int
    window: tuple[float, float] | None
    dicom_seg: bool

    @property
    def record(self) -> dict[str, Any]:
        """What must be the same for a folder of answers to be gone on with."""
        window = None if self.window is None else list(self.window)
        return {"model": self.identity, "samples": self.samples, "seed": self.seed, "window": window}


def open_model(text: str, device: str, trust: Sequence[str]) -> tuple[Method[Any] | Wrapper[Any], str]:
    """The model that `text` names, and what tells it from others: runs/NAME/LABEL, a folder of weights, or a name.

    Wrappers that learn from validation cases are fitted on those of the run. Raises UsageError where nothing is there.
    """
    if _run_of(Path(text)) is None:
        folder = trained.find(text)
        return trained.load_model(folder, device, trust=trust), sha256(folder / MODEL)
    run, entry = cell_of(text)
    folder = Store(run.parent / STORE).fit(entry["fit"])
    if not folder.exists():
        raise UsageError(f"'{text}' has no weights: there is no {folder}; give its run's command again to train it.")
    method = load_method(folder, device, trust=trust)
    if not entry["wrappers"]:
        return method, sha256(folder / MODEL)
    request = spec.read_spec(results.read_run(run)["spec"], str(run / "run.json"))
    (cell, *_) = [c for c in spec.cells(request) if c.label == entry["label"]]
    chain = [wrappers.build(name, **options.model_dump()) for name, options in cell.wrappers]
    learns = any(wrapper.fitted for wrapper in chain)
    sampler = wrappers.wrap(method, chain, load_splits(request).val if learns else None)
    assert isinstance(sampler, Wrapper)
    return sampler, f"{sha256(folder / MODEL)} {entry['label'].partition('+')[2]} {json.dumps(_states(sampler))}"


def _states(sampler: Any) -> list[Any]:
    return [sampler.state(), *_states(sampler.sampler)] if isinstance(sampler, Wrapper) else []


def _run_of(path: Path) -> Path | None:
    """The results folder that `path` is or lies in."""
    return next((folder for folder in (path, *path.parents) if (folder / "run.json").exists()), None)


def cell_of(text: str) -> tuple[Path, dict[str, Any]]:
    """The results folder and the record of a trained cell: runs/NAME/ with its label, its label and repetition
    (unet-r1), or its folder (cells/unet-r1). Raises UsageError naming what there is."""
    path = Path(text)
    run = _run_of(path)
    if run is None:
        raise UsageError(f"there is no run at '{text}'; give runs/NAME/LABEL.")
    name = path.relative_to(run).as_posix().removeprefix("cells/")
    cells = [entry for entry in results.read_run(run)["cells"] if "fit" in entry]
    for entry in cells:
        if name in (entry["label"], f"{entry['label']}-r{entry['repetition']}", entry["folder"]):
            return run, dict(entry)
    known = ", ".join(dict.fromkeys(entry["label"] for entry in cells)) or "none that is trained"
    raise UsageError(f"'{run}' has no '{name}'; its methods are {known}.")


def window_of(text: str | None) -> tuple[float, float] | None:
    """(-1000, 400) of "-1000,400"; None of None."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
        if not -inf < low < high < inf:
            raise ValueError
    except ValueError:
        raise UsageError(f"--window: expected two ascending numbers such as -1000,400, got '{text}'.") from None
    return low, high


def images_in(path: Path) -> dict[str, Path]:
    """The images below `path`, or the one that it is, by case: the name below `path` without its ending."""
    if path.is_file():
        return {plain(stem(path.name)[0]): path}
    if not path.is_dir():
        raise UsageError(f"there is no file or folder '{path}'; give that of the images.")
    files = sorted(f for f in path.rglob("*") if f.is_file() and not ignored(f.name))
    places = [f.relative_to(path) for f in files if stem(f.name)[1] or is_dicom(f)]
    names = [plain((place.parent / stem(place.name)[0]).as_posix()) for place in places]
    taken = Counter([*names, *{folder.as_posix() for place in places for folder in place.parents}])
    # a.png beside a.nii.gz, or beside the folder a, keeps its ending.
    cases = {name if taken[name] == 1 else plain(place.as_posix()): path / place
             for name, place in zip(names, places, strict=True)}  # fmt: skip
    if not cases:
        raise UsageError(f"there is no image below '{path}'; give PNG, TIFF, NIfTI, DICOM or others that `data` reads.")
    return cases


def predict(
    request: Request, images: dict[str, Path], out: Path, advance: Callable[[str], None]
) -> tuple[pd.DataFrame, int]:
    """Write what the model makes of each image into `out`, as far as that is not there, and summary.csv.

    advance: told each case when it is done. Returns the summary, and how many cases were there already. An image that
    cannot be used has an error in the summary and stops no other. UsageError where `out` holds anything else.
    """
    _begin(request, out)
    rows, before = [], 0
    try:
        for case, file in images.items():
            try:
                row = _known(out / case, file)
                before += row is not None
                rows.append(row or _answer(request, case, file, out / case))
            except (FileError, UsageError, ValueError) as error:
                rows.append({"case": case, "file": file.name, "error": message_of(error)})
            advance(case)
    finally:
        table = pd.DataFrame(rows, columns=COLUMNS).astype(dict.fromkeys(WHOLE, "Int64"))
        write(out / SUMMARY, table.to_csv(index=False, float_format="%.6g").encode())
    _finish(out, table)
    return table, before


def _begin(request: Request, out: Path) -> None:
    record = out / MODEL
    if not record.exists() and is_taken(out):
        raise UsageError(f"--to: '{out}' is not empty and holds no predictions; choose another folder.")
    if record.exists() and read_json(record) != request.record and not _is_without_answers(out):
        raise UsageError(f"--to: '{out}' holds predictions of another model, samples, seed or window; choose another.")
    write(record, json.dumps(request.record, indent=1).encode())


def _is_without_answers(out: Path) -> bool:
    """Whether a folder holds only what is left where every image failed."""
    return {f.relative_to(out).as_posix() for f in out.rglob("*") if not f.is_dir()} <= {MODEL, SUMMARY}


def _finish(out: Path, table: pd.DataFrame) -> None:
    """What `uqseg score` needs to know of the samples."""
    known = table.dropna(subset="drawn")
    if known.empty:
        return
    write(out / SETTINGS, f'kind = "{known["drawn"].iloc[0]}"\nscale = {FULL}\n'.encode())
    answers = {case: read_json(out / case / ANSWER)["weights"] for case in known["case"]}
    lines = [f"{case},{k:03d},{w!r}" for case, weights in answers.items() for k, w in enumerate(weights or [])]
    if lines:
        write(out / "weights.csv", "\n".join(["case,sample,weight", *lines, ""]).encode())


def _known(folder: Path, file: Path) -> dict[str, Any] | None:
    """The case's line of the summary, where it was answered before, from the same bytes."""
    if not (folder / ANSWER).exists():
        return None
    answer = read_json(folder / ANSWER)
    return dict(answer["row"]) if answer["sha256"] == sha256(file) else None


def _answer(request: Request, case: str, file: Path, folder: Path) -> dict[str, Any]:
    """Predict one file and publish its folder; its line of the summary."""
    digest, volume = sha256(file), read_volume(file)
    try:
        images = prepared(volume, request.model, request.window, advice="--window=-1000,400")
        names = [case] if len(images) == 1 else [f"{case}/{k}" for k in range(len(images))]
        known = volume.spacing if np.isfinite(volume.spacing).all() else None
        slices = segment_all(request.model, images, names, request.samples, seed=request.seed, spacing=known)
    except (FileError, UsageError, ValueError) as error:
        raise FileError(f"{file}: {error}") from error
    partial = beside(folder)
    try:
        partial.mkdir(parents=True)
        _write(partial, file, volume, slices, request)
        row = _row(case, file, volume, slices)
        equal = len(set(slices[0].weights)) == 1
        answer = {"sha256": digest, "row": row, "weights": None if equal else slices[0].weights.tolist()}
        write(partial / ANSWER, json.dumps(answer, indent=1).encode())
        mend(partial, folder, valid=lambda final: _known(final, file) is not None)
    except OSError as error:
        raise unwritable(folder, error, "choose another --to") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return row


def _row(case: str, file: Path, volume: Volume, slices: Sequence[Segmentation]) -> dict[str, Any]:
    """A line of the summary; of a volume over all slices: areas are added up, presence and disagreement the largest."""
    area = sum(int(one.mask.sum()) for one in slices)
    each = sum((one.prob >= 0.5).sum((1, 2)) for one in slices)
    weights = slices[0].weights
    mean = float(weights @ each)
    pixel = float(np.prod(volume.spacing))
    remarks = dict.fromkeys(remark for one in slices for remark in one.remarks)
    return {
        "case": case,
        "file": file.name,
        "slices": len(slices),
        "area_pixels": area,
        "area_mm2": area * pixel if np.isfinite(pixel) else None,
        "area_samples": mean,
        "area_samples_std": float(np.sqrt(weights @ np.square(each - mean))),
        "presence": max(one.presence for one in slices),
        "disagreement": max(one.disagreement for one in slices),
        "unlike_training": "; ".join((*remarks, *volume.notes, *([volume.unscaled] if volume.unscaled else []))),
        "samples": len(weights),
        "drawn": slices[0].drawn,
        "error": "",
    }


def _write(folder: Path, file: Path, volume: Volume, slices: Sequence[Segmentation], request: Request) -> None:
    dicom = is_dicom(file)
    save = _save_nifti(file, volume, dicom) if dicom or stem(file.name)[1] in VOLUMES else _save_png
    save(folder / "mask", np.stack([one.mask for one in slices]))
    for name in MAPS:
        save(folder / name, np.stack([getattr(one, name) for one in slices]).astype(np.float32))
    (folder / "samples").mkdir()
    for k in range(len(slices[0].prob)):
        save(folder / f"samples/{k:03d}", np.stack([one.prob[k] for one in slices]))
    max(slices, key=lambda one: float(one.mean.sum())).picture().save(folder / "overlay.png")
    if request.dicom_seg and dicom:
        from bench.dicomseg import write_seg

        write_seg(file, folder / "mask.dcm", np.stack([one.mask for one in slices]))


def _save_png(path: Path, array: NDArray[Any]) -> None:
    """A picture of 8 bits: a mask of 0 and FULL, or numbers in [0,1] times FULL, several slices as pages of a TIFF."""
    pages = [Image.fromarray(np.rint(page * float(FULL)).astype(np.uint8)) for page in array]
    if len(pages) == 1:
        pages[0].save(path.with_suffix(".png"))
    else:
        pages[0].save(path.with_suffix(".tif"), save_all=True, append_images=pages[1:], compression="tiff_deflate")


def _save_nifti(file: Path, volume: Volume, dicom: bool) -> Callable[[Path, NDArray[Any]], None]:
    import nibabel

    make: Any = nibabel.Nifti1Image
    affine = _dicom_affine(file) if dicom else volume.affine
    if affine is None and np.isfinite(volume.spacing).all():
        affine = np.diag([volume.spacing[1], volume.spacing[0], 1.0, 1.0])

    def save(path: Path, array: NDArray[Any]) -> None:
        stored = array.astype(np.uint8) if array.dtype == np.bool_ else array
        image = make(stored.transpose(2, 1, 0), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, path.with_name(f"{path.name}.nii.gz"))

    return save


def _dicom_affine(file: Path) -> NDArray[np.float64] | None:
    """From (column, row, slice) to mm towards right, front and head, of one DICOM slice; None where it does not say."""
    import pydicom

    data = pydicom.dcmread(file, stop_before_pixels=True)
    position, orientation = data.get("ImagePositionPatient"), data.get("ImageOrientationPatient")
    step = data.get("PixelSpacing")
    if position is None or orientation is None or step is None:
        return None
    along_row, along_column = np.array(orientation, float).reshape(2, 3)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along_row * float(step[1]), along_column * float(step[0])
    thick = float(data.get("SpacingBetweenSlices") or data.get("SliceThickness") or 1)
    affine[:3, 2] = np.cross(along_row, along_column) * thick
    affine[:3, 3] = np.array(position, float)
    return np.asarray(LPS_TO_RAS @ affine)


def lines(table: pd.DataFrame, before: int, out: Path) -> Iterator[str]:
    """What became of the images, in words."""
    failed = int((table["error"] != "").sum())
    unlike = table["unlike_training"].notna() & (table["unlike_training"] != "")
    yield f"{len(table) - failed} of {len(table)} images predicted" + (f", {before} of them before" if before else "")
    if unlike.any():
        kinds = table.loc[unlike, "unlike_training"].str.split("; ").explode().str.partition(" ")[0].value_counts()
        counts = ", ".join(f"{kind} {count}" for kind, count in kinds.items())
        yield f"{unlike.sum()} are unlike the images that the model was trained on ({counts}); see unlike_training"
    yield f"Summary: {out / SUMMARY}"


def failures(table: pd.DataFrame) -> list[str]:
    """Why each image that has no prediction has none."""
    return [str(error) for error in table["error"] if error]
