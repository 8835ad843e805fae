"""Small versions of all hosts, for tests of what they share."""

import importlib

import numpy as np

from keras_sspcab.hosts import get_application


def small_host(name, run_eagerly=False, **arguments):
    """Builds and compiles a small version of a host, with the block.

    What makes it small are the arguments `SMALL` in the host's own test.

    Tracing a training step takes longer than a few steps without.
    """
    host = get_application(name)
    small = importlib.import_module(f"tests.applications.test_{name}").SMALL
    block = host.comparison_place
    place = {} if block is None else {"sspcab": block}
    model = host(**{**small, **place, **arguments})
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
