import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.layers import GradientReversal

START = np.array([1.0, -2.0, 3.0])


def trained(*between):
    """Factors before and behind a layer, after one step of training."""
    before, behind = (
        keras.layers.EinsumDense("bi,i->bi", 3, kernel_initializer="ones")
        for _ in range(2)
    )
    model = keras.Sequential([keras.Input((3,)), before, *between, behind])
    before.set_weights([START])
    model.compile(keras.optimizers.SGD(0.125), "mse", jit_compile=False)
    x = np.array([[1.0, 2.0, -1.0]], "float32")
    model.fit(x, np.zeros((1, 3), "float32"), verbose=0)
    return before.get_weights()[0], behind.get_weights()[0]


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_gradient_is_reversed(weight):
    plain, plain_behind = trained()
    reversed_, behind = trained(GradientReversal(weight))
    # Of mean((x a b)^2) with b = 1 and x^2 = (1, 4, 1).
    step = 0.125 * 2 / 3 * START * [1, 4, 1]
    np.testing.assert_allclose(plain, START - step, rtol=1e-6)
    np.testing.assert_allclose(reversed_, START + weight * step, rtol=1e-6)
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
