"""From error maps and embeddings to scores and thresholds."""

from keras_sspcab.scoring.calibrated_scores import CalibratedScores, decide_with
from keras_sspcab.scoring.calibration import (
    DECISIONS,
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
from keras_sspcab.scoring.drift import (
    Drift,
    DriftComparison,
    DriftMonitor,
    DriftReference,
)
from keras_sspcab.scoring.embedding import EmbeddingScore, PatchEmbedding
from keras_sspcab.scoring.inputs import input_statistics, join_statistics
from keras_sspcab.scoring.maps import (
    AnomalyProbability,
    GradCAM,
    MapPooling,
    MapSmoothing,
    SquaredError,
)
from keras_sspcab.scoring.memory_bank import MemoryBank
from keras_sspcab.scoring.position_gaussian import PositionGaussian
from keras_sspcab.scoring.regions import (
    PaddingMask,
    RegionMask,
    RegionScores,
    region_columns,
)
from keras_sspcab.scoring.upsampling import (
    MapUpsampling,
    ReceptiveFieldUpsampling,
)

__all__ = [
    "DECISIONS",
    "AnomalyProbability",
    "CalibratedScores",
    "Calibration",
    "Drift",
    "DriftComparison",
    "DriftMonitor",
    "DriftReference",
    "EmbeddingScore",
    "GaussianDensity",
    "GradCAM",
    "KernelDensity",
    "MapPooling",
    "MapSmoothing",
    "MapUpsampling",
    "MemoryBank",
    "PaddingMask",
    "PatchEmbedding",
    "PeakSignalToNoise",
    "PositionGaussian",
    "ReceptiveFieldUpsampling",
    "RegionMask",
    "RegionScores",
    "RegularityScore",
    "SquaredError",
    "StandardizedSum",
    "ZScoreSum",
    "decide_with",
    "describe_fault",
    "input_statistics",
    "join_statistics",
    "region_columns",
]
