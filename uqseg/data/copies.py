"""Readers whose masks are another reader's in every case: mostly a folder that was copied, and no second opinion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from uqseg.data.names import printable

ENOUGH = 5  # cases with a mask: two readers may agree by chance in fewer


class Copies:
    """Looks at one case after another which of R readers differ; those that once did are compared no more."""

    def __init__(self, readers: int) -> None:
        self.marked = dict.fromkeys(combinations(range(readers), 2), 0)

    def look(self, masks: NDArray[np.bool_], read: NDArray[np.bool_]) -> None:
        """masks: (R,H,W) of a case; read: (R,), who read it."""
        for pair in [pair for pair in self.marked if read[list(pair)].all()]:
            a, b = masks[list(pair)]
            if not np.array_equal(a, b):
                del self.marked[pair]
            elif a.any():
                self.marked[pair] += 1

    def problems(self, names: Sequence[str]) -> list[str]:
        """A line for each two readers who marked the same in at least ENOUGH cases and never differed."""
        return [
            f"copied reader: {_name(names, b)} has the masks of {_name(names, a)} in all cases that both read, "
            f"{count:,} of them not empty; if one is a copy, leave it out"
            for (a, b), count in self.marked.items()
            if count >= ENOUGH
        ]


def _name(names: Sequence[str], reader: int) -> str:
    return printable(names[reader]) if names else f"slot {reader}"
