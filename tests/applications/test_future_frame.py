from pathlib import Path

import keras
import numpy as np
import pytest

from keras_sspcab.applications import FutureFrame
from keras_sspcab.losses import lucas_kanade
from keras_sspcab.runs.models import compile_model
from keras_sspcab.runs.parsing import load_config, parse_setting
from tests.applications.helpers import (
    TENSORFLOW,
    assert_equal_weights,
    count,
    moving_squares,
    noise_clips,
    numpy,
)

needs_tensorflow = pytest.mark.skipif(
    not TENSORFLOW, reason="trains against a discriminator with TensorFlow only"
)
TERMS = ("intensity", "gradient", "flow", "adversarial")


# Tracing the flow takes longer than all the rest.
SMALL = {
    "input_shape": (3, 32, 32, 1),
    "base_width": 4,
    "flow_estimator": "none",
}


def small(**arguments):
    return FutureFrame(
        **{**SMALL, "flow_estimator": "lucas_kanade", **arguments}
    )


@pytest.fixture(scope="module")
def paper():
    """The paper's networks, without the block."""
    return FutureFrame(sspcab=None)


def test_parameter_counts_of_the_paper(paper):
    assert paper.discriminator.count_params() == 6_831_489
    assert paper.count_params() == 7_704_195 + 6_831_489
    generator = FutureFrame(sspcab=None, adversarial_weight=0)
    assert generator.count_params() == 7_704_195
    assert generator.discriminator is None
    assert count(paper) == 7_704_195


def test_block_replaces_the_penultimate_convolution(paper):
    replaced = paper.get_layer("decoder3_conv2")
    model = FutureFrame()
    block = model.get_layer("sspcab_penultimate")
    assert (replaced.count_params(), block.count_params()) == (36_928, 17_736)
    assert block.input.shape == replaced.input.shape == (None, 256, 256, 64)
    # Behind a ReLU, and the last convolution follows at once.
    before = block.input._keras_history.operation
    assert (before.name, before.activation.__name__) == (
        "decoder3_conv1",
        "relu",
    )
    after = model.get_layer("output_conv").input._keras_history.operation
    assert after is block
    assert model.count_params() == paper.count_params() - 36_928 + 17_736


@pytest.mark.filterwarnings("ignore:.*not been calibrated")
def test_scores_follow_from_the_prediction():
    model, x = small(), noise_clips()
    outputs = model.predict(x, verbose=0)
    prediction = outputs["prediction"].astype("float64")
    assert 0 <= prediction.min() <= prediction.max() <= 1
    error = np.square(prediction - x[:, -1])
    np.testing.assert_allclose(
        outputs["anomaly_map"], error.mean(-1), rtol=1e-4, atol=1e-6
    )
    psnr = 10 * np.log10(1 / error.mean((1, 2, 3)))
    np.testing.assert_allclose(outputs["raw_score"], -psnr, rtol=1e-4)


def test_the_last_frame_is_not_looked_at():
    model, x = small(), noise_clips()
    changed = x.copy()
    changed[:, -1] = 0
    first, second = (numpy(model(v)["prediction"]) for v in (x, changed))
    np.testing.assert_array_equal(first, second)


def plain_losses(model, x):
    """The paper's terms, in numpy from predictions and judgments."""
    outputs = model(x)
    target, before = 2 * x[:, -1] - 1, x[:, -2]
    prediction = 2 * numpy(outputs["prediction"]) - 1

    def edges(frame):
        padded = np.pad(frame, ((0, 0), (0, 1), (0, 1), (0, 0)))
        dy = np.abs(padded[:, 1:, :-1] - frame)
        return dy, np.abs(padded[:, :-1, 1:] - frame)

    flows = [
        numpy(lucas_kanade(before, (frame + 1) / 2))
        for frame in (target, prediction)
    ]
    real, false = (numpy(model.discriminator(v)) for v in (target, prediction))
    return {
        "intensity": np.mean((prediction - target) ** 2),
        "gradient": np.mean(
            sum(
                np.abs(t - p)
                for t, p in zip(edges(target), edges(prediction), strict=True)
            )
        ),
        "flow": np.mean(np.abs(flows[0] - flows[1])),
        "adversarial": np.mean((false - 1) ** 2) / 2,
        "discriminator": np.mean((real - 1) ** 2) / 2 + np.mean(false**2) / 2,
    }


