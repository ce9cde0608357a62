"""Scores in memory and in files, the registry of figures, and all of that without torch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from uqseg.errors import FileError, UsageError
from uqseg.metrics import (
    THRESHOLD_STATISTICS,
    Figure,
    Scored,
    Scores,
    declare,
    derived,
    figure,
    figure_versions,
    figures,
    leave_one_out,
    markdown,
    older_figures,
    read_scores,
    registry,
    score,
    statistic,
    statistics,
    tables,
    write_scores,
)
from uqseg.samples import Samples
from uqseg.seeds import generator

PATIENTS = ["b", "a", "b", "c", "a", "c", "c"]


def some_scores(statistics: tuple[str, ...] | None = None, seed: int = 0) -> Scores:
    noise = generator("scores", seed)
    samples, masks = torch.rand(7, 5, 10, 12, generator=noise), torch.rand(7, 3, 10, 12, generator=noise) > 0.6
    read = torch.ones(7, 3, dtype=torch.bool)
    read[2, 1] = False
    cases = [f"case {seed} {i}" for i in range(7)]
    return score(samples, masks, read, statistics=statistics, cases=cases, patients=PATIENTS)


def same(a: Scores, b: Scores) -> None:
    """Every figure that the one has, the other has."""
    for f in figures():
        assert f.value(a) == pytest.approx(f.value(b), rel=1e-4, abs=1e-6, nan_ok=True), f.name


def test_samples_are_scored_with_their_weights_and_their_kind() -> None:
    noise = generator("one value")
    prob, masks = torch.rand(3, 4, 6, 6, generator=noise), torch.rand(3, 2, 6, 6, generator=noise) > 0.5
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).double().expand(3, 4)
    loose = score(prob, masks, weights=weights, drawn="stratified")
    together = score(Samples(prob, weights, "stratified"), masks)
    assert (together.samples, together.drawn) == (loose.samples, loose.drawn) == (4, "stratified")
    assert all(np.array_equal(together.values[n], x, equal_nan=True) for n, x in loose.values.items())


def test_what_is_written_is_read_with_bins_by_patient_and_each_split_its_own(tmp_path: Path) -> None:
    test, train = some_scores(), some_scores(THRESHOLD_STATISTICS, seed=1)
    write_scores(tmp_path, {"test": test, "train": train})
    stored = read_scores(tmp_path)
    assert list(stored) == ["test", "train"]
    same(test, stored["test"])
    same(train, stored["train"])
    assert set(stored["train"].values) == set(THRESHOLD_STATISTICS)
    assert stored["test"].cases.tolist() == test.cases.tolist()
    assert stored["test"].patients.tolist() == PATIENTS
    assert stored["test"].patient_sums["reliability"][0].shape == (3, 3, 15)
    with pytest.raises(KeyError, match="kept only as sums per patient"):
        stored["test"].column("reliability")
    again = tmp_path / "again"
    again.mkdir()
    write_scores(again, stored)
    same(test, read_scores(again)["test"])
    human = leave_one_out(torch.rand(7, 3, 8, 8) > 0.5, patients=PATIENTS)
    write_scores(again, {"test": human})
    same(human, read_scores(again)["test"])
    assert read_scores(again)["test"].averaged


def test_counts_too_large_for_float32_are_kept_exactly(tmp_path: Path) -> None:
    scores = some_scores()
    many = replace(scores, values=scores.values | {"pixels": np.full(7, 2.0**24 + 1)})
    write_scores(tmp_path, {"test": many})
    assert read_scores(tmp_path)["test"].column("pixels")[0] == 2**24 + 1


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read .*scores\.parquet"):
        read_scores(tmp_path)
    write_scores(tmp_path, {"test": some_scores()})
    (tmp_path / "sums.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(FileError, match=r"cannot read .*sums\.parquet"):
        read_scores(tmp_path)
    with pytest.raises(FileError, match="cannot write"):
        write_scores(tmp_path / "missing", {"test": some_scores()})


def test_sums_and_parts_by_patient() -> None:
    scores = some_scores()
    sums, counts = scores.sums(["ged", "overlaps"])
    assert scores.patient_names.tolist() == ["a", "b", "c"]
    assert sums["ged"] == pytest.approx([scores.column("ged")[np.array(PATIENTS) == p].sum() for p in "abc"])
    assert counts["overlaps"][1, 0].tolist() == [2, 1, 2, 2]
    binned = replace(scores, values={}, patient_sums={n: (s, counts[n]) for n, s in sums.items()})
    whole = binned.take(np.array(PATIENTS) != "b")
    assert whole.sums(["ged"])[0]["ged"] == pytest.approx(sums["ged"][[0, 2]])
    assert not binned.take([0]).has("ged")
    assert len(binned.take([])) == 0
    twice = Scores.concatenate([binned, whole])
    assert twice.sums(["ged"])[0]["ged"] == pytest.approx(sums["ged"] * [2, 1, 2])
    turned = binned.renamed({c: c for c in scores.cases}, {"a": "z", "b": "y", "c": "x"})
    assert turned.patient_names.tolist() == ["x", "y", "z"]
    assert turned.sums(["ged"])[0]["ged"] == pytest.approx(sums["ged"][::-1])
    with pytest.raises(ValueError, match="parts: expected 5 independent samples, got 5 support"):
        Scores.concatenate([scores, replace(scores, drawn="support")])


def test_what_was_not_scored_is_no_figure() -> None:
    few = some_scores(THRESHOLD_STATISTICS)
    assert np.isfinite(figure("dice@0.5").value(few))
    assert np.isnan(figure("ged").value(few))
    with pytest.raises(KeyError, match="'ged' was not scored"):
        few.column("ged")
    with pytest.raises(UsageError, match="Did you mean 'ged'"):
        few.column("gedd")


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a file from outside the tree does: a statistic, one derived from it, a table, and two figures."""
    for name in ("_STATISTICS", "_DERIVED", "_FIGURES", "TABLES"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    registry.TABLES["mine"] = "My figures"

    @statistic("largest", version=3)
    def largest(scored: Scored) -> Tensor:
        """Area of the largest hypothesis."""
        return scored.areas[:, : scored.S].amax(1)

    @derived("largest_share", of=("largest", "pixels"))
    def share(columns: dict[str, np.ndarray], drawn: str) -> np.ndarray:
        return columns["largest"] / columns["pixels"]

    for name in ("largest", "largest_share"):
        declare(Figure(name, name.capitalize(), (name,), "none", ("mine",), "max |h|", "a test", range=(0, np.inf)))


@pytest.mark.usefixtures("plugin")
def test_a_statistic_and_a_figure_from_outside_show_everywhere() -> None:
    scores = some_scores()
    assert tables()["mine"] == "My figures"
    assert [f.name for f in figures("mine")] == ["largest", "largest_share"]
    assert figure("largest").value(scores) == pytest.approx(figure("largest_share").value(scores) * 120)
    assert "| `largest_share` | max" in markdown()
    assert figure("largest_share").statistics == ("pixels", "largest")
    assert figure_versions()["largest_share"] == 3
    assert older_figures({"largest": 2, "pixels": 1}) == ["largest", "largest_share"]
    assert older_figures({"largest": 3}) == []


def test_a_figure_that_is_declared_wrongly_is_refused() -> None:
    with pytest.raises(UsageError, match="expected tables out of summary"):
        declare(replace(figure("ged"), tables=("no",)))
    with pytest.raises(UsageError, match="Did you mean 'ged'"):
        declare(replace(figure("ged"), of=("gde",)))
    with pytest.raises(UsageError, match="a mean is that of one statistic"):
        declare(replace(figure("ged"), of=("ged", "ged_cross")))


def test_the_summary_and_the_definitions() -> None:
    assert [f.name for f in figures("summary")] == ["ged_limit", "ged", "hm_iou", "ece_active", "brier", "dice@0.5"]
    page = markdown()
    for text in ("PHiSeg, BerDiff, CCDM", "two of four readers", "| `ged` (S) |", "`dice@t` pooled", "| `ged@k` (S) |"):
        assert text in page
    assert "| `ged_limit` |" in page
    assert page.count("| `ged` (S) |") == 1
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len({f.family or f.name for f in figures()})
    assert all(line.replace("\\|", "").count("|") == 9 for line in rows)
    assert set(tables()) == set(registry.TABLES)
    assert {f.name for f in figures() if f.depends_on_samples} >= {"ged", "hm_iou", "coverage", "dice_match", "brier",
                                                                   "nll", "mutual_information"}  # fmt: skip
    assert not figure("ged_limit").depends_on_samples
    assert figure("ged_drawn").common_cases


def test_what_a_perfect_sampler_scores_says_which_figures_depend_on_the_number_of_samples() -> None:
    """Readers and samples mark the one pixel of an image with a chance of its own: 32 draws are nearer to it than 2."""
    rng, images = np.random.default_rng(0), 1000
    chance = rng.uniform(0, 1, (images, 1))
    masks, many, few = (rng.random((images, n)) < chance for n in (4, 32, 2))
    a, b = (score(x[..., None, None].astype(np.float32), masks[..., None, None]) for x in (few, many))
    rising = ("presence_ece", "presence_brier", "ece", "ece_active", "ece_adaptive", "ace", "mce", "brier")
    for name, direction in (*((name, 1) for name in rising), ("presence_auroc", -1)):
        assert direction * (figure(name).value(a) - figure(name).value(b)) > 0.02, name
        assert figure(name).depends_on_samples
    assert figure("ged_limit").value(a) == pytest.approx(figure("ged_limit").value(b), abs=0.02)


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["scipy"] = None
from pathlib import Path
from uqseg.metrics import figures, figure_versions, markdown, read_scores, statistics
scores = read_scores(Path(sys.argv[1]))["test"]
print(sum(f.value(scores) == f.value(scores) for f in figures()), len(figure_versions()), len(markdown()))
assert statistics()["ged_cross"].version >= 1
assert not any(name.split(".")[0] == "torch" and module for name, module in sys.modules.items())
try:
    from uqseg.metrics import score
except ImportError:
    print("no scoring without torch")
"""


def test_figures_need_no_torch(tmp_path: Path) -> None:
    write_scores(tmp_path, {"test": some_scores()})
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("no scoring without torch\n")
    defined = sum(np.isfinite(f.value(some_scores())) for f in figures())
    assert run.stdout.startswith(f"{defined} {len(figures())} ")


def test_three_thousand_cases_fit_into_two_megabytes(tmp_path: Path) -> None:
    """Noise compresses worst: scores of few pixels, repeated to 3,137 cases with other numbers in each."""
    noise = np.random.default_rng(0)
    few = some_scores()
    values = {n: np.resize(x, (3137, *x.shape[1:])) * noise.uniform(0.9, 1.1, (3137, *x.shape[1:])).round(3)
              for n, x in few.values.items()}  # fmt: skip
    names = np.array([f"LIDC-IDRI-{i // 18:04d} slice {i}" for i in range(3137)])
    many = Scores(names, np.array([n[:14] for n in names]), values, 5, "independent")
    write_scores(tmp_path, {"test": many})
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 2e6


def test_every_statistic_that_is_stored_is_used() -> None:
    used = {s for f in figures() for s in f.statistics}
    assert set(statistics()) - used == {"member_hits"}  # counted by the report
