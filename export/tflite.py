"""Export to TFLite, for LiteRT on phones and boards."""

import pathlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.export.artifacts import (
    ExportResult,
    ParityCheck,
    publish_file,
)
from keras_sspcab.export.images import collect_images
from keras_sspcab.export.inference import (
    FrozenInference,
    Inference,
    fastest_form,
)
from keras_sspcab.export.precision import FloatScopes, Graph
from keras_sspcab.imports import import_optional

PRECISIONS = ("float32", "float16", "int8")

#: How many representative images are used, at most.
MAX_REPRESENTATIVE_IMAGES = 100


def export_tflite(
    model: keras.Model,
    path: Any,
    precision: str = "float32",
    representative_data: Any = None,
    images: Any = None,
    check: bool = True,
    image_size: Sequence[int] | None = None,
    batch_size: int = 1,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
    allow_uncalibrated: bool = False,
) -> ExportResult:
    """Writes a `.tflite` file that needs nothing but built-in operations.

    Shapes are fixed: with open ones the converter cannot keep the channels of
    up-sampled maps, and delegates refuse the graph. The signature
    `serving_default` has inputs and outputs by name. Inputs and outputs are
    float in every precision.

    Precisions:
        float32: As in Keras.
        float16: Weights in half the space; computes in float32.
        int8: Weights and activations in integers, except where that would
            ruin the result: in the scoring, in the bottleneck of the channel
            attention and in the first layers of a pretrained network (see
            `FloatScopes`).

    Args:
        model: An `AnomalyModel`, or any functional or sequential Keras model.
        path: File to write, ending in `.tflite`; replaced if it exists.
        precision: `"float32"`, `"float16"` or `"int8"`.
        representative_data: Real normal images to measure the ranges of
            activations on, for int8: an array or an iterable of batches; the
            first 100 count.
        images: Real images to compare artifact and model on; this and all
            others as in `export_saved_model`.
        check: Whether to compare.
        image_size: Height and width, for models that take any size.
        batch_size: Images in a call. Defaults to 1.
        outputs: Names of the outputs.
        tolerance: Largest relative difference allowed.
        allow_uncalibrated: Whether thresholds may be missing.

    Returns:
        The path and the comparison, which is also written beside it, to
        `<name>.tflite.parity.json`.

    Raises:
        ValueError, ExportMismatchError: As in `export_saved_model`, and if the
            model needs operations that TFLite does not have.
        ImportError: If a package is missing.

    Example:
    >>> result = export_tflite(  # doctest: +SKIP
    ...     model,
    ...     "screws.tflite",
    ...     precision="int8",
    ...     representative_data=normal_images,
    ...     images=images,
    ... )
    """
    if check:
        import_optional(
            "ai_edge_litert", "Checks of TFLite files need LiteRT", "export"
        )
    path = pathlib.Path(path)
    if path.suffix != ".tflite":
        raise ValueError(f"`path` must end in .tflite. Received: path={path}")
    precision = standardize_choice(precision, PRECISIONS, "precision")
    batch_size = standardize_int(batch_size, "batch_size", minimum=1)
    inference = Inference(model, outputs, allow_uncalibrated, image_size)
    _check_sizes(inference)
    representative = None
    if precision == "int8":
        representative = _representative_inputs(
            inference, representative_data, batch_size
        )
    parity_check = ParityCheck(
        inference, images, check, image_size, tolerance, precision
    )
    frozen = inference.freeze(
        batch_size, fastest_form(model, integer=precision == "int8")
    )
    content = convert(frozen, precision, representative, FloatScopes.of(model))
    if missing := Graph.read(content).foreign_operations:
        raise ValueError(
            f"{model.name} needs operations that TFLite does not have: "
            f"{', '.join(sorted(missing))}"
        )
    return publish_file(
        path,
        lambda staged: staged.write_bytes(content),
        parity_check,
        frozen,
        format="tflite",
    )


def _check_sizes(inference: Inference) -> None:
    for spec in inference.specs:
        if None in spec.shape[1:]:
            raise ValueError(
                f"{inference.model.name} takes inputs of any size, a TFLite "
                "file of one: pass `image_size=(height, width)`. "
                f"Received: {spec.name} of shape {tuple(spec.shape)}"
            )


def _representative_inputs(
    inference: Inference, data: Any, batch_size: int
) -> dict[str, np.ndarray]:
    if data is None:
        raise ValueError(
            'precision="int8" needs `representative_data`: real normal images '
            "(a hundred, say) on which the ranges of activations are measured."
        )
    inputs = collect_images(
        inference, data, MAX_REPRESENTATIVE_IMAGES, "representative_data"
    )
    count = len(next(iter(inputs.values())))
    if count < batch_size:
        raise ValueError(
            "`representative_data` must fill one batch at least. Received: "
            f"{count} images, batch_size={batch_size}"
        )
    return inputs


def convert(
    frozen: FrozenInference,
    precision: str = "float32",
    representative: dict[str, np.ndarray] | None = None,
    float_scopes: FloatScopes | None = None,
) -> bytes:
    """Returns the content of a TFLite file."""
    folder = tempfile.mkdtemp()
    try:
        # Only a SavedModel keeps the names of inputs and outputs.
        module = tf.Module()
        module.infer = tf.function(
            frozen.__call__, input_signature=frozen.specs, autograph=False
        )
        tf.saved_model.save(module, folder, {"serving_default": module.infer})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if precision == "float32":
            return converter.convert()
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
            return converter.convert()
        converter.representative_dataset = lambda: _batches(
            representative or {}, frozen.specs[0].shape[0]
        )
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        ]
        return _quantize(converter, float_scopes or FloatScopes())
    finally:
        shutil.rmtree(folder)


def _batches(
    inputs: dict[str, np.ndarray], size: int
) -> Iterator[dict[str, np.ndarray]]:
    count = len(next(iter(inputs.values())))
    for start in range(0, count - size + 1, size):
        yield {n: array[start : start + size] for n, array in inputs.items()}


def _quantize(converter: Any, float_scopes: FloatScopes) -> bytes:
    """Converts to integers, except for what is computed in some scopes."""
    experimental = tf.lite.experimental
    with warnings.catch_warnings():
        # The debugger, TensorFlow's only public way to leave operations out,
        # still loads its own interpreter.
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter.*")
        debugger = experimental.QuantizationDebugger(
            converter=converter,
            debug_options=experimental.QuantizationDebugOptions(),
        )
        graph = Graph.read(debugger.calibrated_model)
        tensors, operations = float_scopes.find(graph)
        debugger.options = experimental.QuantizationDebugOptions(
            denylisted_nodes=tensors, denylisted_ops=operations
        )
        return debugger.get_nondebug_quantized_model()
