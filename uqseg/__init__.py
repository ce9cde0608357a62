"""uqseg: segmentation methods that answer with several masks, and the figures that judge them."""

from importlib.metadata import version

from uqseg.prediction import predict

__all__ = ["predict"]
__version__ = version("uqseg")
