"""Layers do not run into TensorFlow's out-of-bounds writes in `tf.matmul`.

With Keras 3.12 a product of four axes with one matrix reaches that operation.
"""

import keras
import numpy as np
import pytest

from keras_sspcab.layers import (
    BilinearUpsampling2D,
    ChannelTransformer,
    ImageRegistration,
)
from tests.scripts import run_script

# Out-of-bounds writes crash the process, now or later.
PROGRAM = """
import numpy as np
from keras_sspcab.layers import (
    BilinearUpsampling2D, ChannelTransformer, ImageRegistration
)

def call(layer, *shape):
    images = np.random.default_rng(0).random(shape, "float32")
    if hasattr(layer, "fit"):
        layer.fit(images)
    for _ in range(200):
        around = [np.zeros(64 * i) for i in range(20)]
        layer(images)
        assert not any(part.any() for part in around)

first = {"data_format": "channels_first"}
call(ImageRegistration(max_angle=0, working_size=32), 6, 48, 64, 1)
call(BilinearUpsampling2D(**first), 6, 1, 11, 10)
call(ChannelTransformer(token_dim=4, pool_size=3, **first), 6, 1, 11, 10)
call(ChannelTransformer(token_dim=4, pool_size=3, **first), 6, 2, 1, 11, 10)
"""


FIRST = {"data_format": "channels_first"}


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (
            lambda: ImageRegistration(max_angle=0, working_size=32),
            (6, 48, 64, 1),
        ),
        (lambda: BilinearUpsampling2D(**FIRST), (6, 1, 11, 10)),
        (
            lambda: ChannelTransformer(token_dim=4, pool_size=3, **FIRST),
            (6, 1, 11, 10),
        ),
        (
            lambda: ChannelTransformer(token_dim=4, pool_size=3, **FIRST),
            (6, 2, 1, 11, 10),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
def test_no_product_of_four_axes_with_a_matrix(make, shape, monkeypatch):
    layer, matmul = make(), keras.ops.matmul

    def checked(first, second):
        assert not (len(first.shape) > 3 and len(second.shape) == 2)
        called.append(first)
        return matmul(first, second)

    called = []
    monkeypatch.setattr(keras.ops, "matmul", checked)
    images = np.random.default_rng(0).random(shape, "float32")
    if hasattr(layer, "fit"):
        layer.fit(images)
    layer(images)
    assert called


@pytest.mark.slow
@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="a fault of TensorFlow"
)
def test_one_channel_or_angle():
    run_script(PROGRAM, timeout=300)
