"""All hosts in all formats, and the networks that some are made of."""

import functools
import json

import keras
import numpy as np
import onnx
import openvino
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_sspcab.applications import MultiScalePaDiM
from keras_sspcab.export import export_model, export_networks, load_runner
from keras_sspcab.export.precision import Graph
from keras_sspcab.hosts import available_applications
from tests.export.conftest import FORMATS
from tests.hosts import samples, small_host

OUTPUTS = {"anomaly_score", "anomaly_map", "is_anomalous"}
OBJECT_HOSTS = ("background_agnostic", "hf2vad", "object_autoencoder")
# Exported in every run of the tests, and to what; all else are slow tests.
USUAL = {
    "draem": ("onnx", "tflite"),
    "multiscale_padim": ("savedmodel", "openvino"),
    "object_autoencoder": tuple(FORMATS),
}


def objects_of(host, count, seed=0):
    """Objects of which the flow is in pixels, to both sides."""
    objects = samples(host, count, seed)
    return {
        name: part if name == "appearance" else 6 * part - 3
        for name, part in objects.items()
    }


@functools.cache
def object_host(name):
    keras.utils.set_random_seed(2)
    model = small_host(name)
    normal = objects_of(model, 24)
    model.fit_scoring(normal)
    model.calibrate(normal)
    # Numbers far from those of a fresh network.
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if "moving_mean" in weight.path or "beta" in weight.path:
            weight.assign(rng.normal(0.0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def host_and_inputs(request, textures):
    """A calibrated host, and what it is compared on."""
    keras.utils.set_random_seed(2)
    name = request.param
    if name in OBJECT_HOSTS:
        model = object_host(name)
        return model, objects_of(model, 6, seed=1)
    model = small_host(name, run_eagerly=True)
    *frames, height, width, channels = model.inputs[0].shape[1:]
    images = tf.image.resize(textures["test"], (height, width)).numpy()
    images = np.repeat(images, channels, axis=-1).clip(0, 1)
    if frames:
        # Clips of a camera that sees one picture after the other.
        images = np.stack(
            [np.roll(images, -i, axis=0) for i in range(frames[0])], axis=1
        )
    model.fit(images[:8], verbose=0)
    model.calibrate(images[:8])
    return model, images


@pytest.mark.parametrize(
    ("host_and_inputs", "to"),
    [
        pytest.param(
            name,
            to,
            marks=() if to in USUAL.get(name, ()) else pytest.mark.slow,
        )
        for name in sorted(available_applications())
        for to in FORMATS
    ],
    indirect=["host_and_inputs"],
)
def test_every_host(host_and_inputs, to, tmp_path):
    host, inputs = host_and_inputs
    # A fresh memory is as near to all images to 0.15 %, which its score
    # stretches to [0, 1], and the rounding with it.
    tolerance = 1e-3 if host.name == "mnad" else None
    result = export_model(
        host, tmp_path / FORMATS[to], to, images=inputs, tolerance=tolerance
    )
    assert result.parity.passes
    if not isinstance(inputs, dict):
        inputs = {host.inputs[0].name: inputs}
    first = {name: part[:1] for name, part in inputs.items()}
    outputs = load_runner(result.path)(**first)
    is_dict = isinstance(host.input, dict)
    expected = host.predict(
        first if is_dict else next(iter(first.values())), verbose=0
    )
    assert set(outputs) == OUTPUTS
    np.testing.assert_allclose(
        outputs["anomaly_score"],
        expected["anomaly_score"],
        rtol=1e-3,
        atol=1e-3,
    )
    threshold = host.calibration.threshold
    assert outputs["is_anomalous"] == (outputs["anomaly_score"] >= threshold)
    if to != "tflite" and len(inputs) > 1:
        limits = ranges_in(result.path)
        assert limits.pop("appearance") == [0.0, 1.0]
        assert limits == dict.fromkeys(limits)
        assert {"appearance", *limits} == set(inputs)


def ranges_in(path):
    """The ranges of values that an artifact names."""
    if path.suffix == ".xml":
        model = openvino.Core().read_model(path)
        return json.loads(
            model.get_rt_info(["keras-sspcab", "value_range"]).astype(str)
        )
    if path.suffix == ".onnx":
        properties = {p.key: p.value for p in onnx.load(path).metadata_props}
        return json.loads(properties["value_range"])
    report = json.loads((path / "parity.json").read_text("utf-8"))
    return {n: given["value_range"] for n, given in report["inputs"].items()}


# === Hosts of objects ===


@pytest.fixture(params=OBJECT_HOSTS)
def host(request):
    return object_host(request.param)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "to"), [("background_agnostic", "onnx"), ("hf2vad", "savedmodel")]
)
def test_each_network(name, to, tmp_path):
    host = object_host(name)
    objects = objects_of(host, 4, seed=1)
    results = export_networks(host, tmp_path, to, images=objects)
    assert set(results) == set(host.networks)
    for name, result in results.items():
        assert result.path.exists()
        assert result.parity.passes
        assert result.parity.num_images >= 4
        assert set(result.parity.outputs) == set(
            load_runner(result.path).output_names
        )
        assert name in str(result.path.relative_to(tmp_path))


