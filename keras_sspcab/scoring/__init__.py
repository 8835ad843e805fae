"""From error maps and embeddings to scores and thresholds."""

from keras_sspcab.scoring.calibration import CalibratedScores, Calibration
from keras_sspcab.scoring.density import (
    Density,
    GaussianDensity,
    KernelDensity,
)
from keras_sspcab.scoring.embedding import (
    EmbeddingScore,
    GradCAM,
    PatchEmbedding,
    ReceptiveFieldUpsampling,
)
from keras_sspcab.scoring.frames import PeakSignalToNoise, RegularityScore
from keras_sspcab.scoring.maps import (
    AnomalyProbability,
    MapPooling,
    MapSmoothing,
    SquaredError,
)
from keras_sspcab.scoring.objects import ZScoreSum

__all__ = [
    "AnomalyProbability",
    "CalibratedScores",
    "Calibration",
    "Density",
    "EmbeddingScore",
    "GaussianDensity",
    "GradCAM",
    "KernelDensity",
    "MapPooling",
    "MapSmoothing",
    "PatchEmbedding",
    "PeakSignalToNoise",
    "ReceptiveFieldUpsampling",
    "RegularityScore",
    "SquaredError",
    "ZScoreSum",
]
