import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab import SSMCTBLayer, SSPCABLayer
from keras_sspcab.layers import auxiliary_losses_disabled
from tests.layers import oracle

TENSORFLOW = keras.config.backend() == "tensorflow"
needs_tensorflow = pytest.mark.skipif(
    not TENSORFLOW, reason="a feature of the TensorFlow backend"
)


def images(n=12, size=12, channels=3):
    rng = np.random.default_rng(0)
    return rng.random((n, size, size, channels)).astype("float32")


def host(*blocks, head=True):
    """A small host network that holds the given blocks in a row."""
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    for block in blocks:
        x = block(x)
    if not head:
        return keras.Model(inputs, x)
    x = keras.layers.Conv2D(3, 3, padding="same", dtype="float32")(x)
    return keras.Model(inputs, x)


def value(x):
    return ops.convert_to_numpy(x)


# --- what it computes ---


def test_weights_are_drawn_as_by_the_authors():
    """Kernels and biases are uniform within one over the root of inputs."""
    layer = SSPCABLayer(kernel_size=2, initializer="authors")
    layer.build((None, 8, 8, 64))
    attention = layer.channel_attention
    limits = {
        layer.masked_conv: 1 / np.sqrt(64 * 2 * 2),
        attention.squeeze: 1 / np.sqrt(64),
        attention.excite: 1 / np.sqrt(8),
    }
    for part, limit in limits.items():
        for weight in part.get_weights():
            assert np.abs(weight).max() <= limit
            if weight.size > 100:
                # A uniform variable has a third of the limit's square.
                expected = limit**2 / 3
                assert np.var(weight) == pytest.approx(expected, rel=0.25)
                assert abs(weight.mean()) < 0.2 * limit
    again = SSPCABLayer.from_config(layer.get_config())
    assert again.initializer == "authors"


def test_a_kernel_initializer_of_the_convolution_alone():
    layer = SSPCABLayer(initializer="authors", kernel_initializer="ones")
    layer.build((None, 8, 8, 16))
    assert np.all(value(layer.masked_conv.kernel) == 1)
    assert np.abs(value(layer.channel_attention.squeeze.kernel)).max() <= 0.25


@pytest.mark.parametrize("block", [SSPCABLayer, SSMCTBLayer])
def test_functions_draw_weights(block):
    def ones(shape, dtype=None):
        return keras.ops.ones(shape, dtype)

    layer = block(kernel_initializer=ones, bias_initializer=ones)
    layer.build((None, 8, 8, 16))
    kernels = [w for w in layer.weights if w.name in ("kernel", "bias")]
    assert len(kernels) > 4
    for weight in kernels:
        np.testing.assert_array_equal(value(weight), 1.0, err_msg=weight.path)


def test_equals_the_paper_in_plain_loops():
    x = np.abs(np.random.default_rng(0).normal(size=(2, 7, 9, 16)))
    layer = SSPCABLayer(
        kernel_size=2, reduction_ratio=4, bias_initializer="random_normal"
    )
    result = value(layer(x))
    kernel, bias, *attention = layer.get_weights()
    z = oracle.relu(oracle.masked_conv(x, kernel, bias, 2, 1, 1))
    expected = oracle.channel_attention(z, *attention)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    loss = 0.1 * np.mean((expected - x) ** 2)
    np.testing.assert_allclose(float(value(layer.losses[0])), loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "kernel_size", "count"),
    [(16, 1, 1170), (64, 1, 17736), (64, 3, 148808), (1024, 1, 4461696)],
)
def test_parameter_counts_of_the_paper(channels, kernel_size, count):
    layer = SSPCABLayer(kernel_size=kernel_size)
    layer.build((None, None, None, channels))
    assert layer.count_params() == count


# --- the loss term ---


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", lambda e: np.mean(e**2)),
        ("mae", lambda e: np.mean(np.abs(e))),
        (
            "huber",
            lambda e: np.mean(
                np.where(np.abs(e) < 1, e**2 / 2, np.abs(e) - 0.5)
            ),
        ),
        (keras.losses.MeanSquaredError(), lambda e: np.mean(e**2)),
        (
            keras.losses.MeanAbsoluteError(reduction=None),
            lambda e: np.mean(np.abs(e)),
        ),
    ],
)
def test_loss_is_the_weighted_mean(loss, expected):
    x = 3 * images(5, channels=8)
    layer = SSPCABLayer(loss=loss, loss_weight=0.3)
    error = value(layer(x)) - x
    assert len(layer.losses) == 1
    np.testing.assert_allclose(
        float(value(layer.losses[0])), 0.3 * expected(error), rtol=1e-5
    )


