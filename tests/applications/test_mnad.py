import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.applications import MNAD
from tests.applications.clips import count, moving_squares, noise_clips

TENSORFLOW = keras.config.backend() == "tensorflow"

SMALL = {
    "prediction": {"input_shape": (3, 32, 32, 1), "base_width": 4},
    "reconstruction": {"input_shape": (1, 32, 32, 1), "base_width": 4},
}


def small(task="prediction", **arguments):
    return MNAD(**{"task": task, **SMALL[task], **arguments})


def numpy(x):
    return ops.convert_to_numpy(x)


def items(model):
    return numpy(model.get_layer("memory").items)


@pytest.fixture(scope="module")
def paper():
    """The paper's network for prediction, without the block."""
    return MNAD(sspcab=None)


def test_parameter_counts_of_the_paper(paper):
    encoder = count(paper, "encoder")
    decoder = sum(
        count(paper, name) for name in ("decoder", "generator", "output")
    )
    assert (encoder, decoder) == (4_693_376, 10_957_443)
    assert encoder + decoder == 15_650_819 == count(paper, "")
    assert paper.get_layer("memory").items.shape == (10, 512)
    norms = [
        layer
        for layer in paper.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}
    statistics = 2 * sum(norm.gamma.shape[0] for norm in norms)
    # The extremes of the score are four numbers.
    assert paper.count_params() == 15_650_819 + statistics + 10 * 512 + 4


def test_parameter_counts_of_reconstruction():
    model = MNAD(sspcab=None, task="reconstruction")
    assert count(model, "") == 17_195_267
    names = {layer.name for layer in model.layers}
    assert not any(name.endswith("_skip") for name in names)
    assert model.get_layer("decoder1_up").output.shape[1:] == (64, 64, 512)
    assert model.get_layer("decoder3_up").output.shape[1:] == (256, 256, 128)


def test_block_replaces_the_penultimate_convolution(paper):
    replaced = paper.get_layer("generator_conv2")
    model = MNAD()
    block = model.get_layer("sspcab_penultimate")
    assert (replaced.count_params(), block.count_params()) == (36_928, 17_736)
    assert block.input.shape == replaced.input.shape == (None, 256, 256, 64)
    # The block's input has been activated, its output is normalized.
    before = block.input._keras_history.operation
    assert before.name == "generator_conv1_relu"
    norm = model.get_layer("generator_conv2_norm")
    assert norm.input._keras_history.operation is block
    assert model.count_params() == paper.count_params() - 36_928 + 17_736


def test_layer_table_of_the_paper(paper):
    shapes = {
        "signed": (256, 256, 12),
        "encoder1_conv2_relu": (256, 256, 64),
        "encoder2_conv2_relu": (128, 128, 128),
        "encoder3_conv2_relu": (64, 64, 256),
        "encoder4_conv1_relu": (32, 32, 512),
        "encoder4_conv2": (32, 32, 512),
        "decoder1_conv2_relu": (32, 32, 512),
        "decoder1_up_relu": (64, 64, 256),
        "decoder1_skip": (64, 64, 512),
        "decoder2_conv2_relu": (64, 64, 256),
        "decoder2_up_relu": (128, 128, 128),
        "decoder2_skip": (128, 128, 256),
        "decoder3_conv2_relu": (128, 128, 128),
        "decoder3_up_relu": (256, 256, 64),
        "decoder3_skip": (256, 256, 128),
        "generator_conv1_relu": (256, 256, 64),
        "generator_conv2_relu": (256, 256, 64),
        "prediction": (256, 256, 3),
    }
    found = {name: paper.get_layer(name).output.shape[1:] for name in shapes}
    assert found == shapes
    # The queries are neither normalized nor activated.
    query = paper.get_layer("memory").input._keras_history.operation
    assert query.name == "encoder4_conv2"
    assert query.activation.__name__ == "linear"
    read = paper.get_layer("decoder1_conv1").input.shape
    assert read == (None, 32, 32, 1024)


def test_initial_weights_are_those_of_pytorch():
    model = small(base_width=16)
    for name, inputs in (("encoder3_conv2", 64), ("decoder1_up", 64)):
        kernel = numpy(model.get_layer(name).kernel)
        limit = 1 / np.sqrt(9 * inputs)
        assert np.abs(kernel).max() == pytest.approx(limit, rel=0.01)
    same_shape = [
        numpy(model.get_layer(f"decoder1_conv{i}").kernel)[:, :, :128]
        for i in (1, 2)
    ]
    assert np.abs(same_shape[0] - same_shape[1]).max() > 0.01


