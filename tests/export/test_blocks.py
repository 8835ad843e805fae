"""The transformer block in artifacts, of maps and of volumes."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_sspcab import SSMCTBLayer
from keras_sspcab.export import export_model
from keras_sspcab.export.inference import fastest_form
from keras_sspcab.export.precision import Graph
from tests.export.conftest import FORMATS

MAPS, VOLUMES = (16, 16, 1), (12, 12, 6, 1)
OPTIONS = {"transformer": {"pool_size": 2}, "authors": {"kernel_size": 2}}


def network(shape, attention="transformer", **options):
    rank = len(shape) - 1
    conv = {2: keras.layers.Conv2D, 3: keras.layers.Conv3D}[rank]
    return keras.Sequential(
        [
            keras.Input(shape, name="photo"),
            conv(8, 3, padding="same", activation="relu"),
            SSMCTBLayer(attention=attention, token_dim=16, **options),
            conv(1, 3, padding="same", name="drawing"),
        ]
    )


def inputs(shape):
    return np.random.default_rng(0).random((6, *shape), "float32")


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("attention", OPTIONS)
@pytest.mark.parametrize("shape", [MAPS, VOLUMES])
def test_every_format(shape, attention, to, tmp_path):
    model, x = network(shape, attention, **OPTIONS[attention]), inputs(shape)
    result = export_model(model, tmp_path / FORMATS[to], to, images=x)
    assert result.parity.outputs["drawing"].max_difference < 1e-5


@pytest.mark.parametrize("precision", ["float16", "int8"])
@pytest.mark.parametrize("shape", [MAPS, VOLUMES])
def test_precisions(shape, precision, tmp_path):
    model, x = network(shape), inputs(shape)
    data = {"representative_data": x} if precision == "int8" else {}
    path = tmp_path / "m.tflite"
    result = export_model(
        model, path, "tflite", images=x, precision=precision, **data
    )
    assert result.parity.passes
    if precision == "int8":
        # The maps in integers, but not the few numbers of the gate.
        details = Interpreter(str(path)).get_tensor_details()
        types = {d["index"]: np.dtype(d["dtype"]).name for d in details}
        kinds = {}
        for operation in Graph.read(path.read_bytes()).operations:
            kinds.setdefault(operation.name, set()).add(
                types[operation.outputs[0]]
            )
        if shape == MAPS:
            assert kinds["CONV_2D"] == {"int8"}
        assert kinds["SOFTMAX"] == kinds["FULLY_CONNECTED"] == {"float32"}


def test_form():
    # TFLite has no dilated convolution of volumes.
    assert fastest_form(network(MAPS)) == "dilated"
    assert fastest_form(network(VOLUMES)) == "shifted"
