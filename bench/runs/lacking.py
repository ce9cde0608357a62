"""Which test cases somebody's predictions lack, in words, with or without the names of the cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

QUOTED = 5
BEGINNING = "all figures are of the"

LeftOut = Mapping[str, Mapping[str, str]]
"""By the label of predictions why each case that they lack cannot be used."""


def remarks(left_out: LeftOut, names: bool = True) -> Iterator[str]:
    """Which test cases each of the predictions lacks, and why, a line each; without names how many alone."""
    for label, cases in left_out.items():
        if cases:
            quoted = ", ".join(f"{case}: {reason}" for case, reason in sorted(cases.items())[:QUOTED])
            which = f" ({quoted}{', …' if len(cases) > QUOTED else ''})"
            yield f"{label} lacks {len(cases)}{which if names else ''}"


def sentence(kept: int, left_out: LeftOut, names: bool = True) -> str:
    """That all figures are of the `kept` test images that are left, and why."""
    count = kept + len({case for cases in left_out.values() for case in cases})
    return (
        f"{BEGINNING} {kept} test images, of {count}, that all predictions have: {'; '.join(remarks(left_out, names))}"
    )
