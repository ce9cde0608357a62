"""Predictions: what somebody else's program predicted, in files, as a Sampler that reads them.

DIR/<case>/<anything, sorted>.<ext>     a sample a file, as `uqseg predict` (in samples/), MONAI and many others write
DIR/<case>.<npy, npz, nii.gz, tif>      samples on one axis, first where that is not clear from the sizes; of NIfTI
                                        the last, x, y, samples or x, y, 1, samples
DIR/<case>.<ext>                        one sample
DIR/<case>.npz with `probabilities`     class probabilities of nnU-Net, background first: one sample, 1 − background
DIR/weights.csv                         optional: case, sample (file name, or number from 0), weight
DIR/predictions.toml                    optional: kind, scale, see `Settings`

Samples are masks (0 and 1, 0 and 255) or probabilities (of 8 or 16 bits, or floating point in [0,1]), of the case's
size, or of its image's own, which is then cropped and padded, or stretched, as the image was.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from uqseg.checked import Checked
from uqseg.data import AnnotatedSet
from uqseg.data.ahead import in_turn
from uqseg.data.formats import claimed, read_series
from uqseg.data.images import AT_ONCE, aligned, crop_or_pad, shrunk
from uqseg.data.load import original_side
from uqseg.data.names import ignored, plain, stem
from uqseg.data.volume import MAX_VOXELS, Volume
from uqseg.errors import FileError, UsageError, message_of
from uqseg.noise import Noise
from uqseg.samples import Batch, Description, Drawn, Samples

VERSION = 1
"""Raised when the code reads other samples from the same files."""
WEIGHTS, SETTINGS, SAMPLES, NNUNET = "weights.csv", "predictions.toml", "samples", "probabilities"
KINDS = {
    "independent": "each drawn by itself from what the method can answer",
    "support": "all answers that it has, such as the five members of an ensemble",
    "stratified": "chosen to represent its answers, such as level sets",
}
FULL = {255: (128, 255), 65535: (2**15, 65535)}  # whole numbers whose largest lies between these are parts of that
SLACK = 1e-6  # by which a probability may miss [0,1]
Arrays = NDArray[np.float32]


class Settings(Checked):
    """What predictions.toml may say. kind: how the samples of a case were drawn; scale: what 1 is in whole numbers."""

    kind: Drawn | None = None
    scale: Literal[255, 65535] | None = None


class Frame(NamedTuple):
    """How a case's image became size×size: its own height and width, whether it was stretched, and its affine."""

    height: float
    width: float
    stretched: bool = False
    affine: NDArray[np.float64] | None = None


class _Seen(NamedTuple):
    """What a look at the files of a case showed: their digest, the number of samples, the largest number by type."""

    digest: str
    samples: int
    tops: dict[str, float]