@keras.saving.register_keras_serializable("tests")
class NamedHuber(keras.losses.Huber):
    """A subclass of a loss whose `delta` Keras leaves out of its config."""


@keras.saving.register_keras_serializable("tests")
class SettledHuber(keras.losses.Huber):
    def __init__(self, reduction="sum_over_batch_size", name="settled"):
        super().__init__(delta=0.3, reduction=reduction, name=name)


@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.Huber(delta=0.1),
        keras.losses.CosineSimilarity(axis=1),
        keras.losses.LogCosh(reduction="sum"),
        NamedHuber(delta=0.2),
        SettledHuber(),
    ],
)
def test_losses_come_back_from_a_config_as_they_were(loss):
    x, layer = images(), SSPCABLayer(loss=loss)
    layer(x)
    twin = SSPCABLayer.from_config(layer.get_config())
    twin.build(x.shape)
    twin.set_weights(layer.get_weights())
    twin(x)
    assert float(value(twin.losses[0])) == float(value(layer.losses[0]))


def test_gradient_of_the_loss_is_right():
    # The mean squared error brings its own gradient; Keras' does not.
    x = images()
    results = []
    for loss in ("mse", keras.losses.MeanSquaredError()):
        keras.utils.set_random_seed(1)
        model = host(SSPCABLayer(loss=loss, loss_weight=1.0), head=False)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        model.fit(x, epochs=2, verbose=0)
        results.append(model.get_weights())
    for ours, reference in zip(*results, strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-6)


def test_the_loss_can_be_switched_on_later():
    model = host(SSPCABLayer(name="block", loss_weight=0.0), head=False)
    layer = model.get_layer("block")
    x = np.random.default_rng(0).random((2, *model.input_shape[1:]), "float32")
    model(x)
    assert model.losses == []
    assert layer.own_loss_metric is None
    layer.loss_weight = 0.5
    model(x)
    assert len(model.losses) == 1
    assert layer.own_loss_metric is not None


@pytest.mark.parametrize("arguments", [{"loss_weight": 0}, {"loss": None}])
def test_no_loss(arguments):
    model = host(SSPCABLayer(**arguments))
    model(images())
    assert model.losses == []
    model.compile("sgd", "mse")
    assert set(model.fit(images(), images(), verbose=0).history) == {"loss"}


def test_blocks_and_calls_sum():
    shared = SSPCABLayer()
    model = host(shared, shared, SSPCABLayer())
    model(images())
    assert len(model.losses) == 3
    model(images(), training=True)
    assert len(model.losses) == 3


def test_stop_gradient_leaves_the_input_alone():
    """Only the path through the block reaches the layer before it."""
    gradients = {}
    for stop in (False, True):
        keras.utils.set_random_seed(2)
        # Without weights the block predicts nothing: its output is zero, and
        # only the direct path remains.
        block = SSPCABLayer(
            stop_gradient=stop, kernel_initializer="zeros", loss_weight=1.0
        )
        model = host(block, head=False)
        before = model.layers[1].get_weights()[0].copy()
        model.compile(keras.optimizers.SGD(1.0), jit_compile=False)
        model.fit(images(), verbose=0)
        after = model.layers[1].get_weights()[0]
        gradients[stop] = np.abs(after - before).max()
    assert gradients[True] == 0
    assert gradients[False] > 1e-3


@pytest.mark.parametrize("run_eagerly", [False, True])
@pytest.mark.parametrize("num_blocks", [1, 2])
def test_history_shows_the_term(run_eagerly, num_blocks):
    x = images()
    model = host(*[SSPCABLayer() for _ in range(num_blocks)])
    model.compile("adam", "mse", run_eagerly=run_eagerly)
    model.predict(x, verbose=0)
    # Batches of 5, 5 and 2: the mean must weight them.
    history = model.fit(
        x, x, batch_size=5, epochs=2, validation_data=(x, x), verbose=0
    ).history
    assert set(history) == {
        "loss",
        "sspcab_loss",
        "val_loss",
        "val_sspcab_loss",
    }
    results = model.evaluate(x, x, batch_size=5, verbose=0, return_dict=True)
    mse = float(np.mean((value(model(x)) - x) ** 2))
    own = sum(float(value(term)) for term in model.losses)
    np.testing.assert_allclose(results["loss"], mse + own, rtol=1e-3)
    np.testing.assert_allclose(
        results["sspcab_loss"], results["loss"] - mse, rtol=2e-3
    )
    np.testing.assert_allclose(
        history["val_sspcab_loss"][-1], results["sspcab_loss"], rtol=1e-5
    )


