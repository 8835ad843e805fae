"""Requests that TensorFlow Serving runs before a version takes any."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_sspcab.export._optional import require
from keras_sspcab.export.serving.graph import read_meta_graph

#: Where TensorFlow Serving looks for them in a version.
WARMUP_FILE = pathlib.PurePosixPath("assets.extra/tf_serving_warmup_requests")

#: Signatures that are warmed up, as far as a version has them.
SIGNATURES = ("serving_default", "serving_bytes")


def write_warmup(
    path: Any,
    name: str,
    inputs: Mapping[str, np.ndarray],
    batch_sizes: Sequence[int],
) -> list[str]:
    """Adds warm-up requests to a version: records of `PredictionLog`.

    There is one request for each signature and batch size: a GPU chooses its
    kernels, and XLA compiles, anew for every size, and what takes that time
    should not be the first request of a client.

    Args:
        path: Folder of the version.
        name: Name of the model.
        inputs: Real inputs of the model, by name: arrays with the batch in
            front. Images are sent as PNG files to `serving_bytes`.
        batch_sizes: Sizes of the requests.

    Returns:
        The signatures that are warmed up.
    """
    require("tensorflow_serving", extra="serve")
    file = pathlib.Path(path) / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    signatures = _signatures(pathlib.Path(path))
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature in signatures:
            rows = _rows(signature, inputs)
            for size in batch_sizes:
                log = _record(name, signature, rows, size)
                writer.write(log.SerializeToString())
    return signatures


def _signatures(path: pathlib.Path) -> list[str]:
    known = read_meta_graph(path).signature_def
    return [signature for signature in SIGNATURES if signature in known]


def _rows(
    signature: str, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    if signature != "serving_bytes":
        return dict(inputs)
    (images,) = inputs.values()
    pixels = np.round(images * 255).astype("uint8")
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    return {"image_bytes": np.array(files, object)}


def _record(
    name: str, signature: str, rows: Mapping[str, np.ndarray], size: int
) -> Any:
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    for key, values in rows.items():
        batch = values[np.arange(size) % len(values)]
        request.inputs[key].CopyFrom(tf.make_tensor_proto(batch))
    return log
