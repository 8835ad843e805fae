"""The formats that models are exported to."""

from collections.abc import Callable
from typing import Any

from keras_sspcab.checks import standardize_choice
from keras_sspcab.export.artifacts import ExportResult
from keras_sspcab.export.onnx import export_onnx
from keras_sspcab.export.saved_model import export_saved_model
from keras_sspcab.export.tflite import export_tflite

#: Exporters by name of the format.
EXPORTERS: dict[str, Callable[..., ExportResult]] = {
    "savedmodel": export_saved_model,
    "tflite": export_tflite,
    "onnx": export_onnx,
}


def export_model(
    model: Any, path: Any, to: str = "savedmodel", **options: Any
) -> ExportResult:
    """Exports a model in one of the formats.

    Args:
        model: An `AnomalyModel`, or any functional or sequential Keras model.
        path: Base folder of a SavedModel, or the file to write.
        to: `"savedmodel"`, `"tflite"` or `"onnx"`.
        **options: Arguments of `export_saved_model`, `export_tflite` or
            `export_onnx`, such as `images`.

    Returns:
        The path and the comparison with the model.

    Raises:
        ValueError: If there is no such format, or as the exporter does.
    """
    exporter = EXPORTERS[standardize_choice(to, tuple(EXPORTERS), "to")]
    return exporter(model, path, **options)
