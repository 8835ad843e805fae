"""Exports of what the small hosts of all export tests are not built with."""

import keras
import numpy as np
import pytest

from keras_sspcab.applications import CutPaste, Ensemble, PatchCore
from tests.applications.helpers import noise_images
from tests.hosts import small_host

if keras.config.backend() != "tensorflow":
    pytest.skip("exports need TensorFlow", allow_module_level=True)

from keras_sspcab.export import export_model, load_runner

ANY_SIZE = (None, None, 3)
PATCHES = {"localization": "patch", "patch_size": 16, "patch_stride": 8}


def textures(n, height=32, width=32, seed=0):
    """Smooth enough that patches differ, and scores with them."""
    coarse = noise_images(n, height // 8, width // 8, seed=seed)
    return coarse.repeat(8, 1).repeat(8, 2)


def calibrated(model):
    model.fit_scoring(textures(12))
    model.calibrate(textures(12, seed=1))
    return model


def patches(shape):
    host = CutPaste(shape, None, base_width=2, density="kde", **PATCHES)
    return calibrated(host)


def ensemble():
    members = [small_host("autoencoder", input_shape=(32, 32, 3))]
    members.append(CutPaste((32, 32, 3), base_width=2))
    return calibrated(Ensemble([calibrated(member) for member in members]))


def patchcore():
    return calibrated(PatchCore(ANY_SIZE, weights=None, memory_size=16))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "build"),
    [
        ("tflite", lambda: patches((32, 32, 3))),
        ("onnx", lambda: patches(ANY_SIZE)),
        ("onnx", ensemble),
        ("onnx", patchcore),
    ],
)
def test_scores_are_those_of_keras(to, build, tmp_path):
    host = build()
    path = tmp_path / f"m.{to}"
    result = export_model(host, path, to, images=textures(3))
    assert result.parity.passes
    run = load_runner(result.path)
    is_any_size = host.input_shape[1] is None
    for size in ((32, 40), (64, 48)) if is_any_size else ((32, 32),):
        x = textures(3, *size, seed=2)
        outputs, expected = run(image=x), host.predict(x, verbose=0)
        for name in ("anomaly_score", "anomaly_map"):
            np.testing.assert_allclose(
                outputs[name], expected[name], rtol=1e-3, atol=1e-2
            )
