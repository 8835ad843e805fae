"""Adam as in PyTorch, alone and in the hosts whose papers used it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.optimizers import EpochCosineDecay, PyTorchAdam
from keras_sspcab.runs.models import compile_model
from keras_sspcab.runs.parsing import load_config
from tests.hosts import samples, small_host


class Formulas:
    """PyTorch's Adam in float64, written from its documentation."""

    def __init__(self, rate, epsilon, amsgrad=False):
        self.rate, self.epsilon, self.amsgrad = rate, epsilon, amsgrad
        self.step, self.mean, self.square, self.highest = 0, 0.0, 0.0, 0.0

    def __call__(self, weight, gradient):
        self.step += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        self.highest = np.maximum(self.highest, self.square)
        square = self.highest if self.amsgrad else self.square
        mean = self.mean / (1 - 0.9**self.step)
        square = square / (1 - 0.999**self.step)
        return weight - self.rate * mean / (np.sqrt(square) + self.epsilon)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float64", 1e-7), ("float32", 2e-5)]
)
def test_steps_are_those_of_the_formulas(dtype, tolerance, amsgrad):
    rng = np.random.default_rng(0)
    # Gradients as small as epsilon, where both forms of Adam differ by much.
    gradients = rng.normal(size=(20, 6)) * 10.0 ** -np.arange(4, 10)
    expected = np.zeros(6)
    formulas = Formulas(0.1, 1e-7, amsgrad)
    weight = keras.Variable(np.zeros(6), dtype=dtype)
    optimizer = PyTorchAdam(0.1, epsilon=1e-7, amsgrad=amsgrad)
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient, dtype)], [weight])
        expected = formulas(expected, gradient)
    got = ops.convert_to_numpy(weight)
    np.testing.assert_allclose(got, expected, rtol=tolerance)


def test_the_first_moment_may_be_left_out():
    weight = keras.Variable([1.0, 1.0])
    optimizer = PyTorchAdam(0.1, beta_1=0.0)
    optimizer.apply([ops.array([2.0, -3.0])], [weight])
    np.testing.assert_allclose(
        ops.convert_to_numpy(weight), [0.9, 1.1], rtol=1e-6
    )


def test_it_is_named_in_the_config():
    optimizer = PyTorchAdam(2e-4, beta_1=0.5, weight_decay=0.01)
    config = keras.optimizers.serialize(optimizer)
    assert config["class_name"] == "PyTorchAdam"
    again = keras.optimizers.deserialize(config)
    assert again.get_config() == optimizer.get_config()


def test_cosine_is_stepped_by_epoch():
    """By the formula of PyTorch's `CosineAnnealingLR`, for a run of MNAD."""
    settings = {"model.name": "mnad", "training.epochs": 5}
    config = load_config(None, {**settings, "training.batch_size": 4})
    host = small_host("mnad")
    compile_model(host, config, num_samples=27)
    schedule = host.optimizer._learning_rate
    # Seven steps an epoch, the last of three samples.
    rates = [float(schedule(step)) for step in range(35)]
    epochs = np.repeat(np.arange(5), 7)
    expected = 2e-4 * (1 + np.cos(np.pi * epochs / 5)) / 2
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    config = keras.optimizers.schedules.serialize(schedule)
    again = keras.optimizers.schedules.deserialize(config)
    assert isinstance(again, EpochCosineDecay)
    assert float(again(20)) == rates[20]


@pytest.fixture
def in_float64():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(policy)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="takes gradients by a tape"
)
@pytest.mark.parametrize(
    ("name", "epsilon"), [("draem", 1e-8), ("mnad", 1e-8), ("hf2vad", 1e-7)]
)
def test_first_step_of_hosts_whose_papers_used_it(name, epsilon, in_float64):
    import tensorflow as tf

    host = small_host(name, run_eagerly=True)
    batch, targets = samples(host, 2), None
    if name == "draem":
        mask = np.zeros(batch.shape[:3])
        mask[:, 8:16, 8:16] = 1
        targets = {"reconstruction": batch, "segmentation": mask}
    stages = host.training_stages() if name == "hf2vad" else [host]
    assert len(stages) == (3 if name == "hf2vad" else 1)
    for model in stages:
        if name == "hf2vad":
            model.compile(run_eagerly=True)
        assert isinstance(model.optimizer, PyTorchAdam)
        variables = model.trainable_variables
        before = [ops.convert_to_numpy(v) for v in variables]
        others = [(v, ops.convert_to_numpy(v)) for v in model.variables]
        with tf.GradientTape() as tape:
            outputs = model(batch, training=True)
            loss = model.compute_loss(batch, targets, outputs)
        gradients = tape.gradient(loss, [v.value for v in variables])
        for variable, value in others:
            variable.assign(value)
        model.train_on_batch(batch, targets)
        rate = float(model.optimizer.learning_rate)
        for variable, value, gradient in zip(
            variables, before, gradients, strict=True
        ):
            given = 0.0 if gradient is None else ops.convert_to_numpy(gradient)
            expected = Formulas(rate, epsilon)(value, given)
            # Where a gradient is round-off alone, its sign is as well.
            np.testing.assert_allclose(
                ops.convert_to_numpy(variable), expected, rtol=1e-4, atol=1e-9
            )
