"""The page over several reports, and the command that opens a page."""

import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.report import index
from bench.runs.results import read_results
from tests.bench import synthetic
from tests.bench.conftest import bench, quick_pages
from tests.bench.test_webpage import Page

SOME = {label: synthetic.METHODS[label] for label in ("unet", "ensemble", "mcdropout")}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_pages():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports with three methods in common, three that say nothing of that, and a page without scores.

    The three: one of other data with a single method, one of others with other methods, a smaller one of the same data.
    """
    root = tmp_path_factory.mktemp("reports")
    segnet, other = {"segnet": synthetic.METHODS["segnet"]}, {f"unet[width={k}]": SOME["unet"] for k in range(3)}
    for name, (source, methods) in {
        "a<b>": ("lidc-sim", SOME | segnet), "c": ("toy", SOME), "d": ("lidc-sim", SOME), "one": ("x", segnet),
        "other": ("y", other),
    }.items():  # fmt: skip
        synthetic.write(root / name, methods=methods, repetitions=1, gallery=False, seed=len(name), yardsticks=(),
                        source=source)  # fmt: skip
    (root / "timing").mkdir()
    (root / "timing/report.md").write_text("# speed")
    return root


def test_it_lists_the_best_of_each_report_and_how_stable_ranks_are(folder: Path) -> None:
    answer = bench("index", folder)
    assert answer.code == 0, answer.err
    assert "timing: listed as another page, without scores\n" in answer.out
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert page.texts["h2"] == ["Are ranks the same on other data?", "Other pages"]
    assert "timing" in page.texts["a"]
    assert "a<b>" in page.text
    table = pd.read_csv(folder / "ranks.csv")
    assert set(table["report"]) == {"a<b>", "c"}  # one of each data set, with enough methods in common
    assert set(table["method"]) == set(SOME)
    assert table.groupby(["figure", "report"])["rank"].min().eq(1).all()
    assert (folder / "ranks.png").is_file()


def test_agreement_is_1_for_the_same_order_and_minus_1_for_the_opposite(folder: Path) -> None:
    boot = index.scored(read_results(folder / "c")).boot
    values = np.array([1.0, 2.0, 3.0])[:, None, None]
    spread = np.broadcast_to(values, boot.draws.shape).copy()
    up = replace(boot, point=spread[:, 0], draws=spread)
    down = replace(boot, point=-spread[:, 0], draws=-spread)
    assert tuple(index.agreement(up, up, "ged_limit", list(SOME))) == (1, 1, 1)
    assert tuple(index.agreement(up, down, "ged_limit", list(SOME))) == (-1, -1, -1)
    last = up.point.copy()
    last[2] = 0  # 1, 2, 0: one pair of three keeps its order
    mixed = replace(up, point=last)
    assert index.agreement(up, mixed, "ged_limit", list(SOME)).value == pytest.approx(-1 / 3)


def test_a_folder_without_reports_is_refused(tmp_path: Path) -> None:
    answer = bench("index", tmp_path)
    assert answer.code == 2
    assert f"there is no report with scores in '{tmp_path}'" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_view_opens_the_page_of_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert bench("view", folder / "one").code == 0
    assert opened == [(folder / "one/report.html").as_uri()], "written first, for it was not there"
    (tmp_path / "index.html").write_text("a page")
    assert bench("view", tmp_path).out == f"Page: {tmp_path / 'index.html'}\n"
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert "There is no browser here" in bench("view", tmp_path).out
    answer = bench("view", tmp_path / "nothing")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1)