@dataclass(frozen=True)
class Predictions:
    """A Sampler that reads files: those of each case that can be used. left_out: why each other case cannot."""

    name: str
    folder: Path
    size: int
    drawn: Drawn
    scale: int | None
    files: dict[str, list[Path]]
    seen: dict[str, _Seen]
    frames: dict[str, Frame]
    weights: dict[str, list[float]]
    left_out: dict[str, str]

    @cached_property
    def count(self) -> int:
        """How many samples each case has, in a support at most."""
        counts = [seen.samples for seen in self.seen.values()]
        return max(counts) if self.drawn == "support" else min(counts)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that is read."""
        parts = [self.drawn, *(f"{case} {seen.digest} {self.weights.get(case)}" for case, seen in self.seen.items())]
        if self.scale is not None:
            parts.append(f"scale {self.scale}")
        return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()

    @cached_property
    def fulls(self) -> dict[str, float]:
        """By type of number, which one means 1; of whole numbers `scale`, or else the largest of all cases, tells.
        FileError where none is likely."""
        return _fulls(self.folder, self.seen.values(), self.scale)

    @cached_property
    def equal(self) -> bool:
        """Whether the samples of every case have equal weights, and all have as many."""
        alike = all(len(set(self.weights.get(case, ()))) <= 1 for case in self.seen)
        return alike and all(seen.samples == self.count for seen in self.seen.values())

    def only(self, cases: Iterable[str]) -> Predictions:
        """The predictions of some of the cases."""
        names = list(cases)
        files = {case: self.files[case] for case in names}
        return replace(self, files=files, seen={case: self.seen[case] for case in names})

    @property
    def describes(self) -> Description:
        """Their name and, where they are a whole support, how many there are."""
        return Description(self.name, "outcome", self.count if self.drawn == "support" else None)

    def sample(self, batch: Batch, n: int, noise: Noise) -> Samples:
        """The samples of the batch's cases; of independent draws the first n, of other kinds all.

        Raises FileError where a file cannot be read, ValueError for a case that was left out.
        """
        if lacking := [case for case in batch.keys if case not in self.files]:
            raise ValueError(f"predictions '{self.name}': nothing of case '{lacking[0]}'")
        kept = min(n, self.count) if self.drawn == "independent" else self.count
        prob = np.zeros((len(batch), kept, self.size, self.size), np.float32)
        weights = np.zeros((len(batch), kept))
        for row, case in enumerate(batch.keys):
            arrays = [array for file in self.files[case] for array in self._samples_in(file, self.frames[case])][:kept]
            prob[row, : len(arrays)] = arrays
            weights[row, : len(arrays)] = self.weights.get(case, [1.0] * len(arrays))
        weights /= weights.sum(1, keepdims=True)
        return Samples(torch.from_numpy(prob), None if self.equal else torch.from_numpy(weights), self.drawn)

    def _samples_in(self, file: Path, frame: Frame) -> list[Arrays]:
        array = _slices(file, self.size, frame)
        array = np.asarray(array, np.float32).clip(0) / np.float32(self.fulls[array.dtype.str])
        return [_fitted(sample.clip(max=1), self.size, frame) for sample in array]


def open_predictions(name: str, folder: Path, cases: AnnotatedSet, kind: Drawn | None = None) -> Predictions:
    """The predictions of `cases` in `folder`, all of which are read once; those that cannot be used are left out.

    kind: in place of predictions.toml's; one sample a case is a support whatever they say. Raises UsageError where
    nothing of any case is there, or several samples have no kind; FileError where settings or weights cannot be
    understood, or numbers are neither masks nor probabilities.
    """
    if not folder.is_dir():
        raise UsageError(f"predictions: there is no folder '{folder}'; give that of the predicted files.")
    size, names = cases.images.shape[2], [str(case) for case in cases.cases]
    files = _by_case(folder, names)
    frames = dict(zip(names, _frames(cases), strict=True))
    if not files:
        raise UsageError(
            f"predictions: expected {folder}/<case>.<png, nii.gz, npy, ...> or a folder for each case, with cases "
            f"named as '{names[0]}', got nothing of {len(names)} cases."
        )
    left_out = {case: "no file" for case in names if case not in files}

    def look(case: str) -> _Seen | str:
        try:
            return _look(files[case], size, frames[case])
        except FileError as error:
            return str(error).replace(f"{folder}/", "")

    def weigh(case: str) -> int:
        return max(map(claimed, files[case]))  # they are read one after the other

    with ThreadPoolExecutor() as pool:
        answers = in_turn(lambda case: pool.submit(look, case), files, weigh, AT_ONCE)
        looks = dict(zip(files, answers, strict=True))
    left_out |= {case: seen for case, seen in looks.items() if isinstance(seen, str)}
    usable = {case: seen for case, seen in looks.items() if not isinstance(seen, str)}
    if not usable:
        case, reason = next(iter(left_out.items()))
        raise FileError(f"predictions '{folder}': none of {len(names)} cases can be used; {case}: {reason}")
    settings = _settings(folder)
    drawn = _kind(folder, kind or settings.kind, max(seen.samples for seen in usable.values()))
    weights = _weights(folder, {case: files[case] for case in usable}, {c: s.samples for c, s in usable.items()})
    if drawn == "independent" and weights:
        raise FileError(f"{folder / WEIGHTS}: independent samples have equal weights; remove it, or say another kind")
    if drawn != "support":
        most = Counter(seen.samples for seen in usable.values()).most_common(1)[0][0]
        left_out |= {c: f"{s.samples} samples, most have {most}" for c, s in usable.items() if s.samples < most}
    used = {case: seen for case, seen in usable.items() if case not in left_out}
    read = {case: files[case] for case in used}
    predictions = Predictions(name, folder, size, drawn, settings.scale, read, used, frames, weights, left_out)
    predictions.fulls  # noqa: B018  (raises where the numbers make no sense)
    return predictions


def _by_case(folder: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each case, in the order of its samples.

    An ending that all names share, as the `_seg` that some programs append, is passed over.
    """
    try:
        entries = sorted(f for f in folder.rglob("*") if stem(f.name)[1] and not ignored(f.name))
    except OSError as error:
        raise FileError(f"cannot read {folder}: {error.strerror or error}; mend it or remove it") from error
    single: dict[str, list[Path]] = {}
    several: dict[str, list[Path]] = {}
    for file in entries:
        place = file.relative_to(folder)
        single.setdefault(plain((place.parent / stem(place.name)[0]).as_posix()), []).append(file)
        several.setdefault(plain(place.parent.as_posix()), []).append(file)
    if not {*single, *several} & {*names, *(f"{name}/{SAMPLES}" for name in names)}:
        endings = {name[len(case) :] for name in single for case in names if name.startswith(case)}
        shared = max(endings, key=lambda ending: sum(name + ending in single for name in names), default="")
        single = {name.removesuffix(shared): files for name, files in single.items() if name.endswith(shared)}
    files = {}
    for name in names:
        if chosen := several.get(f"{name}/{SAMPLES}") or several.get(name):
            files[name] = chosen
        elif name in single:  # nnU-Net writes the probabilities beside the mask that follows from them
            files[name] = [file for file in single[name] if _is_of_nnunet(file)] or single[name]
    return files


