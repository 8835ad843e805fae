"""Exports to SavedModel, TFLite, ONNX and OpenVINO, each checked.

And `Client`, which asks servers of them; it does without TensorFlow, so all
names are imported when they are used.
"""

from typing import TYPE_CHECKING

from keras_sspcab.imports import lazy_names

if TYPE_CHECKING:
    from keras_sspcab.export.artifacts import ExportResult
    from keras_sspcab.export.onnx import export_onnx
    from keras_sspcab.export.openvino import export_openvino
    from keras_sspcab.export.parity import (
        ExportMismatchError,
        ParityResult,
        check_parity,
    )
    from keras_sspcab.export.runners import load_runner
    from keras_sspcab.export.runs import (
        export_model,
        export_networks,
        export_run,
    )
    from keras_sspcab.export.saved_model import export_saved_model
    from keras_sspcab.export.scorer import load_scorer
    from keras_sspcab.export.serving.client import (
        AsyncClient,
        Client,
        Prediction,
        RetryPolicy,
        ServingClientError,
    )
    from keras_sspcab.export.tflite import export_tflite

__all__ = [
    "AsyncClient",
    "Client",
    "ExportMismatchError",
    "ExportResult",
    "ParityResult",
    "Prediction",
    "RetryPolicy",
    "ServingClientError",
    "check_parity",
    "export_model",
    "export_networks",
    "export_onnx",
    "export_openvino",
    "export_run",
    "export_saved_model",
    "export_tflite",
    "load_runner",
    "load_scorer",
]

_HOMES = {
    "ExportMismatchError": "parity",
    "ExportResult": "artifacts",
    "ParityResult": "parity",
    "check_parity": "parity",
    "export_model": "runs",
    "export_networks": "runs",
    "export_onnx": "onnx",
    "export_openvino": "openvino",
    "export_run": "runs",
    "export_saved_model": "saved_model",
    "export_tflite": "tflite",
    "load_runner": "runners",
    "load_scorer": "scorer",
}

__getattr__ = lazy_names(
    __name__,
    {
        name: f"{__name__}.{_HOMES.get(name, 'serving.client')}"
        for name in __all__
    },
)
