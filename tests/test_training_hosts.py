"""What hosts make of their images follows from the epoch, after a kill too."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.data.simulation import cutpaste_views, simulate_anomalies
from keras_sspcab.training import train


class Killed(BaseException):
    pass


class KillAfter(keras.callbacks.Callback):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            raise Killed


def run(path, simulate, kill_after=0):
    class Host(AutoEncoder):
        def prepare_training_data(self, data):
            # Its elements are others in each iteration.
            simulated = simulate(data, seed=np.random.randint(2**31))
            return simulated.map(lambda x, y: x)

    keras.utils.set_random_seed(5)
    model = Host((32, 32, 3), filters=(4, 4, 2))
    model.compile(run_eagerly=True)
    images = np.random.default_rng(0).random((8, 32, 32, 3), "float32")
    history = train(
        model,
        lambda epoch: tf.data.Dataset.from_tensor_slices(images).batch(2),
        2,
        str(path),
        every_steps=1,
        callbacks=[KillAfter(kill_after)],
    )
    return model.get_weights(), history


@pytest.mark.slow
@pytest.mark.parametrize("simulate", [cutpaste_views, simulate_anomalies])
def test_simulated_anomalies_go_on_after_a_kill(tmp_path, simulate):
    weights, history = run(tmp_path / "whole.npz", simulate)
    with pytest.raises(Killed):
        run(tmp_path / "parts.npz", simulate, kill_after=3)
    resumed, resumed_history = run(tmp_path / "parts.npz", simulate)
    assert resumed_history == history
    for value, expected in zip(resumed, weights, strict=True):
        np.testing.assert_array_equal(value, expected)
