"""Requests that a version runs before it takes any from clients."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_sspcab.imports import import_optional

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

    There is one request for each signature and batch size, because GPUs choose
    kernels and XLA compiles for each size, which would delay the first request
    of a client.

    Args:
        path: Folder of the version.
        name: Name of the model.
        inputs: Real inputs of the model, by name: arrays with the batch in
            front. Images are sent as PNG files to `serving_bytes`.
        batch_sizes: Sizes of the requests.

    Returns:
        The signatures that are warmed up.
    """
    import_optional("tensorflow_serving", "Warm-up needs its protos", "serve")
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


def read_meta_graph(path: pathlib.Path) -> Any:
    """Returns the `MetaGraphDef` that is served.

    Args:
        path: Folder of the SavedModel.

    Raises:
        ValueError: If there is none.
    """
    file = path / "saved_model.pb"
    if not file.is_file():
        raise ValueError(f"{path} holds no saved_model.pb")
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    raise ValueError(f"{file} holds no graph with the tag 'serve'")


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
