"""Whether published rows can be what they are said to be: GED at two numbers of samples."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

ROUNDING = 0.001  # how far the difference of two values printed with three digits may be off
GROUP = ["source", "data", "protocol", "method", "split"]
POSSIBLE, OUTSIDE = "possible", "outside"


def consistency(table: pd.DataFrame) -> pd.DataFrame:
    """Each pair S < S' of published GEDs of one method: 0 ≤ (GED_S − GED_S')/(1/S − 1/S') ≤ 1, where it can be.

    For independent samples of one model under one definition E GED_S = GED_∞ + D/S, with D the expected distance of two
    of its samples, so the quotient is D. table: as of `published`. Returns method, source, data, protocol, fewer, more
    (S and S'), ged_fewer, ged_more, quotient, tolerance (0.001/(1/S − 1/S'), for rounding) and verdict, which is
    OUTSIDE only beyond the tolerance.
    """
    rows = []
    for group, part in table[table["metric"] == "ged"].groupby(GROUP, sort=False):
        source, data, protocol, method, _ = group
        values = part.sort_values("samples")[["samples", "value"]].itertuples(index=False, name=None)
        for (fewer, first), (more, second) in combinations(values, 2):
            width = 1 / fewer - 1 / more
            quotient, tolerance = (first - second) / width, ROUNDING / width
            # A hair more, since 0.212 − 0.211 is not 0.001 in a computer.
            inside = -tolerance - 1e-9 <= quotient <= 1 + tolerance + 1e-9
            verdict = POSSIBLE if inside else OUTSIDE
            rows.append((method, source, data, protocol, fewer, more, first, second, quotient, tolerance, verdict))
    columns = ["method", "source", "data", "protocol", "fewer", "more", "ged_fewer", "ged_more"]
    return pd.DataFrame(rows, columns=[*columns, "quotient", "tolerance", "verdict"])
