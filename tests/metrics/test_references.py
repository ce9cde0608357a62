"""Presence, area, likelihood, correlation, uncertainty and rank figures against their formulas written as loops."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from uqseg.metrics import Scored, Scores, figure, figures, score
from uqseg.metrics.ambiguity import hit_counts
from uqseg.metrics.calibration import reliability
from uqseg.metrics.ranks import failure_areas
from uqseg.metrics.registry import derivations
from uqseg.seeds import generator

B, S, R, SIDE = 5, 6, 3, 12


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p) + (1 - p) * np.log(1 - p))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float("nan") if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def by_formula(p: np.ndarray, w: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The columns of one image: samples p (S,H,W), weights w (S,), masks y (R,H,W) of the readers who read it."""
    h, fraction, mean = p >= 0.5, y.mean(0), np.einsum("s,shw->hw", w, p)
    area, drawn, clipped = h.sum((1, 2)), y.sum((1, 2)), np.clip(p, 1e-6, 1 - 1e-6)
    present = float(w @ (area > 0))
    own = sum(w[j] * w[k] * abs(area[j] - area[k]) for j in range(len(p)) for k in range(len(p)))
    likelihood = [sum(v * np.prod(np.where(r, q, 1 - q)) for v, q in zip(w, clipped, strict=True)) for r in y]

    def cross(q: np.ndarray) -> np.ndarray:
        return sum(v * -(q * np.log(c) + (1 - q) * np.log(1 - c)) for v, c in zip(w, clipped, strict=True))

    expected = float(w @ entropy(p).mean((1, 2)))
    majority = fraction >= 0.5
    return {
        "area_crps": np.mean([w @ abs(area - a) for a in drawn]) - own / (1 - (w**2).sum()) / 2,
        "nll_joint": -np.mean(np.log(likelihood)),
        "presence": present,
        "presence_brier": np.mean((present - (drawn > 0)) ** 2),
        "ncc_samples": np.mean([correlation(cross(mean), cross(r)) for r in y]),
        "ncc_variance": correlation(entropy(mean), fraction * (1 - fraction)),
        "entropy": entropy(mean).mean(),
        "expected_entropy": expected,
        "mutual_information": entropy(mean).mean() - expected,
        "uncertainty_patch": max(entropy(mean)[a : a + 10, b : b + 10].mean() for a in range(3) for b in range(3)),
        "hit_share": w @ (h & majority).any((1, 2)) if majority.any() else float("nan"),
    }


def test_columns_equal_their_formulas_with_weights_an_absent_and_an_empty_reader() -> None:
    noise = generator("references")
    samples = torch.rand(B, S, SIDE, SIDE, generator=noise) * 0.8
    samples[0, :2] = 0.1
    masks = torch.rand(B, R, SIDE, SIDE, generator=noise) > 0.5
    masks[0] = False
    masks[1, 0] = False
    read = torch.ones(B, R, dtype=torch.bool)
    read[2, 1] = False
    weights = torch.rand(B, S, generator=noise, dtype=torch.float64)
    weights /= weights.sum(1, keepdim=True)
    scores = score(samples, masks, read, weights=weights)
    for b in range(B):
        present = read[b].numpy()
        slow = by_formula(samples[b].double().numpy(), weights[b].numpy(), masks[b].numpy()[present])
        for name, value in slow.items():
            assert scores.column(name)[b] == pytest.approx(value, rel=1e-5, abs=1e-7, nan_ok=True), name


def test_image_level_rank_correlations_equal_scipy() -> None:
    noise = generator("ranks")
    scores = score(torch.rand(40, 4, 8, 8, generator=noise), torch.rand(40, 4, 8, 8, generator=noise) > 0.7)
    for name in ("spearman_std", "spearman_diversity"):
        x, y = (scores.column(c) for c in figure(name).of)
        assert figure(name).value(scores) == pytest.approx(spearmanr(x, y).statistic)


