"""Export to SavedModel, in the layout of TensorFlow Serving."""

import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_sspcab import files
from keras_sspcab.checks import standardize_choice, standardize_int
from keras_sspcab.data import decode_and_resize
from keras_sspcab.export.artifacts import (
    ExportResult,
    ParityCheck,
    staging_path,
)
from keras_sspcab.export.audit import audit_saved_model
from keras_sspcab.export.inference import FrozenInference, Inference
from keras_sspcab.export.manifest import find_versions
from keras_sspcab.export.precision import COMPUTE_PRECISIONS
from keras_sspcab.optional_inputs import OPTIONS_SUFFIX
from keras_sspcab.preprocessing import Preprocessing


def export_saved_model(
    model: keras.Model,
    directory: Any,
    version: int | None = None,
    images: Any = None,
    check: bool = True,
    image_size: Sequence[int] | None = None,
    serving_bytes: bool | None = None,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
    allow_uncalibrated: bool = False,
    precision: str = "float32",
    jit_compile: bool = False,
) -> ExportResult:
    """Writes `directory/version/`, which TensorFlow Serving can serve.

    Signatures, all with any batch size and the same outputs by name:
        serving_default: Float images `(batch, height, width, channels)` in
            [0, 1], under the name of the model's input (`image`).
        serving_bytes: `image_bytes`, a vector of strings: the contents of PNG,
            JPEG, BMP or GIF files. They are decoded and resized in the graph
            as `keras_sspcab.data` does it in training, by the method to resize
            and with the white level of files with 16 bits that it had there.
        serving_default_options, serving_bytes_options: The same, of a
            calibrated `AnomalyModel`, with `threshold` and `sensitivity` as
            further inputs, `(batch,)`; see `Calibration.adjusted`. NaN leaves
            one out.

    The weights are constants in the graph: nothing has to be restored, all
    signatures share one copy, and no losses, metrics or optimizer can slip in.
    The price is the limit of 2 GB.

    Args:
        model: An `AnomalyModel`, or any functional or sequential Keras model.
        directory: The model's base folder; its name is the model's name in
            TensorFlow Serving.
        version: Positive integer. None takes the next that is free.
        images: Real images to compare artifact and model on; see
            `check_parity`.
        check: Whether to compare. False must be said explicitly.
        image_size: Height and width that encoded images are resized to, for
            models that take any size. Others know theirs.
        serving_bytes: Whether to write the second signature. None does so for
            an `AnomalyModel` of gray or color images.
        outputs: Names of the outputs. None takes score, map and flag of an
            `AnomalyModel`, and all of another model.
        tolerance: As in `check_parity`.
        allow_uncalibrated: Whether an `AnomalyModel` without thresholds may be
            exported.
        precision: What the network computes in: `"float32"`, `"float16"` or
            `"bfloat16"`, for GPUs and other accelerators. Inputs, outputs,
            weights and the scoring stay float32. Scores may then be off by
            1 % or 10 %; see `check_parity`.
        jit_compile: Whether XLA is to compile the signatures, once for each
            size of a batch that comes; files are still decoded outside of it.
            The server must have been built with XLA for its device.

    Returns:
        Path of the version and the comparison, which is also written to
        `parity.json` in it.

    Raises:
        ValueError: If an argument does not fit, or the version exists.
        ExportMismatchError: If artifact and model differ; nothing is left.

    Example:
    >>> import tempfile
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = export_saved_model(model, folder, images=np.ones((3, 2)))
    ...     result.path.name, result.parity.passes
    ('1', True)
    """
    precision = standardize_choice(precision, COMPUTE_PRECISIONS, "precision")
    inference = Inference(model, outputs, allow_uncalibrated)
    directory = pathlib.Path(directory)
    if serving_bytes is None:
        serving_bytes = inference.is_detector and _takes_images(inference)
    size = _encoded_size(inference, image_size) if serving_bytes else None
    parity_check = ParityCheck(
        inference, images, check, size, tolerance, precision
    )
    # A number that is taken is told before the work, not after it.
    target = _version_folder(directory, version)
    frozen = inference.freeze(precision=precision)
    with staging_path(target) as staged:
        write_saved_model(
            frozen, size, inference.preprocessing, jit_compile, staged
        )
        if problems := audit_saved_model(staged):
            raise ValueError(
                f"{model.name} cannot be served as it is: its graph holds "
                f"what does not belong into inference: {'; '.join(problems)}"
            )
        parity, report = parity_check.run(staged, target, frozen)
        facts = {"format": "savedmodel", "jit_compile": jit_compile}
        files.write_json(str(staged / "parity.json"), {**facts, **report})
        # Onto a folder with files in it a folder cannot be renamed: whoever
        # comes second does not overwrite.
        target = _version_folder(directory, version)
        os.rename(staged, target)
    return ExportResult(target, parity)


