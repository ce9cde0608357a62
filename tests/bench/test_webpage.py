"""The page for a browser: one file that asks nobody, the same tables as the Markdown page, names shown as they are."""

import base64
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from bench import report, stats
from bench.report import explorer, plots, webpage
from bench.report.blocks import Fold, Live, Table, markdown
from bench.report.context import Report
from bench.runs.results import read_results
from tests.bench import synthetic
from tests.bench.conftest import quick_pages

LABEL, CASE = "m|$x$<b>[a=1](u)", '{}"</script><script>alert(1)</script>&amp;'


class Page(HTMLParser):
    """What a page is made of: its tags with their attributes, and the texts inside each kind of tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.text = ""
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open:
            self.texts[self._open][-1] += data

    @property
    def ids(self) -> set[str | None]:
        return {attributes["id"] for _, attributes in self.tags if "id" in attributes}

    def cases(self) -> dict[str, Any]:
        return dict(json.loads(next(text for text in self.texts["script"] if text.startswith('{"cases"'))))


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_pages():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of methods and cases with names that a page could fall over."""
    methods = {LABEL: synthetic.METHODS["mcdropout"], "unet": synthetic.METHODS["unet"]}
    path = synthetic.write(tmp_path_factory.mktemp("runs") / "run", methods=methods, repetitions=1, case_name=CASE)
    report.write(path)
    return path


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_it_asks_no_server_and_is_small(text: str, folder: Path) -> None:
    page = Page(text)
    for tag, attributes in page.tags:
        for link in (attributes[name] or "" for name in ("src", "href", "action", "srcset") if name in attributes):
            assert link.startswith(("data:image/", "#")) or (folder / link).is_file(), (tag, link)
    assert "@import" not in text
    assert "url(" not in text
    (policy,) = (a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert len(text.encode()) < 10e6
    assert sum(len(s) for s in page.texts["script"] if not s.startswith('{"cases"')) <= 300_000


def test_names_from_outside_are_text_and_nothing_else(text: str) -> None:
    page = Page(text)
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2  # the data and the program
    assert not {"b", "i"} & {tag for tag, a in page.tags}
    assert LABEL in re.sub("<wbr>", "", text).replace("&lt;", "<").replace("&gt;", ">")
    cases = page.cases()
    assert [m["label"] for m in cases["methods"]] == [LABEL, "unet"]
    assert all(case["name"].startswith("test-") and CASE[2:] in case["name"] for case in cases["cases"])


def test_both_pages_have_the_same_sections_and_tables(text: str, folder: Path) -> None:
    page, written = Page(text), (folder / "report.md").read_text(encoding="utf-8")
    assert page.texts["h2"] == re.findall(r"^## (.+)$", written, re.MULTILINE)
    assert page.texts["h3"] == re.findall(r"^### (.+)$", written, re.MULTILINE)
    assert {h for h in page.ids if h} >= set(re.findall(r"\]\(#([^)]+)\)", written))
    values = re.findall(r"(?<=\| )-?\d+\.\d[^|]*?(?= *\|)", re.sub(r"[*\\]", "", written))
    assert len(values) > 300
    assert [value for value in values if value not in page.text] == []


def test_the_best_and_its_ties_are_shaded_and_undefined_images_explained() -> None:
    table = Table(pd.DataFrame({"method": ["a", "b", "c+d"], "x ↑": ["**0.9**", "0.8 ≈ †2", "0.1"]}))
    lines = webpage.page("t", ["# t", "## s", Fold("<i>f</i>", [table]), Live("<p>live</p>", ["still"])], Path())
    page = Page(lines)
    assert [a.get("class") for tag, a in page.tags if tag == "td"] == ["best", "tie", None]
    assert "undefined for k images" in lines
    assert "<summary><i>f</i></summary>" in lines
    assert "c<wbr>+d" in lines
    assert "still" not in lines
    assert markdown([Live("<p>live</p>", ["still"])]) == "still"


def test_the_explorer_holds_what_the_gallery_holds(folder: Path) -> None:
    kept = read_results(folder).gallery
    assert kept is not None
    cases = Page((folder / "report.html").read_text(encoding="utf-8")).cases()
    first = cases["cases"][0]
    assert first["name"] == kept.cases[0]
    assert first["rules"] == ["easiest"]
    masks = pixels(first["masks"]).reshape(kept.masks[0].shape)
    np.testing.assert_array_equal(masks > 0, kept.masks[0])
    samples = pixels(first["samples"]).reshape(-1, *kept.masks.shape[2:])
    np.testing.assert_array_equal(samples > 0, np.concatenate([s[0] >= 128 for s in kept.samples.values()]))
    mean = pixels(first["mean"]).reshape(-1, *kept.masks.shape[2:])
    np.testing.assert_allclose(mean[0] / 255, kept.masks[0].mean(0), atol=1 / 255)
    np.testing.assert_allclose(mean[1] / 255, kept.samples[LABEL][0].mean(0) / 255, atol=1 / 255)


def pixels(png: str) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(int)


def test_the_page_stays_small_whatever_the_gallery(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = read_results(folder)
    scores = {label: [cell.scores["test"] for cell in cells] for label, cells in results.cells.items()}
    given = Report(results.folder, "png", results, stats.bootstrap(scores, []))
    monkeypatch.setattr(explorer, "SIDE", 10)
    page = Page(explorer.panel(given)).cases()
    assert page["step"] == 3
    assert page["cases"][0]["size"] == [8, 8]
    monkeypatch.setattr(explorer, "BYTES", len(json.dumps(page["cases"][0])) + 10)
    fewer = Page(explorer.panel(given)).cases()
    assert (len(fewer["cases"]), fewer["left_out"]) == (1, 1)


def test_the_front_of_cost_and_quality_by_hand() -> None:
    cost, value = np.array([1.0, 2, 2, 3, 4, 5]), np.array([0.9, 0.5, 0.4, 0.4, np.nan, 0.1])
    assert plots.pareto(cost, value, "lower").tolist() == [0, 2, 5]
    assert plots.pareto(cost, value, "higher").tolist() == [0]
    assert plots.pareto(cost[:0], value[:0], "lower").tolist() == []
