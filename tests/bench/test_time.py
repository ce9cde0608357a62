"""The timing report: sections are kept one by one, its page shows all of them, and growth is what it is called."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.timing import record, report, scale
from bench.timing.measure import Limits
from bench.timing.sections import Curve, Measured, Point
from tests.bench.conftest import bench
from uqseg import methods

ROOT = Path(report.__file__).parents[2]


def kept(**changes: object) -> record.Record:
    """A section that was measured before."""
    machine: dict[str, str | int] = {"device": "abacus", "threads": 1, "python": "3", "torch": "2", "numpy": "2"}
    fields = {"section": "start", "when": "once", "commit": "0a1b2c", "machine": machine, "cuda": False, "load": 9.0}
    fields |= {
        "processors": 2,
        "limits": Limits(1e9, 2e9, 3e9),
        "quick": False,
        "measured": Measured(notes=["it began"]),
    }
    return record.Record(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_measured_section_joins_those_that_were_there(tmp_path: Path) -> None:
    record.save(tmp_path, kept())
    answer = bench("time", "--only", "metrics", "--quick", "--device", "cpu", "--to", tmp_path)
    assert answer.code == 0, answer.err
    section = record.read(tmp_path, "metrics")
    assert section is not None
    assert (section.quick, section.section, len(section.measured.compared)) == (True, "metrics", 2)
    assert record.read(tmp_path, "start") == kept()
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert page.index("## Metrics") < page.index("## Start") < page.index("- it began")
    assert "metrics (--quick)" in page
    (line,) = (line for line in page.splitlines() if line.startswith("| start "))
    assert [cell.strip() for cell in line.split("|")[2:9]] == [
        "once", "0a1b2c", "abacus, 1 threads", "9.0 **busy**", "1", "2", "3.0"
    ]  # fmt: skip


@pytest.mark.integration
def test_every_section_is_measured_and_joins_the_page(tmp_path: Path) -> None:
    command = f"-m bench time --quick --device cpu --to {tmp_path}"
    answer = subprocess.run([sys.executable, *command.split()], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    for name in report.ALL:
        section = record.read(tmp_path, name)
        assert section is not None, name
        assert section.quick
        assert f"## {name.capitalize()}" in page
    growth = record.read(tmp_path, "scale")
    assert growth is not None
    assert all(curve.points[0].seconds for curve in growth.measured.curves)


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
    (tmp_path / "data.json").write_text('{"section": "data"')
    answer = bench("time", "--only", "start", "--to", tmp_path)
    assert answer.code == 1
    assert "data.json" in answer.err
    assert "--only data" in answer.err


def test_the_committed_page_can_be_made_again(tmp_path: Path) -> None:
    root = ROOT / "reports/timing"
    for file in root.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    report.page(tmp_path)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    training = record.read(root, "training")
    assert training is not None
    assert all(f"{c.what} " in page for c in training.measured.compared)


def test_a_value_beside_its_goal_shows_on_which_side_it_lies() -> None:
    assert report.beside(69.97, 70) == "69.97"
    assert report.beside(2.4999996, 2.5) == "2.4999996"
    assert report.beside(72.04, 70) == "72"
    assert report.beside(70.0, 70) == "70"


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
    assert (tmp_path / "scale-pixels-a-side.png").stat().st_size > 1000


def test_a_curve_ends_before_what_takes_too_long() -> None:
    # A work of n things that "takes" n seconds.
    curve = scale.curve("c", scale.Plan("things", float, (1, int(scale.LONGEST) + 1, 1)))
    assert [p.seconds for p in curve.points] == [1, None, None]


def test_memory_of_its_own_grows_with_what_is_filled() -> None:
    before = scale.own_memory()
    fresh = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # no pages that were used before
    np.frombuffer(fresh, np.uint8)[:] = 1
    assert scale.own_memory() - before == pytest.approx(len(fresh), rel=0.1)
