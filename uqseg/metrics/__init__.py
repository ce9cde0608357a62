"""Metrics: samples and readers in, per-image columns out, and the figures finished from them."""

from uqseg.metrics import ambiguity, calibration, failure, maps, threshold
from uqseg.metrics.metric import Figure, Metric, figures, find, markdown, metric, names, score
from uqseg.metrics.scored import Scored

__all__ = [
    "Figure",
    "Metric",
    "Scored",
    "ambiguity",
    "calibration",
    "failure",
    "figures",
    "find",
    "maps",
    "markdown",
    "metric",
    "names",
    "score",
    "threshold",
]
