"""Fixtures that tests of hosts share."""

import keras
import pytest


@pytest.fixture(scope="module")
def eager_steps():
    """Runs the steps of Keras eagerly: for a few, compiling takes longer."""
    with pytest.MonkeyPatch.context() as patch:
        if keras.config.backend() == "tensorflow":
            always = property(lambda self: True, lambda self, value: None)
            patch.setattr(keras.Model, "run_eagerly", always)
        yield
