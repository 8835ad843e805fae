"""What the tests of several hosts need."""

import keras
import numpy as np
from keras.ops import convert_to_numpy as numpy

TENSORFLOW = keras.config.backend() == "tensorflow"


def noise_images(n=8, height=32, width=32, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((n, height, width, channels)).astype("float32")


def noise_clips(n=4, frames=3, size=32, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, frames, size, size, channels)
    return rng.random(shape).astype("float32")


def moving_squares(n=8, frames=3, size=32, channels=1, seed=0):
    """Clips of a bright square that moves by two pixels a frame."""
    rng = np.random.default_rng(seed)
    clips = np.full((n, frames, size, size, channels), 0.2, "float32")
    for clip in clips:
        y, x = rng.integers(0, size - 8 - 2 * frames, 2)
        for index, frame in enumerate(clip):
            left = x + 2 * index
            frame[y : y + 8, left : left + 8] = 0.9
    return clips


def count(model, *prefixes):
    """Trained parameters of the layers whose names begin with a prefix."""
    return sum(
        int(np.prod(weight.shape))
        for layer in model.layers
        if layer.name.startswith(prefixes or "")
        for weight in layer.trainable_weights
    )


def assert_equal_weights(first, second):
    """Asserts that two lists of arrays or variables are the same."""
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(numpy(one), numpy(other))


def compiled_stage(model, name, **arguments):
    """A stage of the training of a host of objects, ready to be fitted."""
    stage = {stage.name: stage for stage in model.training_stages()}[name]
    stage.compile(
        **{"run_eagerly": TENSORFLOW, "jit_compile": False, **arguments}
    )
    return stage


def values_of(layer):
    return [numpy(weight).copy() for weight in layer.weights]


def moved(layer, before):
    """How far the weights of a layer have moved from `before`, at most."""
    return max(
        np.abs(numpy(weight) - value).max()
        for weight, value in zip(layer.weights, before, strict=True)
    )
