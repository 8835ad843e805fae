import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.layers import GradientReversal


class _Ramp(keras.layers.Layer):
    """A vector of weights, times a reversed and an unreversed part."""

    def __init__(self, start, weight):
        super().__init__()
        self.start = start
        self.reversal = None if weight is None else GradientReversal(weight)

    def build(self, input_shape):
        self.before = self.add_weight(
            shape=(len(self.start),),
            initializer=lambda *_, **__: ops.array(self.start),
        )
        self.behind = self.add_weight(
            shape=(len(self.start),), initializer="ones"
        )

    def call(self, inputs):
        x = inputs * self.before
        if self.reversal is not None:
            x = self.reversal(x)
        return x * self.behind


def trained(weight, rate=0.125):
    """Both weights after one step of gradient descent."""
    layer = _Ramp([1.0, -2.0, 3.0], weight)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(rate), "mse", jit_compile=False)
    x = np.array([[1.0, 2.0, -1.0]], "float32")
    model.fit(x, np.zeros((1, 3), "float32"), verbose=0)
    return (ops.convert_to_numpy(v) for v in (layer.before, layer.behind))


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_gradient_is_reversed(weight):
    start = np.array([1.0, -2.0, 3.0])
    plain, plain_behind = trained(None)
    reversed_, behind = trained(weight)
    # Of mean((x a b)^2) with b = 1 and x^2 = (1, 4, 1).
    slope = 2 / 3 * start * [1, 4, 1]
    np.testing.assert_allclose(plain, start - 0.125 * slope, rtol=1e-6)
    np.testing.assert_allclose(
        reversed_, start + weight * 0.125 * slope, rtol=1e-6
    )
    np.testing.assert_array_equal(behind, plain_behind)
    assert np.abs(behind - 1).min() > 0.05


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_values_pass_to_the_bit(dtype):
    x = np.random.default_rng(0).normal(size=(50, 7)) * 1e3
    x = x.astype(dtype)
    layer = GradientReversal(0.3, dtype=dtype)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), x)
    model = keras.Sequential([keras.Input((7,), dtype=dtype), layer])
    # Compiled as well.
    np.testing.assert_array_equal(model.predict(x, verbose=0), x)
    assert layer.compute_output_shape((None, 7)) == (None, 7)
