"""The study of a data set's readers: values worked out by hand, and the page of a folder with difficult names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from bench import readers, stats
from bench.report import readers as pages
from tests.bench.test_webpage import Page
from tests.conftest import discs
from uqseg.data import AnnotatedSet


def rows_set() -> AnnotatedSet:
    """c0: of 8 rows the readers mark 1, 2 and none; c1: 2 and 2, one has not read; c2: one read it; c3: none marks."""
    marked = [(1, 2, 0), (2, 2, None), (1, None, None), (0, 0, 0)]
    masks = np.zeros((4, 3, 8, 8), bool)
    read = np.ones((4, 3), bool)
    for case, rows in enumerate(marked):
        for r, count in enumerate(rows):
            read[case, r] = count is not None
            masks[case, r, : count or 0] = True
    table = pd.DataFrame({"case": ["c0", "c1", "c2", "c3"], "patient": list("pqrs"), "split": "train"})
    spacing = np.full((4, 2), 0.5, np.float32)
    return AnnotatedSet(np.zeros((4, 1, 8, 8), np.uint8), masks, read, table, spacing, "folder",
                        readers_are_persons=True, reader_names=("a", "b", "c"))  # fmt: skip


def test_values_by_hand() -> None:
    study = readers.study(rows_set())
    values = {name: estimate.value for name, estimate in study.pairs[0, 1].items()}
    assert values["dice"] == pytest.approx((2 / 3 + 1) / 2)  # c0 and c1; nobody drew in c3
    assert values["iou"] == pytest.approx((1 / 2 + 1) / 2)
    assert values["presence"] == values["presence_kappa"] == 1
    # Of 24 rows a marks 3 and b 4, 3 in common: they agree on 23, by chance on (3·4 + 21·20)/24.
    assert values["kappa"] == pytest.approx((23 / 24 - 432 / 576) / (1 - 432 / 576))
    other = {name: estimate.value for name, estimate in study.pairs[0, 2].items()}
    assert np.isnan(other["dice"])
    assert other["presence"] == 0.5
    assert other["presence_kappa"] == 0
    assert study.overall["presence"].value == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert all(np.isnan(e.low) for e in study.overall.values()), "no interval of four patients"
    assert study.cases["case"].tolist() == ["c0", "c1", "c3", "c2"]
    np.testing.assert_allclose(study.cases["dispute"], [(0.5 + 1 + 1) / 3, 0, 0, np.nan])
    assert study.unit == "mm²"
    bias = study.biases.set_index("reader")
    assert bias["cases"].to_dict() == {"a": 2, "b": 2}
    assert bias.loc["a", "bias"] == pytest.approx((8 - 16 + 0) / 2 * 0.25)  # rows of 8 pixels of 0.25 mm²
    assert bias.loc["a", "below"] == pytest.approx(-1 - 1.96 * 1)
    assert study.readers["marked"].tolist() == [3, 2, 0]


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 500)) < 0.3
    got = readers.kappa(*(np.array(float(x.sum())) for x in (a & b, a, b)), np.array(500.0))
    assert got == pytest.approx(cohen_kappa_score(a, b))
    assert np.isnan(readers.kappa(*map(np.array, (0.0, 0.0, 0.0, 9.0)))), "the same answer everywhere"


def test_intervals_are_of_the_pairs_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "RESAMPLES", 300)
    data = discs(60, readers=3)
    data = replace(data, readers_are_persons=True)
    data.read[:, 2] = np.arange(60) < 8  # fewer patients than an interval needs
    study = readers.study(data)
    for estimate in study.pairs[0, 1].values():
        assert not estimate.low > estimate.value
        assert not estimate.high < estimate.value
    assert np.isfinite(study.pairs[0, 1]["dice"].low)
    assert np.isnan(study.pairs[0, 2]["dice"].low)
    assert len(readers.most_disputed(data, study, 5)) == 5


def test_slots_are_not_compared_as_if_they_were_persons(tmp_path: Path) -> None:
    study = readers.study(replace(rows_set(), readers_are_persons=False))
    assert study.pairs == {}
    assert study.biases.empty
    page = Page(pages.write(study, [("data", "lidc")], tmp_path / "sheet.pdf", None).read_text(encoding="utf-8"))
    assert "no pair is compared" in page.text
    assert "h3" not in page.texts
    assert not (tmp_path / "pairs.csv").exists()
    assert [title for title, _ in pages.lines(study)][:1] == ["agreement"]


def test_the_page_shows_names_as_they_are_and_one_reader_alone(tmp_path: Path) -> None:
    data = replace(rows_set(), reader_names=("<b>|_a", "b$", "c"))
    path = pages.write(readers.study(data), [("data", "folder <x>")], tmp_path / "sheet.png.pdf", None)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.texts["h1"] == ["Readers of folder <x>"]
    assert "<b>|_a" in page.texts["th"]
    assert "b" not in page.texts
    kept = pd.read_csv(tmp_path / "pairs.csv")
    assert set(kept["a"]) == {"<b>|_a", "b$"}
    alone = replace(data, masks=data.masks[:, :1], read=data.read[:, :1], reader_names=("a",))
    assert list(pages.lines(readers.study(alone))) == []
    text = pages.write(readers.study(alone), [("data", "x")], tmp_path / "one/s.pdf", None).read_text(encoding="utf-8")
    assert "There is one reader" in text
