import json
import os

import numpy as np
import openvino
import pytest

from keras_sspcab.export import (
    ExportMismatchError,
    check_parity,
    export_openvino,
    load_runner,
)
from keras_sspcab.export import precision as precision_module
from tests.export.conftest import SIZE

OUTPUTS = {"anomaly_score", "anomaly_map", "is_anomalous"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("openvino")


@pytest.fixture(scope="module")
def export(detector, textures, folder):
    def export(precision, **options):
        options = {"images": textures["test"], **options}
        if precision == "int8":
            options["representative_data"] = textures["train"]
        path = folder / f"{precision}.xml"
        return export_openvino(detector, path, precision, **options)

    return export


@pytest.fixture(scope="module")
def float32(export):
    return export("float32")


def graph_of(path):
    return openvino.Core().read_model(path)


def num_bytes(path):
    return path.with_suffix(".bin").stat().st_size


def test_file(float32, detector, textures):
    names = ["float32.bin", "float32.xml", "float32.xml.parity.json"]
    assert set(names) <= set(os.listdir(float32.path.parent))
    model = graph_of(float32.path)
    (image,) = model.inputs
    assert image.get_any_name() == "image"
    assert str(image.partial_shape) == f"[?,{SIZE},{SIZE},1]"
    # Losses of layers would be outputs that nobody asked for.
    assert {o.get_any_name() for o in model.outputs} == OUTPUTS
    assert len(model.outputs) == 3

    def metadata(key):
        return model.get_rt_info(["keras-sspcab", key]).astype(str)

    assert metadata("value_range") == "[0, 1]"
    assert json.loads(metadata("calibration")) == detector.calibration.summary()
    report = json.loads((float32.path.parent / names[2]).read_text())
    assert report["format"] == "openvino"
    assert report["parity"] == float32.parity.to_dict()
    assert len(report["sha256_weights"]) == 64

    images = textures["test"][:3]
    expected = detector.predict(images, verbose=0)
    for name, value in load_runner(float32.path)(image=images).items():
        assert value.dtype == expected[name].dtype
        np.testing.assert_allclose(value, expected[name], 1e-4, 1e-3)


def test_weights_are_halved(export, float32, detector, textures):
    result = export("float16")
    assert result.parity.passes
    assert num_bytes(result.path) < 0.6 * num_bytes(float32.path)
    assert not check_parity(
        detector, result.path, textures["test"], tolerance=1e-6
    ).passes


def test_int8_computes_in_integers_but_scores_in_float(
    export, capfd, monkeypatch
):
    result = export("int8")
    assert capfd.readouterr().out == ""
    assert result.parity.precision == "int8"
    assert result.parity.passes
    operations = graph_of(result.path).get_ordered_ops()
    sources = {
        operation: {
            value.get_node().get_type_name()
            for value in operation.input_values()
        }
        for operation in operations
    }
    convolutions = [o for o in operations if o.get_type_name() == "Convolution"]
    assert len(convolutions) == 7
    for operation in convolutions:
        # Weights are stored as integers and a scale.
        assert "Multiply" in sources[operation]
    quantized = [o for o in operations if "FakeQuantize" in sources[o]]
    assert len(quantized) > 7
    scopes = ("error_map", "smoothing", "calibration")
    scoring = [
        operation
        for operation in operations
        if any(scope in operation.get_friendly_name() for scope in scopes)
    ]
    assert len(scoring) >= 6
    assert not set(scoring) & set(quantized)
    # What it would be with the scoring in integers, too.
    monkeypatch.setattr(
        precision_module.FloatScopes,
        "of",
        lambda model: precision_module.FloatScopes(),
    )
    naive = export("int8", tolerance=100.0).parity

    def error(parity):
        return parity.outputs["anomaly_map"].max_difference

    assert error(result.parity) < error(naive) / 3


def test_int8_that_is_too_far_off_is_refused(export, folder):
    before = sorted(os.listdir(folder))
    with pytest.raises(ExportMismatchError, match="than int8 explains") as e:
        export("int8", tolerance=1e-5)
    assert "standard deviations of normal images" in str(e.value)
    assert sorted(os.listdir(folder)) == before


def test_a_single_output_has_its_own_name(detector, textures, folder):
    path, images = folder / "map.xml", textures["test"][:4]
    export_openvino(detector, path, images=images, outputs=["anomaly_map"])
    assert set(load_runner(path)(image=images)) == {"anomaly_map"}


def test_models_of_any_size(sizeless_detector, textures, folder):
    path = folder / "any.xml"
    export_openvino(sizeless_detector, path, images=textures["test"][:4])
    wide = np.concatenate([textures["test"][:3]] * 2, axis=2)[:, :28]
    expected = sizeless_detector.predict(wide, verbose=0)
    for name, value in load_runner(path)(image=wide).items():
        np.testing.assert_allclose(value, expected[name], 1e-4, 1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "model.onnx"}, r"must end in \.xml"),
        ({"precision": "bfloat16"}, "`precision` argument must be one"),
        ({"precision": "int8"}, "needs `representative_data`"),
        ({"check": True}, "or `check=False`"),
    ],
)
def test_arguments(detector, options, message):
    options = {"path": "m.xml", "check": False, **options}
    with pytest.raises(ValueError, match=message):
        export_openvino(detector, **options)
