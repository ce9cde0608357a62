"""The page in a real browser, headless: sorting, filters, slider and keys, on a phone, a laptop and a wide screen."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.report import index
from bench.runs.results import read_cases
from tests.bench import synthetic
from tests.bench.conftest import quick_pages

pytestmark = pytest.mark.integration
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTHS = (400, 1012, 1600)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[browser]'")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser: {', '.join(BROWSERS)}")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = synthetic.write(tmp_path_factory.mktemp("runs") / "run", repetitions=1)
    with quick_pages():
        report.write(path)
    return path


@pytest.fixture(params=[(w, s) for w in WIDTHS for s in ("light", "dark")], ids=lambda p: f"{p[0]}-{p[1]}")
def page(browser: Any, folder: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, open; after the test nothing must have gone to the console or been asked of a network."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith(("file:", "data:")) or complaints.append(asked.url))
    page.goto((folder / "report.html").as_uri())
    page.wait_for_selector(".method canvas")
    yield page
    assert complaints == []
    context.close()


LONG = "unet[target=fraction,presence=true]+levels"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports of 13 methods, one with a long name, and the page over both."""
    kinds = list(synthetic.METHODS.values())
    methods = {name: kinds[k % len(kinds)] for k, name in enumerate([LONG, *(f"method{k}" for k in range(12))])}
    path = tmp_path_factory.mktemp("reports")
    with quick_pages():
        for name, source in {"lidc-slices-best64": "lidc-sim", "toy-with-a-long-name": "toy"}.items():
            report.write(synthetic.write(path / name, methods=methods, source=source, repetitions=1, gallery=False))
        index.write(path)
    return path


@pytest.mark.parametrize("name", ["index.html", "lidc-slices-best64/report.html"])
def test_every_table_of_many_methods_fits_a_laptop(browser: Any, many: Path, name: str) -> None:
    """On 1,012 pixels, of which the bar for scrolling takes 15."""
    page = browser.new_page(viewport={"width": 1012 - 15, "height": 900})
    page.goto((many / name).as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    page.evaluate("document.querySelectorAll('[data-choice]').forEach((part) => { part.hidden = false; })")
    boxes = page.locator(".table").evaluate_all("all => all.map((e) => [e.scrollWidth, e.clientWidth, e.ariaLabel])")
    page.close()
    assert len(boxes) >= 3
    assert [label for wide, room, label in boxes if not 0 < wide <= room] == []


def column(page: Any, index: int) -> list[str]:
    return list(page.eval_on_selector(
        "#which-method table", "(table, i) => [...table.tBodies[0].rows].map((row) => row.cells[i].textContent)", index
    ))  # fmt: skip


def numbers(texts: list[str]) -> list[float]:
    return [float(text.split()[0]) for text in texts if text != "–"]


def test_it_fits_sorts_filters_and_folds(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    heads = page.locator("#which-method table").first.locator("thead button")
    lower, higher = (next(i for i, text in enumerate(heads.all_text_contents()) if arrow in text) for arrow in "↓↑")
    heads.nth(lower).click()
    assert numbers(column(page, lower)) == sorted(numbers(column(page, lower)))
    heads.nth(lower).press("Enter")
    assert numbers(column(page, lower)) == sorted(numbers(column(page, lower)), reverse=True)
    assert page.locator("#which-method th[aria-sort]").get_attribute("aria-sort") == "descending"
    heads.nth(higher).click()  # the best first
    assert numbers(column(page, higher)) == sorted(numbers(column(page, higher)), reverse=True)
    heads.nth(0).click()
    assert column(page, 0) == sorted(column(page, 0))
    shaded = page.eval_on_selector("td.best", "(cell) => getComputedStyle(cell).backgroundColor")
    assert shaded != page.eval_on_selector("td:not([class])", "(cell) => getComputedStyle(cell).backgroundColor")

    choice = page.locator(".choice").first
    assert choice.locator("table:visible").count() == 1
    before = choice.locator("table:visible").inner_text()
    choice.locator("select").select_option(index=2)
    assert choice.locator("table:visible").count() == 1
    assert choice.locator("table:visible").inner_text() != before

    page.locator("#fold").click()
    assert page.locator("details.section[open]").count() == 0
    page.locator("nav a", has_text="Gallery").click()
    page.wait_for_selector("#gallery[open] .method canvas")
    colour = "getComputedStyle(document.body).backgroundColor"
    background = page.evaluate(colour)
    page.locator("#theme").click()
    assert page.evaluate(colour) != background


def test_the_explorer_answers_to_slider_keys_and_boxes(page: Any) -> None:
    labels = page.locator(".method figcaption").all_text_contents()
    assert labels[1:] == list(synthetic.METHODS)
    assert all(label for label in page.locator("[role=img]").evaluate_all("all => all.map((e) => e.ariaLabel)"))
    drawn = page.locator(".method").nth(5).locator("path.sample")
    first = drawn.get_attribute("d")
    slider = page.locator("input[type=range]")
    slider.fill("3")
    assert page.locator("output").inner_text() == "3 of 4"
    assert drawn.get_attribute("d") != first
    slider.press("ArrowLeft")
    assert page.locator("output").inner_text() == "2 of 4"
    page.locator("#explorer").scroll_into_view_if_needed()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    assert page.locator("output").inner_text() == "3 of 4"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator("output").inner_text() == "1 of 4"
    assert drawn.get_attribute("d") == first

    status = page.locator(".status")
    name = status.inner_text()
    page.keyboard.press("n")
    page.wait_for_function("(before) => document.querySelector('.status').textContent !== before", arg=name)
    page.keyboard.press("p")
    page.wait_for_function("(before) => document.querySelector('.status').textContent === before", arg=name)

    assert page.locator("[data-reader='1']:visible").count() > 0
    page.get_by_label("reader 2").uncheck()
    assert page.locator("[data-reader='1']:visible").count() == 0
    assert page.locator("[data-reader='0']:visible").count() > 0
    page.get_by_label("zoom").uncheck()
    assert page.locator("canvas").first.get_attribute("width") == str(synthetic.SIZE)
    page.get_by_label("Order").select_option("dispute")
    shown = numbers(page.locator("select.case option").all_text_contents())
    assert shown == sorted(shown, reverse=True)
    group = page.get_by_label("Group")
    group.select_option(index=1)
    assert page.locator("select.case option").count() <= len(shown)


def test_outlines_run_around_the_masks(page: Any, folder: Path) -> None:
    """The area inside the first reader's outline, by the shoelace formula, is that of the mask."""
    path = page.locator("[data-reader='0']").first.get_attribute("d")
    area = 0.0
    for loop in filter(None, path.split("Z")):
        points = [tuple(map(float, point.split())) for point in loop[1:].split("L")]
        area += sum(x * v - u * y for (x, y), (u, v) in zip(points, [*points[1:], points[0]], strict=True)) / 2
    label = page.evaluate("JSON.parse(document.getElementById('cases').textContent).cases[0].name")
    assert area == read_cases(folder).set_index("case")["area_0"][label]


def test_it_prints_all_sections(page: Any) -> None:
    page.locator("#fold").click()
    page.emulate_media(media="print")
    assert (
        page.evaluate(
            "(dispatchEvent(new Event('beforeprint')), document.querySelectorAll('details:not([open])').length)"
        )
        == 0
    )
    assert not page.locator(".controls").is_visible()
    assert page.locator("#which-method table").first.is_visible()
