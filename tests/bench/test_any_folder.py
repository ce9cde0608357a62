"""A folder of anybody's images runs through `bench run` as it is: colours, any sizes, any readers, some absent."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.runs.results import RULES
from tests.bench.conftest import METHODS, bench, results_in

SMALL = ["training.steps=2", "training.batch=2", "probunet.levels=[4,8]"]
SMALL += [f"{method}.width=4" for method in ("unet", "mcdropout", "ensemble", "segnet")]


def colours(root: Path, readers: int, sizes: list[tuple[int, int]], absent: bool) -> Path:
    """Bright discs in colours; reader r draws them r pixels larger, or nothing; some readers miss cases if `absent`."""
    for case, (height, width) in enumerate(sizes):
        rng = np.random.default_rng(case)
        y, x = np.mgrid[:height, :width]
        distance = np.hypot(y - height / 2 - rng.normal(0, 2), x - width / 2 - rng.normal(0, 2))
        image = 90 + 90 * (distance < 8)[..., None] + rng.normal(0, 9, (height, width, 3))
        files = {f"images/case{case}.png": image.clip(0, 255)}
        for r in range(readers):
            if not (absent and (case + r) % 4 == 0):
                files[f"readers/r{r}/case{case}.png"] = 255 * (distance < 5 + r) * ((case + r) % 5 > 0)
        for name, array in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(root / name)
    splits = [f"case{case},{('train', 'val', 'test')[case % 3]}" for case in range(len(sizes))]
    (root / "cases.csv").write_text("\n".join(["case,split", *splits]))
    return root


@pytest.mark.parametrize(
    ("readers", "methods", "sizes", "absent", "readers_row"),
    [
        (2, ["ensemble", "probunet"], [(64, 64)] * 9, False, "2 for each image"),
        (10, METHODS, [(300, 260), (61, 75), (32, 32)] * 3, True, "10, of whom 7 to 8 read each image"),
    ],
    ids=["two readers", "ten readers, some absent"],
)
def test_a_folder_in_colours_is_run_and_reported(
    readers: int,
    methods: list[str],
    sizes: list[tuple[int, int]],
    absent: bool,
    readers_row: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UQSEG_CACHE", str(tmp_path / "cache"))
    folder = colours(tmp_path / "set", readers, sizes, absent)
    asked = ["run", "--methods", ",".join(methods), "--data", f"folder:{folder}", "--size", "32", "--samples", "3"]
    asked += ["--no-progress"]
    asked += [
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "runs"),
        *(w for s in SMALL if s.partition(".")[0] in ("training", *methods) for w in ("--set", s)),
    ]
    answer = bench(*asked)
    assert answer.code == 0, answer.err
    report = results_in(tmp_path / "runs")
    text = (report / "report.md").read_text(encoding="utf-8")
    assert f"| readers | {readers_row} |" in text
    assert "| failed |" not in text
    assert "32×32 pixels, 3 channel" in text
    figures = pd.read_csv(report / "tables/figures.csv").set_index(["method", "figure"])["value"]
    for method in methods:
        for figure in ("ged", "hm_iou", "brier", "dice@0.5"):
            assert np.isfinite(figures[method, figure])
    assert figures["oracle", "ged"] < figures["background", "ged"]
    pictures = sorted(report.glob("pictures/gallery-*.png"))
    drawn = " ".join(picture.name for picture in pictures)
    assert all(rule.replace(" ", "-") in drawn for rule in RULES), "a case for every rule of the gallery"
    assert all(f"(pictures/{picture.name})" in text for picture in pictures)
