"""Metrics: samples and readers in, statistics of each case out, and the figures finished from them.

The figures need NumPy and pandas alone; what reads samples is imported, with torch, when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import uqseg.metrics.threshold  # noqa: F401  (first: statistics are stored in the order in which they are declared)
from uqseg.metrics import ambiguity, calibration, failure, sets, threshold
from uqseg.metrics.definitions import markdown
from uqseg.metrics.registry import (
    Figure,
    declare,
    derived,
    figure,
    figure_versions,
    figures,
    older_figures,
    statistic,
    statistics,
    tables,
)
from uqseg.metrics.scores import Scores, read_scores, write_scores
from uqseg.metrics.threshold import THRESHOLD_STATISTICS

if TYPE_CHECKING:
    from uqseg.metrics import maps
    from uqseg.metrics.scored import Scored
    from uqseg.metrics.scoring import leave_one_out, score

__all__ = [
    "THRESHOLD_STATISTICS",
    "Figure",
    "Scored",
    "Scores",
    "ambiguity",
    "calibration",
    "declare",
    "derived",
    "failure",
    "figure",
    "figure_versions",
    "figures",
    "leave_one_out",
    "maps",
    "markdown",
    "older_figures",
    "read_scores",
    "score",
    "sets",
    "statistic",
    "statistics",
    "tables",
    "threshold",
    "write_scores",
]
_LAZY = {"Scored": "scored", "leave_one_out": "scoring", "score": "scoring"}


def __getattr__(name: str) -> Any:
    if name == "maps":
        return import_module("uqseg.metrics.maps")
    if name not in _LAZY:
        raise AttributeError(f"module 'uqseg.metrics' has no attribute '{name}'")
    return getattr(import_module(f"uqseg.metrics.{_LAZY[name]}"), name)
