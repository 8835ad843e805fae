"""Hosts of every kind with the transformer block."""

import keras
import numpy as np
import pytest

from keras_sspcab.layers import SSMCTBLayer
from tests.hosts import samples, small_host

if keras.config.backend() != "tensorflow":
    pytest.skip("exports need TensorFlow", allow_module_level=True)

from keras_sspcab.export import export_model

OPTIONS = {"type": "ssmctb", "token_dim": 8, "num_blocks": 1, "delta": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["autoencoder", "padim", "mnad", "object_autoencoder"]
)
def test_host_of_each_kind(name, tmp_path):
    host = small_host(name, run_eagerly=True, sspcab_options=OPTIONS)
    blocks = [
        layer
        for layer in host._flatten_layers()
        if isinstance(layer, SSMCTBLayer)
    ]
    assert {block.delta for block in blocks} == {0.5}
    before = [block.channel_attention.position.numpy() for block in blocks]
    fitted = host.fit(samples(host, 4, for_training=True), verbose=0)
    stages = fitted.values() if isinstance(fitted, dict) else [fitted]
    for stage in stages:
        assert stage.history["sspcab_loss"][-1] > 0
    for block, position in zip(blocks, before, strict=True):
        assert not np.array_equal(block.channel_attention.position, position)
    host.calibrate(samples(host, 6, seed=1))
    host.save(tmp_path / "host.keras")
    loaded = keras.models.load_model(tmp_path / "host.keras")
    assert loaded.get_config()["sspcab_options"] == OPTIONS
    x = samples(host, 3, seed=2)
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0)["raw_score"],
        host.predict(x, verbose=0)["raw_score"],
        rtol=1e-5,
    )
    assert export_model(loaded, tmp_path / "served", images=x).parity.passes
