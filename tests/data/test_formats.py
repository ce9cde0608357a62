"""The one decoder: every format by its content, palettes as colours, stored numbers, NIfTI to the end, and bounds."""

import gzip
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.data.pictures import block, dicom, nifti, noise, png2, png16, save, tiff, write_png
from uqseg.data import AnnotatedSet, load
from uqseg.data import formats as formats_
from uqseg.data.formats import outline, read_volume
from uqseg.data.images import aligned, binary, read_picture
from uqseg.data.volume import MAX_PIXELS
from uqseg.errors import FileError

FORMATS = ["png", "tif", "bmp", "ppm", "pgm", "gif", "webp", "jp2", "tga", "npy", "npz", "nii", "nii.gz", "dcm"]


def folder(root: Path, settings: str = "") -> AnnotatedSet:
    if settings:
        (root / "dataset.toml").write_text(settings)
    return load(f"folder:{root}", size=32, cache=root.parent / "cache")


def masked(root: Path, case: str) -> Path:
    """A mask of one reader for the case."""
    save(root / f"readers/x/{case}.png", block().astype(np.uint8) * 255)
    return root


@pytest.mark.parametrize("extension", [*FORMATS, "PNG", "NII.GZ", "Dcm"])
def test_every_format_gives_the_same_pixels_for_images_and_masks(tmp_path: Path, extension: str) -> None:
    save(tmp_path / f"set/images/a.{extension}", noise(0))
    save(tmp_path / f"set/readers/x/a.{extension}", block().astype(np.uint8) * 255)
    data = folder(tmp_path / "set")
    assert np.array_equal(data.images[0, 0], noise(0))
    assert np.array_equal(data.masks[0, 0], block())
    assert data.problems == ()


@pytest.mark.parametrize("extension", ["png", "tif", "ppm", "webp", "jp2", "npy", "npz"])
def test_colours(tmp_path: Path, extension: str) -> None:
    save(tmp_path / f"a.{extension}", noise(0, 32, 32, 3))
    assert np.array_equal(read_picture(tmp_path / f"a.{extension}"), noise(0, 32, 32, 3))
    assert outline(tmp_path / f"a.{extension}")[:2] == (1, 3)


@pytest.mark.parametrize("extension", [e for e in FORMATS if e != "webp"])  # which has no grey
def test_the_content_decides_and_not_the_name(tmp_path: Path, extension: str) -> None:
    save(tmp_path / f"a.{extension}", noise(1))
    for name in ("b.png", "b.nii", "b.npy", "b.dcm"):
        (tmp_path / name).write_bytes((tmp_path / f"a.{extension}").read_bytes())
        assert np.array_equal(read_picture(tmp_path / name), noise(1)), name


@pytest.mark.extras
@pytest.mark.parametrize("module", ["nrrd", "SimpleITK"])
@pytest.mark.parametrize("extension", ["nrrd", "mha", "mhd"])
def test_volumes_of_other_libraries(tmp_path: Path, module: str, extension: str) -> None:
    library = pytest.importorskip(module)
    file = tmp_path / f"set/images/a.{extension}"
    file.parent.mkdir(parents=True)
    if module == "nrrd":
        if extension != "nrrd":
            pytest.skip("pynrrd knows .nrrd alone")
        library.write(str(file), noise(0, 32, 30).T[..., None], {"spacings": [0.5, 0.7, 2]})
    else:
        image = library.GetImageFromArray(noise(0, 1, 32, 30))
        image.SetSpacing((0.5, 0.7, 2))
        library.WriteImage(image, str(file))
    save(tmp_path / "set/readers/x/a.png", block()[:, :30].astype(np.uint8))
    data = folder(tmp_path / "set")
    assert np.array_equal(data.images[0, 0, :, 1:31], noise(0, 32, 30))
    assert data.spacing[0].tolist() == pytest.approx([0.7, 0.5])
    assert data.problems == ()


