"""Training: one loop for every method, exactly resumable."""

from uqseg.training.checkpoint import load_method, save_method
from uqseg.training.loop import DivergenceError, fit
from uqseg.training.recipe import TRAINING_VERSION, Training

__all__ = ["TRAINING_VERSION", "DivergenceError", "Training", "fit", "load_method", "save_method"]
