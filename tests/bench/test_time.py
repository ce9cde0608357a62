"""The timing report: sections are kept one by one, its page shows all of them, and growth is what it is called."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.runs import plan
from bench.timing import command, record, report, scale
from bench.timing.measure import Limits, Ratio
from bench.timing.outcome import Budget, Compared, Curve, Measured, Point
from tests.bench.conftest import bench
from uqseg import methods

ROOT = Path(report.__file__).parents[2]


def kept(**changes: object) -> record.Record:
    """A section that was measured before."""
    machine: dict[str, str | int] = {"device": "abacus", "threads": 1, "python": "3", "torch": "2", "numpy": "2"}
    fields = {"section": "start", "kind": "cpu-avx2", "imitated": False, "when": "once", "commit": "0a1b2c"}
    fields |= {
        "machine": machine,
        "load": 9.0,
        "processors": 2,
        "limits": Limits(1e9, 2e9, 3e9),
        "quick": False,
        "measured": Measured(notes=["it began"]),
    }
    return record.Record(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_measured_section_joins_those_that_were_there(tmp_path: Path) -> None:
    here = record.kind_of(torch.device("cpu"))
    record.save(tmp_path, kept(kind=here))
    answer = bench("time", "--only", "metrics", "--quick", "--device", "cpu", "--to", tmp_path)
    assert answer.code == 0, answer.err
    section, start = record.read_all(tmp_path)
    assert (section.quick, section.section, len(section.measured.compared)) == (True, "metrics", 2)
    assert start == kept(kind=here)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert page.index("## Metrics") < page.index("## Start") < page.index("- it began")
    assert "metrics (--quick)" in page
    (line,) = (line for line in page.splitlines() if line.startswith("| ") and " start " in line)
    assert [cell.strip() for cell in line.split("|")[2:10]] == [
        "start", "once", "0a1b2c", "abacus, 1 threads", "9.0 **busy**", "1", "2", "3.0"
    ]  # fmt: skip


@pytest.mark.integration
def test_every_section_is_measured_and_joins_the_page(tmp_path: Path) -> None:
    command = f"-m bench time --quick --device cpu --to {tmp_path}"
    answer = subprocess.run([sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    sections = {section.section: section for section in record.read_all(tmp_path)}
    assert sections.keys() == report.ALL.keys()
    for name, section in sections.items():
        assert section.quick
        assert f"## {name.capitalize()}" in page
    assert all(curve.points[0].seconds for curve in sections["scale"].measured.curves)
    costs = [share.what for share in sections["methods"].measured.shares]
    for name in methods.names():
        assert [what for what in costs if f", {name}, " in what], name


@pytest.mark.integration
def test_the_benchmarks_of_every_method_run_on_small_images() -> None:
    small = (
        "import sys, pytest; from bench.timing import test_speed as module; "
        "module.SIZE, module.BATCH, module.SAMPLES = 32, 2, 2; "
        "sys.exit(pytest.main('bench/timing --benchmark-disable -vv -p no:cacheprovider'.split()))"  # each once
    )
    answer = subprocess.run([sys.executable, "-c", small], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout
    for name in methods.names():
        assert f"test_samples[{name}] PASSED" in answer.stdout


def test_a_broken_record_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "data-cpu-avx2.json").write_text('{"section": "data"')
    answer = bench("time", "--only", "start", "--to", tmp_path)
    assert answer.code == 1
    assert "data-cpu-avx2.json" in answer.err
    assert "--only data" in answer.err


def test_the_committed_page_can_be_made_again(tmp_path: Path) -> None:
    root = ROOT / "reports/timing"
    for file in root.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert bench("time", "--page", "--to", tmp_path).code == 0
    assert (tmp_path / "report.md").read_bytes() == (root / "report.md").read_bytes()


def test_a_page_of_nothing_is_refused(tmp_path: Path) -> None:
    answer = bench("time", "--page", "--to", tmp_path)
    assert answer.code == 1
    assert "holds no measured section" in answer.err
    assert not list(tmp_path.iterdir())


def test_each_kind_of_machine_has_a_block_of_its_own(tmp_path: Path) -> None:
    """What one measures leaves the others' sections as they were."""
    for kind in ("cpu-avx2", "cuda-nvidia-h100"):
        record.save(tmp_path, kept(kind=kind, imitated=kind == "cpu-avx2", measured=Measured(notes=[f"by {kind}"])))
    report.page(tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## A processor with bf16\n\nNot at hand." in page
    ends = ["## On cpu-avx2", "- by cpu-avx2", "## On cuda-nvidia-h100", "- by cuda-nvidia-h100"]
    assert [page.count(text) for text in ends] == [1, 1, 1, 1]
    assert sorted(ends, key=page.index) == ends
    assert "| cpu-avx2 (imitated) " in page


@pytest.mark.parametrize(("hidden", "suffix"), [({}, ""), ({"ATEN_CPU_CAPABILITY": "avx2"}, "cpu-avx2")])
def test_the_kind_of_a_processor_is_what_the_program_may_use(hidden: dict[str, str], suffix: str) -> None:
    if hidden and torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("the processor has no AVX2")
    isa = {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"} if hidden else {}
    code = "import torch; from bench.timing.record import kind_of; print(kind_of(torch.device('cpu')))"
    environment = os.environ | hidden | isa
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert answer.stdout.strip() == (suffix or record.kind_of(torch.device("cpu"))), answer.stderr


def test_a_step_is_one_of_those_that_were_measured_together() -> None:
    measured = Measured()
    works = {"plain": lambda: time.sleep(0.02), "ours": lambda: time.sleep(0.01)}
    middle = measured.add("w", works, 3, clock="wall", repeats=2)
    assert middle["ours"] == pytest.approx(0.005, rel=0.5)
    (compared,) = measured.compared
    assert compared.seconds_other == middle["plain"]
    assert compared.ratio.median == pytest.approx(2, rel=0.5)


def test_a_goal_that_is_not_met_says_what_its_time_goes_to(tmp_path: Path) -> None:
    shares = {"convolution_backward": 0.4, "relu": 0.1, "mkldnn_convolution": 0.28, "native_batch_norm": 0.2}
    profile = [{"operator": f"aten::{o}", "calls": 1, "ms": 1.0, "share": share} for o, share in shares.items()]
    slow, fast = (Compared("w", "plain", way, 1, 1, Ratio(r, r, r), 2) for way, r in (("slow", 1.0), ("fast", 3.0)))
    measured = Measured([slow, fast], budgets=[Budget("b", 3.0, 2.0)], profiles={"w": profile})
    record.save(tmp_path, kept(measured=measured))
    report.page(tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    rows = [[c.strip() for c in row.split("|")[1:-1]] for row in page.splitlines() if row.startswith(("| w: ", "| b "))]
    assert [row[0:2] + row[4:] for row in rows] == [
        ["w: slow", "≥ 2×", "**not met**", "Its time goes to convolutions 68%, normalisation 20%."],
        ["w: fast", "≥ 2×", "met", ""],
        ["b", "≤ 2 s", "**not met**", "–"],
    ]


def test_the_command_that_is_timed_is_that_of_make_bench() -> None:
    assert f"uqseg run {' '.join(command.WORDS)}\n" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(("seconds", "expected"), [(72, 72), (132, 120), (7200, 7200)])
def test_the_expectation_is_read_from_what_a_run_prints(seconds: float, expected: float) -> None:
    planned = pd.DataFrame([("unet", 0, "score", seconds)], columns=["method", "repetition", "to do", "seconds"])
    assert command.expectation("\n".join(plan.lines(planned, "cpu"))) == expected


def test_a_value_beside_its_goal_shows_on_which_side_it_lies() -> None:
    assert report.beside(69.97, 70) == "69.97"
    assert report.beside(2.4999996, 2.5) == "2.4999996"
    assert report.beside(72.04, 70) == "72"
    assert report.beside(70.0, 70) == "70"
    assert report.beside(70.04, 70) == "70.04"


def line(power: int, allowed: int, *points: tuple[int, float | None, int | None]) -> Curve:
    return Curve("c", "pixels a side", power, allowed, [Point(*p) for p in points])


def test_growth_is_the_slope_between_the_last_two_points_that_are_known() -> None:
    sides = line(2, 1, (32, 7.0, 10), (64, 1.0, 100), (128, 4.0, 1600), (256, None, None))
    assert sides.exponent("seconds") == pytest.approx(1)  # four times as many pixels, four times as long
    assert sides.exponent("memory") == pytest.approx(2)
    assert sides.exponent("memory", least=100) is None
    assert line(1, 1, (1, 2.0, 0)).exponent("seconds") is None


def test_only_what_grows_faster_than_it_may_is_flagged(tmp_path: Path) -> None:
    square = [(10, 1.0, 0), (100, 100.0, 0)]
    measured = Measured(curves=[line(1, 1, *square), line(1, 2, *square)])
    record.save(tmp_path, kept(section="scale", measured=measured))
    report.page(tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    rows = [[c.strip() for c in row.split("|")[3:7]] for row in page.splitlines() if row.startswith("| c ")]
    assert rows[:2] == [["2.00", "–", "1", "**faster**"], ["2.00", "–", "2", ""]]
    assert (tmp_path / "scale-pixels-a-side-cpu-avx2.png").stat().st_size > 1000


def test_a_curve_ends_before_what_takes_too_long() -> None:
    # A work of n things that "takes" n seconds.
    curve = scale.curve("c", scale.Plan("things", float, (1, int(scale.LONGEST) + 1, 1)))
    assert [p.seconds for p in curve.points] == [1, None, None]


def test_memory_of_its_own_grows_with_what_is_filled() -> None:
    before = scale.own_memory()
    fresh = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # no pages that were used before
    np.frombuffer(fresh, np.uint8)[:] = 1
    assert scale.own_memory() - before == pytest.approx(len(fresh), rel=0.1)
