"""Export to ONNX."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_sspcab.export.artifacts import (
    ExportResult,
    ParityCheck,
    publish_file,
)
from keras_sspcab.export.inference import FrozenInference, Inference
from keras_sspcab.imports import import_optional
from keras_sspcab.optional_inputs import left_out

#: Opsets that tf2onnx writes and current runtimes read.
OPSETS = range(13, 19)


def export_onnx(
    model: keras.Model,
    path: Any,
    opset: int = 17,
    images: Any = None,
    check: bool = True,
    image_size: Sequence[int] | None = None,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
    allow_uncalibrated: bool = False,
) -> ExportResult:
    """Writes an `.onnx` file with inputs and outputs by name.

    The batch is open, and so are height and width where the model leaves them
    open. The metadata of the file hold the range of values and the calibration.

    A calibrated `AnomalyModel` has two inputs more, `threshold` and
    `sensitivity`, which may be left out: a value for all images, `(1,)`, or one
    for each, `(batch,)`. See `Calibration.adjusted`.

    Args:
        model: An `AnomalyModel`, or any functional or sequential Keras model.
        path: File to write, ending in `.onnx`; replaced if it exists.
        opset: Version of ONNX' operators, 13 to 18. Defaults to 17.
        images: Real images to compare artifact and model on; this and all
            others as in `export_saved_model`.
        check: Whether to compare.
        image_size: Height and width, to fix them where the model takes any.
        outputs: Names of the outputs.
        tolerance: Largest relative difference allowed.
        allow_uncalibrated: Whether thresholds may be missing.

    Returns:
        The path and the comparison, which is also written beside it, to
        `<name>.onnx.parity.json`.

    Raises:
        ValueError, ExportMismatchError: As in `export_saved_model`.
        ImportError: If a package is missing.

    Example:
    >>> result = export_onnx(  # doctest: +SKIP
    ...     model, "screws.onnx", images=images
    ... )
    """
    packages = ["tf2onnx", "onnx", *(["onnxruntime"] if check else [])]
    for package in packages:
        import_optional(package, f"Export to ONNX needs {package}", "export")
    path = pathlib.Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"`path` must end in .onnx. Received: path={path}")
    if opset not in OPSETS:
        raise ValueError(
            f"`opset` must lie in {OPSETS.start} to {OPSETS.stop - 1}. "
            f"Received: opset={opset!r}"
        )
    inference = Inference(model, outputs, allow_uncalibrated, image_size)
    parity_check = ParityCheck(inference, images, check, image_size, tolerance)
    frozen = inference.freeze()
    proto = convert(frozen, opset)
    proto.producer_name = "keras-sspcab"
    for key, value in inference.metadata().items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    return publish_file(
        path,
        lambda staged: _check_and_save(proto, staged),
        parity_check,
        frozen,
        format="onnx",
        opset=opset,
    )


def convert(frozen: FrozenInference, opset: int) -> Any:
    """Returns a graph as an ONNX model."""
    import tf2onnx

    specs = [*frozen.specs, *frozen.options]
    function = tf.function(
        frozen.__call__, input_signature=specs, autograph=False
    )
    with _without_copies():
        proto, _ = tf2onnx.convert.from_function(
            function, input_signature=specs, opset=opset
        )
    _name_open_axes(proto, specs)
    _add_defaults(proto, frozen.options)
    return proto


def _add_defaults(proto: Any, options: Sequence[tf.TensorSpec]) -> None:
    """Gives inputs default values, which callers may override."""
    from onnx import numpy_helper

    for spec in options:
        value = np.full(1, left_out(spec.dtype.name), spec.dtype.as_numpy_dtype)
        proto.graph.initializer.append(
            numpy_helper.from_array(value, spec.name)
        )


@contextlib.contextmanager
def _without_copies() -> Iterator[None]:
    """Lets tf2onnx change its graph in place, and raise what goes wrong then.

    To go on after errors, it copies all weights for each of its many passes,
    and there is no other way to tell it not to: gigabytes for large networks.
    """
    name = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(name)
    os.environ[name] = "FALSE"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _name_open_axes(proto: Any, specs: Sequence[tf.TensorSpec]) -> None:
    """Gives open axes names that say what they are."""
    shapes = {spec.name: spec.shape for spec in specs}
    for value in proto.graph.input:
        axes = value.type.tensor_type.shape.dim
        names = ["batch", *(f"axis{i}" for i in range(1, len(axes)))]
        if len(axes) >= 4:
            names[-3:-1] = ["height", "width"]
        for axis, name, size in zip(
            axes, names, shapes[value.name], strict=True
        ):
            if size is None:
                axis.dim_param = name
    for value in proto.graph.output:
        axes = value.type.tensor_type.shape.dim
        if axes and not axes[0].HasField("dim_value"):
            axes[0].dim_param = "batch"


def _check_and_save(proto: Any, path: pathlib.Path) -> None:
    import onnx

    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))
