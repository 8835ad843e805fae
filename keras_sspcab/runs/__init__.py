"""Run folders: what one training leaves on disk, and how it is configured."""

from keras_sspcab.runs.config import (
    CalibrationConfig,
    Config,
    ConfigError,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    ObjectsConfig,
    TrainingConfig,
)
from keras_sspcab.runs.folder import RunFolder, default_run_path

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