@pytest.mark.filterwarnings("ignore:.*not been calibrated")
@pytest.mark.parametrize("task", SMALL)
def test_scores_follow_from_prediction_and_memory(task):
    model = small(task)
    frames = SMALL[task]["input_shape"][0]
    x = noise_clips(4, frames)
    normal = noise_clips(5, frames, seed=1)
    before = model.predict(normal, verbose=0)
    model.fit_scoring(normal)
    outputs = model.predict(x, verbose=0)
    error = np.square(outputs["prediction"].astype("float64") - x[:, -1])
    np.testing.assert_allclose(
        outputs["anomaly_map"], error.mean(-1), rtol=1e-4, atol=1e-6
    )
    psnr = 10 * np.log10(1 / error.mean((1, 2, 3)))
    np.testing.assert_allclose(outputs["psnr"], psnr, rtol=1e-4)

    def g(values, normal):
        return (values - normal.min()) / (normal.max() - normal.min())

    share = {"prediction": 0.6, "reconstruction": 0.7}[task]
    expected = share * (1 - g(outputs["psnr"], before["psnr"])) + (
        1 - share
    ) * g(outputs["compactness"], before["compactness"])
    np.testing.assert_allclose(
        outputs["raw_score"], expected, rtol=1e-3, atol=1e-3
    )


def test_what_is_looked_at():
    for task, depends in (("prediction", False), ("reconstruction", True)):
        model = small(task)
        x = noise_clips(2, SMALL[task]["input_shape"][0])
        changed = x.copy()
        changed[:, -1] = 0
        first, second = (numpy(model(v)["prediction"]) for v in (x, changed))
        assert (np.abs(first - second).max() > 0) == depends


@pytest.mark.parametrize(
    ("task", "weight"), [("prediction", 0.1), ("reconstruction", 0.01)]
)
def test_losses_of_the_formulas(task, weight):
    model = small(task)
    x = noise_clips(4, SMALL[task]["input_shape"][0])
    model.compile(run_eagerly=TENSORFLOW)
    results = model.evaluate(x, verbose=0, return_dict=True)
    outputs = {name: numpy(value) for name, value in model(x).items()}
    queries = numpy(model._encode(x)).reshape(-1, 32).astype("float64")
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    distances = np.linalg.norm(queries[:, None] - items(model), axis=-1)
    near, second = np.sort(distances, axis=1)[:, :2].T
    expected = {
        "prediction": 4 * np.mean((outputs["prediction"] - x[:, -1]) ** 2),
        "compactness": np.mean(near**2) / 32,
        "separateness": np.mean(np.maximum(near - second + 1, 0)),
    }
    for name, value in expected.items():
        assert results[f"{name}_loss"] == pytest.approx(value, rel=1e-3), name
    assert results["loss"] == pytest.approx(
        expected["prediction"]
        + weight * (expected["compactness"] + expected["separateness"])
        + results["sspcab_loss"],
        rel=1e-3,
    )


def test_training_learns():
    model, x = small(base_width=8), moving_squares(8)
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=not TENSORFLOW)
    before = items(model)
    history = model.fit(x, batch_size=8, epochs=20, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["prediction_loss"][-1] < 0.4 * history["prediction_loss"][0]
    assert history["compactness_loss"][-1] < history["compactness_loss"][0]
    assert min(history["sspcab_loss"]) > 0
    after = items(model)
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-5)
    # `fit` has measured the training clips: some of them are the extremes.
    model.calibrate(x)
    outputs = model.predict(x, verbose=0)
    regularity = model.get_layer("regularity")
    assert outputs["psnr"].max() == pytest.approx(
        float(regularity.high[0]), rel=1e-3
    )
    np.testing.assert_array_equal(items(model), after)


@pytest.mark.skipif(not TENSORFLOW, reason="takes gradients with TensorFlow")
def test_gradients_reach_everything():
    import tensorflow as tf

    # A unit for each channel: of few, all may be dead.
    model = small(sspcab_options={"reduction_ratio": 1})
    x = noise_clips(2)
    model.compile(run_eagerly=True)
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        loss = model.compute_loss(x, None, outputs)
    variables = model.trainable_variables
    for variable, gradient in zip(
        variables, tape.gradient(loss, variables), strict=True
    ):
        assert gradient is not None, variable.path
        # A bias before a normalization has none, but for rounding.
        assert np.isfinite(gradient.numpy()).all(), variable.path
        if variable.name != "bias":
            assert float(tf.reduce_max(tf.abs(gradient))) > 0, variable.path