def test_losses_of_the_formulas():
    weights = {
        "intensity_weight": 0.7,
        "gradient_weight": 0.8,
        "flow_weight": 0.3,
        "adversarial_weight": 0.05,
    }
    model, x = small(**weights), noise_clips()
    model.compile(run_eagerly=TENSORFLOW)
    results = model.evaluate(x, verbose=0, return_dict=True)
    expected = plain_losses(model, x)
    for name, value in expected.items():
        assert results[f"{name}_loss"] == pytest.approx(value, rel=1e-3), name
    total = results["sspcab_loss"] + sum(
        weights[f"{name}_weight"] * expected[name] for name in TERMS
    )
    assert results["loss"] == pytest.approx(total, rel=1e-3)
    assert set(results) == {
        "loss",
        "sspcab_loss",
        "discriminator_loss",
        *(f"{name}_loss" for name in TERMS),
    }


@needs_tensorflow
@pytest.mark.parametrize("still", ["generator", "discriminator"])
def test_each_optimizer_moves_its_own_network(still):
    model = small(flow_estimator="none")
    rates = [0.0, 0.1] if still == "generator" else [0.1, 0.0]
    first, second = map(keras.optimizers.SGD, rates)
    model.compile(first, discriminator_optimizer=second, run_eagerly=True)
    parts = {
        "generator": model.optimized_variables,
        "discriminator": model.discriminator.trainable_variables,
    }
    before = {k: [numpy(v) for v in vs] for k, vs in parts.items()}
    model.fit(noise_clips(2), verbose=0)
    for name, variables in parts.items():
        change = max(
            np.abs(numpy(v) - old).max()
            for v, old in zip(variables, before[name], strict=True)
        )
        assert (change == 0) == (name == still)


@pytest.mark.slow
@needs_tensorflow
def test_training_learns_the_motion():
    model, x = small(base_width=8, flow_estimator="none"), moving_squares(8)
    model.compile(keras.optimizers.Adam(3e-3), jit_compile=False)
    before = model.evaluate(x, verbose=0, return_dict=True)
    history = model.fit(x, batch_size=8, epochs=40, verbose=0).history
    after = model.evaluate(x, verbose=0, return_dict=True)
    assert set(history) == set(after)
    assert after["loss"] < 0.6 * before["loss"]
    assert after["intensity_loss"] < 0.3 * before["intensity_loss"]
    assert after["discriminator_loss"] < before["discriminator_loss"]
    # A square that jumps back is less well foreseen.
    model.calibrate(x)
    odd = x.copy()
    odd[:, -1] = x[:, 0][::-1]
    scores = [model.predict(v, verbose=0)["anomaly_score"] for v in (x, odd)]
    assert scores[1].mean() > scores[0].mean() + 1


@pytest.mark.skipif(TENSORFLOW, reason="what other backends can do")
def test_other_backends():
    x = noise_clips(4)
    model = small(flow_estimator="none")
    model.compile()
    with pytest.raises(ValueError, match="needs the TensorFlow backend"):
        model.fit(x, verbose=0)
    model = small(adversarial_weight=0, flow_estimator="none")
    model.compile()
    history = model.fit(x, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]


@needs_tensorflow
def test_mixed_precision():
    import tensorflow as tf

    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = small(flow_estimator="none")
        model.compile(run_eagerly=True)
    finally:
        keras.config.set_dtype_policy("float32")
    scaling = keras.optimizers.LossScaleOptimizer
    assert isinstance(model.optimizer, scaling)
    assert isinstance(model.discriminator_optimizer, scaling)
    history = model.fit(noise_clips(2), verbose=0).history
    assert all(np.isfinite(value).all() for value in history.values())
    outputs = model(noise_clips(2))
    assert {o.dtype for o in outputs.values()} == {tf.float32, tf.bool}


