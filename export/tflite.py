"""Export to TFLite, for LiteRT on phones and boards."""

import pathlib
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import flatbuffers
import keras
import numpy as np
import tensorflow as tf

from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.export.artifacts import (
    ExportResult,
    ParityCheck,
    publish_file,
)
from keras_sspcab.export.images import collect_representative
from keras_sspcab.export.inference import (
    FrozenInference,
    Inference,
    fastest_form,
)
from keras_sspcab.export.precision import FILE_PRECISIONS, FloatScopes, Graph
from keras_sspcab.hosts import ProductModel
from keras_sspcab.imports import import_optional
from keras_sspcab.optional_inputs import OPTIONS_SUFFIX, left_out


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
    `serving_default` has inputs and outputs by name, and
    `serving_default_options`, of a calibrated `AnomalyModel`, also `threshold`
    and `sensitivity`, `(batch,)`: see `Calibration.adjusted`; NaN leaves one
    out. Inputs and outputs are float in every precision.

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
    precision = standardize_choice(precision, FILE_PRECISIONS, "precision")
    if precision == "int8" and isinstance(model, ProductModel):
        # TensorFlow's converter crashes on what is in loops.
        raise ValueError(
            f"{model.name} has several products, which TFLite cannot hold in "
            "integers. Received: precision='int8'. Take float32, or export "
            "the model of each product"
        )
    batch_size = standardize_int(batch_size, "batch_size", minimum=1)
    inference = Inference(model, outputs, allow_uncalibrated, image_size)
    _check_sizes(inference)
    representative = None
    if precision == "int8":
        representative = collect_representative(
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


def convert(
    frozen: FrozenInference,
    precision: str = "float32",
    representative: dict[str, np.ndarray] | None = None,
    float_scopes: FloatScopes | None = None,
) -> bytes:
    """Returns the content of a TFLite file."""
    specs = [*frozen.specs, *frozen.options]
    name = "serving_default" + (OPTIONS_SUFFIX if frozen.options else "")
    with tempfile.TemporaryDirectory() as folder:
        # Only a SavedModel keeps the names of inputs and outputs.
        module = tf.Module()
        module.infer = tf.function(
            frozen.__call__, input_signature=specs, autograph=False
        )
        tf.saved_model.save(module, folder, {name: module.infer})
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=[name]
        )
        if precision == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        if precision != "int8":
            return _leave_out(converter.convert(), frozen.options)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _batches(
            representative or {}, frozen
        )
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        ]
        content = _quantize(converter, float_scopes or FloatScopes())
        return _leave_out(content, frozen.options)


class _AlignedBuilder(flatbuffers.Builder):
    """Aligns vectors as the schema wants buffers, which Python leaves out."""

    def StartVector(self, size: int, count: int, alignment: int) -> Any:  # noqa: N802
        return super().StartVector(size, count, max(alignment, 16))


def _leave_out(content: bytes, options: Sequence[tf.TensorSpec]) -> bytes:
    """Adds a signature that leaves the optional inputs out, as the first.

    It is the same graph with constants in their place. The weights are stored
    once: both refer to the same buffers.
    """
    if not options:
        return content
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    copies = schema.ModelT.InitFromPackedBuf(content, 0)
    # The copies, of loops as well, come behind.
    for graph in copies.subgraphs:
        for operator in graph.operators:
            attributes = getattr(operator.builtinOptions, "__dict__", {})
            for key in attributes:
                if key.lower().endswith("subgraphindex"):
                    attributes[key] += len(model.subgraphs)
    with_options = copies.signatureDefs[0]
    with_options.subgraphIndex += len(model.subgraphs)
    without = model.signatureDefs[0]
    without.signatureKey = b"serving_default"
    names = {spec.name.encode(): spec for spec in options}
    main = model.subgraphs[without.subgraphIndex]
    for entry in [e for e in without.inputs if e.name in names]:
        tensor = main.tensors[entry.tensorIndex]
        spec = names[entry.name]
        value = np.full(
            tensor.shape, left_out(spec.dtype.name), spec.dtype.as_numpy_dtype
        )
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value.tobytes(), "uint8")
        tensor.buffer = len(model.buffers)
        model.buffers.append(buffer)
        without.inputs.remove(entry)
        main.inputs = [i for i in main.inputs if i != entry.tensorIndex]
    model.subgraphs += copies.subgraphs
    model.signatureDefs.append(with_options)
    builder = _AlignedBuilder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _batches(
    inputs: dict[str, np.ndarray], frozen: FrozenInference
) -> Iterator[dict[str, np.ndarray]]:
    count, size = len(next(iter(inputs.values()))), frozen.specs[0].shape[0]
    # What is not a number has no range; nothing computes in integers with it.
    ones = {
        spec.name: np.ones(size, spec.dtype.as_numpy_dtype)
        for spec in frozen.options
    }
    for start in range(0, count - size + 1, size):
        yield ones | {
            n: array[start : start + size] for n, array in inputs.items()
        }


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
