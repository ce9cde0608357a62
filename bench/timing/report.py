"""Measures sections of the timing report, and makes the page of all that were measured."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench.report.tables import markdown
from bench.runs.record import machine
from bench.timing import command, each, growth, launch, record, scale
from bench.timing.measure import limits
from bench.timing.outcome import Measured, Setting
from bench.timing.record import Record
from bench.timing.sections import OVER_LIMIT, SECTIONS
from uqseg.device import pick_device
from uqseg.errors import FileError, unknown
from uqseg.files import write as write_file

ALL: dict[str, Callable[[Setting], Measured]] = {
    **SECTIONS, "scale": scale.section, "launch": launch.section, "methods": each.section, "bench": command.section,
}  # fmt: skip


def write(folder: Path, only: Sequence[str], device: str, quick: bool, commit: str, log: Callable[[str], None]) -> None:
    """Measure the sections in `only` (default all of ALL). As soon as one is measured, it is written to `folder`, and
    report.md anew from it and all sections that were there."""
    for name in only:
        if name not in ALL:
            raise unknown("timing section", name, tuple(ALL))
    chosen, started = pick_device(device), time.perf_counter()
    record.read_all(folder)  # before any work: a page cannot be made with a broken record
    log("limits of the machine")
    at = Setting(chosen, limits(chosen, 1024 if quick else 2048), quick)
    about = machine(chosen)
    for name in [n for n in ALL if not only or n in only]:
        log(f"{name} ({time.perf_counter() - started:.0f} s)")
        begun = Record(
            section=name, kind=record.kind_of(chosen), imitated="ATEN_CPU_CAPABILITY" in os.environ,
            when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), commit=commit, machine=about,
            load=os.getloadavg()[0], processors=os.cpu_count() or 1, limits=at.limits, quick=quick, measured=Measured(),
        )  # fmt: skip
        record.save(folder, replace(begun, measured=ALL[name](at)))
        page(folder)
    log(f"Report: {folder / 'report.md'} ({time.perf_counter() - started:.0f} s)")


KINDS: dict[str, Callable[[str], bool]] = {
    "a processor with bf16": lambda kind: kind.startswith("cpu-") and kind.endswith("-bf16"),
    "a processor without bf16": lambda kind: kind.startswith("cpu-") and not kind.endswith("-bf16"),
    "CUDA": lambda kind: kind.startswith("cuda-"),
}
"""What this project is to be fast on, and which kinds of records are of it."""


def page(folder: Path) -> None:
    """Write report.md and its pictures from the sections in `folder`, one kind of machine after another."""
    kept = [r for r in record.read_all(folder) if r.section in ALL]
    kept.sort(key=lambda r: (r.kind, list(ALL).index(r.section)))
    if not kept:
        raise FileError(f"{folder} holds no measured section; measure them: uqseg time --to {folder}")
    parts = [HEAD, _conditions(kept)]
    for title, is_one in KINDS.items():
        kinds = list(dict.fromkeys(r.kind for r in kept if is_one(r.kind)))
        parts += [] if kinds else [f"## {title.capitalize() if title != 'CUDA' else title}\n\nNot at hand."]
        for kind in kinds:
            sections = [r for r in kept if r.kind == kind]
            parts += [f"## On {kind}", _goals(sections), *(_section(r, folder) for r in sections)]
    write_file(folder / "report.md", ("\n\n".join([*parts, TRIED]) + "\n").encode())


HEAD = (
    "# Time and memory\n\nMedians of measurements in turns (plain, ours, plain, …) after one unmeasured turn, short "
    "works repeated to 50 ms a turn; "
    "a ratio is the median over turns with the smallest and the largest in brackets. *Clock*: *wall* is the time that "
    "passes, *processor* what all threads compute, which on two threads is up to twice as much. *Plain* is "
    "`baselines/peers/plain.py`: float32, channels first, loops; tests hold both ways equal. What stands here, and "
    "more digits of it, is in the JSON file of each section."
)


TRIED = """## Tried and taken out

Measured on two cores of an AMD EPYC, before and after in turns:

