"""Layers of hosts against those of Keras, forwards and backwards."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.hosts.fast_layers import BatchNormalization, Conv2D
from keras_sspcab.layers import BilinearUpsampling2D
from keras_sspcab.layers.plain_operations import plain_operations
from tests.applications.helpers import TENSORFLOW

takes_gradients = pytest.mark.skipif(
    not TENSORFLOW, reason="other backends have Keras' own layers"
)
LAST = {"padding": "same", "data_format": "channels_last"}


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def pass_through(function, layer, x, jit_compile=False):
    """Output, gradients of input and weights, and what else has changed."""
    import tensorflow as tf

    variables = [v.value for v in layer.trainable_variables]

    @tf.function(jit_compile=jit_compile)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
            # Other slopes at each pixel.
            loss = tf.reduce_sum(y * tf.sin(17.0 * tf.stop_gradient(y)))
        return y, *tape.gradient(loss, [x, *variables])

    results = [value.numpy() for value in run(tf.constant(x))]
    return results + [v.numpy() for v in layer.non_trainable_variables]


def assert_same(results, expected):
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-5 * scale)


def pair(kernel_size, channels, filters, **arguments):
    """A layer of Keras, and ours with the same weights."""
    plain = keras.layers.Conv2D(filters, kernel_size, **LAST)
    plain.build((None, None, None, channels))
    layer = Conv2D(filters, kernel_size, **LAST, **arguments)
    layer.build((None, None, None, channels))
    layer.set_weights(plain.get_weights())
    return plain, layer


@takes_gradients
@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("kernel_size", [1, 3, (2, 5)])
def test_gradient_of_wide_kernels(kernel_size, jit_compile):
    plain, layer = pair(kernel_size, 64, 128)
    x = draw(2, 5, 7, 64)
    assert_same(
        pass_through(layer, layer, x, jit_compile),
        pass_through(plain, plain, x),
    )


@takes_gradients
@pytest.mark.parametrize(
    ("sides", "channels"), [((3, 4), 16), ((1, 1), 4), ((7, 8), 3)]
)
def test_enlarging_and_convolving_change_places(sides, channels):
    plain, layer = pair(3, channels, 5, enlarges=True)
    enlarge = BilinearUpsampling2D(data_format="channels_last")
    x = draw(2, *sides, channels)
    assert_same(
        pass_through(layer, layer, x),
        pass_through(lambda x: plain(enlarge(x)), plain, x),
    )
    assert layer.compute_output_shape(x.shape) == plain.compute_output_shape(
        enlarge(x).shape
    )


@takes_gradients
def test_exports_are_plain():
    import tensorflow as tf

    _, layer = pair(3, 128, 128, enlarges=True)

    def operations():
        spec = tf.TensorSpec((None, 4, 4, 128))
        graph = tf.function(layer).get_concrete_function(spec).graph
        return {operation.type for operation in graph.get_operations()}

    assert {"BatchMatMulV2", "MatMul"} & operations()
    with plain_operations():
        exported = operations()
    assert {"ResizeBilinear", "Conv2D"} <= exported
    assert not {"BatchMatMulV2", "MatMul", "IdentityN"} & exported


@takes_gradients
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(policy):
    _, exact = pair(3, 128, 64, enlarges=True)
    layer = Conv2D(64, 3, enlarges=True, dtype=policy, **LAST)
    layer.build((None, None, None, 128))
    layer.set_weights(exact.get_weights())
    x = draw(1, 4, 4, 128)
    result, _, of_kernel, _ = pass_through(layer, layer, x)
    assert result.dtype == layer.compute_dtype
    assert of_kernel.dtype == "float32"
    wanted = ops.convert_to_numpy(exact(x))
    np.testing.assert_allclose(
        result.astype("float32"), wanted, atol=0.03 * np.abs(wanted).max()
    )


@pytest.mark.parametrize("size", [(8, 8), (None, None)])
def test_any_backend_and_size(size):
    image = keras.Input((*size, 64))
    layer = Conv2D(128, 3, enlarges=True, **LAST)
    model = keras.Model(image, layer(image))
    plain = keras.layers.Conv2D(128, 3, **LAST)
    x = draw(1, 8, 8, 64)
    enlarged = BilinearUpsampling2D(data_format="channels_last")(x)
    plain.build(enlarged.shape)
    plain.set_weights(layer.get_weights())
    np.testing.assert_allclose(
        model.predict(x, verbose=0),
        ops.convert_to_numpy(plain(enlarged)),
        atol=1e-4,
    )
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(layer)
    )
    assert again.get_config() == layer.get_config()


@takes_gradients
@pytest.mark.parametrize("frozen", [False, True])
def test_batch_normalization_in_training(frozen):
    layers = keras.layers.BatchNormalization(), BatchNormalization()
    x = 3.0 + 2.0 * draw(3, 5, 4, 6)
    results = []
    for layer in layers:
        layer.build(x.shape)
        layer.trainable = not frozen
        results.append(
            pass_through(lambda x, f=layer: f(x, training=True), layer, x)
        )
    assert_same(*results)


def test_batch_normalization_in_use_and_without_space():
    for shape, training in (((3, 5, 4, 6), False), ((8, 6), True)):
        x = draw(*shape)
        layers = keras.layers.BatchNormalization(), BatchNormalization()
        wanted, result = (
            ops.convert_to_numpy(layer(x, training=training))
            for layer in layers
        )
        np.testing.assert_allclose(result, wanted, atol=1e-6)
