"""uqseg: segmentation methods that answer with several masks, and the figures that judge them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uqseg.prediction import predict
    from uqseg.segmentation import segment
    from uqseg.trained import load_model

__all__ = ["__version__", "load_model", "predict", "segment"]
__version__ = "0.2.0"
_LAZY = {
    "predict": ("uqseg.prediction", "predict"),
    "load_model": ("uqseg.trained", "load_model"),
    "segment": ("uqseg.segmentation", "segment"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the figures need no torch."""
    if name not in _LAZY:
        raise AttributeError(f"module 'uqseg' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
