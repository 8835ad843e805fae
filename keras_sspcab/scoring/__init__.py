"""From error maps to scores: smoothing, pooling and calibration."""

from keras_sspcab.scoring.calibration import CalibratedScores, Calibration
from keras_sspcab.scoring.maps import MapPooling, MapSmoothing, SquaredError

__all__ = [
    "CalibratedScores",
    "Calibration",
    "MapPooling",
    "MapSmoothing",
    "SquaredError",
]