- Memory kept by the allocator instead of given back (glibc's `mallopt`): a training step of probunet 1.94 s before,
  1.81 s after, drawing samples the same to 6 %. It works with one C library only. Huge pages: nothing.
- Buffers allocated once for the layers after the latent: 100 samples 125 ms before, 123 ms after.
- The 1×1 layers of the probabilistic U-Net with their ReLU in one operator of the library below torch: a tenth less of
  their time, by an operator that is not public. In bf16 they gained from 32 channels on (100 samples of four images
  0.162 s before, 0.139 s after); on an Intel Xeon they lose there (0.278 s in bf16, 0.263 s in float32), so bf16 begins
  at 64 channels.
- The interpolation's backward pass written by hand: slower than the library's once its gradient has no gaps (5.5 ms
  against 3.6 ms at 128 channels, 64×64).
- Only the pixels that some mask holds instead of the box around them: choosing them took 1.2 ms of four images' 2.7,
  where the product took 1.4."""


def _conditions(kept: Sequence[Record]) -> str:
    rows = []
    for r in kept:
        at = r.limits
        busy = " **busy**" if r.load > 2 * r.processors else ""
        rows.append([
            r.kind + (" (imitated)" if r.imitated else ""), r.section + (" (--quick)" if r.quick else ""),
            r.when, r.commit,
            f"{r.machine['device']}, {r.machine['threads']} threads", f"{r.load:.1f}{busy}",
            f"{at.fp32 / 1e9:,.0f}", f"{at.bf16 / 1e9:,.0f}", f"{at.bandwidth / 1e9:.1f}",
            f"Python {r.machine['python']}, torch {r.machine['torch']}, NumPy {r.machine['numpy']}",
        ])  # fmt: skip
    columns = ["on", "section", "began", "commit", "machine", "load", "fp32", "bf16", "copy", "with"]
    lines = [
        "## Conditions",
        markdown(pd.DataFrame(rows, columns=columns)),
        "load: processes that ran or waited in the minute before, a run's own earlier sections included; busy: more "
        "than two a processor, numbers not to be relied on. fp32, bf16: GFLOP/s of a large matrix product, copy: GB/s, "
        "measured at the start of the run. +: with changes on top of the commit. --quick: small sizes, few turns. "
        "imitated: instructions that the processor has were hidden from the program.",
    ]
    return "\n\n".join(lines)


def _goals(kept: Sequence[Record]) -> str:
    rows = []
    for part in (r.measured for r in kept):
        for c in part.compared:
            if c.goal is not None:
                measured = f"{beside(c.ratio.median, c.goal)}× [{c.ratio.low:.3g}, {c.ratio.high:.3g}]"
                met = c.ratio.median >= c.goal
                rows.append([f"{c.what}: {c.ours}", f"≥ {c.goal:g}×", measured, _most(part, c.what), met,
                             _obstacle(part, c.what)])  # fmt: skip
        for s in part.shares:
            if s.goal is not None:
                measured, met = f"{beside(100 * s.share, 100 * s.goal)}%", s.share >= s.goal
                rows.append([f"{s.what}: share of {s.limit}", f"≥ {s.goal:.0%}", measured, "100%", met,
                             _obstacle(part, s.what)])  # fmt: skip
        for b in part.budgets:
            wanted, measured = (f"{text} {b.unit}" for text in (f"≤ {b.at_most:g}", beside(b.cost, b.at_most)))
            rows.append([b.what, wanted, measured, "–", b.cost <= b.at_most, _obstacle(part, b.what)])
    table = pd.DataFrame(
        [[*r[:4], "met" if r[4] else "**not met**", "" if r[4] else r[5]] for r in rows],
        columns=["goal", "wanted", "measured", "at most", "", "obstacle"],
    )
    body = markdown(table) if rows else "None in these sections."
    return f"""### Goals

{body}

*At most*: what would be reached if the matrix products of the same layers ran at the machine's limit and all else took
no time. *Obstacle*: what most of the time goes to, by the profile of the same name below. –: not measured."""


GROUPS = {
    "conv": "convolutions", "batch_norm": "normalisation", "mm": "matrix products", "clamp_min": "ReLU",
    "threshold": "ReLU", "copy_": "copies", "cat": "copies", "upsample": "interpolation",
}  # fmt: skip
"""What operators do that have these letters in their names."""


def _obstacle(part: Measured, what: str) -> str:
    """A sentence of the two things that took most of the profiled time; – without a profile."""
    shares: Counter[str] = Counter()
    for row in part.profiles.get(what, []):
        operator = row["operator"].removeprefix("aten::")
        shares[next((group for letters, group in GROUPS.items() if letters in operator), operator)] += row["share"]
    parts = [f"{group} {share:.0%}" for group, share in shares.most_common(2)]
    return f"Its time goes to {', '.join(parts)}." if parts else "–"


def _most(part: Measured, what: str) -> str:
    """How many times faster than the plain way the machine's limits allow `what` to be."""
    kept = [s for s in part.shares if s.what == f"{what}{OVER_LIMIT}"]
    return ", ".join(f"{1 / s.share:.1f}× in {s.limit}" for s in kept) or "–"


def beside(value: float, goal: float) -> str:
    """`value` with three digits, or as many more as it takes to show on which side of `goal` it lies."""
    texts = (f"{value:.{digits}g}" for digits in range(3, 18))
    return next(text for text in texts if np.sign(float(text) - goal) == np.sign(value - goal))


def _section(of: Record, folder: Path) -> str:
    part = of.measured
    lines = [f"### {of.section.capitalize()}", " ".join((ALL[of.section].__doc__ or "").split())]
    if part.compared:
        rows = [
            [c.what, c.other, _ms(c.seconds_other), c.ours, _ms(c.seconds_ours), str(c.ratio), c.clock]
            for c in part.compared
        ]
        columns = ["what", "other", "ms", "way", "ms ", "times faster", "clock"]
        lines.append(markdown(pd.DataFrame(rows, columns=columns)))
    if part.shares:
        shares = [[s.what, _ms(s.seconds), s.work, s.limit, f"{100 * s.share:.3g}%"] for s in part.shares]
        lines.append(markdown(pd.DataFrame(shares, columns=["what", "ms", "work", "limit", "share"])))
    if part.curves:
        lines += [f"![{p}]({p})" for p in growth.plot(part.curves, folder, of.kind)]
        lines += [growth.powers(part.curves), growth.points(part.curves)]
    lines += [f"- {note}" for note in part.notes]
    for what, rows_of in part.profiles.items():
        table = pd.DataFrame(
            [[r["operator"], str(r["calls"]), f"{r['ms']:.1f}", f"{r['share']:.0%}"] for r in rows_of],
            columns=["operator", "calls", "ms", "share"],
        )
        lines.append(f"<details><summary>Profile: {what}</summary>\n\n{markdown(table)}\n\n</details>")
    return "\n\n".join(lines)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g}" if seconds < 1 else f"{1000 * seconds:,.0f}"