def test_dispute_auroc_equals_scikit_learn_when_images_are_drawn_again() -> None:
    noise = generator("dispute")
    samples = torch.rand(60, 4, 4, 4, generator=noise) * torch.rand(60, 4, 1, 1, generator=noise)
    masks = (torch.rand(60, 4, 4, 4, generator=noise) > 0.5) & (torch.rand(60, 4, 1, 1, generator=noise) > 0.3)
    scores = score(samples, masks)
    times = np.random.default_rng(0).integers(0, 3, 60)
    p = (samples >= 0.5).any(3).any(2).double().mean(1)
    seen = masks.any(3).any(2).double().mean(1)
    disputed = ((seen > 0) & (seen < 1)).numpy()
    expected = roc_auc_score(disputed, (p * (1 - p)).numpy(), sample_weight=times)
    assert figure("presence_auroc").value(scores, times) == pytest.approx(expected)


def test_augrc_equals_the_area_under_the_generalised_risk() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"risk": rng.random(50), "score": rng.random(50)}).sort_values("score")
    generalised = np.concatenate([[0], np.cumsum(table["risk"]) / 50])
    found = failure_areas(table["score"].to_numpy(), table["risk"].to_numpy(), np.ones((1, 50)))[0, 2]
    assert found == pytest.approx(np.trapezoid(generalised, dx=1 / 50))


def test_adaptive_active_average_and_presence_calibration_equal_loops() -> None:
    noise = generator("bins")
    samples, masks = torch.rand(4, 5, 32, 32, generator=noise) ** 3, torch.rand(4, 4, 32, 32, generator=noise) > 0.7
    scores = score(samples, masks)
    p, y = samples.double().mean(1).flatten().numpy(), masks.double().mean(1).flatten().numpy()
    at = np.minimum((p * 15).astype(int), 14)
    gaps = [abs((p - y)[at == b].mean()) for b in range(15) if (at == b).any()]
    assert figure("ace").value(scores) == pytest.approx(np.mean(gaps), rel=1e-5)
    active = p >= 0.01
    error = sum(abs((p - y)[active & (at == b)].sum()) for b in range(15)) / active.sum()
    assert figure("ece_active").value(scores) == pytest.approx(error, rel=1e-5)
    order = np.argsort(p)
    equal_mass = sum(abs((p - y)[part].sum()) for part in np.array_split(order, 15)) / len(p)
    assert figure("ece_adaptive").value(scores) == pytest.approx(equal_mass, rel=0.05)
    present = (samples >= 0.5).any(3).any(2).double().mean(1).numpy()
    assert figure("presence_ece").value(scores) == pytest.approx(abs(present - 1).mean())


def test_areas_equal_the_integral_form_of_the_crps() -> None:
    """∫ (F(x) − [x ≥ y])² dx over whole pixels, a formula that shares nothing with the double sum; for independent
    draws less what their finite number adds."""
    noise = generator("areas")
    samples, masks = torch.rand(6, 5, 8, 8, generator=noise), torch.rand(6, 3, 8, 8, generator=noise) > 0.6
    spacing = torch.tensor([[0.5, 0.7]] * 5 + [[torch.nan, torch.nan]])
    whole, draws = (score(samples, masks, drawn=drawn, spacing=spacing) for drawn in ("support", "independent"))
    for b in range(6):
        areas, drawn = (samples[b] >= 0.5).sum((1, 2)).numpy(), masks[b].sum((1, 2)).numpy()
        x = np.arange(65)
        below = (areas[:, None] <= x).mean(0)
        crps = np.mean([((below - (x >= a)) ** 2).sum() for a in drawn])
        assert whole.column("area_crps")[b] == pytest.approx(crps)
        assert whole.column("area_crps_mm2")[b] == pytest.approx(crps * 0.35 if b < 5 else np.nan, nan_ok=True)
        pairs = np.abs(areas[:, None] - areas).sum() / (5 * 4)
        fair = np.mean([np.abs(areas - a).mean() for a in drawn]) - pairs / 2
        assert draws.column("area_crps")[b] == pytest.approx(fair)


