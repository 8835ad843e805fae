"""Alignment in artifacts."""

import keras
import numpy as np
import pytest

from keras_sspcab.export import export_model
from keras_sspcab.layers import ImageRegistration, RigidResampling
from tests.export.conftest import FORMATS
from tests.layers.test_registration import SIZE, draw, random_poses


@pytest.fixture(scope="module")
def images():
    poses = random_poses(4, seed=1)
    return np.stack([draw(matrix, i) for i, matrix in enumerate(poses)])


@pytest.fixture(scope="module")
def model(images):
    image = keras.Input((*SIZE, 3), name="photo")
    layer = ImageRegistration(working_size=64)
    found = layer(image)
    assert layer.fit(images).is_significant
    move_back = RigidResampling(inverse=True, fill_value=0.0)
    back = move_back(found["images"][..., 0], found["transforms"])
    return keras.Model(image, {**found, "back": back})


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_every_format(model, images, to, tmp_path):
    result = export_model(model, tmp_path / FORMATS[to], to, images=images)
    for name in ("images", "transforms", "quality", "back"):
        assert result.parity.outputs[name].max_difference < 1e-3
