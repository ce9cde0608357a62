"""The page: a pure function of a results folder, in honest words, with names from outside shown as they are."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure as Plot
from PIL import Image

from bench import report, stats
from bench.report import cost, gallery, plots, sections, subgroups, tables
from bench.report.blocks import Table, markdown
from bench.report.context import Report
from bench.report.learning import learning_table
from bench.report.page import _answer, _recipe, _way, warnings_of, without_paths
from bench.report.tables import escape
from bench.runs.results import Gallery, read_results, write_cases
from bench.stats import Estimate
from tests.bench import synthetic
from tests.bench.conftest import quick_pages
from uqseg.metrics import figure, figures, score
from uqseg.metrics import tables as registered_tables
from uqseg.samples import Samples

READERS = ("Ada", "Bob", "Cy", "Dan")
FORBIDDEN = """
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("torch", "uqseg.data", "uqseg.methods", "uqseg.nets")):
            raise ImportError(f"the report must not import {name}")
sys.meta_path.insert(0, Forbid())
from bench import stats
from bench.cli import app
from bench.report import plots
folder, runs, *quick = sys.argv[1:]
plots.DPI, stats.RESAMPLES, stats.RESAMPLES_PER_COMPARISON = map(int, quick)
committed, copy = "reports/toy", f"{runs}/published"
for words in (["report", folder], ["status", "--out", runs], ["publish", committed, "--to", copy, "--anonymize"],
              ["compare", committed, copy, "--to", f"{runs}/comparison"]):
    app(words, standalone_mode=False)
"""


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with quick_pages():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with its report."""
    path = synthetic.write(tmp_path_factory.mktemp("runs") / "run")
    report.write(path)
    return path


@pytest.fixture
def page(folder: Path) -> str:
    return (folder / "report.md").read_text(encoding="utf-8")


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_without_torch_data_and_methods_it_gives_the_same_files_and_old_ones_go(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "report.md").unlink()
    for old in ("tables/old.csv", "pictures/gallery-old.png"):
        (copy / old).write_text("of an earlier report")
    quick = (plots.DPI, stats.RESAMPLES, stats.RESAMPLES_PER_COMPARISON)
    answer = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, str(copy), str(tmp_path), *map(str, quick)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert files(copy) == files(folder)


def test_every_link_and_picture_of_the_page_exists(folder: Path, page: str) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", page)
    paths = {t for t in targets if not t.startswith("#")}
    assert {str(f.relative_to(folder)) for f in (*folder.glob("tables/*"), *folder.glob("pictures/*"))} == paths
    heads = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert heads == {t[1:] for t in targets if t.startswith("#")}


def test_every_table_of_the_registry_is_on_the_page_with_every_figure_that_has_a_value(folder: Path, page: str) -> None:
    kept = pd.read_csv(folder / "tables/figures.csv").dropna(subset="value")
    valued = set(kept.loc[~kept["method"].isin(["oracle", "human"]), "figure"])
    for name, title in registered_tables().items():
        if name not in ("summary", "threshold"):
            assert f"### {title}" in page or f"<summary>{title}</summary>" in page, name
            for figure in figures(table=name):
                shown = f" {figure.title}{tables.ARROWS[figure.direction]} " in page
                assert shown == (figure.name in valued and not figure.name.endswith("_sum")), figure.name
    assert "In images of one size the sum ranks as the mean does" in page


def test_tables_fit_the_page(page: str) -> None:
    """On 1,012 pixels, at 7.5 for a letter and 26 around a cell; cells break at plain spaces only."""
    for block in re.findall(r"(?:^\| method.*\n)(?:^\|.*\n)+", page, re.MULTILINE):
        rows = [[cell.strip().replace("*", "") for cell in line.split("|")[1:-1]] for line in block.splitlines()]
        longest = [max(len(word) for row in rows if not row[0].startswith(":") for word in row[i].split(" "))
                   for i in range(len(rows[0]))]  # fmt: skip
        assert sum(7.5 * n + 26 for n in longest) <= 1012, rows[0]


