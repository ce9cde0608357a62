"""The lines of a history in somebody's tool for curves, and what is said where that is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bench import curves
from bench.runs.results import read_results
from tests.bench.conftest import bench, options, results_in
from tests.bench.test_errors import refused


@pytest.mark.extras
def test_a_run_draws_its_curves(images: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*options(images, tmp_path / "runs", "unet", steps=20), "--log", f"tensorboard:{tmp_path / 'curves'}"]
    assert bench(*words).code == 0
    events = EventAccumulator(str(tmp_path / "curves/unet-r0"))
    events.Reload()
    (cell,) = read_results(results_in(tmp_path / "runs")).cells["unet"]
    for name in ("loss", "lr", "val"):
        expected = [(line["step"], line[name]) for line in cell.history if name in line]
        np.testing.assert_allclose([(e.step, e.value) for e in events.Scalars(name)], expected, rtol=1e-6)


def test_mlflow_keeps_numbers_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    with curves.curves("mlflow:mine", "unet-r0", {"width": 4}) as show:
        assert show is not None
        show({"step": 10, "loss": 0.5, "val": None})
    (run,) = mlflow.search_runs(experiment_names=["mine"], output_format="list")
    assert run.data.metrics == {"loss": 0.5}
    assert run.data.params == {"width": "4"}


def test_where_to_show_them_is_checked_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = ("run", "--out", tmp_path / "runs", "--log")
    refused(bench(*run, "tensorbord:x"), 2, "unknown --log 'tensorbord'", "mlflow or mlflow:EXPERIMENT")
    refused(bench(*run, "tensorboard"), 2, "tensorboard needs a folder")
    monkeypatch.setitem(sys.modules, "wandb", None)
    refused(bench(*run, "wandb"), 2, "wandb is not installed: pip install 'uqseg[wandb]'")
    assert not (tmp_path / "runs").exists()
