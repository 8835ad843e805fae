"""Hosts made of hosts, and hosts of one's own: what their files keep."""

import importlib
import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_sspcab import data
from keras_sspcab.applications import DRAEM, MNAD, CutPaste
from keras_sspcab.hosts import AnomalyModel, get_application
from keras_sspcab.scoring import MapPooling, SquaredError
from tests.applications.helpers import noise_images, numpy
from tests.hosts import samples


def small_arguments(name):
    return importlib.import_module(f"tests.applications.test_{name}").SMALL


def assert_copied(made):
    """Asserts that a model comes back from its config, and returns it."""
    config = json.loads(json.dumps(made.get_config()))
    copied = type(made).from_config(config)
    copied.set_weights(made.get_weights())
    x = samples(made, 2)
    outputs = copied(x)
    for name, expected in made(x).items():
        np.testing.assert_array_equal(
            numpy(outputs[name]), numpy(expected), err_msg=name
        )
    return copied


@pytest.mark.parametrize(
    "name", ["cutpaste", "draem", "future_frame", "mnad", "padim"]
)
def test_a_subclass_may_settle_arguments(name):
    host, small = get_application(name), small_arguments(name)

    class Settled(host):
        def __init__(self, calibration=None, name="settled"):
            super().__init__(**small, calibration=calibration, name=name)

    assert_copied(Settled())


def test_what_a_subclass_has_not_passed_on_is_as_it_was():
    """Not as in files of before, which do not say how layers align."""

    class Narrow(MNAD):
        def __init__(self, *args, base_width=2, **kwargs):
            super().__init__(*args, base_width=base_width, **kwargs)

    assert_copied(Narrow(**small_arguments("mnad")))


def test_settled_arguments_count(monkeypatch):
    class Settled(DRAEM):
        def __init__(self, input_shape=(32, 32, 3)):
            super().__init__(
                input_shape,
                base_width=2,
                ssim_weight=0.25,
                texture_folder="textures",
                anomaly_probability=0.9,
            )

    class Views(CutPaste):
        def __init__(self, input_shape=(32, 32, 3)):
            super().__init__(
                input_shape,
                base_width=2,
                variant="scar",
                jitter=0.2,
                translation=0.3,
                localization="patch",
                patch_size=16,
            )

    def noted(*given, seed, **named):
        return given[1:], named

    for name in ("simulate_anomalies", "cutpaste_views"):
        monkeypatch.setattr(data, name, noted)
    detector = Settled()
    assert detector.default_losses()["reconstruction"].ssim_weight == 0.25
    assert detector.prepare_training_data(None) == (
        ("textures",),
        {"anomaly_probability": 0.9},
    )
    views = Views()
    assert views.prepare_training_data(None) == (
        (),
        {"variant": "scar", "jitter": 0.2, "translation": 0.3},
    )
    # At the distance of half a patch.
    assert len(views._embeddings(noise_images(1))) == 9


@pytest.mark.parametrize("name", ["cutpaste", "padim"])
def test_weights_that_are_read_once_are_in_no_config(name):
    host = get_application(name)(**{**small_arguments(name), "weights": None})
    assert "weights" not in {*host.arguments, *host.get_config()}


class OwnHost(AnomalyModel):
    """With an argument `weights`, and layers that Keras names."""

    def __init__(self, weights=(1.0, 1.0), calibration=None, name="own_host"):
        image = keras.Input((8, 8, 1))
        x = layers.Dense(4, activation="relu")(layers.Dense(4)(image))
        x = layers.Rescaling(weights[0], weights[1])(layers.Dense(1)(x))
        raw_map = SquaredError()(image, x)
        raw_score = MapPooling("mean")(raw_map)
        super().__init__(
            inputs=image,
            outputs=self.detector_outputs(raw_score, raw_map, calibration),
            name=name,
        )


def test_weights_may_mean_something_else():
    copied = assert_copied(OwnHost((3.0, 2.0)))
    assert copied.arguments["weights"] == (3.0, 2.0)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_quantized_layers_that_keras_has_named():
    host = OwnHost()
    dense = [x for x in host.layers if isinstance(x, layers.Dense)]
    dense[1].quantize("int8")
    copied = assert_copied(host)
    assert [
        x.quantization_mode
        for x in copied.layers
        if isinstance(x, layers.Dense)
    ] == [None, "int8", None]
