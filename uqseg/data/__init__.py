"""Data: every source ends in an AnnotatedSet of images, the masks of all readers, and a table of what is known."""

from uqseg.data.annotated import AnnotatedSet
from uqseg.data.source import load, sources

__all__ = ["AnnotatedSet", "load", "sources"]
