import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sspcab import SSMCTBLayer, SSPCABLayer, replace_penultimate_conv


def network(*convolutions):
    """A chain of convolutions given as (filters, arguments)."""
    inputs = keras.Input((16, 16, 8))
    x = inputs
    for index, (filters, arguments) in enumerate(convolutions):
        x = layers.Conv2D(
            filters,
            **{"kernel_size": 3, "padding": "same", **arguments},
            name=f"conv{index}",
        )(x)
        x = layers.BatchNormalization(name=f"norm{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
    return keras.Model(inputs, x, name="net")


def test_penultimate_is_replaced_and_the_rest_kept():
    model = network((8, {}), (8, {}), (8, {"kernel_size": 1}), (4, {}))
    result = replace_penultimate_conv(model, loss_weight=0.3)
    assert [layer.name for layer in result.layers] == [
        "sspcab" if layer.name == "conv1" else layer.name
        for layer in model.layers
    ]
    assert result.get_layer("sspcab").loss_weight == 0.3
    assert result.name == "net"
    for layer in model.layers:
        if layer.name != "conv1":
            for old, new in zip(
                layer.get_weights(),
                result.get_layer(layer.name).get_weights(),
                strict=True,
            ):
                np.testing.assert_array_equal(old, new)
    x = np.ones((2, 16, 16, 8), "float32")
    assert result(x).shape == model(x).shape
    assert len(result.losses) == 1
    assert model.losses == []


def test_normalizations_go_on_as_they_were():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(50, 9, (4, 16, 16, 8)))
    model = keras.Sequential([keras.Input((16, 16, 8)), norm])
    for _ in range(3):
        model.add(layers.Conv2D(8, 3, padding="same", activation="relu"))
    result = replace_penultimate_conv(model)
    x = np.random.default_rng(1).normal(50, 9, (2, 16, 16, 8))
    assert abs(float(ops.mean(norm(x)))) < 0.5
    np.testing.assert_allclose(
        ops.convert_to_numpy(result.layers[0](x)),
        ops.convert_to_numpy(norm(x)),
        rtol=1e-5,
    )


def test_result_trains_and_saves(tmp_path):
    result = replace_penultimate_conv(network((8, {}), (8, {}), (4, {})))
    result.compile("adam", "mse")
    x = np.ones((4, 16, 16, 8), "float32")
    history = result.fit(x, np.ones((4, 16, 16, 4)), verbose=0).history
    assert history["sspcab_loss"][0] > 0
    result.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        ops.convert_to_numpy(loaded(x)),
        ops.convert_to_numpy(result(x)),
        atol=1e-6,
    )


def test_nearest_before_where_the_penultimate_does_not_qualify():
    model = network((8, {}), (8, {"strides": 2}), (8, {}))
    # Not `pytest.warns`, which would raise again what Keras warns of on JAX.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = replace_penultimate_conv(model)
    messages = [str(warning.message) for warning in caught]
    assert any("'conv1' has strides" in message for message in messages)
    assert "conv0" not in [layer.name for layer in result.layers]


def test_transposed_convolutions_count():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 1)),
            layers.Conv2D(4, 3, padding="same", name="encoder"),
            layers.Conv2DTranspose(4, 3, padding="same", name="decoder"),
            layers.Conv2D(1, 3, padding="same", name="output"),
        ]
    )
    result = replace_penultimate_conv(model)
    assert [layer.name for layer in result.layers] == [
        *("encoder", "sspcab", "output")
    ]
    # One that enlarges is passed over, with a warning.
    strided = keras.Sequential(
        [
            keras.Input((16, 16, 4)),
            layers.Conv2D(4, 3, padding="same", name="encoder"),
            layers.Conv2DTranspose(
                4, 3, strides=2, padding="same", name="decoder"
            ),
            layers.Conv2D(1, 3, padding="same", name="output"),
        ]
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = replace_penultimate_conv(strided)
    messages = [str(warning.message) for warning in caught]
    assert any("'decoder' has strides" in message for message in messages)
    assert result.layers[0].name == "sspcab"


def test_sequential():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.Conv2D(4, 3, padding="same", name="first"),
            layers.Conv2D(1, 3, padding="same"),
        ]
    )
    result = replace_penultimate_conv(model, "first", name="block")
    assert isinstance(result, keras.Sequential)
    assert result.layers[0].name == "block"
    assert isinstance(result.layers[0], SSPCABLayer)


@pytest.mark.parametrize(
    "block", [SSMCTBLayer, lambda **arguments: SSMCTBLayer(**arguments)]
)
def test_another_block_in_a_network_of_volumes(block):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 4, 1)),
            layers.Conv3D(2, 3, padding="same", activation="relu"),
            layers.Conv3D(2, 3, padding="same", dtype="mixed_bfloat16"),
            layers.Conv3D(1, 3, padding="same"),
        ]
    )
    result = replace_penultimate_conv(model, block=block, token_dim=4)
    inserted = result.layers[1]
    assert isinstance(inserted, SSMCTBLayer)
    assert inserted.name != "sspcab"
    assert (inserted.token_dim, inserted.compute_dtype) == (4, "bfloat16")
    with pytest.raises(ValueError, match="expected ndim=4, found ndim=5"):
        replace_penultimate_conv(model)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("VGG16", 512), ("MobileNetV2", 960)],
)
def test_keras_applications(name, channels):
    model = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    result = replace_penultimate_conv(model)
    assert result.get_layer("sspcab").input.shape[-1] == channels
    x = np.zeros((1, 32, 32, 3), "float32")
    assert result(x).shape == model(x).shape


def test_data_format_and_policy_follow_the_convolution():
    inputs = keras.Input((8, 16, 16))
    x = inputs
    for _ in range(2):
        x = layers.Conv2D(
            8,
            3,
            padding="same",
            data_format="channels_first",
            dtype="mixed_bfloat16",
        )(x)
    block = replace_penultimate_conv(keras.Model(inputs, x)).layers[1]
    assert block.data_format == "channels_first"
    assert block.compute_dtype == "bfloat16"


def test_no_layer_qualifies():
    model = network((16, {}), (4, {"padding": "valid"}), (4, {}))
    with pytest.raises(ValueError, match="No convolution") as error:
        replace_penultimate_conv(model)
    assert "conv0 has 8 input and 16 output channels" in str(error.value)
    assert "conv1 has 16 input and 4 output channels" in str(error.value)
    assert "qualify by name: ['conv2']" in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("conv9", "has no layer 'conv9'.*: \\['conv0', 'conv2'\\]"),
        ("norm0", "is a BatchNormalization.*qualify by name: \\['conv0'"),
        ("conv1", "it has strides.*qualify by name: \\['conv0'"),
    ],
)
def test_bad_names(name, message):
    model = network((8, {}), (8, {"strides": 2}), (8, {}))
    with pytest.raises(ValueError, match=message):
        replace_penultimate_conv(model, name)


def test_models_without_a_graph_or_a_convolution():
    class Host(keras.Model):
        pass

    with pytest.raises(TypeError, match="functional or Sequential"):
        replace_penultimate_conv(Host())
    with pytest.raises(ValueError, match="not built"):
        replace_penultimate_conv(keras.Sequential([layers.Conv2D(4, 3)]))
    dense = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="no convolution at all"):
        replace_penultimate_conv(dense)