@pytest.mark.parametrize("head", [b"NRRD0004\ntype: uint8\n", b"ObjectType = Image\nNDims = 2\n"])
def test_a_format_whose_library_is_missing_says_how_to_have_it(
    tmp_path: Path, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    monkeypatch.setitem(__import__("sys").modules, "nrrd", None)
    (tmp_path / "a.mha").write_bytes(head)
    with pytest.raises(FileError, match=r"a\.mha.* need SimpleITK; run 'pip install \"uqseg\[formats\]\"'"):
        read_volume(tmp_path / "a.mha")


def test_a_dicom_file_without_an_ending_is_an_image(tmp_path: Path) -> None:
    dicom(tmp_path / "set/images/IM0001", noise(0), PixelSpacing=[0.4, 0.3])
    data = folder(masked(tmp_path / "set", "IM0001"))
    assert data.table["case"].tolist() == ["IM0001"]
    assert np.array_equal(data.images[0, 0], noise(0))
    assert data.spacing[0].tolist() == pytest.approx([0.4, 0.3])


def test_dicom_numbers_are_those_of_its_scale(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", noise(0, top=4096), RescaleSlope=2, RescaleIntercept=-1024)
    assert np.array_equal(read_picture(tmp_path / "a.dcm"), noise(0, top=4096) * 2.0 - 1024)


@pytest.mark.parametrize("extension", ["img", "mgh", "mgz"])
def test_what_else_nibabel_reads(tmp_path: Path, extension: str) -> None:
    volume = noise(0, 1, 32, 32).transpose(2, 1, 0)
    root = masked(tmp_path / "set", "a")
    (root / "images").mkdir()
    kind = nibabel.Nifti1Pair if extension == "img" else nibabel.MGHImage
    nibabel.save(kind(volume, np.eye(4)), root / f"images/a.{extension}")
    data = folder(root)
    assert np.array_equal(data.images[0, 0], noise(0))
    assert len(data.problems) == (extension == "img"), "nibabel gives this pair no unit"
    if extension == "mgz":
        damaged = bytearray((root / "images/a.mgz").read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (root / "images/a.mgz").write_bytes(damaged)
        with pytest.raises(FileError, match=r"cannot read .*a\.mgz"):
            read_volume(root / "images/a.mgz")


# Slices.


@pytest.mark.parametrize("extension", ["nii.gz", "npy", "npz", "tif", "gif"])
def test_several_slices_are_cases_of_one_patient_where_that_is_asked(tmp_path: Path, extension: str) -> None:
    volume, drawn = noise(0, 3, 32, 32), np.stack([block(10), block(15), ~block()]).astype(np.uint8) * 255
    root = tmp_path / "set"
    for name, array in {"images/ct": volume, "readers/x/ct": drawn}.items():
        file = root / f"{name}.{extension}"
        file.parent.mkdir(parents=True)
        if extension in ("tif", "gif"):
            first, *others = map(Image.fromarray, array)
            first.save(file, save_all=True, append_images=others)
        else:
            save(file, array)
    with pytest.raises(FileError, match=r"ct.* got 3 slices; set slices = true in dataset\.toml"):
        folder(root)
    data = folder(root, "slices = true")
    assert data.table["case"].tolist() == ["ct_z000", "ct_z001", "ct_z002"]
    assert set(data.table["patient"]) == {"ct"}
    assert np.array_equal(data.images[:, 0], volume)
    assert np.array_equal(data.masks[:, 0], drawn > 0)


def test_a_volume_of_one_slice_is_a_slice_across_any_axis(tmp_path: Path) -> None:
    nifti(tmp_path / "z.nii", noise(0, 1, 32, 30))
    nifti(tmp_path / "x.nii", noise(0, 32, 30, 1))  # (Z,H,W): one column
    np.save(tmp_path / "a.npy", noise(0, 1, 32, 30))
    assert np.array_equal(read_picture(tmp_path / "z.nii"), noise(0, 32, 30))
    assert np.array_equal(read_picture(tmp_path / "a.npy"), noise(0, 32, 30))
    volume = read_volume(tmp_path / "x.nii")
    assert np.array_equal(volume.array, noise(0, 1, 32, 30))
    assert volume.spacing == (1.0, pytest.approx(0.9))


def test_three_slices_are_not_colours(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz", noise(0, 3, 64, 64))
    assert outline(tmp_path / "a.nii.gz")[:2] == (3, 1)
    np.save(tmp_path / "b.npy", noise(0, 64, 64, 20))
    with pytest.raises(FileError, match=r"b\.npy: expected slices first, \(Z,H,W\), got \(64, 64, 20\)"):
        read_volume(tmp_path / "b.npy")
    np.savez(tmp_path / "c.npz", image=noise(0), mask=noise(1))
    with pytest.raises(FileError, match=r"c\.npz: expected one array, got image\.npy, mask\.npy"):
        read_volume(tmp_path / "c.npz")


# Palettes.


def indexed(colours: list[list[int]], numbers: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(numbers).convert("P")
    image.putpalette([part for colour in colours for part in colour])
    return image


@pytest.mark.parametrize("extension", ["png", "gif"])
@pytest.mark.parametrize(
    "colours", [[[255, 255, 255], [0, 0, 0]], [[0, 0, 0], [255, 255, 255]], [[0, 0, 0], [128, 0, 0]]]
)
def test_a_palette_means_its_colours(tmp_path: Path, extension: str, colours: list[list[int]]) -> None:
    dark = colours.index([0, 0, 0])
    image = indexed(colours, np.where(block(), 1 - dark, dark).astype(np.uint8))
    image.save(tmp_path / f"a.{extension}")
    read = read_picture(tmp_path / f"a.{extension}")
    assert np.array_equal(binary(read, "a", colours=read.ndim == 3), block())


@pytest.mark.parametrize("extension", ["png", "gif"])
@pytest.mark.parametrize("colours", [[[255] * 3, [0] * 3], [[0] * 3, [255] * 3], [[0] * 3, [128, 0, 0]]])
def test_a_transparent_entry_of_a_palette_is_refused_where_it_is_used(
    tmp_path: Path, extension: str, colours: list[list[int]]
) -> None:
    image = indexed(colours, block().astype(np.uint8))
    for entry in 0, 1:
        image.save(tmp_path / f"a.{extension}", transparency=entry)
        with pytest.raises(FileError, match=rf"a\.{extension}: is transparent in places"):
            read_picture(tmp_path / f"a.{extension}")
        if colours[1] == [128, 0, 0]:
            assert np.array_equal(read_picture(tmp_path / f"a.{extension}", numbers=True), block()), "a label"
    image.save(tmp_path / f"a.{extension}", transparency=7)
    read = read_picture(tmp_path / f"a.{extension}")
    assert np.array_equal(read if read.ndim == 2 else read[..., 0], np.array(colours)[:, 0][block().astype(int)])


@pytest.mark.parametrize(("depth", "colours"), [(1, 0), (2, 0), (8, 0), (16, 0), (8, 2), (16, 2)])
def test_a_grey_or_colour_that_stands_for_transparent_is_refused(tmp_path: Path, depth: int, colours: int) -> None:
    channels = 1 + colours
    write_png(tmp_path / "a.png", (8, 1), depth, colours, bytes(1 + depth * channels), bytes(2 * channels))
    with pytest.raises(FileError, match=r"a\.png: (is|has .*) transparent"):
        read_picture(tmp_path / "a.png")


def test_palettes_in_the_lidc_tree(tmp_path: Path) -> None:
    nodule = tmp_path / "tree/LIDC-IDRI-0001/nodule-0"
    grey = noise(0, 128, 128) // 2
    numbers = np.random.default_rng(1).permutation(256).astype(np.uint8)
    image = indexed([[int(np.flatnonzero(numbers == k)[0])] * 3 for k in range(256)], numbers[grey])
    save(nodule / "images/slice-0.png", np.asarray(image.convert("L")))
    image.save(nodule / "images/slice-0.png")
    drawn = np.zeros((128, 128), np.uint8)
    drawn[60:80, 60:80] = 1
    for r in range(4):
        (nodule / f"mask-{r}").mkdir()
        indexed([[255] * 3, [0] * 3], 1 - drawn).save(nodule / f"mask-{r}/slice-0.png")
    data = load(f"lidc-slices:{tmp_path / 'tree'}", size=128, cache=tmp_path / "cache")
    assert np.array_equal(data.images[0, 0], grey)
    assert data.masks.sum() == 4 * 400


def test_labels_are_numbers_of_the_palette_or_its_grey(tmp_path: Path) -> None:
    numbers = noise(0, 32, 32) % 4
    indexed([[0, 0, 0], [128, 0, 0], [0, 128, 0], [0, 0, 128]], numbers).save(tmp_path / "voc.png")
    indexed([[3] * 3, [2] * 3, [1] * 3, [0] * 3], 3 - numbers).save(tmp_path / "grey.gif")
    png2(tmp_path / "two.png", numbers)
    assert np.array_equal(read_picture(tmp_path / "two.png"), numbers * 85)
    (tmp_path / "plain.pgm").write_bytes(b"P5 32 32 3\n" + numbers.tobytes())
    for name in ("voc.png", "grey.gif", "plain.pgm", "two.png"):
        assert np.array_equal(read_picture(tmp_path / name, numbers=True), numbers), name


# Depth.


@pytest.mark.parametrize("kind", ["P5", "P2"])
def test_windows_apply_to_stored_values_of_a_pgm(tmp_path: Path, kind: str) -> None:
    ramp = np.arange(1024).reshape(32, 32)
    data = ramp.astype(">u2").tobytes() if kind == "P5" else " ".join(map(str, ramp.ravel())).encode()
    file = tmp_path / "set/images/a.pgm"
    file.parent.mkdir(parents=True)
    file.write_bytes(f"{kind}\n# ten bits\n32 32\n1023\n".encode() + data)
    images = folder(masked(tmp_path / "set", "a"), "window = [0, 1023]").images
    assert np.array_equal(images[0, 0], np.rint(ramp / 1023 * 255))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_png_of_16_bits_in_colours_and_with_opacity(tmp_path: Path, channels: int) -> None:
    array = noise(0, 32, 32, channels, top=65536)
    if channels in (2, 4):
        array[..., -1] = 65535
    png16(tmp_path / "a.png", array)
    expected = array[..., 0] if channels == 2 else array[..., :3]
    assert np.array_equal(read_picture(tmp_path / "a.png"), expected)
    assert outline(tmp_path / "a.png")[:2] == (1, 1 if channels == 2 else 3)
    array[0, 0, -1] = 0
    png16(tmp_path / "b.png", array)
    if channels != 3:
        with pytest.raises(FileError, match=r"b\.png: is transparent"):
            read_picture(tmp_path / "b.png")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_of_16_bits_in_colours(tmp_path: Path, order: str, compression: str | None) -> None:
    tifffile = pytest.importorskip("tifffile")
    array = noise(0, 32, 32, 3, top=65536)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", byteorder=order, compression=compression)
    assert np.array_equal(read_picture(tmp_path / "a.tif"), array)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
def test_tiff_of_every_depth(tmp_path: Path, kind: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    low, high = (-1.5, 2.5) if kind == "float32" else (np.iinfo(kind).min, np.iinfo(kind).max)
    array = np.array([[low, 0, 1], [high, 2, 3]], kind)
    tifffile.imwrite(tmp_path / "a.tif", array)
    read = read_picture(tmp_path / "a.tif")
    assert np.array_equal(read, array)
    assert read.dtype.kind == array.dtype.kind or kind == "uint16"


@pytest.mark.parametrize(
    ("kind", "words"), [("f2", "floating-point"), ("f8", "floating-point"), ("i8", "signed whole")]
)
def test_a_tiff_that_pillow_does_not_read_is_left_out_for_what_it_is(tmp_path: Path, kind: str, words: str) -> None:
    tiff(tmp_path / "a.tif", noise(0).astype(kind))
    bits = 8 * int(kind[1])
    with pytest.raises(FileError, match=rf"a\.tif: is a TIFF of 1 channels of {bits} bits \({words} numbers\)"):
        read_picture(tmp_path / "a.tif")
    tiff(tmp_path / "a.tif", noise(0).astype(f"{kind[0]}4"))
    assert np.array_equal(read_picture(tmp_path / "a.tif"), noise(0))


@pytest.mark.parametrize(("shape", "hint"), [((3, 32, 32), True), ((4, 32, 32), True), ((9, 32, 32), False)])
def test_channels_first_are_no_colours_and_that_is_said(tmp_path: Path, shape: tuple[int, ...], hint: bool) -> None:
    save(tmp_path / "set/images/a.npy", noise(0, *shape))
    save(tmp_path / "set/readers/x/a.npy", block())
    with pytest.raises(FileError, match=rf"images/a\.npy: expected one picture, got {shape[0]} slices") as error:
        load(f"folder:{tmp_path / 'set'}", size=32, cache=tmp_path / "cache")
    assert ("channels, if these are some, come last, (H,W,3)" in str(error.value)) == hint


def test_what_decoders_warn_of_reaches_nobody(
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    indexed([[0] * 3, [255] * 3], block().astype(np.uint8)).save(tmp_path / "a.png", transparency=b"\xff\xff")
    dicom(tmp_path / "b.dcm", noise(1))
    data = (tmp_path / "b.dcm").read_bytes()
    (tmp_path / "b.dcm").write_bytes(data.replace(b"1.2.840.10008.5.1.4.1.1.7", b"x.2.840.10008.5.1.4.1.1.7"))
    nifti(tmp_path / "c.nii", noise(2)[None], np.eye(4))
    content = bytearray((tmp_path / "c.nii").read_bytes())
    content[76:92] = struct.pack("<4f", 1, -1, 0, 0)
    (tmp_path / "c.nii").write_bytes(content)
    for name in "a.png", "b.dcm", "c.nii":
        read_volume(tmp_path / name)
    assert (recwarn.list, caplog.text, capfd.readouterr().err) == ([], "", "")
    with Image.open(tmp_path / "a.png") as image:
        image.convert("RGB")
    assert len(recwarn) == 1, "outside, as before"


def test_jpeg_2000_of_16_bits_and_what_would_lose_depth(tmp_path: Path) -> None:
    array = noise(0, top=65536)
    Image.fromarray(array).save(tmp_path / "a.jp2", irreversible=False)
    assert np.array_equal(read_picture(tmp_path / "a.jp2"), array)
    data = bytearray((tmp_path / "a.jp2").read_bytes())
    data[data.find(b"\xff\x4f\xff\x51") + 42] |= 0x80
    (tmp_path / "b.jp2").write_bytes(data)
    with pytest.raises(FileError, match=r"b\.jp2"):
        read_picture(tmp_path / "b.jp2")


# NIfTI.


def test_every_flipped_bit_of_a_packed_nifti_is_found(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz", noise(0, 1, 16, 16))
    data = (tmp_path / "a.nii.gz").read_bytes()
    found = 0
    for place in np.random.default_rng(0).choice(8 * len(data), 200, replace=False).tolist():
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        (tmp_path / "b.nii.gz").write_bytes(damaged)
        try:
            assert np.array_equal(read_picture(tmp_path / "b.nii.gz"), noise(0, 16, 16)), place
        except FileError:
            found += 1
    assert found > 180


@pytest.mark.parametrize("unit", ["mm", "micron", "meter", None])
def test_spacing_is_converted_and_unknown_units_are_said(tmp_path: Path, unit: str | None) -> None:
    scale = {"mm": 1, "micron": 1000, "meter": 1e-3, None: 1}[unit]
    nifti(tmp_path / "set/images/a.nii.gz", noise(0, 1, 32, 32), np.diag([0.5 * scale, 0.25 * scale, 1, 1]), unit)
    data = folder(masked(tmp_path / "set", "a"))
    assert data.spacing[0].tolist() == pytest.approx([np.nan] * 2 if unit is None else [0.25, 0.5], nan_ok=True)
    said = [p for p in data.problems if "without a unit of length" in p]
    assert len(said) == len(data.problems) == (unit is None)


@pytest.mark.parametrize("size", [np.inf, np.nan, 0.0])
def test_a_size_of_pixels_that_is_none_is_a_problem_at_load(tmp_path: Path, size: float) -> None:
    file = tmp_path / "set/images/a.nii"
    nifti(file, noise(0, 1, 32, 32))
    data = bytearray(file.read_bytes())
    data[80:84] = struct.pack("<f", size)  # pixdim[1]
    file.write_bytes(data)
    loaded = folder(masked(tmp_path / "set", "a"))
    assert np.isnan(loaded.spacing).all()
    assert len(loaded.problems) == 1
    assert "NIfTI whose pixels are" in loaded.problems[0]


def test_a_mask_stored_mirrored_is_turned_to_its_image(tmp_path: Path) -> None:
    volume, drawn = noise(0, 4, 30, 32), np.zeros((4, 30, 32), np.uint8)
    drawn[1:3, 5:9, 10:17] = 1
    affine = np.array([[-0.5, 0, 0, 90], [0, 0.7, 0, -20], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    nifti(tmp_path / "image.nii.gz", volume, affine)
    image = read_volume(tmp_path / "image.nii.gz")
    turns = {"same": drawn.transpose(2, 1, 0)}
    stored = nibabel.Nifti1Image(turns["same"], affine)
    for axes in ("RAS", "LPS", "ASL", "SRP"):
        codes = nibabel.orientations.axcodes2ornt(tuple(axes))
        start = nibabel.orientations.io_orientation(affine)
        turned = stored.as_reoriented(nibabel.orientations.ornt_transform(start, codes))
        (tmp_path / "mask.nii.gz").write_bytes(gzip.compress(turned.to_bytes()))
        mask = read_volume(tmp_path / "mask.nii.gz")
        assert np.array_equal(aligned(mask, image, "mask"), drawn), axes
    for wrong in (np.diag([0.5, 0.7, 2, 1]), affine + np.eye(4)[:, [3, 3, 3, 0]] * 0.5, affine * [2, 1, 1, 1]):
        nifti(tmp_path / "mask.nii.gz", drawn, wrong * 1.0)
        with pytest.raises(FileError, match="the mask: lies on another grid than its image"):
            aligned(read_volume(tmp_path / "mask.nii.gz"), image, "the mask")


def test_a_mask_elsewhere_is_a_lost_reading_by_name(tmp_path: Path) -> None:
    root = tmp_path / "set"
    nifti(root / "images/a.nii.gz", noise(0, 1, 32, 32), np.diag([-1.0, 1, 1, 1]))
    shifted = np.diag([-1.0, 1, 1, 1])
    shifted[0, 3] = 8
    mirrored = np.diag([1.0, 1, 1, 1])
    mirrored[0, 3] = -31
    for reader, (mask, affine) in {
        "same": (block(), np.diag([-1.0, 1, 1, 1])),
        "mirrored": (block()[:, ::-1], mirrored),
        "shifted": (block(), shifted),
    }.items():
        nifti(root / f"readers/{reader}/a.nii.gz", mask[None].astype(np.uint8), affine)
    data = folder(root)
    assert data.reader_names == ("mirrored", "same", "shifted")
    assert data.read[0].tolist() == [True, True, False]
    assert np.array_equal(data.masks[0, 0], block())
    assert np.array_equal(data.masks[0, 1], block())
    assert len(data.problems) == 1
    assert data.problems[0].startswith(
        "reading lost: a, reader shifted: readers/shifted/a.nii.gz: lies on another grid"
    )


@pytest.mark.parametrize("without", ["image", "mask", "both"])
def test_a_nifti_without_orientation_lies_as_its_partner_and_that_is_said(tmp_path: Path, without: str) -> None:
    root, affine = tmp_path / "set", np.diag([-1.0, 1, 1, 1])
    nifti(root / "images/a.nii.gz", noise(0, 1, 32, 32), None if without != "mask" else affine)
    nifti(root / "readers/x/a.nii.gz", block()[None].astype(np.uint8), None if without != "image" else affine)
    data = folder(root)
    assert np.array_equal(data.masks[0, 0], block())
    expected = (
        "1 masks (a by x, …): NIfTI without orientation (form codes 0) where image or mask has one: taken to lie alike"
    )
    assert data.problems == (() if without == "both" else (expected,))


# Bounds, and whatever a decoder raises.


def test_images_that_claim_too_much_are_refused_with_the_bounds_name(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    (tmp_path / "a.pgm").write_bytes(f"P5 {side} {side} 255\n".encode())
    (tmp_path / "b.pgm").write_bytes(b"P5 99999 99999 255\n")
    header = nibabel.Nifti1Header()
    header.set_data_shape((32767, 32767, 3))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    (tmp_path / "c.nii").write_bytes(header.binaryblock + b"\0" * 8)
    (tmp_path / "d.nii.gz").write_bytes(gzip.compress(header.binaryblock + b"\0" * 8))
    with (tmp_path / "e.npy").open("wb") as opened:
        np.lib.format.write_array_header_1_0(opened, {"descr": "<f8", "fortran_order": False, "shape": (side, side)})
        opened.truncate(opened.tell() + 8 * side * side)
    for name in "a.pgm", "b.pgm", "c.nii", "d.nii.gz", "e.npy":
        with pytest.raises(FileError, match=rf"{name}: claims .* MAX_PIXELS = {MAX_PIXELS}"):
            read_volume(tmp_path / name)


def test_whatever_a_decoder_raises_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.npy", noise(0))
    for error in (
        MemoryError(),
        OverflowError("x"),
        RecursionError(),
        KeyError("k"),
        UnicodeEncodeError("u", "", 0, 1, ""),
    ):

        def failing(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(formats_.np, "load", failing)
        with pytest.raises(FileError, match=r"cannot read .*a\.npy: "):
            read_volume(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", ["folder", "link", "pipe"])
def test_what_is_no_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    import os

    file = tmp_path / "a.png"
    {"folder": file.mkdir, "link": lambda: file.symlink_to("nowhere"), "pipe": lambda: os.mkfifo(file)}[kind]()
    with pytest.raises(FileError, match=r"cannot read .*a\.png: is (a folder|a link to nothing|no file)"):
        read_volume(file)
