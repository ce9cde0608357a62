"""Metrics: one function each, from samples and readers to per-image columns and figures."""

from uqseg.metrics.metric import VERSION, Figure, figures, groups, names, score, summed

__all__ = ["VERSION", "Figure", "figures", "groups", "names", "score", "summed"]
