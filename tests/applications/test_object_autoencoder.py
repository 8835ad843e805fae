import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder, ObjectAutoEncoder
from tests.applications.helpers import noise_images
from tests.hosts import samples, small_host

SMALL = {"input_shape": (32, 32, 1), "filters": (4, 4, 2)}


@pytest.mark.parametrize("place", ["early", "middle", "late", None])
def test_network_is_that_of_the_auto_encoder(place):
    images = noise_images(3, 64, 64, 1)
    ours = ObjectAutoEncoder(sspcab=place)
    theirs = AutoEncoder(sspcab=place)
    ours.get_layer("autoencoder").set_weights(theirs.get_weights())
    expected = theirs.predict_on_batch(images)
    outputs = ours.predict_on_batch({"appearance": images})
    for name in ("raw_score", "anomaly_map", "reconstruction"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-5)


def test_crop_is_the_last_frame():
    frames = np.arange(5, dtype="uint8").reshape(1, 5, 1, 1, 1)
    inputs = ObjectAutoEncoder.cube_inputs({"appearance": frames})
    assert inputs["appearance"].ravel().tolist() == [4]


def test_training_learns_the_crops():
    host = small_host("object_autoencoder")
    host.compile(learning_rate=0.02, run_eagerly=True)
    x = samples(host, 8)
    x["appearance"] = 0.1 * x["appearance"]
    history = host.fit(x, epochs=8, batch_size=4, verbose=0)["reconstruction"]
    loss = history.history["loss"]
    assert loss[-1] < 0.8 * loss[0]
    # A part of it is the term of the block.
    assert 0 < history.history["sspcab_loss"][0] < loss[0]


def test_size_of_crops_must_be_known():
    with pytest.raises(ValueError, match="one size"):
        ObjectAutoEncoder((None, None, 1))