def test_file_keeps_the_discriminator_but_no_function(tmp_path):
    model = small(
        flow_estimator=lambda first, second: (second - first)[..., :1]
    )
    assert model.get_config()["flow_estimator"] == "custom"
    model.compile(
        steps=10,
        discriminator_optimizer=keras.optimizers.SGD(0.5),
        run_eagerly=TENSORFLOW,
    )
    x = noise_clips(2)
    if TENSORFLOW:
        model.fit(x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    ours, theirs = (
        [*m.discriminator.variables, *m.discriminator_optimizer.variables]
        for m in (model, loaded)
    )
    assert_equal_weights(ours, theirs)
    assert float(loaded.discriminator_optimizer.learning_rate) == 0.5
    if TENSORFLOW:
        with pytest.raises(ValueError, match="set_flow_estimator"):
            loaded.fit(x, verbose=0)
        loaded.set_flow_estimator("lucas_kanade")
        assert np.isfinite(loaded.fit(x, verbose=0).history["flow_loss"]).all()


def test_terms_that_are_left_out():
    model = small(flow_estimator="none", intensity_weight=0)
    assert set(model.default_losses()) == {"gradient", "adversarial"}
    model = small(flow_weight=0, adversarial_weight=0)
    assert set(model.default_losses()) == {"intensity", "gradient"}
    model.compile(loss={"intensity": "mae"}, run_eagerly=TENSORFLOW)
    x = noise_clips()
    loss, block = (
        model.evaluate(x, verbose=0, return_dict=True)[name]
        for name in ("loss", "sspcab_loss")
    )
    error = np.abs(2 * (numpy(model(x)["prediction"]) - x[:, -1])).mean()
    assert loss - block == pytest.approx(error, rel=1e-3)


def test_schedule_of_the_discriminator():
    model = small()
    model.compile(steps=100)
    schedule = model.discriminator_optimizer._learning_rate
    rates = [float(schedule(step)) for step in (0, 50, 51)]
    np.testing.assert_allclose(rates, [2e-5, 2e-5, 2e-6], rtol=1e-5)
    # Given, whether the length of the training is known or not.
    model = small(drop_step=7)
    for steps in (None, 10):
        model.compile(steps=steps)
        for optimizer, rate in (
            (model.optimizer, 2e-4),
            (model.discriminator_optimizer, 2e-5),
        ):
            rates = [float(optimizer._learning_rate(s)) for s in (7, 8)]
            np.testing.assert_allclose(rates, [rate, 0.1 * rate], rtol=1e-5)
    model = small()
    model.compile(learning_rate=1e-3)
    rate = model.discriminator_optimizer.learning_rate
    assert float(rate) == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("data", "weights", "rate", "drop"),
    [
        ("Ped1", (1, 1, 0.01, 0.05), 1e-4, 40_000),
        ("Ped2", (1, 1, 2, 0.05), 1e-4, 7_000),
        ("Avenue", (0.001, 1, 2, 0.05), 2e-4, 100_000),
        ("ShanghaiTech", (1, 1, 2, 0.05), 2e-4, 50_000),
    ],
)
def test_settings_of_the_papers_data(data, weights, rate, drop):
    """Those in the table of the page give the rates of the reference."""
    page = Path(__file__).parents[2] / "docs/concepts/models.md"
    lines = page.read_text("utf-8").splitlines()
    (row,) = [line for line in lines if line.startswith(f"  | {data} |")]
    settings = dict(map(parse_setting, row.split("`")[1].split()))
    config = load_config(None, {"model.name": "future_frame", **settings})
    model = small(**{**config.model.options, "base_width": 2})
    compile_model(model, config, num_samples=1000)
    assert list(model.default_loss_weights().values()) == list(weights)
    for optimizer, own in (
        (model.optimizer, rate),
        (model.discriminator_optimizer, 0.1 * rate),
    ):
        rates = [float(optimizer._learning_rate(s)) for s in (drop, drop + 1)]
        np.testing.assert_allclose(rates, [own, 0.1 * own], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (3, 8, 64, 3)}, "at least 16"),
        ({"base_width": 0}, "base_width=0"),
        ({"drop_step": 0}, "drop_step"),
        ({"flow_weight": -1.0}, "flow_weight=-1.0"),
        ({"flow_estimator": "farneback"}, "flow_estimator='farneback'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)


@needs_tensorflow
def test_labels_are_refused():
    model = small(flow_estimator="none")
    model.compile(run_eagerly=True)
    with pytest.raises(ValueError, match="pass only the clips"):
        model.fit(noise_clips(2), np.zeros(2), verbose=0)
