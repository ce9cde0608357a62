"""The report of a results folder: `write(folder)`. Needs no data, no method and no torch."""

from bench.report.page import lines, write

__all__ = ["lines", "write"]
