"""The lines of a history in somebody's tool for curves, and what is said where that is not installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
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


def records_of(file: Path) -> Iterator[bytes]:
    """The records in a file of W&B's offline mode: LevelDB's log, whose blocks of 32 KiB begin after 7 bytes."""
    data, place = file.read_bytes(), 7
    while place + 7 < len(data):
        if (left := -place % 2**15) and left < 7:
            place += left
        end = place + 7 + int.from_bytes(data[place + 4 : place + 6], "little")
        yield data[place + 7 : end]
        place = end


def test_wandb_keeps_numbers_and_options(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    for name, value in (("MODE", "offline"), ("DIR", str(tmp_path)), ("CONSOLE", "off"), ("SILENT", "true")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    words = [*options(images, tmp_path / "runs", "unet", steps=20), "--log", "wandb:mine"]
    assert bench(*words).code == 0
    (cell,) = read_results(results_in(tmp_path / "runs")).cells["unet"]
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    records = [Record.FromString(record) for record in records_of(file)]
    shown = [{"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
             for record in records if record.HasField("history")]  # fmt: skip
    assert [
        {key: line[key] for key in line if not key.startswith("_")} | {"step": line["_step"]} for line in shown
    ] == (cell.history)
    run = next(record.run for record in records if record.HasField("run"))
    assert (run.project, run.display_name) == ("mine", "unet-r0")
    assert {"width": "4", "steps": "20"}.items() <= {item.key: item.value_json for item in run.config.update}.items()


def test_a_place_that_takes_no_curves_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it remembers the settings of an earlier test
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    answer = bench("run", "--data", "nowhere", "--out", tmp_path / "runs", "--log", "wandb")
    refused(answer, 2, "wandb takes no curves (No API key", "log in, or set WANDB_MODE=offline")
    assert not (tmp_path / "runs").exists()


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