def test_a_wide_table_is_split_and_each_part_keeps_its_keys() -> None:
    table = pd.DataFrame(
        {
            "method": ["a-rather-long-label[width=32]"],
            **{f"figure {k}": ["0.123 [0.100,\N{NO-BREAK SPACE}0.150]"] for k in range(12)},
        }
    )
    parts = tables.markdown(table).split("\n\n")
    assert len(parts) > 1
    assert all(part.startswith("| method") for part in parts)
    assert sum(part.splitlines()[0].count("figure") for part in parts) == 12


def test_values_equal_those_of_the_figures(folder: Path) -> None:
    kept = pd.read_csv(folder / "tables/figures.csv").set_index(["method", "figure"])["value"]
    results = read_results(folder)
    for f in figures():
        if not f.common_cases:
            values = [f.value(cell.scores["test"]) for cell in results.cells["mcdropout"]]
            assert kept["mcdropout", f.name] == pytest.approx(np.mean(values), nan_ok=True), f.name


def test_a_training_of_several_repetitions_has_a_range() -> None:
    costs = pd.DataFrame({"s": [295.4, 100.0], "s_min": [249, 100.0], "s_max": [451, 100.0], "repetitions": [3, 1]})
    assert cost._with_range(costs, "s") == ["295 (249–451)", "100"]


def test_what_varies_between_samples() -> None:
    def words(method: str, varies: str, support: int | None) -> str:
        return sections._varies({"method": method, "varies": varies, "support": support})

    assert words("unet", "outcome", 1) == "One answer, no such part"
    assert words("ensemble[width=8]", "weights", 4).startswith("Weights and readers together")
    assert words("deepensemble", "weights", 4) == "Epistemic, the weights vary"
    assert words("ensemble", "outcome", None) == "Aleatoric, the outcome varies", "level sets of its mean map"


def test_an_uncertainty_that_ranks_failures_worse_than_chance_is_named(folder: Path) -> None:
    report, figure = report_of(folder), "failure_auroc_mean"
    column, low = [f.name for f in report.boot.figures].index(figure), "ranks failures worse than chance"
    for value, expected in ((0.4, True), (0.6, False)):
        point, draws = report.boot.point.copy(), report.boot.draws.copy()
        point[:, column], draws[:, :, column] = value, value
        assert (low in _answer(replace(report, boot=replace(report.boot, point=point, draws=draws)))) == expected


def head(page: str) -> str:
    return page[: page.index("## In short")]


def test_few_patients_are_said_at_the_head_and_a_missing_gallery_below(page: str, tmp_path: Path) -> None:
    assert "Only 24 test patients" in head(page)
    assert "84 % with 10, 91 % with 20, 91 % with 50, 95 % with 176 patients" in head(page)
    some = {label: synthetic.METHODS[label] for label in ("unet", "mcdropout")}
    for patients in (8, 50):
        path = synthetic.write(tmp_path / f"{patients}", patients=patients, methods=some, repetitions=1, gallery=False,
                               yardsticks=("background", "prevalence"))  # fmt: skip
        report.write(path)
        text = (path / "report.md").read_text(encoding="utf-8")
        summary = text[text.index("## Which method?") : text.index("Values with")]
        assert ("no interval is given" in head(text)) == (patients == 8)
        assert ("test patients." in head(text)) == (patients == 8)
        assert ("[" in summary) == ("**" in summary) == (patients == 50)
        cells = [line for line in text[text.index("## Which method?") :].splitlines() if line.startswith("|")]
        assert any("**" in line for line in cells) == (patients == 50)
        assert ("Values with 95 % intervals" in text) == (patients == 50)
    assert "this folder holds no pictures of the data" in text
    assert not list(path.glob("pictures/gallery*"))
    live = (path / "report.html").read_text(encoding="utf-8")
    assert "Which method?" in live
    assert not re.search("gallery|explorer", re.sub(r"(?s)<(style|script)>.*?</\1>", "", live), re.IGNORECASE)


