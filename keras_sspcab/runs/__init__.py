"""Run folders: what one training leaves on disk, and how it is configured."""

from keras_sspcab.runs.config import (
    CalibrationConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    TrainingConfig,
)
from keras_sspcab.runs.errors import ConfigError
from keras_sspcab.runs.folder import RunFolder, default_run_path
from keras_sspcab.runs.objects import ObjectsConfig

__all__ = [
    "CalibrationConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "ObjectsConfig",
    "RunFolder",
    "TrainingConfig",
    "default_run_path",
]
