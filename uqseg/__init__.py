"""uqseg: segmentation methods that answer with several masks, and the figures that judge them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uqseg.prediction import predict

__all__ = ["__version__", "predict"]
__version__: str
_LAZY = {"predict": ("uqseg.prediction", "predict")}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the figures need no torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("uqseg")
    if name not in _LAZY:
        raise AttributeError(f"module 'uqseg' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
