"""Hosts that score pretrained features, here with random weights."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_sspcab.applications import MultiScalePaDiM, PaDiM, PatchCore
from keras_sspcab.export import export_model, load_runner
from keras_sspcab.export.flatbuffer import Graph, Operation, read_graph
from keras_sspcab.export.float_scopes import FloatScopes

HOSTS = {
    "padim": (PaDiM, {"num_features": 12}),
    "patchcore": (PatchCore, {"memory_size": 32}),
    "multiscale": (MultiScalePaDiM, {"num_features": 12, "rank": 6}),
}
FILES = {"savedmodel": "served", "tflite": "m.tflite", "onnx": "m.onnx"}


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((count, 64, 64, 3)).astype("float32")


def fitted(name, sspcab=None):
    keras.utils.set_random_seed(0)
    make, arguments = HOSTS[name]
    model = make((64, 64, 3), sspcab=sspcab, weights=None, **arguments)
    # Its statistics; the block stays as it was drawn.
    model.fit_scoring(images(12))
    model.calibrate()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("sspcab", [None, "features"])
@pytest.mark.parametrize("name", HOSTS)
def test_float_formats_agree_with_keras(name, sspcab, tmp_path):
    model = fitted(name, sspcab)
    new = images(4, seed=1)
    expected = model.predict(new, verbose=0)
    for to, file in FILES.items():
        path = export_model(model, tmp_path / file, to, images=new).path
        outputs = load_runner(path)(image=new)
        for key in ("anomaly_score", "anomaly_map"):
            difference = np.abs(outputs[key] - expected[key]).max()
            largest = np.abs(expected[key]).max()
            assert difference <= 1e-5 * largest, (to, key)
        np.testing.assert_array_equal(
            outputs["is_anomalous"], expected["is_anomalous"]
        )


def test_int8_keeps_entry_and_scoring_in_float(tmp_path):
    model = fitted("multiscale")
    path = tmp_path / "int8.tflite"
    # Without check: the features of a random network hardly differ from image
    # to image, so that integers leave nothing of them.
    export_model(
        model,
        path,
        "tflite",
        precision="int8",
        representative_data=images(12),
        check=False,
    )
    graph = read_graph(path.read_bytes())
    details = Interpreter(str(path)).get_tensor_details()
    types = {d["index"]: np.dtype(d["dtype"]).name for d in details}
    convolutions = [
        types[operation.outputs[0]]
        for operation in graph.operations
        if operation.name in ("CONV_2D", "DEPTHWISE_CONV_2D")
    ]
    assert convolutions[:4] == ["float32"] * 4
    assert set(convolutions[4:]) == {"int8"}
    # The converter does not know them by the name of one output.
    tops = [o for o in graph.operations if o.name == "TOPK_V2"]
    assert [types[o.outputs[0]] for o in tops] == ["float32"] * 2
    assert [types[o.inputs[0]] for o in tops] == ["float32"] * 2


def test_kinds_of_operations_with_several_outputs():
    graph = Graph(
        (
            Operation("SPLIT", False, (0,), (1, 2)),
            Operation("CONV_2D", False, (1,), (3,)),
            Operation("MEAN", False, (3,), (4,)),
            Operation("TOPK_V2", False, (4,), (5, 6)),
        ),
        ("a", "b", "c", "d/conv", "top/mean", "top/values", "top/places"),
    )
    scopes = FloatScopes(("top",), ())
    assert scopes.operations(graph) == ["TOPK_V2"]
    assert scopes.tensors(graph) == ["top/mean", "top/values", "top/places"]
    scopes = FloatScopes((), (), first_convolutions=1)
    assert scopes.tensors(graph) == ["b", "c", "d/conv"]