def test_figures_of_an_older_version_are_named(folder: Path, page: str, tmp_path: Path) -> None:
    assert "older version" not in page
    copy = shutil.copytree(folder, tmp_path / "copy")
    for file in copy.glob("cells/*/cell.json"):
        info = json.loads(file.read_text(encoding="utf-8"))
        info["statistics"]["brier"] -= 1
        file.write_text(json.dumps(info), encoding="utf-8")
    (warning,) = warnings_of(read_results(copy), patients=50)
    assert "older version" in warning
    assert re.findall(r"`([^`]+)`", warning) == ["brier"]


def test_cells_that_are_missing_are_named_and_failed_ones_are_not(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    entries = read_results(copy).run["cells"]
    shutil.rmtree(copy / "cells" / entries[0]["folder"])
    failed = copy / "cells" / entries[3]["folder"]
    (failed / "cell.json").unlink()
    (failed / "failure.json").write_text('{"label": "x", "error": "e", "traceback": []}', encoding="utf-8")
    warning, counts = warnings_of(read_results(copy), patients=50)
    assert counts.startswith("> **Not all methods have the same number of repetitions:** segnet 1, ")
    assert warning == "> **Not finished.** Without scores so far: segnet, repetition 0."


def test_a_training_that_marks_nothing_is_named(folder: Path) -> None:
    results = read_results(folder)
    cell = results.cells["ensemble"][1]
    test = cell.scores["test"]
    empty = replace(test, values=test.values | {"presence": np.zeros(len(test))})
    cells = results.cells | {"ensemble": [results.cells["ensemble"][0], replace(cell, scores={"test": empty})]}
    assert not any("marks anything" in warning for warning in warnings_of(results, patients=50))
    (warning,) = [w for w in warnings_of(replace(results, cells=cells), patients=50) if "marks anything" in w]
    assert "in any test image:** ensemble, repetition 1 of 0, 1." in warning
    cells["ensemble"] = cells["ensemble"][1:]
    assert any("image:** ensemble. Values" in w for w in warnings_of(replace(results, cells=cells), patients=50))


@pytest.mark.parametrize(("marked", "readers"), [(0, (4, 4)), (1, (2, 4))])
def test_masks_that_are_all_empty_or_all_full(marked: float, readers: tuple[int, int], tmp_path: Path) -> None:
    prob, masks = np.full((12, 2, 32, 32), marked, np.float32), np.full((12, 3, 32, 32), bool(marked))
    scores = score(Samples(torch.from_numpy(prob), None, "independent"), masks)
    path = synthetic.write(tmp_path / "run", methods={"unet": synthetic.METHODS["unet"]}, repetitions=1)
    results = read_results(path)
    of_cell = replace(results.cells["unet"][0], label="m", scores={"test": scores})
    yardsticks = {name: replace(of_cell, label=name) for name in ("background", "oracle")}
    run = results.run | {"data": results.run["data"] | {"read_per_case": readers}}
    same = replace(results, run=run, cells={"m": [of_cell]}, yardsticks=yardsticks)
    report = Report(same.folder, "png", same, stats.bootstrap(same.tested, figures()))
    assert _way(report) == [], "no way from background to oracle"
    text = markdown(sections.thresholds(report))
    assert "nan" not in text
    assert ("an image counts once however many have read it" in text) == (readers[0] < readers[1])
    assert ("nearly all pixels are background" in markdown(sections.calibration(report))) == (not marked)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("uqseg run --data 'folder:/home/Jane Doe/a ward' --out '~/Jane Doe/runs'",
         "uqseg run --data folder:PATH --out PATH"),
        ("uqseg run --methods 'unet[a=[1,2]],/home/Jane/m.py:M[w=1],n=predictions:/x y/z,ssn' --out runs",
         "uqseg run --methods 'unet[a=[1,2]],PATH:M[w=1],n=predictions:PATH,ssn' --out runs"),
    ],
)  # fmt: skip
def test_no_part_of_a_path_is_on_the_page(command: str, expected: str) -> None:
    assert without_paths(command) == expected