def test_networks_are_given_what_they_get_in_the_host(host):
    objects = objects_of(host, 3)
    given = host.network_inputs(objects)
    outputs = host.predict_on_batch(objects)

    def run(network):
        return host.networks[network].predict_on_batch(given[network])

    if host.name == "hf2vad":
        rebuilt = run("memory_autoencoder")["reconstruction"]
        expected = outputs["flow_reconstruction"]
        pairs = [
            (run("vunet")["prediction"], outputs["prediction"]),
            (rebuilt.reshape(expected.shape), expected),
        ]
    elif host.name == "object_autoencoder":
        pairs = [(run("autoencoder"), outputs["reconstruction"])]
    else:
        logits = [
            run(f"{name}_classifier")
            for name in ("appearance", "previous_motion", "next_motion")
        ]
        normal = tf.nn.softmax(np.stack(logits, axis=1)).numpy()[..., 1]
        pairs = [(normal, outputs["normal_probability"])]
    for actual, expected in pairs:
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_appearance_must_lie_in_its_range(host, tmp_path):
    objects = objects_of(host, 2)
    objects["appearance"] = 255 * objects["appearance"]
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        export_model(host, tmp_path / "host", images=objects)


def test_other_models_have_no_networks_of_their_own(tmp_path):
    model = small_host("autoencoder")
    with pytest.raises(ValueError, match="Use `export_model`"):
        export_networks(model, tmp_path, images=samples(model, 2))


@pytest.mark.slow
def test_networks_in_integers(tmp_path):
    # Integers need more channels than float to round to the same.
    host = small_host("hf2vad", root_width=8, num_slots=20, base_width=8)
    results = export_networks(
        host,
        tmp_path,
        "tflite",
        images=objects_of(host, 4, seed=1),
        representative_data=objects_of(host, 16),
        precision="int8",
    )
    for result in results.values():
        assert result.parity.precision == "int8"
        details = Interpreter(str(result.path)).get_tensor_details()
        assert np.int8 in {detail["dtype"] for detail in details}


# === Hosts of pretrained features ===


def test_int8_keeps_entry_and_scoring_in_float(tmp_path):
    images = np.random.default_rng(0).random((12, 64, 64, 3), "float32")
    model = MultiScalePaDiM(
        (64, 64, 3), sspcab=None, weights=None, num_features=12, rank=6
    )
    model.fit_scoring(images)
    model.calibrate()
    path = tmp_path / "int8.tflite"
    # Without check: the features of a random network hardly differ from image
    # to image, so that integers leave nothing of them.
    export_model(
        model,
        path,
        "tflite",
        precision="int8",
        representative_data=images,
        check=False,
    )
    graph = Graph.read(path.read_bytes())
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
