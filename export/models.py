"""Exports whole models, or the networks that a host is made of."""

import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_sspcab.checks import standardize_choice
from keras_sspcab.export.artifacts import ExportResult
from keras_sspcab.export.images import collect_images
from keras_sspcab.export.inference import Inference
from keras_sspcab.export.onnx import export_onnx
from keras_sspcab.export.parity import MAX_IMAGES
from keras_sspcab.export.saved_model import export_saved_model
from keras_sspcab.export.tflite import MAX_REPRESENTATIVE_IMAGES, export_tflite
from keras_sspcab.hosts import ObjectModel

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

    Example:
    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = export_model(model, folder, images=np.ones((3, 2)))
    ...     result.path.name, result.parity.passes
    ('1', True)
    """
    exporter = EXPORTERS[standardize_choice(to, tuple(EXPORTERS), "to")]
    return exporter(model, path, **options)


def export_networks(
    model: ObjectModel,
    directory: Any,
    to: str = "savedmodel",
    *,
    images: Any,
    representative_data: Any = None,
    **options: Any,
) -> dict[str, ExportResult]:
    """Exports each network of a host that looks at objects.

    For those who put the parts together by themselves; the host as a whole,
    with scores and thresholds, is what `export_model` writes. Each artifact is
    compared with its network, on what the network is given in the host.

    Args:
        model: The host; see its property `networks`.
        directory: Where the artifacts are written: `NAME/1` as a SavedModel,
            `NAME.tflite` or `NAME.onnx`.
        to: As of `export_model`.
        images: Real objects: inputs of the host, as a dict of arrays or an
            iterable of such batches; the first 64 count.
        representative_data: Normal objects, likewise, on which int8 measures
            its ranges.
        **options: Arguments of the exporter, such as `precision`.

    Returns:
        Path and comparison of each, by the name of the network.

    Raises:
        ValueError: If the model has no networks of its own, objects do not fit,
            or as the exporter does. Networks before the one that fails are
            there, each whole.
        ExportMismatchError: If an artifact and its network differ.

    Example:
    >>> results = export_networks(  # doctest: +SKIP
    ...     model, "networks", images=objects
    ... )
    """
    to = standardize_choice(to, tuple(EXPORTERS), "to")
    if not isinstance(model, ObjectModel):
        raise ValueError(
            "Single networks are exported of hosts that look at objects. "
            f"Received: {type(model).__name__}. Use `export_model`"
        )
    given = {"images": _network_inputs(model, images, MAX_IMAGES)}
    if representative_data is not None:
        given["representative_data"] = _network_inputs(
            model, representative_data, MAX_REPRESENTATIVE_IMAGES
        )
    folder = pathlib.Path(directory)
    suffix = "" if to == "savedmodel" else f".{to}"
    return {
        name: EXPORTERS[to](
            network,
            folder / f"{name}{suffix}",
            **{argument: inputs[name] for argument, inputs in given.items()},
            **options,
        )
        for name, network in model.networks.items()
    }


def _network_inputs(
    model: ObjectModel, objects: Any, limit: int
) -> dict[str, dict[str, np.ndarray]]:
    """Returns what each network is given, by the names that artifacts have."""
    inference = Inference(model, allow_uncalibrated=True)
    given = model.network_inputs(collect_images(inference, objects, limit))
    inputs = {}
    for name, network in model.networks.items():
        arrays = map(np.asarray, keras.tree.flatten(given[name]))
        names = Inference(network).input_names
        inputs[name] = dict(zip(names, arrays, strict=True))
    return inputs
