"""Requests that a version runs before it takes any from clients."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

#: Where TensorFlow Serving looks for them in a version.
WARMUP_FILE = pathlib.PurePosixPath("assets.extra/tf_serving_warmup_requests")

_SIGNATURES = ("serving_default", "serving_bytes")


def write_warmup(
    path: pathlib.Path,
    name: str,
    inputs: Mapping[str, np.ndarray],
    batch_sizes: Sequence[int],
) -> list[str]:
    """Adds warm-up requests to a version; returns the signatures they are for.

    They are records of `PredictionLog`, one for each signature and batch size,
    because GPUs choose kernels and XLA compiles for each size, which would
    delay the first request of a client. Inputs are arrays with the batch in
    front; images are sent as PNG files to `serving_bytes`.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    known = read_meta_graph(path).signature_def
    signatures = [signature for signature in _SIGNATURES if signature in known]
    file = path / WARMUP_FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for signature in signatures:
            rows = _encode(inputs) if signature == "serving_bytes" else inputs
            for size in batch_sizes:
                log = prediction_log_pb2.PredictionLog()
                request = log.predict_log.request
                request.model_spec.name = name
                request.model_spec.signature_name = signature
                for key, values in rows.items():
                    batch = values[np.arange(size) % len(values)]
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(batch))
                writer.write(log.SerializeToString())
    return signatures


def read_meta_graph(path: pathlib.Path) -> Any:
    """Returns the `MetaGraphDef` of a SavedModel that is served."""
    file = path / "saved_model.pb"
    if not file.is_file():
        raise ValueError(f"{path} holds no saved_model.pb")
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    raise ValueError(f"{file} holds no graph with the tag 'serve'")


def _encode(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    (images,) = inputs.values()
    pixels = np.round(images * 255).astype("uint8")
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    return {"image_bytes": np.array(files, object)}