def _is_of_nnunet(file: Path) -> bool:
    if file.suffix != ".npz" or not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return f"{NNUNET}.npy" in archive.namelist()


def _frames(cases: AnnotatedSet) -> list[Frame]:
    """How each case's image became size×size."""
    table = cases.table
    if "original_height" not in table:
        side = original_side(cases.name) or cases.images.shape[2]
        return [Frame(side, side)] * len(cases)
    affines = table["affine"] if "affine" in table else [None] * len(table)
    columns = (table["original_height"], table["original_width"], table["fit"], affines)
    return [
        Frame(height, width, fit == "resize", np.array(json.loads(text)) if isinstance(text, str) else None)
        for height, width, fit, text in zip(*columns, strict=True)
    ]


def _look(files: Sequence[Path], size: int, frame: Frame) -> _Seen:
    """Read the files of a case. Raises FileError for one that cannot be used."""
    if len(files) > 1 and len({stem(file.name)[0] for file in files}) == 1:
        raise FileError(f"several files for one case, {' and '.join(f.name for f in files)}; keep one")
    tops: dict[str, float] = {}
    count, digest = 0, hashlib.sha256()
    for file in files:
        array = _slices(file, size, frame)
        low, high = float(array.min()), float(array.max())
        if not low >= -SLACK or not np.isfinite(high) or (array.dtype.kind == "f" and high > 1 + SLACK):
            divide = "; divide them by what 1 is" if 1 < high < np.inf and low >= -SLACK else ""
            raise FileError(
                f"{file}: expected masks or probabilities in [0,1], got numbers from {low:g} to {high:g}{divide}"
            )
        count += len(array)
        tops[array.dtype.str] = max(tops.get(array.dtype.str, 0.0), high)
        digest.update(file.read_bytes())
    return _Seen(digest.hexdigest(), count, tops)


def _slices(file: Path, size: int, frame: Frame) -> NDArray[Any]:
    """The samples in a file as stored, (S,H,W), with H and W of the case or of its image."""
    volumes = _stored(file)
    array = volumes[0].array
    if all(len(volume.array) == 1 for volume in volumes):  # otherwise slices are samples, and lie nowhere in space
        like = Volume(np.empty((1, 1, 1)), affine=frame.affine)
        array = np.concatenate([aligned(volume, like, str(file)) for volume in volumes])
    elif len(volumes) > 1:
        raise FileError(f"{file}: expected one slice of each sample, got {len(array)} of {len(volumes)} samples")
    shape = "×".join(map(str, array.shape))
    sides = [(size, size), (int(frame.height), int(frame.width))]
    if array.ndim > 3:
        array = array.reshape([n for n in array.shape if n > 1] or [1, 1])
    array = array[None] if array.ndim == 2 else array
    for axis in range(array.ndim if array.ndim == 3 else 0):
        if array.shape[:axis] + array.shape[axis + 1 :] in sides:
            return np.moveaxis(array, axis, 0)
    expected = " or ".join(f"{h}×{w}" for h, w in dict.fromkeys(sides))
    raise FileError(f"{file}: expected samples of {expected} pixels, got {shape}")


def _stored(file: Path) -> list[Volume]:
    """The numbers in a file, a volume for each step of a series; of nnU-Net's class probabilities that of any
    foreground."""
    suffix = file.suffix.lower()
    if suffix not in (".npy", ".npz"):
        volumes = read_series(file)
        if volumes[0].array.ndim == 4:
            if any((volume.array != volume.array[..., :1]).any() for volume in volumes):
                raise FileError(f"{file}: expected one channel, got colours")
            volumes = [volume._replace(array=volume.array[..., 0]) for volume in volumes]
        return volumes
    try:
        if suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                if sum(member.file_size for member in archive.infolist()) > 8 * MAX_VOXELS:
                    raise FileError(f"{file}: claims more than {8 * MAX_VOXELS} bytes; cut it to what is needed")
            with np.load(file, allow_pickle=False) as arrays:
                if NNUNET in arrays:
                    return [Volume(1 - np.asarray(arrays[NNUNET][0], np.float32))]
                if len(arrays.files) != 1:
                    raise FileError(
                        f"{file}: expected one array or '{NNUNET}', got {', '.join(arrays.files) or 'none'}"
                    )
                array = arrays[arrays.files[0]]
        else:
            array = np.load(file, allow_pickle=False, mmap_mode="r")
    except FileError:
        raise
    except Exception as error:  # of one damaged file, a decoder raises almost anything
        raise FileError(f"cannot read {file}: {' '.join(str(error).split()) or type(error).__name__}") from error
    if array.dtype.kind not in "buif" or array.ndim < 2 or not array.size or array.size > MAX_VOXELS:
        raise FileError(f"{file}: expected numbers (H,W) or (S,H,W), got {array.dtype} {array.shape}")
    return [Volume(np.array(array))]