def test_a_layer_used_twice_reports_both_terms():
    x = images()
    shared = SSPCABLayer()
    model = host(shared, shared)
    model.compile("sgd", "mse")
    results = model.evaluate(x, x, verbose=0, return_dict=True)
    # Not compared with `model.losses`: on JAX, Keras drops the first of the
    # two terms from the loss itself.
    mse = float(np.mean((value(model(x)) - x) ** 2))
    np.testing.assert_allclose(
        results["sspcab_loss"], results["loss"] - mse, rtol=2e-3
    )


def test_the_metrics_of_two_models_are_apart():
    x = images()
    first, second = host(SSPCABLayer(), SSPCABLayer()), host(SSPCABLayer())
    for model in (first, second):
        model.compile("sgd", "mse", run_eagerly=True)
    assert len(first.metrics) > 2
    first(x)
    results = second.evaluate(x, x, verbose=0, return_dict=True)
    second(x)
    np.testing.assert_allclose(
        results["sspcab_loss"], float(value(second.losses[0])), rtol=1e-5
    )


@pytest.mark.skipif(
    keras.config.backend() == "torch",
    reason="eager predictions between batches count once, at the epoch's end",
)
def test_predicting_during_training_does_not_disturb_the_metric():
    x = images()
    model = host(SSPCABLayer())
    model.compile(keras.optimizers.SGD(0.0), "mse")

    class Predict(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.predict(x[:1], verbose=0)

    history = model.fit(
        x, x, batch_size=4, callbacks=[Predict()], verbose=0
    ).history
    model(x)
    np.testing.assert_allclose(
        history["sspcab_loss"][0], float(value(model.losses[0])), rtol=1e-4
    )


def test_every_weight_is_trained():
    # Positive biases: a dead ReLU would leave its weights untrained.
    block = SSPCABLayer(
        attention="channel_spatial",
        bias_initializer=keras.initializers.Constant(2.0),
    )
    model = host(block)
    model.compile(keras.optimizers.SGD(10.0), "mse")
    # Copies: on torch, these are views of the weights themselves.
    before = [weight.copy() for weight in model.get_weights()]
    model.fit(images(), images(), verbose=0)
    for variable, old, new in zip(
        model.weights, before, model.get_weights(), strict=True
    ):
        assert not np.array_equal(old, new), variable.path


# --- where it works ---


def test_subclassed_model_with_blocks_inside_other_layers():
    class Wrapper(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.block = SSPCABLayer()

        def build(self, input_shape):
            self.block.build(input_shape)

        def call(self, inputs):
            return self.block(inputs)

    class Host(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = keras.layers.Conv2D(3, 3, padding="same")
            self.blocks = [Wrapper(), SSPCABLayer()]

        def call(self, inputs):
            x = self.conv(inputs)
            for block in self.blocks:
                x = block(x)
            return x

    model = Host()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(images(), images(), verbose=0).history
    model(images())
    own = sum(float(value(term)) for term in model.losses)
    assert own > 0
    np.testing.assert_allclose(history["sspcab_loss"][0], own, rtol=1e-4)


def test_mixed_precision():
    block = SSPCABLayer(dtype="mixed_float16", attention="channel_spatial")
    model = host(block)
    model.compile("adam", "mse", jit_compile=True)
    history = model.fit(images(), images(), epochs=2, verbose=0).history
    assert np.isfinite(history["sspcab_loss"]).all()
    outputs = block(images(channels=8))
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    term = block.losses[0]
    assert keras.backend.standardize_dtype(term.dtype) == "float32"
    for child in block._flatten_layers():
        assert child.compute_dtype == "float16", child.name
        assert child.variable_dtype == "float32", child.name


def test_half_precision_loss_does_not_overflow():
    x = 1000 * images(channels=8)
    layer = SSPCABLayer(dtype="mixed_float16", kernel_initializer="zeros")
    layer(x)
    expected = 0.1 * np.mean(x.astype("float16").astype("float64") ** 2)
    np.testing.assert_allclose(
        float(value(layer.losses[0])), expected, rtol=1e-5
    )


def test_compiled_training_agrees_with_eager():
    x = images()
    weights = []
    for options in ({"run_eagerly": True}, {"jit_compile": True}):
        keras.utils.set_random_seed(3)
        model = host(SSPCABLayer(kernel_size=2))
        model.compile(keras.optimizers.SGD(0.1), "mse", **options)
        model.fit(x, x, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for eager, compiled in zip(*weights, strict=True):
        np.testing.assert_allclose(eager, compiled, atol=1e-5)


def test_time_distributed_adds_a_term_a_step():
    inputs = keras.Input((4, 12, 12, 8))
    model = keras.Model(
        inputs, keras.layers.TimeDistributed(SSPCABLayer())(inputs)
    )
    x = images(24, channels=8).reshape(6, 4, 12, 12, 8)
    outputs = value(model(x))
    assert len(model.losses) == 4
    block = model.layers[1].layer
    single = value(block(x[:, 1]))
    np.testing.assert_allclose(outputs[:, 1], single, rtol=1e-5, atol=1e-6)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(x, x, verbose=0).history
    model(x)
    own = sum(float(value(term)) for term in model.losses)
    np.testing.assert_allclose(history["sspcab_loss"][0], own, rtol=1e-4)


def test_weights_file_holds_only_weights(tmp_path):
    model = host(SSPCABLayer())
    model.save_weights(tmp_path / "model.weights.h5")
    silent = host(SSPCABLayer(loss_weight=0))
    silent.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(
        value(silent(images())), value(model(images())), atol=1e-6
    )


@needs_tensorflow
@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError()])
def test_mirrored_strategy_trains_like_one_device(loss):
    import tensorflow as tf

    x = images(16)
    results = []
    for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
        if len(tf.config.list_logical_devices("CPU")) < len(devices):
            pytest.skip("needs two virtual CPU devices")
        with tf.distribute.MirroredStrategy(devices).scope():
            keras.utils.set_random_seed(4)
            model = host(SSPCABLayer(loss=loss, loss_weight=1.0))
            model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
        history = model.fit(
            x, x, batch_size=8, epochs=2, shuffle=False, verbose=0
        ).history
        results.append((model.get_weights(), history["sspcab_loss"]))
    for one, two in zip(results[0][0], results[1][0], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-3)


@needs_tensorflow
@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        "mae",
        "huber",
        keras.losses.MeanSquaredError(),
        keras.losses.MeanSquaredError(reduction=None),
        keras.losses.MeanSquaredError(reduction="sum"),
    ],
)
def test_no_samples_have_no_loss_and_no_gradient(loss):
    import tensorflow as tf

    block = SSPCABLayer(loss=loss)
    x = tf.zeros((0, 6, 6, 8))
    with tf.GradientTape() as tape:
        tape.watch(x)
        block(x)
        (term,) = block.losses
    assert float(value(term)) == 0.0
    gradients = tape.gradient(term, [x, *block.trainable_variables])
    assert all(np.isfinite(value(g)).all() for g in gradients if g is not None)