def test_what_a_run_changed_of_its_recipe_is_named() -> None:
    recipe = {"description": "minutes, 64×64", "size": 64, "samples": 4, "limit": {"test": 90}}
    asked = {"recipe_name": "quick", "recipe": recipe, "samples": 4, "size": 64, "limit": {"test": 90, "train": None}}
    assert _recipe(asked) == "quick: minutes, 64×64"
    asked |= {"size": 32, "limit": {"test": 60, "train": 60}, "settings": {"unet": {"width": 4}}}
    changed = "size 64 → 32; limit.test 90 → 60; limit.train – → 60; unet.width 4"
    assert _recipe(asked) == f"quick: minutes, 64×64. **Changed for this run:** {changed}"


def test_counts_are_those_of_one_repetition(folder: Path) -> None:
    results = read_results(folder)
    report = Report(results.folder, "png", results, stats.bootstrap(results.tested, []))
    scores = report.scores("ensemble")
    images = len(scores[0].cases)
    assert len(scores) == 2
    assert sections.presence_curve(scores)[2].sum() == images
    assert sections.reliability_curve(scores, lambda sums: sums["reliability"])[2].sum() == images * synthetic.SIZE**2
    hits = pd.read_csv(folder / "tables/hits.csv").groupby("method")["images"].sum()
    assert hits["ensemble"] == np.isfinite(scores[0].column("member_hits")).sum()


def test_methods_with_equally_many_members_share_a_table(folder: Path, tmp_path: Path) -> None:
    results = read_results(folder)
    cells = results.cells | {"twin": results.cells["ensemble"]}
    results = replace(results, folder=tmp_path, cells=cells)
    report = Report(results.folder, "png", results, stats.bootstrap(results.tested, list(figures(table="hits"))))
    wide = [block.cells for block in sections.hits(report) if isinstance(block, Table) and "4 of 4" in block.cells]
    assert [table["members that touch it"].tolist() for table in wide] == [["ensemble", "twin"]]


def test_pictures_fit_the_page(folder: Path) -> None:
    """But the gallery, whose tiles keep their size."""
    pictures = [file for file in folder.glob("pictures/*.png") if not file.name.startswith("gallery")]
    assert len(pictures) > 8
    for file in pictures:
        assert Image.open(file).width <= plots.WIDTH * plots.DPI, file.name


def test_the_markers_of_risk_are_evenly_over_the_images() -> None:
    curves = {"a": (np.linspace(0, 1, 80), np.linspace(0, 0.5, 80))}
    line = plots.risk_coverage(curves, plots.styles(["a"])).axes[0].get_lines()[0]
    start, step = line.get_markevery()
    assert line.get_xdata()[start::step] == pytest.approx(np.arange(1, 9) / 8)


