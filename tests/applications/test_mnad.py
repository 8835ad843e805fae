import keras
import numpy as np
import pytest

from keras_sspcab.applications import MNAD
from tests.applications.helpers import (
    TENSORFLOW,
    count,
    moving_squares,
    noise_clips,
    numpy,
)

SMALL = {"input_shape": (3, 32, 32, 1), "base_width": 4}

#: Frames that each task looks at.
FRAMES = {"prediction": 3, "reconstruction": 1}


def small(task="prediction", **arguments):
    shape = (FRAMES[task], 32, 32, 1)
    return MNAD(**{**SMALL, "input_shape": shape, "task": task, **arguments})


def items(model):
    return numpy(model.get_layer("memory").items)


@pytest.fixture(scope="module")
def paper():
    """The paper's network for prediction, without the block."""
    return MNAD(sspcab=None)


def test_parameter_counts_of_the_paper(paper):
    encoder = count(paper, "encoder")
    decoder = count(paper, "decoder", "generator", "output")
    assert (encoder, decoder) == (4_693_376, 10_957_443)
    assert encoder + decoder == 15_650_819 == count(paper)
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
    assert count(model) == 17_195_267
    names = {layer.name for layer in model.layers}
    assert not any(name.endswith("_skip") for name in names)
    up = model.get_layer("decoder1_up_crop").output
    assert up.shape[1:] == (64, 64, 512)
    up = model.get_layer("decoder3_up_crop").output
    assert up.shape[1:] == (256, 256, 128)


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


@pytest.mark.filterwarnings("ignore:.*not been calibrated")
@pytest.mark.parametrize("task", FRAMES)
def test_scores_follow_from_prediction_and_memory(task):
    model = small(task)
    frames = FRAMES[task]
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
        x = noise_clips(2, FRAMES[task])
        changed = x.copy()
        changed[:, -1] = 0
        first, second = (numpy(model(v)["prediction"]) for v in (x, changed))
        assert (np.abs(first - second).max() > 0) == depends


@pytest.mark.parametrize(
    ("task", "weight"), [("prediction", 0.1), ("reconstruction", 0.01)]
)
def test_losses_of_the_formulas(task, weight):
    model = small(task)
    x = noise_clips(4, FRAMES[task])
    model.compile(run_eagerly=TENSORFLOW)
    results = model.evaluate(x, verbose=0, return_dict=True)
    outputs = {name: numpy(value) for name, value in model(x).items()}
    queries = (
        numpy(model._encoder.value.predict_on_batch(x))
        .reshape(-1, 32)
        .astype("float64")
    )
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
    model.get_layer("memory").update(
        model._encoder.value.predict_on_batch(x[:1])
    )
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"input_shape": (5, 64, 64, 3), "task": "reconstruction"},
            "one frame",
        ),
        ({"task": "interpolation"}, "task='interpolation'"),
        ({"num_items": 1}, "num_items=1"),
        ({"psnr_weight": 2.0}, "psnr_weight=2.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MNAD(**{**SMALL, **arguments})
