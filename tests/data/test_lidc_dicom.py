"""lidc-dicom on DICOM files that the tests write where the readers' true outlines lie."""

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid
from skimage.draw import line, polygon

from uqseg.data import load
from uqseg.data.lidc import database
from uqseg.data.lidc.lesions import Lesion, seats, together
from uqseg.data.sources.lidc_dicom import PARTS, Job, convert_all, crop, find_jobs, folders_of
from uqseg.errors import FileError, UsageError

# Scans with two outlined slices in train and val, three in test; the boxes of 0846's two nodules overlap.
TRAIN, VAL, TEST, TWO = "LIDC-IDRI-0271", "LIDC-IDRI-0263", "LIDC-IDRI-0090", "LIDC-IDRI-0846"
SILENT = "LIDC-IDRI-0028"  # no reader outlined anything
LUNG, NODULE = -900, 0  # HU, as painted


@dataclass
class Scan:
    """A scan of the database: its series and, by z, the polygons (row, column) of each annotation."""

    series: str
    outlines: dict[float, dict[int, list[NDArray[np.int32]]]]


def scan_of(patient: str) -> Scan:
    file = database.locate()
    scans, annotations = database.read_scans(file), database.read_annotations(file)
    row = scans[scans["patient"] == patient].iloc[0]
    ids = annotations.loc[annotations["scan"] == row["scan"], "annotation"].tolist()
    scan = Scan(row["series"], {})
    if ids:
        contours = database.read_contours(file, ids)
        for i, (annotation, z) in enumerate(zip(contours.table["annotation"], contours.table["z"], strict=True)):
            scan.outlines.setdefault(z, {}).setdefault(annotation, []).append(contours[i])
    return scan


def filled(polygons: list[NDArray[np.int32]]) -> NDArray[np.bool_]:
    """What lies inside the polygons, without their edges, by another rasteriser than the source's."""
    mask = np.zeros((512, 512), bool)
    for points in polygons:
        one = np.zeros((512, 512), bool)
        one[polygon(points[:, 0], points[:, 1], one.shape)] = True
        for (y, x), (to_y, to_x) in zip(points, np.roll(points, -1, 0), strict=True):
            one[line(y, x, to_y, to_x)] = False
        mask |= one
    return mask


def widest(outlines: dict[int, list[NDArray[np.int32]]]) -> NDArray[np.bool_]:
    return max((filled(polygons) for polygons in outlines.values()), key=np.count_nonzero)


