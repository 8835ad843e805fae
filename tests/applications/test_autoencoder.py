import keras
import numpy as np
import pytest

from keras_sspcab.applications import AutoEncoder
from keras_sspcab.applications.autoencoder import PLACES
from tests.applications.helpers import noise_images, numpy

SMALL = {"input_shape": (32, 32, 1), "filters": (8, 8, 4)}


@pytest.mark.parametrize(
    ("channels", "sspcab", "count"),
    [
        (1, None, 30689),
        (1, "late", 25957),
        (1, "middle", 30689 - 2320 + 1170),
        (1, PLACES, 30689 - 2 * (9248 - 4516) - (2320 - 1170)),
    ],
)
def test_parameter_counts_of_the_paper(channels, sspcab, count):
    model = AutoEncoder(input_shape=(64, 64, channels), sspcab=sspcab)
    assert model.count_params() == count


def test_layer_table_of_the_paper():
    model = AutoEncoder(sspcab=None)
    table = {
        layer.name: (layer.output.shape[1:], layer.count_params())
        for layer in model.layers
        if layer.name.split("_")[0] in ("encoder", "decoder")
    }
    assert table == {
        "encoder_conv1": ((64, 64, 32), 320),
        "encoder_pool1": ((32, 32, 32), 0),
        "encoder_conv2": ((32, 32, 32), 9248),
        "encoder_pool2": ((16, 16, 32), 0),
        "encoder_conv3": ((16, 16, 16), 4624),
        "encoder_pool3": ((8, 8, 16), 0),
        "decoder_conv1": ((16, 16, 16), 2320),
        "decoder_conv2": ((32, 32, 32), 4640),
        "decoder_conv3": ((64, 64, 32), 9248),
        "decoder_conv4": ((64, 64, 1), 289),
    }


@pytest.mark.parametrize(
    ("place", "shape", "units"),
    [
        ("early", (32, 32, 32), 4),
        ("middle", (16, 16, 16), 2),
        ("late", (64, 64, 32), 4),
    ],
)
def test_places(place, shape, units):
    block = AutoEncoder(sspcab=place).get_layer(f"sspcab_{place}")
    assert block.input.shape[1:] == shape
    assert block.channel_attention.squeeze.units == units


def test_several_places_and_options():
    model = AutoEncoder(
        sspcab=("early", "late"),
        sspcab_options={"loss_weight": 0.5, "attention": None},
    )
    for place in ("early", "late"):
        assert model.get_layer(f"sspcab_{place}").loss_weight == 0.5
    model(noise_images(2, 64, 64, 1))
    assert len(model.losses) == 2


@pytest.mark.parametrize(
    ("size", "dynamic", "channels"),
    [((37, 50), False, 3), ((9, 8), True, 1), ((1, 1), True, 1)],
)
def test_any_size_and_channels(size, dynamic, channels):
    height, width = size
    model = AutoEncoder(
        input_shape=(*((None, None) if dynamic else size), channels)
    )
    x = noise_images(2, height, width, channels)
    outputs = model(x)
    assert outputs["reconstruction"].shape == x.shape
    assert outputs["anomaly_map"].shape == (2, height, width)


def test_static_and_dynamic_sizes_agree():
    x = noise_images(2, 21, 30, 1)
    static = AutoEncoder(input_shape=(21, 30, 1))
    dynamic = AutoEncoder(input_shape=(None, None, 1))
    dynamic.set_weights(static.get_weights())
    np.testing.assert_allclose(
        numpy(dynamic(x)["anomaly_map"]),
        numpy(static(x)["anomaly_map"]),
        atol=1e-6,
    )


def test_score_and_map():
    x = noise_images(8, 16, 16, 1)
    model = AutoEncoder(input_shape=(16, 16, 1))
    outputs = {k: numpy(v) for k, v in model(x).items()}
    error = ((outputs["reconstruction"] - x) ** 2)[..., 0]
    np.testing.assert_allclose(outputs["anomaly_map"], error, rtol=1e-4)
    np.testing.assert_allclose(
        outputs["raw_score"], error.mean((1, 2)), rtol=1e-4
    )
    model = AutoEncoder(input_shape=(16, 16, 1), pooling="max", smoothing=5)
    outputs = model(x)
    np.testing.assert_allclose(
        numpy(outputs["raw_score"]),
        numpy(outputs["anomaly_map"]).max((1, 2)),
        rtol=1e-6,
    )


def test_targets_for_denoising():
    model = AutoEncoder(input_shape=(16, 16, 1))
    model.compile(keras.optimizers.SGD(0.0))
    x, clean = noise_images(8, 16, 16, 1), np.zeros((8, 16, 16, 1), "float32")
    history = model.fit(x, clean, verbose=0).history
    reconstruction = numpy(model(x)["reconstruction"])
    assert history["loss"][0] - history["sspcab_loss"][0] == pytest.approx(
        (reconstruction**2).mean(), rel=1e-4
    )
    model = AutoEncoder(input_shape=(16, 16, 1))
    model.compile()
    with pytest.raises(ValueError, match="for data with labels, pass only"):
        model.fit(x, np.zeros(8), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": (32, 16, 16)}, "the first two equal"),
        ({"filters": (32, 32)}, "three positive integers"),
        ({"pooling": "median"}, "`pooling`"),
        ({"smoothing": 2}, "odd"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoEncoder(**arguments)
