"""What CutPaste scores by must come out of every exported format."""

import keras
import numpy as np
import pytest

from keras_sspcab.applications import CutPaste

if keras.config.backend() != "tensorflow":
    pytest.skip("exports need TensorFlow", allow_module_level=True)

from keras_sspcab.export import check_parity, export_model, load_runner

# Minutes, with the converters that they load.
pytestmark = pytest.mark.slow

NAMES = {"savedmodel": "served", "tflite": "m.tflite", "onnx": "m.onnx"}


def images(n=6, height=64, width=64, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    # Smooth enough that patches differ, and scores with them.
    coarse = rng.random((n, height // 8, width // 8, channels))
    return coarse.repeat(8, 1).repeat(8, 2).astype("float32")


def detector(x, **arguments):
    model = CutPaste(
        **{"input_shape": x.shape[1:], "base_width": 8, **arguments}
    )
    model.fit_scoring(x)
    model.calibrate(images(12, *x.shape[1:], seed=1))
    return model


@pytest.mark.parametrize(
    ("to", "arguments"),
    [
        ("onnx", {"density": "kde", "sspcab": None}),
        (
            "tflite",
            {"localization": "patch", "patch_size": 24, "patch_stride": 16},
        ),
    ],
)
def test_formats(to, arguments, tmp_path):
    x = images()
    model = detector(x, **arguments)
    path = tmp_path / NAMES[to]
    result = export_model(model, path, to, images=x)
    assert result.parity.passes
    assert check_parity(model, result.path, images(3, seed=2)).passes


@pytest.mark.parametrize(
    ("to", "options"),
    [("savedmodel", {"serving_bytes": False}), ("onnx", {})],
)
def test_patches_of_images_of_any_size(to, options, tmp_path):
    model = detector(
        images(12),
        input_shape=(None, None, 3),
        localization="patch",
        patch_size=16,
        patch_stride=8,
    )
    path = tmp_path / NAMES[to]
    run = load_runner(
        export_model(model, path, to, images=images(2), **options).path
    )
    for size in ((32, 40), (64, 48)):
        x = images(3, *size)
        outputs = run(image=x)
        expected = model.predict(x, verbose=0)
        np.testing.assert_allclose(
            outputs["anomaly_map"], expected["anomaly_map"], atol=1e-2
        )
