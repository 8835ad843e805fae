"""Training that can be killed at any moment and then continues."""

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
