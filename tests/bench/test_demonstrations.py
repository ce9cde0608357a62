"""The demonstrations: optima worked out by hand, reached by the exact distribution; the command end to end."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench import demonstrations, optima
from tests.bench.conftest import bench
from uqseg.data import load
from uqseg.samples import Samples
from uqseg.seeds import generator


def test_optima_of_two_masks_worked_out_by_hand() -> None:
    """Nothing or one full image of two pixels, each with probability 1/2: two draws are equal half of the time."""
    masks = np.array([[[[False, False]], [[True, True]]]])
    p = np.array([[0.5, 0.5]])
    exact, drawn = optima.of_distribution(masks, p, 2), optima.of_draws(masks, p, 2)
    expected = {"brier": 0.25, "brier_excess": 0.125, "nll": np.log(2), "nll_joint": np.log(2), "ged": 0.25,
                "ged_cross": 1, "ged_limit": 0.25, "diversity_unbiased": 0.5, "area_crps": 0.5,
                "presence_brier": 0.25, "validity": 0.75, "dice_image@0.5": 0.5}  # fmt: skip
    for name, value in expected.items():
        assert exact[name] == pytest.approx(value, abs=1e-5), name
    # Of two and two draws, unordered outcomes 1/4, 1/2, 1/4: equal 3/8, one apart 1/2, both apart 1/8.
    expected = {"hm_iou": 3 / 8 + 1 / 2 * 1 / 2, "dice_match": 3 / 8 + 1 / 2 * 1 / 2, "ged": 0.5, "ged_limit": 0.25,
                "ged_unbiased": 0, "ged_presence_excess": 0, "area_crps": 0.5, "brier": 0.375,
                "coverage": 0.75}  # fmt: skip
    for name, value in expected.items():
        assert drawn[name] == pytest.approx(value), name


def test_the_exact_distribution_reaches_every_optimum(tmp_path: Path) -> None:
    table = demonstrations.reach(load("toy", split="test", size=16, limit=80, cache=tmp_path))
    assert set(table["prediction"]) == {"distribution", "4 draws"}
    assert len(table) > 25
    assert table.loc[~table["inside"], "figure"].tolist() == []


def test_closeness_is_zero_for_the_truth_itself_and_not_for_a_wrong_answer(tmp_path: Path) -> None:
    truth = demonstrations.truth_of(load("toy", split="test", size=16, limit=20, cache=tmp_path))
    right = demonstrations.distances_to(truth, Samples(truth.masks.float(), truth.p, "support"))
    assert set(right) == {f.name for f in demonstrations.CLOSENESS}
    for name, value in right.items():
        assert value.abs().max() < 1e-6, name
    nothing = demonstrations.distances_to(truth, Samples(torch.zeros(20, 1, 16, 16), None, "support"))
    assert torch.allclose(nothing["mean_error"], (truth.mean.sum((1, 2)) / (truth.mean > 0).sum((1, 2))))
    assert torch.allclose(nothing["presence_error"], truth.p[:, 1:].sum(1))
    assert (nothing["ged"] > 0).all()


def test_draws_follow_the_truth() -> None:
    masks = torch.eye(4, dtype=torch.bool).reshape(1, 4, 2, 2)
    truth = demonstrations.Truth(masks, torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64))
    drawn = demonstrations.draws(truth, 10_000, generator("draws"))
    assert torch.allclose(drawn.double().mean((0, 1)), truth.mean[0], atol=0.02)


def test_demos_end_to_end(tmp_path: Path) -> None:
    tiny = "--methods unet,mcdropout --size 16 --limit 16 --samples 3 --set training.steps=1 --set training.batch=4"
    answer = bench("demos", *tiny.split(), "--device", "cpu", "--to", tmp_path / "page", "--out", tmp_path / "runs")
    assert answer.code == 0, answer.err
    text = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    for name in ("regions", "draws", "toy", "closeness"):
        assert f"(pictures/{name}.png)" in text
        assert (tmp_path / "page/pictures" / f"{name}.png").stat().st_size < 300_000
    for name in ("regions", "draws", "optima", "closeness", "definitions", "consistency"):
        assert f"(tables/{name}.csv)" in text
    assert "simulated" in text
    assert str(tmp_path) not in text
    table = pd.read_csv(tmp_path / "page/tables/closeness.csv")
    assert {"unet", "mcdropout", "truth", "oracle"} <= set(table["method"])
    definitions = pd.read_csv(tmp_path / "page/tables/definitions.csv")
    assert (definitions["definition"] == "this project").sum() == definitions["figure"].nunique() > 8
    assert "samples of mcdropout" in text  # the first with independent draws
    assert (tmp_path / "page" / "metrics.md").read_text(encoding="utf-8").startswith("# Metrics")
