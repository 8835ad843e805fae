"""Trains a small model; killed by a signal where the arguments say so.

Run as a program by `test_training.py`: FOLDER [KILL_AFTER_STEPS].
"""

import os
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

from keras_sspcab import SSPCABLayer
from keras_sspcab.training import train

EPOCHS = 3
STEPS = 7

images = np.random.default_rng(0).random((26, 12, 12, 4), dtype="float32")


def make_dataset(epoch):
    """Images in an order of their own for each epoch; the last batch is short.

    The numbers of an epoch follow from its index alone.
    """
    order = np.random.default_rng(epoch).permutation(len(images))
    pairs = (images[order], images[order])
    return tf.data.Dataset.from_tensor_slices(pairs).batch(4)


def make_model():
    """A model with all kinds of state: norms, dropout, block, optimizer."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 4)),
            keras.layers.Conv2D(8, 3, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.3),
            SSPCABLayer(),
            keras.layers.Conv2D(4, 3, padding="same"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "mse", metrics=["mae"])
    return model


class After(keras.callbacks.Callback):
    """Calls a function after so many steps of this process."""

    def __init__(self, steps, function):
        super().__init__()
        self.steps, self.function = steps, function

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            self.function()


if __name__ == "__main__":
    folder, *kill_after = sys.argv[1:]
    kill = After(
        int(kill_after[0]) if kill_after else 0,
        lambda: os.kill(os.getpid(), signal.SIGKILL),
    )
    model = make_model()
    train(
        model,
        make_dataset,
        EPOCHS,
        os.path.join(folder, "checkpoint.npz"),
        every_steps=2,
        history_csv=os.path.join(folder, "history.csv"),
        callbacks=[kill],
    )
    np.savez(os.path.join(folder, "weights.npz"), *model.get_weights())
