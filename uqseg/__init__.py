"""uqseg: segmentation methods that answer with several masks, and the figures that judge them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uqseg.prediction import predict
    from uqseg.training.checkpoint import load_method as load_model

__all__ = ["__version__", "load_model", "predict"]
__version__: str
_LAZY = {"predict": ("uqseg.prediction", "predict"), "load_model": ("uqseg.training.checkpoint", "load_method")}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the figures need no torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("uqseg")
    if name not in _LAZY:
        raise AttributeError(f"module 'uqseg' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
