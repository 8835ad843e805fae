import contextlib
import threading

import numpy as np
import pytest

from keras_sspcab.layers import SSPCABLayer
from keras_sspcab.layers.auxiliary_loss import (
    auxiliary_losses_disabled,
    auxiliary_losses_enabled,
    auxiliary_losses_scaled,
)


def test_context_holds_for_its_thread_and_ends_with_errors():
    seen = []
    with contextlib.suppress(KeyError), auxiliary_losses_disabled():
        with auxiliary_losses_disabled():
            pass
        assert not auxiliary_losses_enabled()
        thread = threading.Thread(
            target=lambda: seen.append(auxiliary_losses_enabled())
        )
        thread.start()
        thread.join()
        raise KeyError
    assert auxiliary_losses_enabled()
    assert seen == [True]


def test_scaled_terms():
    x = np.random.default_rng(0).random((2, 6, 6, 4)).astype("float32")
    layer = SSPCABLayer(data_format="channels_last")
    layer(x)
    (plain,) = map(float, layer.losses)
    with auxiliary_losses_scaled(0.5):
        layer(x)
        (half,) = map(float, layer.losses)
        with auxiliary_losses_scaled(0.5):
            layer(x)
            (quarter,) = map(float, layer.losses)
    layer(x)
    assert half == pytest.approx(plain / 2, rel=1e-5)
    assert quarter == pytest.approx(plain / 4, rel=1e-5)
    assert float(layer.losses[0]) == pytest.approx(plain, rel=1e-5)
