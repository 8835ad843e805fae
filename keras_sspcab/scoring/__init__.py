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
    MapUpsampling,
    SquaredError,
)
from keras_sspcab.scoring.memory_bank import MemoryBank, PatchReservoir
from keras_sspcab.scoring.objects import StandardizedSum, ZScoreSum
from keras_sspcab.scoring.position_gaussian import (
    FoldedMoments,
    PositionGaussian,
    PositionMoments,
)

__all__ = [
    "AnomalyProbability",
    "CalibratedScores",
    "Calibration",
    "Density",
    "EmbeddingScore",
    "FoldedMoments",
    "GaussianDensity",
    "GradCAM",
    "KernelDensity",
    "MapPooling",
    "MapSmoothing",
    "MapUpsampling",
    "MemoryBank",
    "PatchEmbedding",
    "PatchReservoir",
    "PeakSignalToNoise",
    "PositionGaussian",
    "PositionMoments",
    "ReceptiveFieldUpsampling",
    "RegularityScore",
    "SquaredError",
    "StandardizedSum",
    "ZScoreSum",
]