def test_names_from_outside_are_shown_as_they_are(tmp_path: Path) -> None:
    label, case = "m|$x$<b>[a=1](u)", "a|b$c$<script>\x1b[31m\n# {}"
    some = {label: synthetic.METHODS["mcdropout"], "_hidden": synthetic.METHODS["unet"]}
    sizes = {split: {"images": 1, "patients": 1, "scored": 1, "key": ""} for split in synthetic.SPLITS}
    data = {"source": "folder", "text": "folder:a|b", "description": "d", "simulated": False, "folder": "a|b`c",
            "size": 32, "channels": 1, "readers": 4, "reader_names": [], "readers_are_persons": True,
            "read_per_case": [1, 4], "spacing_known": True, "problems": 1, "splits": sizes}  # fmt: skip
    path = synthetic.write(tmp_path / "run", methods=some, repetitions=1, case_name=case, data=data,
                           declined={"x": "two\nlines | and <i>"})  # fmt: skip
    report.write(path, pictures="svg")
    assert {f.suffix for f in path.glob("pictures/*")} == {".svg"}
    text = (path / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "<b>[a" not in text
    assert "\x1b" not in text
    assert "\n# test" not in text
    assert not re.search(r"(?<!\\)\$", text)
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
    assert "claims of the 2020" not in text  # not a test of them
    assert "`folder:a\\|b`: d. Folder `` a\\|b`c ``. |" in text
    assert "see `uqseg data folder:a\\|b` |" in text


def test_on_lidc_the_student_report_stands_in_the_threshold_tables(tmp_path: Path) -> None:
    some = {label: synthetic.METHODS[label] for label in ("segnet", "ensemble", "mcdropout")}
    some["segnet[pos_weight=99]"] = some["segnet"]
    path = synthetic.write(tmp_path / "run", methods=some, repetitions=1, gallery=False, source="lidc-slices")
    assert "In brackets" not in markdown(sections.thresholds(report_of(path))), "of simulated images"
    run = path / "run.json"
    run.write_text(run.read_text(encoding="utf-8").replace('"simulated": true', '"simulated": false'), encoding="utf-8")
    text = markdown(sections.thresholds(report_of(path)))
    folds = {part.partition("<")[0]: part for part in text.split("<summary>")[1:]}
    rows = {label: [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if "|" in line]
            for label, part in folds.items()}  # fmt: skip
    brackets = {label: sum("(" in cell for row in lines for cell in row) for label, lines in rows.items()}
    # Table A and of Table 1 the average, Table C, nothing, and two figures of the text.
    assert brackets == {"segnet": 75 + 5, "ensemble": 25, "mcdropout": 0, "segnet[pos_weight=99]": 2}
    test = next(row for row in rows["segnet"] if row[:2] == ["test", "0.5"])
    value = figure("dice@0.5").value(read_results(path).cells["segnet"][0].scores["test"])
    assert test[-1] == f"{value:.4f} (0.5889)", "of Table A, not the text's 0.58"
    assert "members 10 epochs" in folds["ensemble"]
    assert ("another protocol" in folds["segnet"], "another protocol" in folds["mcdropout"]) == (True, False)


def report_of(folder: Path) -> Report:
    results = read_results(folder)
    return Report(results.folder, "png", results, stats.bootstrap(results.tested, figures()))


def test_what_a_run_has_not_is_not_spoken_of(tmp_path: Path) -> None:
    """Single independent draws have no GED, limit; cases of which nothing is known have no subgroups."""
    methods = {"probunet": ("independent", 1, 1.5, 0.1)}
    path = synthetic.write(tmp_path / "one", methods=methods, gallery=False, yardsticks=("background",))
    text = markdown([_answer(report_of(path)), *cost.section(report_of(path))])
    assert "Where it fails" not in text
    assert "What does it cost?" in text
    assert not re.search(r"Ringed|pictures/| ; |; \.", text)
    path = synthetic.write(tmp_path / "unknown", methods=methods | {"unet": synthetic.METHODS["unet"]}, gallery=False)
    assert "Where does it fail?" in _answer(report_of(path))
    cases = pd.read_parquet(path / "cases.parquet").drop(columns="subtlety")
    write_cases(path, cases.assign(marked=0, **{f"area_{r}": 0.0 for r in range(synthetic.READERS)}))
    report = report_of(path)
    assert subgroups.section(report) == []
    assert "Where it fails" in _answer(report)
    rows = report.mean("unet", "presence_readers") == 1
    scores = {n: [cell.scores["test"].take(rows) for cell in c] for n, c in report.results.cells.items()}
    alike = {n: [replace(c, scores={"test": s}) for c, s in zip(report.results.cells[n], part, strict=True)]
             for n, part in scores.items()}  # fmt: skip
    one = replace(report, results=replace(report.results, cells=alike, yardsticks={}))
    assert "Where it fails" not in _answer(one), "a single group is the whole"
    assert "Where does it fail?" not in _answer(report)
    assert "Ringed: the Pareto front" in markdown(cost.section(report))


def test_trainings_are_drawn_by_their_validations_once_each(tmp_path: Path) -> None:
    report = report_of(synthetic.write(tmp_path / "run", gallery=False))
    assert learning_table(report, cost.costs_of(report)).empty, "never validated"
    assert "learning" not in markdown(cost.section(report))
    vals = {"unet": ((0.4, 0.1), (0.6, 0.3)), "ensemble": ((0.4, 0.1), (0.6, 0.3)), "segnet": ((0.5,), (0.5,))}
    cells = {
        label: [
            replace(cell, history=[{"step": 25 * k, "loss": 1.0, "val": v} for k, v in enumerate(each, 1)])
            for cell, each in zip(report.results.cells[label], vals[label], strict=True)
        ]
        for label in vals
    }
    report = replace(report, results=replace(report.results, cells=cells))
    table = learning_table(report, cost.costs_of(report))
    assert set(table["method"]) == {"unet"}, "one line of a shared training, none of a single validation"
    assert table["seconds"].tolist() == [10, 20]
    assert table["val"].tolist() == pytest.approx([0.5, 0.2])
    assert (table["val_min"].tolist(), table["val_max"].tolist()) == ([0.4, 0.1], [0.6, 0.3])
    assert "pictures/learning.png" in markdown(cost.section(report))


def test_escaping_by_hand() -> None:
    assert escape("a|b $c$ <d> *e* `f` [g](h) _i_ x_y") == (r"a\|b \$c\$ &lt;d&gt; \*e\* \`f\` [g\](h) \_i\_ x_y")
    assert escape("a\nb\tc\x00d\u202ee") == "a b c d e"
    assert plots.plain("$x$\n_") == r"\$x\$ _"
    assert plots.plain("_x") == " _x"


def test_a_run_without_scores_says_so(tmp_path: Path) -> None:
    declined = {"unet": "<too> small"}
    path = synthetic.write(tmp_path / "run", methods={}, gallery=False, yardsticks=(), declined=declined)
    nothing = "No method has scores: see above what is not finished, declined or failed."
    assert report.write(path) == [nothing]
    for name in ("report.md", "report.html"):
        text = (path / name).read_text(encoding="utf-8")
        assert nothing in text
        assert "unet: &lt;too&gt; small" in text


def test_styles_are_unique_for_any_number_and_yardsticks_are_grey() -> None:
    methods, yardsticks = [f"m{i}" for i in range(150)], [f"y{i}" for i in range(12)]
    styles = plots.styles(methods, yardsticks)
    assert len({(s["color"], s["marker"]) for s in styles.values()}) == 162
    assert all(set(styles[y]["color"]) <= set("0.123456789") for y in yardsticks)
    # Within the first eight, what is left in grey differs too.
    assert len({styles[m]["marker"] for m in methods[:8]}) == 8


def test_two_bins_are_not_joined_by_a_line() -> None:
    bins = np.full(10, np.nan)
    two = bins.copy(), bins.copy(), np.zeros(10)
    for part, values in zip(two, ((0, 1), (0.1, 0.8), (5, 7)), strict=True):
        part[[0, 9]] = values
    every = np.linspace(0.05, 0.95, 10), np.linspace(0, 1, 10), np.full(10, 3.0)
    plot = plots.reliability({"t": {"two": two, "every": every}}, "p", "images", plots.styles(["two", "every"]))
    lines = {line.get_label(): line.get_linestyle() for line in plot.axes[0].get_lines()}
    assert lines["two"] == "None"
    assert lines["every"] != "None"


def collisions(plot: Plot) -> list[str]:
    """The axes of a plot on which two tick labels overlap."""
    plot.canvas.draw()
    crowded = []
    for axis in (axis for axes in plot.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        labels = [t.label1 for t in axis.get_major_ticks() + axis.get_minor_ticks() if low <= t.get_loc() <= high]
        boxes = [label.get_window_extent() for label in labels if label.get_text()]
        if any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]):
            crowded.append(axis.get_label_text())
    return crowded


