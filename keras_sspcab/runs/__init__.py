"""Run folders: from data to a trained model, scores, a report and exports.

    run = Run.create("runs/screws", data="screws")
    run.train()
    metrics = run.evaluate()

Names are imported when they are used: configurations and folders need no Keras.
"""

from typing import TYPE_CHECKING

from keras_sspcab.imports import lazy_names

if TYPE_CHECKING:
    from keras_sspcab.progress import Progress
    from keras_sspcab.runs.config import (
        CalibrationConfig,
        Config,
        ConfigError,
        DataConfig,
        EvaluationConfig,
        ModelConfig,
        ObjectsConfig,
        TrackingConfig,
        TrainingConfig,
    )
    from keras_sspcab.runs.folder import RunFolder
    from keras_sspcab.runs.models import load_detector
    from keras_sspcab.runs.run import Run
    from keras_sspcab.runs.settings import Setting, list_settings

__all__ = [
    "CalibrationConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvaluationConfig",
    "ModelConfig",
    "ObjectsConfig",
    "Progress",
    "Run",
    "RunFolder",
    "Setting",
    "TrackingConfig",
    "TrainingConfig",
    "list_settings",
    "load_detector",
]

_HOMES = {
    "Run": "run",
    "RunFolder": "folder",
    "Setting": "settings",
    "list_settings": "settings",
    "load_detector": "models",
}

__getattr__ = lazy_names(
    __name__,
    {
        **{n: f"{__name__}.{_HOMES.get(n, 'config')}" for n in __all__},
        "Progress": "keras_sspcab.progress",
    },
)