def write_slice(
    file: Path,
    series: str,
    z: float,
    hu: NDArray[np.int64],
    *,
    spacing: tuple[float, float] = (0.5, 0.5),
    slope: float = 2.0,
    location: float | None = None,
    modality: str = "CT",
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[str(z)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = pydicom.Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesInstanceUID, data.InstanceNumber = modality, series, 1
    data.ImagePositionPatient = [-180.0, -180.0, round(z, 4)]
    data.SliceLocation = round(-z if location is None else location, 4)
    data.PixelSpacing = [str(step) for step in spacing]
    data.RescaleSlope, data.RescaleIntercept = slope, -1024
    data.Rows, data.Columns = hu.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.PixelData = ((hu + 1024) / slope).astype(np.int16).tobytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(file, enforce_file_format=True)


def write_scan(root: Path, patient: str, *, spacing: tuple[float, float] = (0.5, 0.5), slope: float = 2.0) -> Scan:
    """All outlined slices of a patient, the widest outline of each lesion bright, and one slice without outlines."""
    scan = scan_of(patient)
    folder = root / patient / "01-01-2000-30178" / "3000566.000000-03192"
    for k, (z, outlines) in enumerate(sorted(scan.outlines.items())):
        hu = np.where(widest(outlines), NODULE, LUNG)
        write_slice(folder / f"1-{k + 1:03}.dcm", scan.series, z, hu, spacing=spacing, slope=slope)
    beyond = max(scan.outlines, default=0.0) + 20
    write_slice(folder / "1-999.dcm", scan.series, beyond, np.full((512, 512), LUNG), spacing=spacing)
    (folder / "LICENSE").write_text("CC BY 3.0")
    (folder / "068.xml").write_text("<LidcReadMessage/>")
    return scan


def files_of(root: Path, patient: str) -> list[Path]:
    return sorted((root / patient).rglob("*.dcm"))


def test_on_a_grid_of_half_a_millimetre_pixels_and_outlines_are_the_scans_own(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "set", TEST)
    data = load(f"lidc-dicom:{tmp_path / 'set'}", size=180, cache=tmp_path / "cache")
    assert data.images.shape == (3, 1, 180, 180)
    assert data.masks.shape == (3, 4, 180, 180)
    assert data.read.all()
    assert (data.spacing == 0.5).all()
    assert data.table["z"].tolist() == sorted(scan.outlines)
    assert set(data.table["patient"]) == {TEST}
    assert set(data.table["series"]) == {scan.series}
    assert data.table["malignancy"].between(1, 5).all()
    assert data.problems == ("not there: 882 of the 883 scans with outlines",)
    for row, (_, outlines) in enumerate(sorted(scan.outlines.items())):
        ends = np.concatenate([points for polygons in outlines.values() for points in polygons])
        y, x = np.rint((ends.min(0) + ends.max(0)) / 2 - 89.5).astype(int)
        window = slice(y, y + 180), slice(x, x + 180)
        expected = sorted(filled(polygons)[window].tobytes() for polygons in outlines.values())
        assert sorted(mask.tobytes() for mask in data.masks[row] if mask.any()) == expected
        assert data.table["n_marked"][row] == len(outlines)
        # -1000 to 400 HU are 0 to 255: -900 is 18.2, 0 is 182.1.
        assert np.array_equal(data.images[row, 0], np.where(widest(outlines)[window], 182, 18))
    cut = load(f"lidc-dicom:{tmp_path / 'set'}", size=64, cache=tmp_path / "cache")
    assert np.array_equal(cut.images, data.images[..., 58:122, 58:122])


def test_on_any_other_grid_the_lesion_lies_under_its_mask(tmp_path: Path) -> None:
    spacing = np.array([0.62, 0.91])
    scan = write_scan(tmp_path / "set", TEST, spacing=(0.62, 0.91), slope=1.0)
    data = load(f"lidc-dicom:{tmp_path / 'set'}", size=180, cache=tmp_path / "cache")
    for row, (_, outlines) in enumerate(sorted(scan.outlines.items())):
        native = widest(outlines)
        ends = np.concatenate([points for polygons in outlines.values() for points in polygons])
        # In mm from the scan's first pixel; crops start at whole half millimetres.
        true = np.argwhere(native).mean(0) * spacing
        corner = 0.5 * np.rint((ends.min(0) + ends.max(0)) / 2 * spacing / 0.5 - 89.5)
        bright = data.images[row, 0] > 100
        mask = max(data.masks[row], key=np.count_nonzero)
        assert (bright ^ mask).sum() <= 1
        for seen in (bright, mask):
            assert np.abs(corner + 0.5 * np.argwhere(seen).mean(0) - true).max() < 0.15  # a quarter of a pixel
            assert seen.sum() * 0.25 == pytest.approx(native.sum() * spacing.prod(), rel=0.05)


def test_what_cannot_be_used_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "set"
    scans = {patient: write_scan(root, patient) for patient in (TRAIN, VAL, TEST, TWO, SILENT)}
    heights = {patient: sorted(scan.outlines) for patient, scan in scans.items()}
    files_of(root, TRAIN)[0].unlink()
    write_slice(files_of(root, VAL)[1], scans[VAL].series, heights[VAL][1], np.zeros((512, 512)), location=5000.0)
    for file in files_of(root, TWO):
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.PixelData = pydicom.encaps.encapsulate([b"not a code stream"])
        data["PixelData"].is_undefined_length = True
        data.save_as(file)
    files_of(root, TEST)[0].write_bytes(b"half a file")
    cut, scrambled = files_of(root, TEST)[1:3]
    cut.write_bytes(cut.read_bytes()[:-1000])
    scrambled.write_bytes(scrambled.read_bytes().replace(b"DS\x04\x002.0 ", b"FD\x04\x002.0 "))
    write_slice(root / TRAIN / "chest/dx/1.dcm", "1.2.3", 0.0, np.zeros((8, 8)), modality="DX")
    write_slice(root / TRAIN / "other/ct/1.dcm", "1.2.4", 0.0, np.zeros((512, 512)))
    (root / "empty").mkdir()
    (root / "empty/0.dcm").write_bytes(b"")
    loaded = load(f"lidc-dicom:{root}", size=128, cache=tmp_path / "cache")
    left = {patient: part["z"].tolist() for patient, part in loaded.table.groupby("patient")}
    assert left == {TRAIN: heights[TRAIN][1:], VAL: heights[VAL][:1]}
    # A slice that TRAIN has no file for is absent; what VAL, TEST and TWO have and cannot be used is lost.
    assert loaded.readings == (4 * 2, 4 * (1 + 3 + 3), 0)
    text = "\n".join(loaded.problems)
    for expected in (
        f"left out: {SILENT}: no reader outlined a nodule",
        f"{TRAIN}, series …{scans[TRAIN].series[-6:]}: 1 of 2 slices with outlines left out: no file at this position",
        "1 of 3 files left out, whose SliceLocation is not the z of ImagePositionPatient (1-002.dcm)",
        "1 of 4 files left out, no DICOM file (1-001.dcm)",
        f"left out: {TEST}, series …{scans[TEST].series[-6:]}: 1 of 3 slices with outlines left out: "
        "not readable (The number of bytes of pixel data is less than expected",
        "1 of 3 slices with outlines left out: not readable (Expected total bytes to be an even multiple",
        f"left out: {TWO}, series …{scans[TWO].series[-6:]}: 3 of 3 slices with outlines left out: "
        "compressed as JPEG 2000 Image Compression (Lossless Only) and cannot be decoded",
        "passed over: 1 series of DX, which is no CT",
        "CT series 1.2.4 is none of those with readers' outlines",
        "left out: empty: no file can be read, the first is no DICOM file",
    ):
        assert expected in text


def jobs_of(root: Path, parts: Path) -> list[Job]:
    parts.mkdir(parents=True)
    return find_jobs(root, folders_of(root), parts, [])[1]


def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    root, parts = tmp_path / "set", tmp_path / "parts"
    for patient in (TRAIN, VAL):
        write_scan(root, patient)
    jobs = jobs_of(root, parts)
    child = os.fork()
    if not child:
        try:
            next(convert_all(jobs, 128, [], 1))
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    (first,) = parts.iterdir()
    # What has been converted is not looked at again: without its files, all rows are there.
    for file in next(job.files for job in jobs if job.part == first):
        file.unlink()
    rows = list(convert_all(jobs, 128, problems := [], 1))
    assert len(rows) == 4
    assert all(row is not None and row.masks.any() and (row.image > 100).any() for row in rows)
    assert not problems
    assert {job.part for job in jobs} == set(parts.iterdir())


def test_converted_scans_serve_other_sizes_and_a_grown_download_and_damaged_ones_are_converted_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, parts = tmp_path / "set", tmp_path / "cache" / PARTS
    write_scan(root, TRAIN)
    assert len(load(f"lidc-dicom:{root}", size=32, cache=tmp_path / "cache")) == 2
    (part,) = parts.iterdir()
    changed = part.stat().st_mtime_ns
    write_scan(root, VAL)
    grown = load(f"lidc-dicom:{root}", size=64, cache=tmp_path / "cache")
    assert grown.table["patient"].tolist() == [TRAIN, TRAIN, VAL, VAL]
    assert part.stat().st_mtime_ns == changed
    assert len(list(parts.iterdir())) == 2
    damaged, emptied = parts.iterdir()
    damaged.write_bytes(damaged.read_bytes()[:-100])
    emptied.write_bytes(b"")
    load(f"lidc-dicom:{root}", size=48, cache=tmp_path / "cache")
    assert caplog.text.count("converting the scan anew") == 2
    for entry in (tmp_path / "cache").glob("lidc-dicom-[!s]*"):
        shutil.rmtree(entry)
    assert load(f"lidc-dicom:{root}", size=64, cache=tmp_path / "cache").key == grown.key


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    for patient in (TRAIN, VAL, TEST, TWO):
        write_scan(tmp_path / "set", patient, spacing=(0.7, 0.7))
    one, three = (list(convert_all(jobs_of(tmp_path / "set", tmp_path / f"parts-{n}"), 128, [], n)) for n in (1, 3))
    assert len(one) == len(three) == 2 + 2 + 3 + 3
    for a, b in zip(one, three, strict=True):
        assert a is not None
        assert b is not None
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_folder_without_lidc_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(UsageError, match=r"no <patient>/<study>/<series>/\*\.dcm below"):
        load(f"lidc-dicom:{tmp_path / 'set'}", size=128, cache=tmp_path / "cache")
    write_slice(tmp_path / "set/a/1.dcm", "1.2.4", 0.0, np.zeros((512, 512)))
    with pytest.raises(FileError, match=r"(?s)no CT series of LIDC-IDRI.*a: CT series 1\.2\.4"):
        load(f"lidc-dicom:{tmp_path / 'set'}", size=128, cache=tmp_path / "cache")
    with pytest.raises(UsageError, match="even size up to 180"):
        load(f"lidc-dicom:{tmp_path / 'set'}", size=192, cache=tmp_path / "cache")


def test_outlines_belong_together_where_their_boxes_overlap() -> None:
    # A touches B, B overlaps C; D has the rows of A and other columns.
    low = np.array([[0, 0], [4, 4], [6, 0], [0, 20]])
    high = np.array([[4, 4], [7, 9], [9, 5], [4, 24]])
    label = together(low, high)
    assert label[0] == label[1] == label[2] != label[3]


def test_readers_keep_the_slots_of_the_main_nodule() -> None:
    assert seats(["n"] * 3, [2, 0, 3]) == ("n", [2, 0, 3])
    # One outline of another nodule, its own slot taken: it goes to the free one.
    assert seats(["m", "n", "n", "n"], [2, 2, 0, 3]) == ("n", [1, 2, 0, 3])
    # No slot free: it shares its own.
    assert seats(["n", "n", "n", "n", "m"], [0, 1, 2, 3, 1]) == ("n", [0, 1, 2, 3, 1])


def test_beyond_the_scan_there_is_air_and_no_mask() -> None:
    square = np.array([[0, 0], [0, 8], [8, 8], [8, 0]], np.int32)
    lesion = Lesion(0.0, (4.0, 4.0), [[(square, True)], [], [], []])
    image, masks = crop(np.full((512, 512), 400, np.float32), np.array([1.0, 1.0]), lesion)
    # 4 mm are pixel 8 of the grid: the crop starts 82 pixels before the scan (81.5, to the even number).
    assert (image[82:, 82:] == 255).all()
    assert not image[:82].any()
    assert not image[:, :82].any()
    # The interior is 1 to 7 mm; between 0 and 1 mm the half way, 0.5, is in.
    assert np.array_equal(np.flatnonzero(masks[0].any(0)), 82 + np.arange(1, 16))
    assert not masks[1:].any()


def test_of_two_files_at_one_place_the_first_by_number_is_taken(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "set", VAL)
    one = files_of(tmp_path / "set", VAL)[0]
    again = pydicom.dcmread(one)
    again.InstanceNumber, again.PixelData = 2, bytes(len(again.PixelData))
    again.save_as(one.with_name("0-000.dcm"))
    data = load(f"lidc-dicom:{tmp_path / 'set'}", size=128, cache=tmp_path / "cache")
    assert (data.images.max((1, 2, 3)) == 182).all()
    assert f"2 files at z {min(scan.outlines):g}: 1-001.dcm was taken" in "\n".join(data.problems)