LONG = "unet[target=fraction,presence=true]+levels"


@pytest.mark.parametrize("methods", [2, 12, 40])
def test_ranks_of_many_methods_do_not_collide_and_fit_a_page(methods: int) -> None:
    place = np.arange(1, methods + 1)
    names = [LONG, *(f"m{k}" for k in place[1:])]
    table = pd.DataFrame({"method": names, "rank": place, "low": place, "high": place, "first": 0.1})
    plot = plots.ranks({"GED": table, "Dice": table, "Brier": table}, {"GED": ["m2"], "Dice": [], "Brier": []})
    assert collisions(plot) == []
    assert plot.get_figwidth() <= plots.WIDTH


def test_many_or_long_names_stand_above_a_plot_that_fits_a_page() -> None:
    for names in (["a", LONG], [f"m{k}" for k in range(16)]):
        curves = {name: [Estimate(0.5, 0.4, 0.6)] * 2 for name in names}
        plot = plots.ged_of_samples(curves, [1, 2], plots.styles(names))
        plot.canvas.draw()
        (shown,) = plot.legends
        assert plot.get_figwidth() <= plots.WIDTH
        assert shown.get_window_extent().y0 >= plot.axes[0].get_window_extent().y1
        assert 0 <= shown.get_window_extent().x0 <= shown.get_window_extent().x1 <= plot.bbox.width