def test_learning_while_scoring():
    model, x = small(), moving_squares(4)
    model.calibrate(x)
    before = items(model)
    plain = model.predict(x, verbose=0)
    # Nothing is normal enough to learn from.
    results = model.predict_online(x, threshold=0.0)
    assert not results["updated"].any()
    # The flag of the clip that the threshold was measured on may be either.
    for name in plain.keys() - {"is_anomalous"}:
        np.testing.assert_allclose(
            results[name], plain[name], rtol=1e-3, atol=1e-3, err_msg=name
        )
    # Everything is.
    results = model.predict_online([x[:2], x[2:]], threshold=1.0)
    assert results["updated"].all()
    np.testing.assert_allclose(
        results["compactness"][0], plain["compactness"][0], rtol=1e-4
    )
    assert (results["compactness"][1:] < plain["compactness"][1:]).all()
    np.testing.assert_array_equal(items(model), before)
    model.predict_online(x[:1], threshold=1.0, keep=True)
    after = items(model)
    assert np.abs(after - before).max() > 1e-3
    # The very update of the training.
    model.get_layer("memory").items.assign(before)
    model.get_layer("memory").update(model._encode(x[:1]))
    np.testing.assert_allclose(items(model), after, atol=1e-5)


def test_gate_of_learning_while_scoring():
    model, x = small("reconstruction"), moving_squares(1, 1)
    model.calibrate(x)
    prediction = model.predict(x, verbose=0)["prediction"]
    error = np.square(prediction.astype("float64") - x[:, -1])
    weight = 1 - np.exp(-error)
    gate = (weight * error).sum() / weight.sum()
    for threshold in (gate * 0.999, gate * 1.001):
        results = model.predict_online(x, threshold=threshold)
        assert results["updated"].tolist() == [threshold > gate]
    with pytest.raises(ValueError, match="at least one clip"):
        model.predict_online([])


@pytest.mark.parametrize("task", SMALL)
def test_file_keeps_everything(task, tmp_path):
    model = small(task, compactness_weight=0.5, num_items=3, psnr_weight=0.2)
    x = noise_clips(4, SMALL[task]["input_shape"][0])
    model.compile(run_eagerly=TENSORFLOW)
    model.fit(x[:2], verbose=0)
    model.calibrate(x)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(items(loaded), items(model))
    expected, result = (m.predict(x, verbose=0) for m in (model, loaded))
    for name in expected:
        np.testing.assert_allclose(
            result[name], expected[name], rtol=1e-3, atol=1e-3, err_msg=name
        )


@pytest.mark.skipif(not TENSORFLOW, reason="resumes with TensorFlow only")
def test_training_is_resumed(tmp_path):
    import tensorflow as tf

    from keras_sspcab.training import train

    x = moving_squares(2)

    def run(epochs, name):
        keras.utils.set_random_seed(0)
        model = small(base_width=1)
        model.compile(steps=4, run_eagerly=True)
        dataset = tf.data.Dataset.from_tensor_slices(x).batch(1)
        path = str(tmp_path / name)
        return model, train(model, lambda epoch: dataset, epochs, path)

    whole, expected = run(2, "whole.npz")
    run(1, "parts.npz")
    resumed, history = run(2, "parts.npz")
    assert history == expected
    np.testing.assert_array_equal(items(resumed), items(whole))


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small()
        model.compile(run_eagerly=TENSORFLOW)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("memory").compute_dtype == "float32"
    assert model.get_layer("encoder1_conv1").compute_dtype == "float16"
    history = model.fit(noise_clips(4), verbose=0).history
    assert all(np.isfinite(value).all() for value in history.values())
    outputs = model(noise_clips(2))
    dtypes = {
        keras.backend.standardize_dtype(o.dtype) for o in outputs.values()
    }
    assert dtypes == {"float32", "bool"}


def test_schedule_of_the_optimizer():
    model = small()
    assert float(model.default_optimizer().learning_rate) == pytest.approx(2e-4)
    schedule = model.default_optimizer(steps=100)._learning_rate
    rates = [float(schedule(step)) for step in (0, 50, 100)]
    np.testing.assert_allclose(rates, [2e-4, 1e-4, 0], rtol=1e-5, atol=1e-12)


def test_clips_of_any_size_where_it_is_open():
    open_model = small(input_shape=(3, None, None, 1))
    fixed = small(input_shape=(3, 32, 24, 1))
    fixed.set_weights(open_model.get_weights())
    x = noise_clips()[:, :, :, :24]
    for name in ("prediction", "compactness"):
        np.testing.assert_allclose(
            numpy(open_model(x)[name]), numpy(fixed(x)[name]), atol=1e-5
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (3, 100, 64, 3)}, "a multiple of 8.*100, 64, 3"),
        ({"input_shape": (64, 64, 3)}, "frames, height, width, channels"),
        ({"input_shape": (1, 64, 64, 3)}, "two frames or more"),
        (
            {"input_shape": (5, 64, 64, 3), "task": "reconstruction"},
            "one frame",
        ),
        ({"sspcab": "late"}, "must be one or several.*'late'"),
        ({"task": "interpolation"}, "task='interpolation'"),
        ({"base_width": 0}, "base_width=0"),
        ({"num_items": 1}, "num_items=1"),
        ({"compactness_weight": -1.0}, "compactness_weight=-1.0"),
        ({"psnr_weight": 2.0}, "psnr_weight=2.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MNAD(**{**SMALL["prediction"], **arguments})
