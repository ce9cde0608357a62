"""A method whose answer is one set of pixels: scored by itself, in a table of its own, with neither GED nor rank."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from baselines import yardsticks
from bench.report import sets
from bench.runs.results import CellResults, read_results
from tests.bench import synthetic
from tests.bench.conftest import bench, options, results_in, write_set
from tests.conftest import discs
from uqseg.metrics import score, statistics
from uqseg.prediction import predict
from uqseg.wrappers.conformal import set_figures

LABEL = "unet+conformal[alpha=0.6]"
NAMES = list(statistics(of_set=True))


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough of them for validation to give half to the calibration."""
    return write_set(tmp_path_factory.mktemp("set"), images=80)


def test_statistics_by_hand() -> None:
    """Of 4 pixels a set of two: it misses half of one lesion, none of another, all of one nobody else sees."""
    region = torch.tensor([[[[1.0, 1, 0, 0]]], [[[0.0, 0, 0, 0]]]])
    masks = torch.tensor(
        [[[[0, 1, 1, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]]], [[[1, 0, 0, 0]], [[0, 0, 0, 0]], [[1, 1, 1, 1]]]]
    )
    read = torch.tensor([[True, True, True], [True, True, False]])
    got = score(region, masks.bool(), read, drawn="support", statistics=NAMES).values
    assert got["set_missed"].tolist() == [0.5 / 3, 1 / 2]
    assert got["set_size"].tolist() == [2, 0]
    assert got["set_covered"].tolist() == [1, 0]
    assert got["set_lesions"].tolist() == [2, 1]


def test_the_table_says_what_the_library_says(tmp_path: Path) -> None:
    data = discs(30, readers=3)
    data = replace(data, table=data.table.assign(patient=[f"p{i // 3}" for i in range(30)]))
    sampler = yardsticks.build("consensus", data)
    drawn = predict(sampler, data, 1)
    scores = score(drawn, data.masks, data.read, statistics=NAMES, cases=data.cases, patients=data.table["patient"])
    results = read_results(synthetic.write(tmp_path / "run", methods={}, yardsticks=(), gallery=False))
    cells = [CellResults("m", k, {}, {"test": scores}, None, []) for k in range(2)]
    table = sets.table(replace(results, sets={"m": cells})).set_index("figure")
    for name, value in set_figures(sampler, data, 1).items():
        assert table.loc[name, "value"] == pytest.approx(value, nan_ok=True)
        assert table.loc[name, "low"] <= value <= table.loc[name, "high"]


def test_a_run_scores_a_set_by_itself(patients: Path, tmp_path: Path) -> None:
    answer = bench(*options(patients, tmp_path, "unet", LABEL, gallery=True, report=True))
    assert answer.code == 0, answer.err
    folder = results_in(tmp_path)
    results = read_results(folder)
    assert list(results.cells) == ["unet"]
    assert list(results.sets) == [LABEL]
    assert results.gallery is not None
    assert LABEL not in results.gallery.samples
    assert set(results.sets[LABEL][0].scores["test"].values) == set(NAMES)
    table = pd.read_csv(folder / "tables/sets.csv").set_index("figure")
    assert 0 <= table.loc["risk", "value"] <= 1
    assert np.isfinite(table["value"]).all()
    assert LABEL not in set(pd.read_csv(folder / "tables/figures.csv")["method"])
    for page in ("report.md", "report.html"):
        text = (folder / page).read_text(encoding="utf-8")
        assert "Sets that hold a lesion" in text
        assert "Not finished" not in text
    again = bench(*options(patients, tmp_path, "unet", LABEL, gallery=True))
    assert again.out.count(": done") == 2


def test_sets_alone_have_their_page(patients: Path, tmp_path: Path) -> None:
    answer = bench(*options(patients, tmp_path / "runs", LABEL, report=True))
    assert answer.code == 0, answer.err
    copied = bench("publish", results_in(tmp_path / "runs"), "--to", tmp_path / "copy")
    assert copied.code == 0, copied.err
    assert list(read_results(tmp_path / "copy").sets) == [LABEL]
    for folder in (results_in(tmp_path / "runs"), tmp_path / "copy"):
        text = (folder / "report.md").read_text(encoding="utf-8")
        assert "No method has scores" in text
        assert "Sets that hold a lesion" in text


def test_a_set_is_declined_where_validation_has_chosen_the_weights(patients: Path, tmp_path: Path) -> None:
    answer = bench(*options(patients, tmp_path, "unet", LABEL), "--set", "training.keep=best")
    assert answer.code == 0, answer.err
    assert f"{LABEL} declined: +conformal calibrates on patients that nothing before it has used" in answer.out
    assert "give --set training.keep=last" in answer.out
    results = read_results(results_in(tmp_path))
    assert (list(results.cells), list(results.sets)) == (["unet"], [])
