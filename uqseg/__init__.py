"""uqseg: segmentation methods that answer with several masks, and the figures that judge them."""

from importlib.metadata import version

__version__ = version("uqseg")