TAIL = """
import keras, numpy as np, tensorflow as tf
from keras_sspcab import SSPCABLayer

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
x = np.random.default_rng(0).random((9, 8, 8, 4))
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((8, 8, 4)), SSPCABLayer()])
    model.compile("sgd", "mse", jit_compile=False)
history = model.fit(x, x, batch_size=4, verbose=0).history
print(all(np.isfinite(values).all() for values in history.values()))
"""


@needs_tensorflow
@pytest.mark.slow
def test_a_replica_without_samples_leaves_the_loss_finite():
    # TensorFlow's oneDNN refuses some convolutions of nothing.
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TAIL],
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["True"]


SCOPES = {
    "full": {},
    "larger_than": {"output_size_threshold": 16},
    "list_of_layers": {"layer_names": ["block"]},
    "activations": {},
}


@pytest.mark.parametrize("mode", SCOPES)
@pytest.mark.parametrize("is_built_inside", [False, True])
def test_rematerialized_block_trains_alike(mode, is_built_inside):
    x = images()

    def step(scope):
        keras.utils.set_random_seed(2)
        inputs = keras.Input((12, 12, 8))
        with scope:
            block = SSPCABLayer(name="block", loss_weight=10.0)
            if is_built_inside:
                outputs = block(inputs)
        if not is_built_inside:
            outputs = block(inputs)
        model = keras.Model(inputs, outputs)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        maps = np.repeat(x, 3, axis=-1)[..., :8]
        history = model.fit(maps, maps, shuffle=False, verbose=0).history
        return history, model.get_weights()

    history, weights = step(keras.RematScope(mode, **SCOPES[mode]))
    expected_history, expected = step(keras.RematScope(mode=None))
    for name, values in expected_history.items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@needs_tensorflow
