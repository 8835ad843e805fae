"""Export to ONNX."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_sspcab.export.artifacts import (
    ExportResult,
    ParityCheck,
    publish_file,
)
from keras_sspcab.export.inference import FrozenInference, Inference
from keras_sspcab.imports import import_optional

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
    _add_metadata(proto, inference)
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

    function = tf.function(
        frozen.__call__, input_signature=frozen.specs, autograph=False
    )
    proto, _ = tf2onnx.convert.from_function(
        function, input_signature=frozen.specs, opset=opset
    )
    _name_open_axes(proto, frozen)
    return proto


def _name_open_axes(proto: Any, frozen: FrozenInference) -> None:
    """Gives open axes names that say what they are."""
    specs = {spec.name: spec for spec in frozen.specs}
    for value in proto.graph.input:
        axes = value.type.tensor_type.shape.dim
        names = ["batch", *(f"axis{i}" for i in range(1, len(axes)))]
        if len(axes) >= 4:
            names[-3:-1] = ["height", "width"]
        for axis, name, size in zip(
            axes, names, specs[value.name].shape, strict=True
        ):
            if size is None:
                axis.dim_param = name
    for value in proto.graph.output:
        axes = value.type.tensor_type.shape.dim
        if axes and not axes[0].HasField("dim_value"):
            axes[0].dim_param = "batch"


def _add_metadata(proto: Any, inference: Inference) -> None:
    proto.producer_name = "keras-sspcab"
    metadata = {"model": inference.model.name}
    if inference.is_detector:
        metadata["value_range"] = _value_ranges(inference)
        metadata["calibration"] = json.dumps(inference.calibration)
    for key, value in metadata.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value


def _value_ranges(inference: Inference) -> str:
    """As in `[0, 1]`, or those of several inputs by name, as JSON."""
    ranges = {
        name: inference.value_range(name) for name in inference.input_names
    }
    if len(ranges) > 1:
        return json.dumps(ranges)
    (limits,) = ranges.values()
    return "null" if limits is None else f"[{limits[0]:g}, {limits[1]:g}]"


def _check_and_save(proto: Any, path: pathlib.Path) -> None:
    import onnx

    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))
