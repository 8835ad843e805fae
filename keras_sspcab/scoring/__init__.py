"""From error maps and embeddings to scores and thresholds."""

from keras_sspcab.scoring.calibration import (
    DECISIONS,
    CalibratedScores,
    Calibration,
    describe_fault,
)
from keras_sspcab.scoring.combined import (
    PeakSignalToNoise,
    RegularityScore,
    StandardizedSum,
    ZScoreSum,
)
from keras_sspcab.scoring.density import GaussianDensity, KernelDensity
from keras_sspcab.scoring.embedding import EmbeddingScore, PatchEmbedding
from keras_sspcab.scoring.maps import (
    AnomalyProbability,
    GradCAM,
    MapPooling,
    MapSmoothing,
    SquaredError,
)
from keras_sspcab.scoring.memory_bank import MemoryBank
from keras_sspcab.scoring.position_gaussian import PositionGaussian
from keras_sspcab.scoring.upsampling import (
    MapUpsampling,
    ReceptiveFieldUpsampling,
)

__all__ = [
    "DECISIONS",
    "AnomalyProbability",
    "CalibratedScores",
    "Calibration",
    "EmbeddingScore",
    "GaussianDensity",
    "GradCAM",
    "KernelDensity",
    "MapPooling",
    "MapSmoothing",
    "MapUpsampling",
    "MemoryBank",
    "PatchEmbedding",
    "PeakSignalToNoise",
    "PositionGaussian",
    "ReceptiveFieldUpsampling",
    "RegularityScore",
    "SquaredError",
    "StandardizedSum",
    "ZScoreSum",
    "describe_fault",
]
