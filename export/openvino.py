"""Export to OpenVINO, for Intel's CPUs, GPUs and NPUs."""

import contextlib
import io
import logging
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_sspcab.checks import standardize_choice
from keras_sspcab.export import onnx
from keras_sspcab.export.artifacts import (
    ExportResult,
    ParityCheck,
    publish_file,
)
from keras_sspcab.export.images import collect_representative
from keras_sspcab.export.inference import Inference, fastest_form
from keras_sspcab.export.precision import (
    FILE_PRECISIONS,
    FloatScopes,
    Graph,
    Operation,
)
from keras_sspcab.imports import require_modules

#: What it takes; integers also take NNCF.
PACKAGES = ("tf2onnx", "onnx", "openvino")

# Operations whose kind decides what stays float, as TFLite calls them.
_KINDS = {
    "Convolution": "CONV_2D",
    "GroupConvolution": "DEPTHWISE_CONV_2D",
    "Sigmoid": "LOGISTIC",
    "Softmax": "SOFTMAX",
    "Tanh": "TANH",
}


def export_openvino(
    model: keras.Model,
    path: Any,
    precision: str = "float32",
    representative_data: Any = None,
    images: Any = None,
    check: bool = True,
    image_size: Sequence[int] | None = None,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
    allow_uncalibrated: bool = False,
) -> ExportResult:
    """Writes an `.xml` file, and its weights beside it in a `.bin` file.

    It is made from the graph that `export_onnx` writes: inputs and outputs have
    names and are float, the batch is open, and so are height and width where
    the model leaves them open. Encoded images cannot be an input: OpenVINO has
    no operation that decodes them. Nor are there optional inputs: compare
    `anomaly_score` with another threshold yourself. `rt_info` of the file holds
    the range of values and the calibration.

    Precisions:
        float32: As in Keras. OpenVINO itself chooses 16 bits on devices that
            are fast in them; `INFERENCE_PRECISION_HINT="f32"` prevents it.
        float16: Weights in half the space.
        int8: Weights and activations in integers, by NNCF, except where
            `export_tflite` keeps them float.

    Args:
        model: An `AnomalyModel`, or any functional or sequential Keras model.
        path: File to write, ending in `.xml`; replaced if it exists.
        precision: `"float32"`, `"float16"` or `"int8"`.
        representative_data: Real normal images to measure the ranges of
            activations on, for int8; as in `export_tflite`.
        images: Real images to compare artifact and model on; this and all
            others as in `export_saved_model`.
        check: Whether to compare.
        image_size: Height and width, to fix them where the model takes any.
        outputs: Names of the outputs.
        tolerance: Largest relative difference allowed.
        allow_uncalibrated: Whether thresholds may be missing.

    Returns:
        The path and the comparison, which is also written beside it, to
        `<name>.xml.parity.json`.

    Raises:
        ValueError, ExportMismatchError: As in `export_saved_model`.
        ImportError: If a package is missing.

    Example:
    >>> result = export_openvino(  # doctest: +SKIP
    ...     model, "screws.xml", images=images
    ... )
    """
    precision = standardize_choice(precision, FILE_PRECISIONS, "precision")
    is_integer = precision == "int8"
    require_modules(
        [*PACKAGES, *(["nncf"] if is_integer else [])],
        "Export to OpenVINO needs {}",
        "openvino",
    )
    path = pathlib.Path(path)
    if path.suffix != ".xml":
        raise ValueError(f"`path` must end in .xml. Received: path={path}")
    inference = Inference(model, outputs, allow_uncalibrated, image_size)
    representative = None
    if is_integer:
        representative = collect_representative(inference, representative_data)
    parity_check = ParityCheck(
        inference, images, check, image_size, tolerance, precision
    )
    frozen = inference.freeze(
        # OpenVINO takes the defaults of optional inputs for constants.
        form=fastest_form(model, integer=is_integer),
        with_options=False,
    )
    import openvino

    # Not by `convert_model`, which reads files and sends statistics.
    content = onnx.convert(frozen, opset=17).SerializeToString()
    converted = openvino.Core().read_model(io.BytesIO(content))
    if representative is not None:
        converted = _quantize(converted, representative, FloatScopes.of(model))
    names = {*inference.input_names, *frozen.output_names}
    for node in converted.get_ops():
        for value in node.outputs():
            # Outputs would get those of operations that the runtime joins.
            value.get_tensor().set_names(value.get_names() & names)
    for key, value in inference.metadata().items():
        converted.set_rt_info(value, ["keras-sspcab", key])
    return publish_file(
        path,
        lambda staged: openvino.save_model(
            converted, staged, compress_to_fp16=precision == "float16"
        ),
        parity_check,
        frozen,
        format="openvino",
    )


def _quantize(
    model: Any, representative: dict[str, np.ndarray], float_scopes: FloatScopes
) -> Any:
    """Computes in integers, except for what is computed in some scopes."""
    # NNCF would send statistics.
    os.environ.setdefault("NNCF_CI", "1")
    import nncf

    graph = _read_graph(model)
    kept = [graph.tensor_names[i] for i in sorted(float_scopes.kept(graph))]
    count = len(next(iter(representative.values())))
    samples = [
        {name: part[i : i + 1] for name, part in representative.items()}
        for i in range(count)
    ]
    with _quiet():
        return nncf.quantize(
            model,
            nncf.Dataset(samples),
            subset_size=count,
            # Of those that are no operations for NNCF it would complain.
            ignored_scope=nncf.IgnoredScope(names=kept, validate=False),
        )


def _read_graph(model: Any) -> Graph:
    """Each operation has one tensor, which bears the operation's name."""
    nodes = model.get_ordered_ops()
    places = {node.get_friendly_name(): i for i, node in enumerate(nodes)}
    operations = tuple(
        Operation(
            _KINDS.get(node.get_type_name(), node.get_type_name()),
            False,
            tuple(
                places[value.get_node().get_friendly_name()]
                for value in node.input_values()
            ),
            (place,),
        )
        for place, node in enumerate(nodes)
    )
    return Graph(operations, tuple(n.get_friendly_name() for n in nodes))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps NNCF from writing to the terminal."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
