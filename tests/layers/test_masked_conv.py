import itertools

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy

from keras_sspcab import MaskedConv2D, MaskedConv3D
from keras_sspcab.layers import masked_conv_form
from tests.layers import oracle

FORMS = ("auto", "dilated", "stacked", "shifted", "masked")


def randomized(layer, x):
    layer.build((None, *x.shape[1:]))
    rng = np.random.default_rng(1)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def assert_equals_plain_loops(cls, shape, k, d, m, padding_mode="zeros"):
    """In every form."""
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    layer = cls(
        4,
        kernel_size=k,
        dilation_rate=d,
        mask_size=m,
        padding_mode=padding_mode,
    )
    kernel, bias = randomized(layer, x).get_weights()
    expected = oracle.masked_conv(x, kernel, bias, k, d, m, padding_mode)
    for form in FORMS:
        with masked_conv_form(form):
            result = numpy(layer(x))
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("k", "d", "m"),
    # Each value of one meets each of the others.
    [(k, d, 1 + (k + d) % 3) for k in (1, 2, 3) for d in (0, 1, 2)],
)
def test_equals_plain_loops(k, d, m):
    assert_equals_plain_loops(MaskedConv2D, (2, 7, 10, 3), k, d, m)


@pytest.mark.parametrize(("k", "d", "m"), [(1, 1, 1), (2, 0, 1), (1, 2, 3)])
def test_reflect_padding_equals_plain_loops(k, d, m):
    assert_equals_plain_loops(MaskedConv2D, (2, 9, 8, 3), k, d, m, "reflect")


@pytest.mark.parametrize(("k", "d", "m"), [(1, 0, 1), (1, 1, 1), (2, 1, 3)])
def test_three_dimensions_equal_plain_loops(k, d, m):
    assert_equals_plain_loops(MaskedConv3D, (1, 6, 5, 7, 2), k, d, m)


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="the form brings its own gradient on TensorFlow",
)
@pytest.mark.parametrize(
    ("k", "d", "m", "padding_mode"),
    [
        (1, 1, 1, "zeros"),
        (1, 0, 2, "zeros"),
        (2, 1, 1, "zeros"),
        (1, 1, 1, "reflect"),
    ],
)
@pytest.mark.parametrize("size", [(7, 10), (5, 3)])
def test_gradient_of_the_dilated_form(k, d, m, padding_mode, size):
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    layer = MaskedConv2D(
        4,
        kernel_size=k,
        dilation_rate=d,
        mask_size=m,
        padding_mode=padding_mode,
    )
    randomized(layer, x)
    gradients = {}
    for form in ("dilated", "masked"):
        with masked_conv_form(form), tf.GradientTape() as tape:
            inputs = tf.convert_to_tensor(x)
            tape.watch(inputs)
            loss = tf.reduce_sum(tf.sin(layer(inputs)))
        gradients[form] = tape.gradient(
            loss, [inputs, *layer.trainable_variables]
        )
    for ours, expected in zip(*gradients.values(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_vector_of_the_specification():
    x = np.arange(25.0).reshape(1, 5, 5, 1)
    layer = MaskedConv2D(1, use_bias=False)
    layer.build(x.shape)
    corners = np.array([[1, 10], [100, 1000]], "float32")
    layer.set_weights([corners.reshape(2, 2, 1, 1)])
    rows = [
        [12000, 13000, 15000, 1100, 1200],
        [17000, 18000, 20500, 1600, 1700],
        [22020, 23030, 26040, 2101, 2202],
        [70, 80, 95, 6, 7],
        [120, 130, 150, 11, 12],
    ]
    np.testing.assert_array_equal(numpy(layer(x))[0, :, :, 0], rows)


@pytest.mark.parametrize(("k", "d", "m"), [(1, 0, 1), (2, 1, 3)])
def test_is_blind_to_the_mask_and_sees_the_corners(k, d, m):
    x = np.random.default_rng(0).normal(size=(1, 15, 15, 2))
    layer = randomized(
        MaskedConv2D(3, kernel_size=k, dilation_rate=d, mask_size=m), x
    )
    before = numpy(layer(x))
    seen = np.zeros((15, 15), bool)
    for position in np.ndindex(15, 15):
        changed = x.copy()
        changed[(0, *position)] += 1.0
        difference = np.abs(numpy(layer(changed)) - before)[0, 7, 7]
        seen[position] = difference.max() > 1e-6
    expected = np.zeros((15, 15), bool)
    inner = d + (m + 1) // 2
    arm = [*range(-inner - k + 1, -inner + 1), *range(inner, inner + k)]
    for dy, dx in itertools.product(arm, arm):
        expected[7 + dy, 7 + dx] = True
    np.testing.assert_array_equal(seen, expected)


def test_activation_per_corner():
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    layer = MaskedConv2D(
        4,
        kernel_size=2,
        activation="relu",
        per_corner_activation=True,
        padding_mode="reflect",
    )
    kernel, bias = randomized(layer, x).get_weights()
    expected = oracle.masked_conv(
        x, kernel, bias, 2, 1, 1, "reflect", oracle.relu
    )
    np.testing.assert_allclose(numpy(layer(x)), expected, rtol=1e-4, atol=1e-4)


def test_input_smaller_than_the_field_sees_nothing():
    layer = MaskedConv2D(2, use_bias=False)
    assert not numpy(layer(np.ones((1, 2, 2, 3)))).any()


def test_too_small_to_reflect():
    with pytest.raises(ValueError, match="exceed the padding of 2"):
        MaskedConv2D(2, padding_mode="reflect").build((None, 2, 8, 3))


def test_unknown_form():
    with pytest.raises(ValueError, match="`form`"), masked_conv_form("fast"):
        pass
