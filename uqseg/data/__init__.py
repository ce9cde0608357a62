"""Data: every source ends in an AnnotatedSet of images, the masks of all readers, and a table of what is known."""

import uqseg.data.sources  # noqa: F401  (first: importing this package later would replace the function `sources`)
from uqseg.data.annotated import AnnotatedSet
from uqseg.data.cache import Content, Row
from uqseg.data.load import load, source, sources

__all__ = ["AnnotatedSet", "Content", "Row", "load", "source", "sources"]
