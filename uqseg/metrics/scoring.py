"""Scoring: samples and readers in, Scores out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from uqseg.errors import unknown
from uqseg.metrics.registry import Drawn, Floats, Statistic, figures, needs_several_readers, statistics
from uqseg.metrics.scored import Array, Scored
from uqseg.metrics.scores import Scores
from uqseg.metrics.threshold import mean_of_defined
from uqseg.samples import Samples

PART = 2**20
"""Samples times pixels that are scored at a time at most, so that intermediate results stay in a processor's cache."""


def score(
    samples: Samples | Array,
    masks: Array,
    read: Array | None = None,
    *,
    weights: Array | None = None,
    drawn: Drawn = "independent",
    spacing: Array | None = None,
    statistics: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    patients: Sequence[str] | None = None,
) -> Scores:
    """Statistics of each case, all or those named.

    samples: Samples, or float (B,S,H,W) in [0,1], or bool hypotheses, then with weights (B,S) and drawn; masks, read,
    spacing as in Scored. cases: names, default their numbers; patients: default each case its own. Images are scored in
    parts of bounded memory; no statistic depends on the other images.
    """
    if isinstance(samples, Samples):
        weights, drawn, samples = samples.weights, samples.drawn, samples.prob
    if drawn not in get_args(Drawn):
        raise ValueError(f"drawn: expected one of {', '.join(get_args(Drawn))}, got {drawn!r}")
    chosen = _chosen(statistics)
    scored = Scored(samples, masks, read, weights, spacing=spacing)  # checks everything before any work
    names = _names("cases", range(scored.B) if cases is None else cases, scored.B)
    owners = names if patients is None else _names("patients", patients, scored.B)
    step = max(1, PART // (scored.S * scored.pixels))
    parts: dict[str, list[Floats]] = {name: [] for name in chosen}
    with torch.inference_mode():
        for start in range(0, scored.B, step):
            part = scored.part(slice(start, start + step))
            for name, statistic in chosen.items():
                parts[name].append(statistic.compute(part).double().cpu().numpy())
    values = {name: np.concatenate(some) for name, some in parts.items()}
    return Scores(names, owners, values, scored.S, drawn)


def _names(argument: str, given: Iterable[object], images: int) -> NDArray[np.str_]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"{argument}: expected a name for each of {images} images, got {given!r}")
    names = np.array([str(name) for name in given], dtype=np.str_)
    if len(names) != images:
        raise ValueError(f"{argument}: expected one for each of {images} images, got {len(names)}")
    return names


def _chosen(names: Sequence[str] | None) -> dict[str, Statistic]:
    known = statistics() if names is None else statistics() | statistics(of_set=True)
    if isinstance(names, str) or not isinstance(names, Iterable | None):
        raise ValueError(f"statistics: expected a list of names or None for all, got {names!r}")
    for name in names or ():
        if name not in known:
            raise unknown("statistic", name, known)
    return known if names is None else {name: known[name] for name in names}


ACROSS = {f.of[0] for f in figures() if f.kind == "cases"} - {c for f in figures() if f.kind == "sums" for c in f.of}
"""Columns of samples that only figures of all cases at once read: without them these figures are undefined."""


def leave_one_out(
    masks: Array,
    read: Array | None = None,
    *,
    spacing: Array | None = None,
    statistics: Sequence[str] | None = None,
    cases: Sequence[str] | None = None,
    patients: Sequence[str] | None = None,
) -> Scores:
    """Scores of the yardstick `human`: each reader in turn against the other readers' masks, mean over the readers.

    masks: bool (B,R,H,W); the others count the same and are independent draws. Every figure compares the R − 1 others
    with ONE reader, so those of two sets (GED, HM-IoU, validity, NCC of samples) do not reach what they would against
    all readers. Undefined is what one reader cannot tell: figures against the majority or the fraction, figures
    across images (there a mean over the readers would put every reader on both sides), and what is measured by the
    readers' variance. `_first` stands for reader 0 alone. An image that fewer than two readers read is undefined in
    every column. All that figures need is stored, since nothing can be derived from means.
    """
    checked = Scored(masks, masks, read, spacing=spacing)
    if checked.R < 2:
        raise ValueError(f"masks: expected at least two readers, one to be left out, got {checked.R}")
    drawn, present = checked.masks.view(checked.B, checked.R, *checked.shape), checked.read
    turns: dict[str, list[Floats]] = {}
    for r in range(checked.R):
        only, others = torch.zeros_like(present), present.clone()
        only[:, r], others[:, r] = True, False
        usable = present[:, r] & others.any(1)
        share = torch.where(usable[:, None], others, True).double()  # unusable rows are scored too, then left out
        one = score(drawn, drawn, only, weights=share / share.sum(1, keepdim=True), drawn="independent",
                    spacing=checked.spacing, statistics=statistics, cases=cases, patients=patients)  # fmt: skip
        for name in (c for c in {c: None for f in figures() for c in f.of} if one.has(c)):
            column = one.column(name).astype(float)
            column[~usable.cpu().numpy()] = np.nan
            untold = name in ACROSS or needs_several_readers(name)
            turns.setdefault(name, []).append(np.full_like(column, np.nan) if untold else column)
    values = {name: mean_of_defined(np.stack(columns), 0) for name, columns in turns.items()}
    return replace(one, values=values, samples=checked.R - 1, averaged=True)
