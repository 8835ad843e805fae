"""What tests of fitted layers share."""

import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def assert_fit_fails(layer, data, message):
    """Without a change of the layer."""
    before = [numpy(weight).copy() for weight in layer.weights]
    with pytest.raises(ValueError, match=message):
        layer.fit(data)
    for weight, value in zip(layer.weights, before, strict=True):
        np.testing.assert_array_equal(numpy(weight), value)