@pytest.mark.parametrize("span", [1.2, 3.0, 12.0, 900.0, 4e4])
def test_cost_axes_are_named_and_their_labels_do_not_collide(span: float) -> None:
    table = pd.DataFrame({"method": ["a", "b"], "value": [0.3, 0.4], "low": [0.2, np.nan], "high": [0.35, np.nan],
                          "train_seconds": [27.0, 27 * span], "cpu_seconds": [54.0, 54 * span], "device": "cpu",
                          "sample_ms": [1.3, 1.3 * span]})  # fmt: skip
    plot = plots.quality_of_cost(table, "GED (lower is better)", plots.styles(["a", "b"]))
    assert collisions(plot) == []
    names = ["training (CPU s), log scale", "sampling an image (ms by the clock), log scale"]
    assert [ax.get_xlabel() for ax in plot.axes] == names
    assert plot.axes[0].get_xlim() == pytest.approx((54 / 1.6, 54 * span * 1.6))
    for ax in plot.axes:
        plain = [t.get_text() for t in ax.get_xticklabels() if t.get_text()]
        assert len(plain) >= 2, plain


def test_repetitions_of_another_machine_are_named_beside_their_times(folder: Path) -> None:
    results = read_results(folder)
    first, *rest = results.cells["ensemble"]
    slow = replace(first, info=first.info | {"machine": {"device": "AMD EPYC"}})
    cells = results.cells | {"ensemble": [slow, *rest]}
    report = Report(results.folder, "png", results, stats.bootstrap(results.tested, []))
    assert cost._elsewhere(report) == ""
    elsewhere = cost._elsewhere(replace(report, results=replace(results, cells=cells)))
    assert elsewhere.endswith("of the rest, on AMD EPYC: ensemble 0.")


def test_training_on_a_gpu_costs_seconds_of_the_clock() -> None:
    table = pd.DataFrame({"device": ["cpu", "NVIDIA H100"]})
    assert next(iter(plots.costs(table).items())) == ("train_seconds", "training (s by the clock)")
    assert "cpu_seconds" in plots.costs(table[:1])