@pytest.mark.parametrize("mode", ["full", "larger_than"])
def test_block_in_a_rematerialized_model_is_refused(mode):
    with keras.RematScope(mode, **SCOPES[mode]):
        model = host(SSPCABLayer(name="block"))
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match="'block' in it.*outside of the scope"):
        model.fit(images(), images(), verbose=0)


@needs_tensorflow
def test_no_trace_of_the_loss_in_an_inference_graph():
    import tensorflow as tf

    model = host(SSPCABLayer())

    def operations(function):
        graph = function.get_concrete_function(
            tf.TensorSpec((None, 12, 12, 3))
        ).graph
        return {operation.type for operation in graph.get_operations()}

    @tf.function
    def plain(x):
        return model(x, training=False)

    @tf.function
    def clean(x):
        with auxiliary_losses_disabled():
            return model(x, training=False)

    def has_loss(types):
        return bool({"L2Loss", "Square", "SquaredDifference"} & types)

    assert has_loss(operations(plain))
    assert not has_loss(operations(clean))


@needs_tensorflow
def test_training_without_the_loss():
    """Without its loss term, a block has the gradients of the other losses."""
    import tensorflow as tf

    layer = SSPCABLayer(kernel_size=2, dilation_rate=2)
    x = tf.constant(np.random.default_rng(0).random((2, 9, 8, 4), "float32"))
    layer(x)

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = tf.reduce_sum(layer(x, training=True) ** 2)
        return tape.gradient(
            outputs, [x, *(w.value for w in layer.trainable_variables)]
        )

    expected = gradients(x)
    with auxiliary_losses_disabled():
        result = gradients.python_function(x)
    assert all(np.abs(part).max() > 0 for part in expected[:2])
    for one, other in zip(result, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


# --- configuration and errors ---


def test_regularizers_add_their_own_terms():
    layer = SSPCABLayer(kernel_regularizer="l2", bias_regularizer="l2")
    layer(images(channels=8))
    # The term of the block, and kernel and bias of three parts.
    assert len(layer.losses) == 1 + 6


def test_all_argument_combinations_run():
    x = images(2, 8, 4)
    for attention, padding_mode, per_corner, use_bias in itertools.product(
        ("channel", "spatial", "channel_spatial", None),
        ("zeros", "reflect"),
        (False, True),
        (False, True),
    ):
        layer = SSPCABLayer(
            attention=attention,
            padding_mode=padding_mode,
            per_corner_activation=per_corner,
            use_bias=use_bias,
        )
        assert np.isfinite(value(layer(x))).all()
        for part in ("channel", "spatial"):
            is_there = getattr(layer, f"{part}_attention") is not None
            assert is_there == (part in (attention or "").split("_"))


class ReadsMetrics(keras.callbacks.Callback):
    """Looks at one block after each batch."""

    def on_train_batch_end(self, batch, logs=None):
        for metric in self.model.get_layer("second").metrics:
            metric.result()


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_reading_metrics_changes_nothing(run_eagerly):
    x = images()
    histories = []
    for callbacks in ([], [ReadsMetrics()]):
        keras.utils.set_random_seed(1)
        model = host(SSPCABLayer(name="first"), SSPCABLayer(name="second"))
        model.compile("sgd", "mse", run_eagerly=run_eagerly)
        histories.append(
            model.fit(
                x, x, batch_size=4, epochs=2, callbacks=callbacks, verbose=0
            ).history
        )
    assert histories[0] == histories[1]


@needs_tensorflow
@pytest.mark.parametrize("floatx", ["float32", "float64"])
def test_trains_in_float64(floatx):
    x = images().astype("float64")
    policy = keras.config.dtype_policy()
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy("float64")
    try:
        block = SSPCABLayer()
        model = keras.Sequential(
            [keras.Input((12, 12, 3)), block, keras.layers.Conv2D(3, 1)]
        )
        model.compile(keras.optimizers.SGD(0.0), "mse")
        history = model.fit(x, x, verbose=0).history
        outputs = value(block(x))
        (term,) = block.losses
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(policy)
    assert outputs.dtype == "float64"
    assert keras.backend.standardize_dtype(term.dtype) == floatx
    expected = 0.1 * np.mean((outputs - x) ** 2)
    precision = 1e-12 if floatx == "float64" else 1e-6
    np.testing.assert_allclose(value(term), expected, rtol=precision)
    np.testing.assert_allclose(history["sspcab_loss"], expected, rtol=1e-5)
