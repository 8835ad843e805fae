"""Training that can be killed at any moment and resumed later."""

from keras_sspcab.training.callbacks import (
    TrainingDiverged,
    TrainingInterrupted,
)
from keras_sspcab.training.checkpoint import CheckpointError
from keras_sspcab.training.resumable import train

__all__ = [
    "CheckpointError",
    "TrainingDiverged",
    "TrainingInterrupted",
    "train",
]
