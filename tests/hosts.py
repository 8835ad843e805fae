"""Small versions of all hosts, for tests of what they share."""

import numpy as np

from keras_sspcab.applications import available_applications

#: Arguments that make a host small, by its name.
SMALL = {
    "autoencoder": {"input_shape": (32, 32, 1), "filters": (8, 8, 4)},
    "draem": {"input_shape": (32, 32, 3), "base_width": 16, "smoothing": 3},
    "cutpaste": {"input_shape": (32, 32, 3), "base_width": 8},
    # Random weights: those of ImageNet are in a package.
    "padim": {
        "input_shape": (64, 64, 3),
        "weights": None,
        "sspcab": "features",
        "num_features": 20,
    },
    "multiscale_padim": {
        "input_shape": (64, 64, 3),
        "weights": None,
        "sspcab": "features",
        "num_features": 20,
        "rank": 8,
    },
    "patchcore": {
        "input_shape": (64, 64, 3),
        "weights": None,
        "sspcab": "features",
        "memory_size": 32,
    },
    # Tracing the flow takes longer than all the rest.
    "future_frame": {
        "input_shape": (3, 32, 32, 1),
        "base_width": 4,
        "flow_estimator": "none",
    },
    "mnad": {"input_shape": (3, 32, 32, 1), "base_width": 4},
    "background_agnostic": {"input_shape": (32, 32, 1), "base_width": 2},
    "hf2vad": {
        "input_shape": (3, 16, 16, 1),
        "root_width": 2,
        "num_slots": 8,
        "base_width": 2,
    },
}


def small_host(name, run_eagerly=False, **arguments):
    """Builds and compiles a small version of a host.

    Tracing a training step takes longer than a few steps without.
    """
    model = available_applications()[name](**{**SMALL[name], **arguments})
    model.compile(run_eagerly=run_eagerly)
    return model


def samples(host, count, seed=0, for_training=False):
    """What a host looks at: images, clips, or dicts of parts of objects.

    For training, objects come with abnormal ones.
    """
    rng = np.random.default_rng(seed)
    if host.kind != "objects":
        shape = (count, *host.input_shape[1:])
        return rng.random(shape).astype("float32")
    parts = {
        tensor.name: rng.random((count, *tensor.shape[1:])).astype("float32")
        for tensor in host.inputs
    }
    if for_training:
        parts |= {f"abnormal_{name}": part for name, part in parts.items()}
    return parts
