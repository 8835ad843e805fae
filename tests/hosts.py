"""Small versions of all hosts, for tests of what they share."""

import importlib

import keras
import numpy as np
import pytest

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


@pytest.fixture(scope="module", autouse=True)
def eager_steps():
    """Steps of Keras that are called a few times are not compiled before."""
    with pytest.MonkeyPatch.context() as patch:
        if keras.config.backend() == "tensorflow":
            always = property(lambda self: True, lambda self, value: None)
            patch.setattr(keras.Model, "run_eagerly", always)
        yield
