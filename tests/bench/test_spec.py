"""Labels, seeds and numbers of a run are read as they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.console import without_folders
from bench.runs import spec
from bench.runs.identity import differences
from bench.runs.record import cell_folder
from uqseg.errors import UsageError


def cells(label: str, **keywords: object) -> list[spec.Cell]:
    run = spec.make_run(data="toy", recipe_name="toy", labels=spec.split(label), seeds=[0], **keywords)  # type: ignore[arg-type]
    return spec.cells(run)


def test_a_label_holds_options_training_and_wrappers() -> None:
    plain, changed = cells("unet,unet[width=4,training.lr=3e-4,training.epochs=2]+levels")
    assert (plain.method, plain.options.width, plain.wrappers) == ("unet", 8, ())  # type: ignore[attr-defined]
    assert (changed.label, changed.method) == ("unet[width=4,training.lr=3e-4,training.epochs=2]+levels", "unet")
    assert changed.options.width == 4  # type: ignore[attr-defined]
    assert (changed.training.lr, changed.training.epochs, changed.training.steps) == (3e-4, 2, None)
    assert plain.training.lr == 3e-3
    assert [name for name, _ in changed.wrappers] == ["levels"]


def test_commas_in_brackets_and_quotes_do_not_separate() -> None:
    assert spec.split('unet[a=1,b=[2,3]], probunet[levels=[4,8],latent=2],"a,b.py:X"') == [
        "unet[a=1,b=[2,3]]", "probunet[levels=[4,8],latent=2]", '"a,b.py:X"'
    ]  # fmt: skip
    assert spec.split("unet[x=1e+3]+levels", "+") == ["unet[x=1e+3]", "levels"]


def test_seeds_are_numbers_and_ranges() -> None:
    assert spec.whole_numbers("0-2,7") == [0, 1, 2, 7]


def test_a_seed_depends_on_what_differs_from_the_defaults_alone() -> None:
    (small,), (narrow,) = cells("unet[width=4]"), cells("unet[width=5]")
    assert small.seed("toy") != narrow.seed("toy") != narrow.seed("folder")
    (default,) = cells("unet[width=16,depth=5]")
    assert type(default.options)() == default.options
    assert default.seed("toy") == cells("unet[depth=5,width=16,training.lr=1e-2]+levels")[0].seed("toy")


def test_a_wrapper_calibrates_with_the_number_of_samples_of_the_run() -> None:
    (sets,), (few,) = cells("mcdropout+conformal[alpha=0.2]"), cells("mcdropout+presence+conformal", samples=2)
    assert sets.wrappers[0][1].model_dump(exclude_defaults=True) == {"alpha": 0.2}
    assert [options.samples for _, options in few.wrappers] == [2, 2]  # type: ignore[attr-defined]
    assert cells("unet+conformal[samples=2]", samples=2)[0].wrappers[0][1].samples == 2  # type: ignore[attr-defined]
    with pytest.raises(
        UsageError, match=r"'unet\+conformal\[samples=4\]'.*than the 16 of the run.*leave samples=4 out"
    ):
        cells("unet+conformal[samples=4]")


def test_all_stands_for_every_method_beside_others() -> None:
    labels = [cell.label for cell in cells("all,unet+levels")]
    assert labels == [*spec.methods.names(), "unet+levels"]


def test_labels_of_files_show_no_folder(tmp_path: Path) -> None:
    assert spec.shown_label("/home/me/my.py:Net[width=3]+levels") == "my.py:Net[width=3]+levels"
    assert spec.shown_label(r"C:\me\my.py:Net") == "my.py:Net"
    assert spec.shown_label("package.module:Net") == "package.module:Net"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("folder:/home/me/retina", "folder:retina"),
        ("folder:/home/me/my retina/", "folder:my retina"),
        ("../x/runs", "runs"),
        ("/a/b.py:Net,c/d.py:Net[x=1]+levels", "b.py:Net,d.py:Net[x=1]+levels"),
        ("--data=lidc-slices:~/x", "--data=lidc-slices:x"),
        (r"folder:C:\me\retina", "folder:C:retina"),
        ("unet[levels=[4,8]]", "unet[levels=[4,8]]"),
    ],
)
def test_folders_of_this_machine_are_left_out(word: str, expected: str) -> None:
    assert without_folders(word) == expected


def test_differences_are_named_by_their_path() -> None:
    a, b = {"x": {"width": 8, "old": "a"}, "same": [1]}, {"x": {"width": 4}, "same": [1], "new": {"k": True}}
    assert differences(a, b) == ["x.width 8 → 4", "x.old a → –", "new.k – → true"]


def test_folders_of_cells_are_readable_and_different() -> None:
    assert cell_folder("unet", 3) == "unet-r3"
    names = {cell_folder(label, 0) for label in ("unet[a=1]", "unet-a=1", "unet a=1", "unet" + "x" * 300)}
    assert len(names) == 4
    assert max(map(len, names)) < 100