def _fitted(sample: Arrays, size: int, frame: Frame) -> Arrays:
    """A sample (H,W) as size×size: as it is, or cropped and padded, or stretched by the area covered, as its image."""
    if sample.shape == (size, size):
        return sample
    if not frame.stretched:
        return crop_or_pad(sample, size)
    if ((sample == 0) | (sample == 1)).all():
        return shrunk(sample > 0, size).astype(np.float32)
    return np.asarray(Image.fromarray(sample).resize((size, size), Image.Resampling.BOX)).clip(0, 1)


def _fulls(folder: Path, seen: Iterable[_Seen], scale: int | None) -> dict[str, float]:
    tops: dict[str, float] = {}
    for case in seen:
        for kind, top in case.tops.items():
            tops[kind] = max(tops.get(kind, 0.0), top)
    fulls = {}
    for kind, top in tops.items():
        if scale is not None and np.dtype(kind).kind in "ui":
            if top > scale:
                raise FileError(f"{folder / SETTINGS}: expected whole numbers up to scale = {scale}, got {top:g}")
            fulls[kind] = float(scale)
            continue
        full = 1.0 if top <= 1 + SLACK else next((f for f, (low, high) in FULL.items() if low <= top <= high), None)
        if full is None:
            raise FileError(
                f"predictions '{folder}': whole numbers up to {top:g} are neither masks (0 and 1, 0 and 255) nor "
                f"probabilities of 8 or 16 bits; of labels, save the one that is scored as a mask; of probabilities, "
                f"say in {SETTINGS} there what 1 is: scale = 255 or scale = 65535"
            )
        fulls[kind] = float(full)
    return fulls


def _settings(folder: Path) -> Settings:
    """What predictions.toml says. FileError where it cannot be understood."""
    file = folder / SETTINGS
    if not file.exists():
        return Settings()
    try:
        return Settings(**tomllib.loads(file.read_text(encoding="utf-8")))
    except (UsageError, tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        kinds, scales = " or ".join(f'"{name}"' for name in KINDS), " or ".join(map(str, FULL))
        reason = message_of(error)[:150]
        raise FileError(f"{file}: expected kind = {kinds}, and scale = {scales}, got {reason}") from error


def _kind(folder: Path, kind: Drawn | None, most: int) -> Drawn:
    """How the samples, of which a case has `most` at most, were drawn: one is all there is, whatever `kind` says."""
    if kind is None and most > 1:
        kinds = "; ".join(f"{name} ({text})" for name, text in KINDS.items())
        raise UsageError(
            f"predictions '{folder}' have {most} samples a case: say how they were drawn, since GED is corrected "
            f'for independent draws alone: {kinds}. Give --kind, or write kind = "..." into {SETTINGS} there.'
        )
    return kind if kind and most > 1 else "support"


def _weights(folder: Path, files: Mapping[str, list[Path]], counts: Mapping[str, int]) -> dict[str, list[float]]:
    """The weights of each case's samples from weights.csv, if it is there. FileError naming what is wrong."""
    file = folder / WEIGHTS
    if not file.exists():
        return {}
    try:
        table = pd.read_csv(file, dtype={"case": str, "sample": str})
        given = {
            (plain(case), sample): float(weight)
            for case, sample, weight in table[["case", "sample", "weight"]].itertuples(index=False)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = message_of(error)[:150]
        raise FileError(f"{file}: expected the columns case, sample, weight, got {reason}") from error
    weights = {}
    for case, samples in counts.items():
        single = len(files[case]) < samples
        names = [{str(k)} if single else {str(k), files[case][k].name, stem(files[case][k].name)[0]}
                 for k in range(samples)]  # fmt: skip
        each = [next((given[case, n] for n in sorted(known, reverse=True) if (case, n) in given), np.nan)
                for known in names]  # fmt: skip
        if not np.isfinite(each).all() or min(each) < 0 or sum(each) <= 0:
            raise FileError(f"{file}: expected a weight of at least 0 for each of {samples} samples of case '{case}', "
                            f"and not all 0, got {each}")  # fmt: skip
        weights[case] = each
    return weights
