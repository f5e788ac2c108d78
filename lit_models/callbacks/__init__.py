"""What happens around training: checkpoints, exact resume, sample grids, curves, predictions."""

from lit_models.callbacks.checkpoints import Checkpoints
from lit_models.callbacks.curves import LossCurves
from lit_models.callbacks.predictions import ImageWriter
from lit_models.callbacks.resume import ExactResume
from lit_models.callbacks.samples import SampleGrid

__all__ = ["Checkpoints", "ExactResume", "ImageWriter", "LossCurves", "SampleGrid"]
