"""What happens around training: checkpoints, exact resume, preemption, sample grids, curves, reports, predictions."""

from lit_models.callbacks.checkpoints import Checkpoints
from lit_models.callbacks.classification import ClassificationReport
from lit_models.callbacks.curves import LossCurves
from lit_models.callbacks.embeddings import EmbeddingPlot
from lit_models.callbacks.examples import ClassExamples
from lit_models.callbacks.interpolations import Interpolations
from lit_models.callbacks.latent_map import LatentMap
from lit_models.callbacks.learning_rate import LearningRateScaling
from lit_models.callbacks.predictions import PredictionWriter
from lit_models.callbacks.preemption import Preemption
from lit_models.callbacks.resume import ExactResume
from lit_models.callbacks.samples import ReconstructionGrid, SampleGrid
from lit_models.callbacks.scores import GenerationScores
from lit_models.callbacks.translation import TranslationScores, Triptychs

__all__ = [
    "Checkpoints",
    "ClassExamples",
    "ClassificationReport",
    "EmbeddingPlot",
    "ExactResume",
    "GenerationScores",
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