def test_the_crop_holds_every_outline_and_lies_inside_the_image() -> None:
    rng = np.random.default_rng(0)
    for shape in ((64, 64), (128, 96), (20, 40)):
        for _ in range(50):
            masks = np.zeros((3, *shape), bool)
            y, x = rng.integers(0, shape[0] - 5), rng.integers(0, shape[1] - 5)
            masks[1, y : y + rng.integers(1, 30), x : x + rng.integers(1, 6)] = True
            rows, columns = gallery.crop(masks, shape)
            assert 0 <= rows.start < rows.stop <= shape[0]
            assert 0 <= columns.start < columns.stop <= shape[1]
            assert masks[:, rows, columns].sum() == masks.sum()
            assert rows.stop - rows.start >= min(gallery.LEAST, shape[0])
    assert gallery.crop(np.zeros((2, 9, 7), bool), (9, 7)) == (slice(0, 9), slice(0, 7))


def test_the_gallery_shows_each_reader_once_and_no_empty_column(folder: Path) -> None:
    kept = read_results(folder).gallery
    assert kept is not None
    plot = gallery.draw(kept, 0, READERS)
    titles = [ax.get_title().partition(":")[0] for ax in plot.axes]
    assert titles[:7] == ["image", "readers' mean", "readers' deviation", *READERS]
    several = ["mean", "deviation", *(f"sample {k + 1}" for k in range(4))]
    rows = [several if samples.shape[1] > 1 else ["mean"] for samples in kept.samples.values()]
    assert titles[7:-2] == [title for row in rows for title in row]
    assert [text.get_text().replace("\n", "") for text in plot.texts] == list(kept.samples)
    bars = [ax.get_xlabel() for ax in plot.axes[-2:]]
    assert bars == ["probability, or share of readers", "standard deviation"]
    for ax in plot.axes[:-2]:
        assert ax.get_position().width * plot.get_figwidth() * 130 >= 200


def test_weights_and_what_lies_outside_the_crop_are_shown() -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((1, 2, 64, 64), bool)
    masks[0, 1, 20:24, 20:24] = True
    samples = np.zeros((1, 2, 64, 64), np.uint8)
    samples[0, 0, 20:24, 20:24], samples[0, 1, 60:64, 60:64] = 255, 255
    kept = Gallery({"easiest": "c"}, ("c",), rng.integers(0, 255, (1, 3, 64, 64)).astype(np.uint8), masks,
                   np.array([[False, True]]), {"m": samples}, {"m": np.array([[0.75, 0.25]])})  # fmt: skip
    plot = gallery.draw(kept, 0, READERS)
    assert plot.texts[0].get_text() == "m\n\n25 % of what it marks\nlies outside the crop"
    titles = [ax.get_title() for ax in plot.axes]
    assert titles[3] == "Bob"  # the other did not read
    assert titles[-4:-2] == ["sample 1, weight 0.75", "sample 2, weight 0.25"]
    mean = plot.axes[titles.index("mean")].images[0].get_array()
    assert mean.shape == (32, 32)
    assert mean.max() == 0.75


def test_digits_and_intervals() -> None:
    assert tables.with_interval(Estimate(0.31512, 0.301, 0.3301)) == "0.315 [0.301,\N{NO-BREAK SPACE}0.330]"
    assert tables.with_interval(Estimate(0.3, np.nan, np.nan)) == "0.30"
    assert tables.with_interval(Estimate(-1e-12, np.nan, np.nan)) == "0.000"
    assert tables.with_interval(Estimate(-0.0001, -0.02, 0.02)) == "0.000 [-0.020,\N{NO-BREAK SPACE}0.020]"
    assert tables.with_interval(Estimate(np.nan, np.nan, np.nan)) == "–"
    assert tables.percent(Estimate(-0.001, -0.1, 0.126)).replace("\N{NO-BREAK SPACE}", " ") == "0 % [-10 %, 13 %]"
