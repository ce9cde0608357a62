"""Statistics of a set of pixels that is to hold what a reader would mark: it is no sample, so nothing else is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uqseg.metrics.registry import statistic

if TYPE_CHECKING:
    from torch import Tensor

    from uqseg.metrics.scored import Scored


def _lesions(x: Scored) -> tuple[Tensor, Tensor]:
    """Pixels of each reader's lesion, and those of them that lie outside the set: (B,R) each."""
    areas = x.areas[:, x.S :].double()
    return areas, areas - x.intersections[:, 0, x.S :].double()


@statistic("set_missed", of_set=True)
def set_missed(x: Scored) -> Tensor:
    """The share of a reader's lesion that the set misses, mean over who read the case; 0 for who drew nothing."""
    area, outside = _lesions(x)
    return (outside / area.clamp_min(1)).sum(1) / x.read.sum(1)


@statistic("set_size", of_set=True)
def set_size(x: Scored) -> Tensor:
    """Pixels of the set."""
    return x.areas[:, 0].double()


@statistic("set_covered", of_set=True)
def set_covered(x: Scored) -> Tensor:
    """How many of the drawn lesions lie wholly inside the set."""
    area, outside = _lesions(x)
    return ((area > 0) & (outside == 0)).sum(1).double()


@statistic("set_lesions", of_set=True)
def set_lesions(x: Scored) -> Tensor:
    """How many readers drew a lesion."""
    return (_lesions(x)[0] > 0).sum(1).double()
