"""Graphs for GPUs: compiled by XLA, and computing in 16 bits."""

import contextlib
import json

import keras
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2

from keras_sspcab.export.inference import Inference
from keras_sspcab.export.manifest import verify_version
from keras_sspcab.export.parity import TOLERANCES
from keras_sspcab.export.precision import computing_in
from tests.export.serving.models import (
    IMAGES,
    package,
)

SHORT = {"float16": types_pb2.DT_HALF, "bfloat16": types_pb2.DT_BFLOAT16}


@pytest.fixture(
    scope="module",
    params=[("float32", True), ("float16", True), ("bfloat16", False)],
    ids=str,
)
def packaged(request, tmp_path_factory):
    precision, jit_compile = request.param
    directory = tmp_path_factory.mktemp("repository")
    result = package(directory, precision=precision, jit_compile=jit_compile)
    return result, precision, jit_compile


def graph_functions(path):
    saved = saved_model_pb2.SavedModel.FromString(
        (path / "saved_model.pb").read_bytes()
    )
    return saved.meta_graphs[0].graph_def.library.function


def test_parity_is_within_its_bounds(packaged):
    result, precision, jit_compile = packaged
    assert result.parity.passes
    assert set(result.parity.outputs) == {
        *("anomaly_score", "serving_bytes/anomaly_score"),
        *("anomaly_map", "serving_bytes/anomaly_map"),
    }
    assert result.parity.precision == precision
    assert result.parity.tolerance == TOLERANCES[precision]
    report = json.loads((result.path / "parity.json").read_text())
    assert report["jit_compile"] is jit_compile
    verify_version(result.path)


def test_xla_compiles_what_it_is_told_to(packaged):
    result, _, jit_compile = packaged
    compiled = [
        function
        for function in graph_functions(result.path)
        if function.attr["_XlaMustCompile"].b
    ]
    # One with optional inputs and one without, each of which two signatures
    # call: files are decoded outside of it.
    assert len(compiled) == (2 if jit_compile else 0)
    for function in compiled:
        operations = {node.op for node in function.node_def}
        assert not operations & {"DecodeImage", "DecodePng", "TensorListStack"}


def test_the_network_computes_in_16_bits_and_the_scoring_in_32(packaged):
    result, precision, _ = packaged
    kinds = {}
    for function in graph_functions(result.path):
        for node in function.node_def:
            kinds.setdefault(node.op, set()).add(node.attr["T"].type)
    assert kinds["Conv2D"] == {SHORT.get(precision, types_pb2.DT_FLOAT)}
    # The reconstruction, the difference of images, and its normalization.
    for operation in ("Square", "Sigmoid"):
        assert types_pb2.DT_FLOAT in kinds[operation]
    assert kinds["Square"] == {types_pb2.DT_FLOAT}
    # Files are decoded by comparisons of whole numbers.
    assert types_pb2.DT_FLOAT in kinds["GreaterEqual"]
    assert not kinds["GreaterEqual"] & set(SHORT.values())
    assert len(kinds["Sigmoid"]) == (1 if precision == "float32" else 2)


def test_weightless_layers_before_the_scoring_are_precise():
    """As hosts of videos end: tanh and a rescaling behind the last weights."""
    from keras_sspcab.scoring import SquaredError

    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = keras.layers.ReLU(name="relu")(x)
    x = keras.layers.Conv2D(1, 3, padding="same", name="last")(x)
    x = keras.layers.Activation("tanh", name="tanh")(x)
    x = keras.layers.Rescaling(0.5, 0.5, name="rescaled")(x)
    model = keras.Model(image, SquaredError(name="error")(image, x))

    def short():
        return {
            layer.name
            for layer in model._flatten_layers()
            if layer.compute_dtype != "float32"
        }

    # And only for a while, whatever happens.
    with contextlib.suppress(KeyError), computing_in(model, "bfloat16"):
        assert short() == {"conv", "relu", "last"}
        raise KeyError
    assert not short()


def test_outputs_of_the_network_are_widened():
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(2, 3, name="conv")(image)
    frozen = Inference(keras.Model(image, {"features": x})).freeze(
        precision="float16"
    )
    results = frozen(tf.constant(IMAGES[:1, :8, :8]))
    assert results["features"].dtype == tf.float32
    nodes = frozen.function.graph.as_graph_def().node
    (conv,) = (node for node in nodes if node.op == "Conv2D")
    assert conv.attr["T"].type == types_pb2.DT_HALF
