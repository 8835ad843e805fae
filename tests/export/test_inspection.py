"""Tiles, regions, alignment and optional inputs are in every export."""

import json

import keras
import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.export import export_model, load_runner
from keras_sspcab.hosts import InspectionModel
from keras_sspcab.layers import ImageRegistration
from keras_sspcab.regions import Region, Regions
from tests.export.conftest import FORMATS

SIZE = (48, 80)


@pytest.fixture(scope="module")
def images():
    """A part with edges, askew, before even ground."""
    rng = np.random.default_rng(0)
    images = 0.5 + 0.01 * rng.normal(size=(6, *SIZE, 1))
    for number, image in enumerate(images):
        image[12 + number : 36, 20:50] += 0.3
        image[20:28, 30 + number : 40] -= 0.4
    return images.clip(0, 1).astype("float32")


@pytest.fixture(scope="module")
def model(images):
    keras.utils.set_random_seed(0)
    labels = np.zeros(SIZE, int)
    labels[:, :40], labels[:, 44:] = 1, 2
    model = InspectionModel(
        AutoEncoder((32, 32, 1), filters=(4, 4, 2)),
        SIZE,
        regions=Regions(labels, (Region("left"), Region("right"))),
        alignment=ImageRegistration(max_angle=10, working_size=32),
    )
    model.fit_alignment(images)
    model.calibrate(images, decision="either")
    return model


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_every_format(model, images, tmp_path, to):
    result = export_model(model, tmp_path / FORMATS[to], to, images=images)
    assert result.parity.passes
    compared = {"anomaly_score", "anomaly_map", "region_scores"}
    assert compared == {
        name.removeprefix("serving_bytes/")
        for name in result.parity.to_dict()["outputs"]
    }
    run = load_runner(result.path)
    outputs = run(image=images)
    left_out = np.full(len(images), np.nan, "float32")
    for name, value in (("threshold", 0.3), ("sensitivity", 0.9)):
        if name not in run.option_names:
            assert to == "openvino"
            continue
        # Rows for themselves.
        values = np.where([True, False] * 3, np.float32(value), left_out)
        received = run(image=images, **{name: values})
        expected = flags(model.calibration.adjusted(**{name: value}), outputs)
        for flag, changed in expected.items():
            assert (received[flag][::2] == changed[::2]).all()
            assert (received[flag][1::2] == outputs[flag][1::2]).all()
        assert (expected["is_anomalous"] != outputs["is_anomalous"])[::2].any()
        same = run(image=images, threshold=left_out, sensitivity=left_out)
        for name, value in same.items():
            np.testing.assert_array_equal(value, outputs[name])


def flags(calibration, outputs):
    of_regions = np.stack(
        [
            part.decide(outputs["region_scores"][:, number], None)
            for number, part in enumerate(calibration.regions)
        ],
        axis=-1,
    )
    decided = calibration.decide(
        outputs["anomaly_score"], outputs["anomaly_map"]
    )
    return {
        "is_anomalous": decided | of_regions.any(axis=-1),
        "region_is_anomalous": of_regions,
    }


def test_names_of_regions(model, images, tmp_path):
    path = export_model(model, tmp_path / "m", check=False).path
    report = json.loads((path / "parity.json").read_text())
    assert report["regions"] == ["left", "right"]
    assert list(report["optional_inputs"]) == ["threshold", "sensitivity"]


@pytest.mark.parametrize("to", FORMATS)
def test_padding_is_seen_in_every_format(images, tmp_path, to):
    keras.utils.set_random_seed(0)
    host = AutoEncoder((*SIZE, 1), filters=(4, 4, 2))
    model = InspectionModel(host, padded=True)
    # Each image may have another aspect ratio.
    padded = images.copy()
    padded[0, :5] = padded[0, -6:] = padded[1, :, :9] = 0.5
    model.calibrate(padded)
    result = export_model(model, tmp_path / FORMATS[to], to, images=padded)
    assert result.parity.passes
    maps = load_runner(result.path)(image=padded)["anomaly_map"]
    assert len({*maps[0, :5].flat, *maps[0, -6:].flat, maps[0].min()}) == 1
    assert len({*maps[1, :, :9].flat, maps[1].min()}) == 1
    assert np.unique(maps[2]).size > 1000
