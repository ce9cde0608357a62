"""The demonstrations: optima worked out by hand, reached by the exact distribution; the command end to end."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench import demonstrations, optima
from uqseg.data import load
from uqseg.seeds import generator


def test_optima_of_two_masks_worked_out_by_hand() -> None:
    """Nothing or one whole image of two pixels, each with probability 1/2: two draws are equal half of the time."""
    masks = np.array([[[[False, False]], [[True, True]]]])
    p = np.array([[0.5, 0.5]])
    whole, drawn = optima.of_distribution(masks, p, 2), optima.of_draws(masks, p, 2)
    expected = {"brier": 0.25, "brier_excess": 0.125, "nll": np.log(2), "nll_joint": np.log(2), "ged": 0.25,
                "ged_cross": 1, "area_crps": 0.5, "presence_brier": 0.25, "validity": 0.75,
                "dice_image@0.5": 0.5}  # fmt: skip
    for name, value in expected.items():
        assert whole[name] == pytest.approx(value, abs=1e-5), name
    # Of two and two draws, unordered outcomes 1/4, 1/2, 1/4: equal 3/8, one apart 1/2, both apart 1/8.
    assert drawn["hm_iou"] == pytest.approx(3 / 8 + 1 / 2 * 1 / 2)
    assert drawn["ged"] == pytest.approx(0.5)
    assert drawn["brier"] == pytest.approx(0.375)
    assert drawn["coverage"] == pytest.approx(0.75)


def test_the_exact_distribution_reaches_every_optimum(tmp_path: Path) -> None:
    found = demonstrations.reach(load("toy", split="test", size=16, limit=80, cache=tmp_path))
    assert set(found["prediction"]) == {"whole", "4 draws"}
    assert found.loc[~found["inside"], "figure"].tolist() == []


def test_closeness_is_zero_for_the_truth_itself_and_not_for_a_wrong_answer(tmp_path: Path) -> None:
    truth = demonstrations.truth_of(load("toy", split="test", size=16, limit=20, cache=tmp_path))
    right = demonstrations.closeness(truth.masks.float(), truth, exact=True, weights=truth.p)
    for name, value in right.items():
        assert value.abs().max() < 1e-6, name
    nothing = demonstrations.closeness(torch.zeros(20, 1, 16, 16), truth, exact=True)
    assert torch.allclose(nothing["mean_error"], (truth.mean.sum((1, 2)) / (truth.mean > 0).sum((1, 2))))
    assert torch.allclose(nothing["presence_error"], truth.p[:, 1:].sum(1))
    assert (nothing["ged"] > 0).all()


def test_draws_follow_the_truth() -> None:
    masks = torch.eye(4, dtype=torch.bool).reshape(1, 4, 2, 2)
    truth = demonstrations.Truth(masks, torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64))
    drawn = demonstrations.draws(truth, 10_000, generator("draws"))
    assert torch.allclose(drawn.double().mean((0, 1)), truth.mean[0], atol=0.02)


def test_demos_end_to_end(tmp_path: Path) -> None:
    tiny = "--methods unet,ensemble --size 16 --limit 16 --samples 3 --set training.steps=1 --set training.batch=4"
    command = f"-m bench demos {tiny} --device cpu --to {tmp_path / 'page'} --out {tmp_path / 'runs'}"
    env = os.environ | {"UQSEG_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, *command.split()], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page" / "report.md").read_text(encoding="utf-8")
    for name in ("regions", "draws", "toy", "closeness"):
        assert f"({name}.png)" in text
        assert (tmp_path / "page" / f"{name}.png").stat().st_size < 300_000
    assert "simulated" in text
    table = pd.read_csv(tmp_path / "page" / "closeness.csv")
    assert {"unet", "ensemble", "truth", "oracle"} <= set(table["method"])
    assert (tmp_path / "page" / "metrics.md").read_text(encoding="utf-8").startswith("# Metrics")