def write_saved_model(
    frozen: FrozenInference,
    size: tuple[int, int] | None,
    preprocessing: Preprocessing,
    jit_compile: bool,
    path: pathlib.Path,
) -> None:
    """Writes a graph as a SavedModel; encoded images are resized to `size`."""
    module = tf.Module()
    # For those who read the files themselves.
    module.preprocessing = tf.function(
        lambda: tf.constant(json.dumps(preprocessing.to_dict())),
        input_signature=[],
    )
    function = tf.function(
        frozen.__call__, autograph=False, jit_compile=jit_compile or None
    )

    def infer_encoded(
        infer: Any, image_bytes: tf.Tensor, *options: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        channels, to_size = frozen.specs[0].shape[-1], size or ()
        images = tf.map_fn(
            lambda file: decode_and_resize(
                file, to_size, channels, preprocessing
            ),
            image_bytes,
            fn_output_signature=tf.TensorSpec((*to_size, channels)),
        )
        return infer(images, *options)

    encoded = tf.TensorSpec((None,), tf.string, "image_bytes")
    signatures = {}
    for options, suffix in ([], ""), (frozen.options, OPTIONS_SUFFIX):
        if suffix and not options:
            continue
        infer = function.get_concrete_function(*frozen.specs, *options)
        signatures[f"serving_default{suffix}"] = infer
        if size is not None:
            # Both call the same: XLA compiles it once.
            signatures[f"serving_bytes{suffix}"] = tf.function(
                functools.partial(infer_encoded, infer), autograph=False
            ).get_concrete_function(encoded, *options)
    tf.saved_model.save(module, str(path), signatures)


def _takes_images(inference: Inference) -> bool:
    """Whether the model has one input, of gray or color images."""
    spec = inference.specs[0]
    return (
        len(inference.specs) == 1
        and spec.dtype == tf.float32
        and len(spec.shape) == 4
        and spec.shape[-1] in (1, 3)
    )


def _encoded_size(
    inference: Inference, image_size: Sequence[int] | None
) -> tuple[int, int]:
    if not _takes_images(inference):
        raise ValueError(
            "`serving_bytes` is for models of gray or color images, float. "
            f"Received: {inference.model.name} with {inference.specs}"
        )
    height, width = inference.image_size(image_size)
    if height is None or width is None:
        raise ValueError(
            f"{inference.model.name} takes images of any size, so the size "
            "that encoded images are resized to must be given: pass "
            "`image_size=(height, width)`, or `serving_bytes=False` to leave "
            f"their signature out. Received: image_size={image_size}"
        )
    return height, width


def _version_folder(
    directory: pathlib.Path, version: int | None
) -> pathlib.Path:
    if version is None:
        version = max(find_versions(directory), default=0) + 1
    folder = directory / str(standardize_int(version, "version", minimum=1))
    if folder.exists():
        raise ValueError(
            f"Version {version} exists already: {folder}. Versions are never "
            "overwritten; leave `version` out to write the next one."
        )
    return folder
