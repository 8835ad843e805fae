"""What `quantize` and `save` wrote, `load_model` gives back."""

import keras
import numpy as np
import pytest

from keras_sspcab import ChannelAttention, SSMCTBLayer, SSPCABLayer

MODES = ("int8", "int4", "float8")


def block():
    return SSPCABLayer(attention="channel_spatial")


# What holds the layer, to a map of 16 channels.
PLACES = {
    "attention": lambda: ChannelAttention(4),
    "block": block,
    "transformer block": lambda: SSMCTBLayer(token_dim=8, num_blocks=1),
    "nested": lambda: keras.Sequential([keras.Input((8, 8, 16)), block()]),
}


def model(make):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
            make(),
        ]
    )


def images():
    return np.random.default_rng(0).random((2, 8, 8, 3)).astype("float32")


def saved_and_loaded(original, path):
    original.save(path)
    return keras.models.load_model(path)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", PLACES)
def test_file_of_a_quantized_model(place, mode, tmp_path):
    original = model(PLACES[place])
    plain = original.predict(images(), verbose=0)
    original.quantize(mode)
    expected = original.predict(images(), verbose=0)
    assert mode == "float8" or not np.array_equal(plain, expected)
    loaded = saved_and_loaded(original, tmp_path / "a.keras")
    # A second time, too: a loaded model is saved like any other.
    loaded = saved_and_loaded(loaded, tmp_path / "b.keras")
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), expected)
    assert {
        layer.name: layer.dtype_policy.name
        for layer in loaded._flatten_layers(include_self=False)
    } == {
        layer.name: layer.dtype_policy.name
        for layer in original._flatten_layers(include_self=False)
    }


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_what_was_quantized_how_is_kept(tmp_path):
    configs = pytest.importorskip("keras.quantizers")
    if not hasattr(configs, "Int8QuantizationConfig"):
        pytest.skip("needs a Keras with configs of quantization")
    original = model(block)
    original.quantize(
        # Weights alone, of one of both dense layers.
        config=configs.Int8QuantizationConfig(activation_quantizer=None),
        filters="squeeze",
    )
    expected = original.predict(images(), verbose=0)
    loaded = saved_and_loaded(original, tmp_path / "a.keras")
    np.testing.assert_array_equal(loaded.predict(images(), verbose=0), expected)
    attention = loaded.layers[-1].channel_attention
    assert attention.squeeze.quantization_config.activation_quantizer is None
    assert attention.excite.quantization_mode is None


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_files_of_before_have_names():
    original = model(block)
    original.quantize("int8")
    config = original.layers[-1].get_config()
    config["quantization"] = {
        place.replace(":0", ""): how
        for place, how in config["quantization"].items()
    }
    assert "channel_attention/squeeze" in config["quantization"]
    loaded = SSPCABLayer.from_config(config)
    loaded.build((None, 8, 8, 16))
    assert [part.quantization_mode for part in loaded._flatten_layers()] == [
        part.quantization_mode for part in original.layers[-1]._flatten_layers()
    ]


def test_config_of_plain_layers_is_as_before():
    layer = SSPCABLayer()
    layer.build((None, 8, 8, 16))
    assert "quantization" not in layer.get_config()