def test_risk_coverage_areas_and_failure_equal_loops_and_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    risk, u = rng.random(60), rng.integers(0, 20, 60) / 20
    names = np.array([f"{i:02d}" for i in range(60)])
    scores = Scores(names, names, {"risk": risk, "uncertainty_mean": u}, 1, "support")
    aurc = np.mean([risk[u <= v].mean() for v in u])
    assert figure("aurc_mean").value(scores) == pytest.approx(aurc)
    best = np.mean(np.cumsum(np.sort(risk)) / np.arange(1, 61))
    assert figure("eaurc_mean").value(scores) == pytest.approx(aurc - best)
    assert figure("failure_auroc_mean").value(scores) == pytest.approx(roc_auc_score(risk > 0.5, u))


def test_pixel_figures_equal_scikit_learn_and_numpy() -> None:
    noise = generator("pixels")
    samples, masks = torch.rand(4, 4, SIDE, SIDE, generator=noise), torch.rand(4, R, SIDE, SIDE, generator=noise) > 0.6
    scores = score((samples * 8).round() / 8, masks)  # binary fractions: ties are exact
    for b in range(4):
        p, y = ((samples[b] * 8).round() / 8).double().mean(0).numpy(), masks[b].double().mean(0).numpy()
        u = np.nan_to_num(entropy(p))
        wrong = (p.astype(np.float32) >= 0.5) != (y >= 0.5)
        shown = u.round(6).ravel()
        assert scores.column("error_auprc")[b] == pytest.approx(average_precision_score(wrong.ravel(), shown), abs=1e-6)
        share = (p >= 0.5).mean()
        above = u[u >= np.quantile(u, 1 - share, method="higher")]
        highest = np.sort(u.ravel())[::-1][: int((p >= 0.5).sum())]
        assert scores.column("uncertainty_top")[b] == pytest.approx(highest.mean(), rel=1e-5)
        assert above.min() == pytest.approx(highest.min())
        assert scores.column("uncertainty_sum")[b] == pytest.approx(u.sum(), rel=1e-5)
        spread = ((samples[b] * 8).round() / 8).double().numpy().std(0)
        assert scores.column("ncc_std")[b] == pytest.approx(correlation(spread, y * (1 - y)), abs=1e-5)
        soft = [f1_score((y >= t).ravel(), (p >= t).ravel(), zero_division=1) for t in (0.1, 0.3, 0.5, 0.7, 0.9)]
        assert scores.column("soft_dice")[b] == pytest.approx(np.mean(soft), abs=1e-6)


def test_hits_are_counted_by_image() -> None:
    assert hit_counts(np.array([0, 2, 2, np.nan, 4]), 4).tolist() == [1, 0, 2, 0, 1]
    with pytest.raises(ValueError, match="members: expected at least the most hits of an image, 4"):
        hit_counts(np.array([4.0]), 3)


def test_calibration_sums_do_not_depend_on_the_order_of_pixels() -> None:
    noise = generator("order")
    p, masks = torch.rand(2, 1, 16, 16, generator=noise), torch.rand(2, 3, 16, 16, generator=noise) > 0.5
    turn = torch.randperm(256, generator=noise)
    turned = [x.flatten(2)[..., turn].view(x.shape) for x in (p, masks)]
    assert torch.equal(reliability(p[:, 0], masks), reliability(turned[0][:, 0], turned[1]))


def test_fine_bins_are_those_of_the_log_odds() -> None:
    """Half is the lower edge of a bin, and so is every number whose log-odds are."""
    p = np.r_[0, 1e-7, 0.5, 1, np.nextafter(np.float32(0.5), np.float32(0)), np.linspace(0, 1, 995)].astype(np.float32)
    q = np.clip(p.astype(float), 1e-6, 1 - 1e-6)
    index = np.clip(np.floor((np.log(q) - np.log1p(-q) + 9) * (60 / 18)), 0, 59).astype(int)
    samples, masks = torch.from_numpy(p).view(1, 1, 20, 50), torch.ones(1, 1, 20, 50, dtype=torch.bool)
    n, total, marked = score(samples, masks, statistics=["reliability_fine"]).values["reliability_fine"][0]
    assert n.tolist() == marked.tolist() == np.bincount(index, minlength=60).tolist()
    assert total == pytest.approx(np.bincount(index, p, minlength=60))


