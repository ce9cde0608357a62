"""Runs the timing and writes reports/timing: tables as Markdown and CSV, pictures, profiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bench.report.tables import markdown
from bench.runner import machine
from bench.timing import scale
from bench.timing.measure import limits
from bench.timing.sections import SECTIONS, Found, Setting
from uqseg.device import pick_device
from uqseg.errors import unknown

NAMES = (*SECTIONS, "scale")


def write(folder: Path, only: Sequence[str], device: str, quick: bool, say: Callable[[str], None]) -> None:
    """Measure the sections in `only` (all of NAMES by default) and write report.md with its tables to `folder`."""
    for name in only:
        if name not in NAMES:
            raise unknown("timing section", name, NAMES)
    chosen, where = [n for n in NAMES if not only or n in only], pick_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    say("limits of the machine")
    at = Setting(where, limits(where, 1024 if quick else 2048), quick)
    found: dict[str, Found] = {}
    for name in chosen:
        if name in SECTIONS:
            say(f"{name} ({time.perf_counter() - started:.0f} s)")
            found[name] = SECTIONS[name](at)
    parts = [_head(at)]
    parts += [_section(name, SECTIONS[name].__doc__ or "", part, folder) for name, part in found.items()]
    if "scale" in chosen:
        say(f"scale ({time.perf_counter() - started:.0f} s)")
        parts.append(_scale(folder, quick))
    _write_csv(folder, found)
    parts.insert(1, _goals(found))
    parts.append(f"Measured in {time.perf_counter() - started:.0f} s.")
    (folder / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    say(f"Report: {folder / 'report.md'}")


def _head(at: Setting) -> str:
    about, now = machine(), at.limits
    load = os.getloadavg()[0]
    busy = " **The machine was busy: the numbers are not to be relied on.**" if load > 2 * (os.cpu_count() or 1) else ""
    cuda = "" if torch.cuda.is_available() else " CUDA: not measured, there was no such device."
    kind = torch.cuda.get_device_name() if at.device.type == "cuda" else about["device"]
    return (
        "# Time and memory\n\nMedians of measurements in turns (plain, ours, plain, …) after one unmeasured turn; "
        "a ratio is the median over turns with the smallest and the largest in brackets. *Plain* is "
        "`baselines/peers/plain.py`: float32, channels first, loops; tests hold both ways equal.\n\n"
        f"{kind}, {about['threads']} threads, load {load:.1f} when it began. Python {about['python']}, torch "
        f"{about['torch']}, NumPy {about['numpy']}.{busy}{cuda}{' Small sizes (--quick).' if at.quick else ''}\n\n"
        f"Limits measured in this run: {_rate(now.fp32)} in fp32 and {_rate(now.bf16)} in bf16 (matrix product), "
        f"{now.bandwidth / 1e9:.1f} GB/s (copy)."
    )


def _rate(value: float) -> str:
    return f"{value / 1e9:,.0f} GFLOP/s"


def _goals(found: dict[str, Found]) -> str:
    rows = []
    for part in found.values():
        for c in part.compared:
            if c.goal is not None:
                met = "met" if c.ratio.median >= c.goal else "**not met**"
                rows.append([f"{c.what}: {c.ours}", f"≥ {c.goal:g}×", str(c.ratio), met])
        for s in part.shares:
            if s.goal is not None:
                met = "met" if s.share >= s.goal else "**not met**"
                rows.append([f"{s.what}: share of {s.limit}", f"≥ {s.goal:.0%}", f"{s.share:.0%}", met])
    table = markdown(pd.DataFrame(rows, columns=["goal", "wanted", "measured", ""])) if rows else "None in this run."
    return f"## Goals\n\n{table}\n\nWhere a goal is not met, the shares and profiles below show what the time goes to."


def _section(name: str, about: str, part: Found, folder: Path) -> str:
    lines = [f"## {name.capitalize()}", about.strip()]
    if part.compared:
        rows = [
            [c.what, c.other, _ms(c.seconds_other), c.ours, _ms(c.seconds_ours), str(c.ratio)] for c in part.compared
        ]
        lines.append(markdown(pd.DataFrame(rows, columns=["what", "other", "ms", "way", "ms ", "times faster"])))
    if part.shares:
        shares = [[s.what, _ms(s.seconds), s.work, s.limit, f"{s.share:.0%}"] for s in part.shares]
        lines.append(markdown(pd.DataFrame(shares, columns=["what", "ms", "work", "limit", "share"])))
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


def _write_csv(folder: Path, found: dict[str, Found]) -> None:
    ratios = [
        {"section": name, **{k: v for k, v in vars(c).items() if k != "ratio"}, **asdict(c.ratio)}
        for name, part in found.items()
        for c in part.compared
    ]
    shares = [{"section": name, **vars(s)} for name, part in found.items() for s in part.shares]
    profiles = [
        {"what": what, **row} for part in found.values() for what, rows in part.profiles.items() for row in rows
    ]
    for file, lines in {"ratios": ratios, "shares": shares, "profiles": profiles}.items():
        if lines:
            pd.DataFrame(lines).to_csv(folder / f"{file}.csv", index=False)


def _scale(folder: Path, quick: bool) -> str:
    table = scale.curves(quick)
    table.to_csv(folder / "scale.csv", index=False)
    pictures = scale.plot(table, folder)
    rows = [
        [r["curve"], f"{r['value']:,} {r['axis']}", f"{r['seconds']:.3g}" if np.isfinite(r["seconds"]) else "–",
         f"{r['bytes'] / 1e6:,.0f}" if np.isfinite(r["bytes"]) else "–"]
        for r in table.to_dict("records")
    ]  # fmt: skip
    shown = markdown(pd.DataFrame(rows, columns=["what", "at", "seconds", "MB"]))
    links = "\n\n".join(f"![{p}]({p})" for p in pictures)
    about = (
        "One image where nothing else is said; each point once, in a process of its own. MB: growth of the memory that "
        "belongs to the process; pages of the memory-mapped cache do not count, the system takes them back when it "
        "needs them (a million images at 128² with four masks are 82 GB). – : would take more than "
        f"{scale.LONGEST:.0f} s, or did not fit."
    )
    return f"## Scale\n\n{about}\n\n{links}\n\n{shown}"
