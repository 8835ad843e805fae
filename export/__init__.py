"""Exports to SavedModel, TFLite and ONNX, each checked against the model.

And `Client`, which asks servers of them; it does without TensorFlow, so all
names are imported when they are used.
"""

from typing import TYPE_CHECKING

from keras_sspcab.export._lazy import lazy_names

if TYPE_CHECKING:
    from keras_sspcab.export.artifacts import ExportResult
    from keras_sspcab.export.audit import audit_saved_model
    from keras_sspcab.export.formats import (
        EXPORTERS,
        export_model,
    )
    from keras_sspcab.export.networks import export_networks
    from keras_sspcab.export.onnx import export_onnx
    from keras_sspcab.export.parity import (
        POLICY_TOLERANCES,
        TOLERANCES,
        ExportMismatchError,
        OutputDifference,
        ParityResult,
        check_parity,
    )
    from keras_sspcab.export.runners import load_runner
    from keras_sspcab.export.saved_model import export_saved_model
    from keras_sspcab.export.serving.client import (
        AsyncClient,
        Client,
        Prediction,
        RetryPolicy,
        ServingClientError,
    )
    from keras_sspcab.export.tflite import export_tflite

# Where the public names live.
_NAMES = {
    "AsyncClient": "keras_sspcab.export.serving.client",
    "Client": "keras_sspcab.export.serving.client",
    "EXPORTERS": "keras_sspcab.export.formats",
    "ExportMismatchError": "keras_sspcab.export.parity",
    "ExportResult": "keras_sspcab.export.artifacts",
    "OutputDifference": "keras_sspcab.export.parity",
    "POLICY_TOLERANCES": "keras_sspcab.export.parity",
    "ParityResult": "keras_sspcab.export.parity",
    "Prediction": "keras_sspcab.export.serving.client",
    "RetryPolicy": "keras_sspcab.export.serving.client",
    "ServingClientError": "keras_sspcab.export.serving.client",
    "TOLERANCES": "keras_sspcab.export.parity",
    "audit_saved_model": "keras_sspcab.export.audit",
    "check_parity": "keras_sspcab.export.parity",
    "export_model": "keras_sspcab.export.formats",
    "export_networks": "keras_sspcab.export.networks",
    "export_onnx": "keras_sspcab.export.onnx",
    "export_saved_model": "keras_sspcab.export.saved_model",
    "export_tflite": "keras_sspcab.export.tflite",
    "load_runner": "keras_sspcab.export.runners",
}

__all__ = [
    "EXPORTERS",
    "POLICY_TOLERANCES",
    "TOLERANCES",
    "AsyncClient",
    "Client",
    "ExportMismatchError",
    "ExportResult",
    "OutputDifference",
    "ParityResult",
    "Prediction",
    "RetryPolicy",
    "ServingClientError",
    "audit_saved_model",
    "check_parity",
    "export_model",
    "export_networks",
    "export_onnx",
    "export_saved_model",
    "export_tflite",
    "load_runner",
]


__getattr__ = lazy_names(__name__, _NAMES)
