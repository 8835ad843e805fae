"""Tiny videos, for the hosts that look at them."""

import numpy as np


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


def count(model, prefix):
    """Trained parameters of the layers whose names begin with `prefix`."""
    return sum(
        int(np.prod(weight.shape))
        for layer in model.layers
        if layer.name.startswith(prefix)
        for weight in layer.trainable_weights
    )
