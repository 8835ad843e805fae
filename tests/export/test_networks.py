"""Hosts that look at objects: exported whole, and network by network."""

import json

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_sspcab.export import (
    check_parity,
    export_model,
    export_networks,
    load_runner,
)
from tests.hosts import samples, small_host

NAMES = {"savedmodel": "served", "tflite": "m.tflite", "onnx": "m.onnx"}
HOSTS = ("background_agnostic", "hf2vad")


def objects_of(host, count, seed=0):
    """Objects of which the flow is in pixels, to both sides."""
    objects = samples(host, count, seed)
    return {
        name: part if name == "appearance" else 6 * part - 3
        for name, part in objects.items()
    }


@pytest.fixture(scope="module", params=HOSTS)
def host(request):
    keras.utils.set_random_seed(2)
    model = small_host(request.param)
    normal = objects_of(model, 24)
    model.fit_scoring(normal)
    model.calibrate(normal)
    # Numbers far from those of a fresh network.
    rng = np.random.default_rng(3)
    for weight in model.weights:
        if "moving_mean" in weight.path or "beta" in weight.path:
            weight.assign(rng.normal(0.0, 0.3, weight.shape))
    return model


@pytest.mark.parametrize("to", sorted(NAMES))
def test_whole_host(host, to, tmp_path):
    objects = objects_of(host, 6, seed=1)
    path = export_model(host, tmp_path / NAMES[to], to, images=objects).path
    assert check_parity(host, path, objects).passes
    expected = host.predict(objects, verbose=0)
    found = load_runner(path)(**{k: v[:1] for k, v in objects.items()})
    assert set(found) == {"anomaly_score", "anomaly_map", "is_anomalous"}
    np.testing.assert_allclose(
        found["anomaly_score"], expected["anomaly_score"][:1], rtol=1e-3
    )


@pytest.mark.parametrize("to", sorted(NAMES))
def test_each_network(host, to, tmp_path):
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
        assert result.path.is_relative_to(tmp_path)
        assert name in str(result.path)


def test_networks_are_given_what_they_get_in_the_host(host):
    objects = objects_of(host, 3)
    given = host.network_inputs(objects)
    outputs = host.predict_on_batch(objects)
    networks = host.networks
    if host.name == "hf2vad":
        prediction = networks["vunet"].predict_on_batch(given["vunet"])
        np.testing.assert_allclose(
            prediction["prediction"], outputs["prediction"], atol=1e-5
        )
        rebuilt = networks["memory_autoencoder"].predict_on_batch(
            given["memory_autoencoder"]
        )["reconstruction"]
        np.testing.assert_allclose(
            rebuilt.reshape(outputs["flow_reconstruction"].shape),
            outputs["flow_reconstruction"],
            atol=1e-5,
        )
    else:
        logits = np.stack(
            [
                networks[f"{name}_classifier"].predict_on_batch(
                    given[f"{name}_classifier"]
                )
                for name in ("appearance", "previous_motion", "next_motion")
            ],
            axis=1,
        )
        normal = tf.nn.softmax(logits).numpy()[..., 1]
        np.testing.assert_allclose(
            normal, outputs["normal_probability"], atol=1e-5
        )


def test_served_with_thresholds_inside(host, tmp_path):
    objects = objects_of(host, 5, seed=1)
    path = export_model(host, tmp_path / "host", images=objects).path
    report = json.loads((path / "parity.json").read_text("utf-8"))
    assert set(report["inputs"]) == set(objects)
    for name, described in report["inputs"].items():
        limits = [0.0, 1.0] if name == "appearance" else None
        assert described["value_range"] == limits
    serve = tf.saved_model.load(path).signatures["serving_default"]
    found = serve(**{k: tf.constant(v) for k, v in objects.items()})
    threshold = host.calibration.threshold
    np.testing.assert_array_equal(
        found["is_anomalous"], found["anomaly_score"].numpy() >= threshold
    )


def test_onnx_names_the_ranges(host, tmp_path):
    path = export_model(
        host, tmp_path / "m.onnx", "onnx", images=objects_of(host, 2)
    ).path
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    ranges = json.loads(properties["value_range"])
    assert ranges.pop("appearance") == [0.0, 1.0]
    assert ranges
    assert set(ranges.values()) == {None}


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
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("background_agnostic", {"base_width": 16}),
        ("hf2vad", {"root_width": 8, "num_slots": 20, "base_width": 8}),
    ],
)
def test_networks_in_integers(name, arguments, tmp_path):
    # Integers need more channels than float to round to the same.
    host = small_host(name, **arguments)
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
