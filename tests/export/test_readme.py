"""Runs the code of export/README.md."""

import contextlib
import io
import os
import pathlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.data import (
    decode_and_resize,
    image_dataset,
    write_texture_folder,
)
from tests.export.serving.served import serve

README = pathlib.Path(__file__).parents[2] / "export" / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def run(code, folder):
    """Runs code in a folder; returns its names and what it prints."""
    names = {}
    output = io.StringIO()
    before = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(output):
            exec(compile(code, str(README), "exec"), names)
    finally:
        os.chdir(before)
    return names, output.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the README starts from, and the artifacts it writes."""
    folder = tmp_path_factory.mktemp("readme")
    images = write_texture_folder(
        folder / "bricks",
        image_size=64,
        num_train=12,
        num_test_good=2,
        num_test_defective=5,
    )
    dataset = image_dataset(images.train, (64, 64), channels=1, batch_size=4)
    model = AutoEncoder(filters=(8, 8, 4))
    model.calibrate(dataset)
    model.save(folder / "model.keras")
    photo = pathlib.Path(images.test[-1].path).read_bytes()
    (folder / "photo.png").write_bytes(photo)
    names, output = run(BLOCKS[0], folder)
    assert "anomaly_score" in output
    assert names["result"].parity.passes
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    model = keras.models.load_model(folder / "model.keras")
    pixels = tf.io.decode_png((folder / "photo.png").read_bytes(), channels=1)
    image = pixels.numpy()[None].astype("float32") / 255
    return model.predict(image, verbose=0)


def test_artifacts(folder):
    for name in (
        "served/bricks/1/saved_model.pb",
        "served/bricks/1/parity.json",
        "bricks.onnx",
        "bricks.onnx.parity.json",
        "bricks.tflite",
        "bricks_int8.tflite",
    ):
        assert (folder / name).is_file()


@pytest.mark.parametrize(
    ("package", "tolerance"),
    [("import onnxruntime", 1e-3), ("Interpreter", 0.5), ("tf.saved", 1e-3)],
)
def test_runners(folder, expected, package, tolerance):
    (code,) = (block for block in BLOCKS if package in block)
    assert len(code.splitlines()) <= 11
    outputs = run(code, folder)[0]["outputs"]
    assert set(outputs) == {"anomaly_score", "anomaly_map", "is_anomalous"}
    np.testing.assert_allclose(
        np.asarray(outputs["anomaly_score"]),
        expected["anomaly_score"],
        atol=tolerance,
    )
    assert outputs["anomaly_map"].shape == (1, 64, 64)


def test_pillow_resizes_as_training_does():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (150, 117, 3)).astype("uint8")
    photo = Image.fromarray(pixels).convert("L")
    photo = photo.resize((64, 64), Image.BILINEAR)
    file = tf.io.encode_png(pixels)
    np.testing.assert_allclose(
        np.asarray(photo, "float32") / 255,
        decode_and_resize(file, (64, 64), channels=1)[..., 0],
        atol=1.6 / 255,
    )


def test_request(folder, expected):
    (code,) = (block for block in BLOCKS if "urllib" in block)
    with serve(folder / "served") as server:
        code = code.replace(":8501", f":{server.rest_port}")
        outputs = run(code, folder)[0]["outputs"]
    assert outputs["anomaly_score"] == pytest.approx(
        float(expected["anomaly_score"][0]), abs=1e-3
    )
    assert outputs["is_anomalous"] is bool(expected["is_anomalous"][0])
    assert np.shape(outputs["anomaly_map"]) == (64, 64)
