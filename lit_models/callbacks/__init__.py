"""What happens around training: what a configuration may name. Pictures, scores, tables and predictions are here; what
every run has (checkpoints, resume, preemption, curves) is in ``lit_models/runs/`` and has its public name here, too.

They are imported when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_models.callbacks.cells import CellFigures
    from lit_models.callbacks.classification import ClassificationReport
    from lit_models.callbacks.embeddings import EmbeddingPlot
    from lit_models.callbacks.examples import ClassExamples
    from lit_models.callbacks.feature_plane import FeaturePlane
    from lit_models.callbacks.histogram_baseline import HistogramBaseline
    from lit_models.callbacks.interpolations import Interpolations
    from lit_models.callbacks.latent_map import LatentMap
    from lit_models.callbacks.learning_rate import LearningRateScaling
    from lit_models.callbacks.predictions import PredictionWriter
    from lit_models.callbacks.samples import ReconstructionGrid, SampleGrid
    from lit_models.callbacks.scores import GenerationScores
    from lit_models.callbacks.translation import TranslationScores, Triptychs
    from lit_models.runs.checkpoints import Checkpoints
    from lit_models.runs.curves import LossCurves
    from lit_models.runs.preemption import Preemption
    from lit_models.runs.resume import ExactResume

_MODULES = {
    "CellFigures": "lit_models.callbacks.cells",
    "Checkpoints": "lit_models.runs.checkpoints",
    "ClassExamples": "lit_models.callbacks.examples",
    "ClassificationReport": "lit_models.callbacks.classification",
    "EmbeddingPlot": "lit_models.callbacks.embeddings",
    "ExactResume": "lit_models.runs.resume",
    "FeaturePlane": "lit_models.callbacks.feature_plane",
    "GenerationScores": "lit_models.callbacks.scores",
    "HistogramBaseline": "lit_models.callbacks.histogram_baseline",
    "Interpolations": "lit_models.callbacks.interpolations",
    "LatentMap": "lit_models.callbacks.latent_map",
    "LearningRateScaling": "lit_models.callbacks.learning_rate",
    "LossCurves": "lit_models.runs.curves",
    "PredictionWriter": "lit_models.callbacks.predictions",
    "Preemption": "lit_models.runs.preemption",
    "ReconstructionGrid": "lit_models.callbacks.samples",
    "SampleGrid": "lit_models.callbacks.samples",
    "TranslationScores": "lit_models.callbacks.translation",
    "Triptychs": "lit_models.callbacks.translation",
}
"""Module of each class."""

__all__ = [
    "CellFigures",
    "Checkpoints",
    "ClassExamples",
    "ClassificationReport",
    "EmbeddingPlot",
    "ExactResume",
    "FeaturePlane",
    "GenerationScores",
    "HistogramBaseline",
    "Interpolations",
    "LatentMap",
    "LearningRateScaling",
    "LossCurves",
    "PredictionWriter",
    "Preemption",
    "ReconstructionGrid",
    "SampleGrid",
    "TranslationScores",
    "Triptychs",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