@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_computed_by_blocks_equals_numpy_in_an_image_of_several(weighted: bool) -> None:
    noise = generator("blocks")
    p, masks = torch.rand(2, 9, 96, 85, generator=noise), torch.rand(2, 2, 96, 85, generator=noise) > 0.7
    w = torch.rand(2, 9, generator=noise, dtype=torch.float64) if weighted else torch.ones(2, 9, dtype=torch.float64)
    w /= w.sum(1, keepdim=True)
    scored = Scored(p, masks, weights=w if weighted else None)
    x, share, y = p.flatten(2).double().numpy(), w.numpy()[..., None], masks.flatten(2).numpy()
    mean = (share * x).sum(1)
    assert np.allclose(scored.prob, mean, 1e-6)
    assert np.allclose(scored.std, np.sqrt((share * (x - mean[:, None]) ** 2).sum(1)), 1e-6)
    likelihood = [[[np.log(np.where(r, s, 1 - s)).sum() for r in ys] for s in xs] for xs, ys in zip(x, y, strict=True)]
    assert np.allclose(scored.logs.likelihood, likelihood, 1e-6)


@pytest.mark.parametrize(("height", "width"), [(7, 25), (16, 3), (11, 10)])
def test_patches_are_as_large_as_the_image_allows(height: int, width: int) -> None:
    p = torch.rand(1, 1, height, width, generator=generator("patch", height))
    a, b = min(height, 10), min(width, 10)
    means = np.lib.stride_tricks.sliding_window_view(entropy(p[0, 0].double().numpy()), (a, b)).mean((2, 3))
    value = score(p, p >= 0.5, statistics=["uncertainty_patch"]).values["uncertainty_patch"]
    assert value == pytest.approx([means.max()], rel=1e-6)


def test_all_columns_keep_with_order_batches_weights_and_absent_readers() -> None:
    noise = generator("invariance")
    samples, masks = torch.rand(6, 5, 12, 12, generator=noise), torch.rand(6, 4, 12, 12, generator=noise) > 0.6
    weights = torch.rand(6, 5, generator=noise, dtype=torch.float64)
    weights /= weights.sum(1, keepdim=True)
    read = torch.rand(6, 4, generator=noise) > 0.3
    read[:, 1] = True
    before = [x.clone() for x in (samples, masks, read, weights)]

    def scored(turn: bool = False, rows: slice = slice(None)) -> Scores:
        parts = [x[rows].flip(1) if turn else x[rows] for x in (samples, masks, read, weights)]
        return score(*parts[:3], weights=parts[3])

    whole, turned = scored(), scored(turn=True)
    parts = Scores.concatenate([scored(rows=slice(k, k + 1)) for k in range(6)])
    for name in (*whole.values, *derivations()):
        same = np.allclose(whole.column(name), parts.column(name), rtol=1e-6, atol=1e-6, equal_nan=True)
        assert same, name
        x, y = whole.column(name), turned.column(name)
        if name == "overlaps":
            x, y = (np.concatenate([np.sort(z[..., :-1]), z[..., -1:]], -1) for z in (x, y))
        if name == "areas_readers":
            x, y = (np.concatenate([np.sort(z[:, :-1]), z[:, -1:]], 1) for z in (x, y))
        assert name.endswith("_first") or np.allclose(x, y, rtol=1e-5, atol=1e-6, equal_nan=True), name
    assert all(torch.equal(a, b) for a, b in zip(before, (samples, masks, read, weights), strict=True))
    for f in figures():
        low, high = f.range
        for k in range(6):
            value = f.value(whole.take([k]))
            assert np.isnan(value) or low - 1e-9 <= value <= high + 1e-9, f.name
