import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_sspcab.backbones import available_backbones, load_backbone


@pytest.fixture(scope="module")
def backbone():
    return load_backbone()


def images(channels=3):
    rng = np.random.default_rng(0)
    return rng.random((4, 48, 40, channels), "float32")


def detector(backbone):
    image = keras.Input((48, 40, 3))
    maps = backbone(image)
    x = layers.concatenate([layers.GlobalAveragePooling2D()(x) for x in maps])
    return keras.Model(image, layers.Dense(1)(x))


def assert_equal(first, second):
    for x, y in zip(first, second, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(x), ops.convert_to_numpy(y)
        )


def test_names():
    names = available_backbones()
    assert names[0] == "efficientnet_lite0"
    some = "convnext_tiny efficientnet_v2_b0 resnet50_v2 vgg16 densenet121"
    assert set(some.split()) <= set(names)


def test_maps_come_in_the_order_of_the_taps():
    backbone = load_backbone(taps=(16, "stage2", 8), weights=None)
    shapes = [x.shape[1:] for x in backbone(images())]
    assert shapes == [(3, 3, 112), (12, 10, 24), (6, 5, 40)]
    single = load_backbone(taps=[8], weights=None)
    assert single(images()).shape == (4, 6, 5, 40)
    # What lies behind the deepest is cut off.
    assert single.count_params() < backbone.count_params() / 3


def test_gray_images_are_seen_in_three_equal_channels():
    color = load_backbone(taps=[4], weights=None)
    gray = load_backbone(taps=[4], weights=None, channels=1)
    # All but the kernel of the preprocessing, which comes first.
    gray.set_weights(gray.get_weights()[:1] + color.get_weights()[1:])
    result, expected = gray(images(1)), color(np.repeat(images(1), 3, axis=-1))
    np.testing.assert_allclose(
        ops.convert_to_numpy(result), ops.convert_to_numpy(expected), rtol=1e-3
    )


def test_is_frozen(backbone):
    assert not backbone.trainable_variables
    before = backbone.get_weights()
    model = detector(backbone)
    model.compile("adam", "mse")
    model.fit(images(), np.ones(4), verbose=0)
    assert_equal(backbone.get_weights(), before)
    assert_equal(backbone(images(), training=True), backbone(images()))


def test_frozen_networks_drop_nothing_in_training():
    network = load_backbone("efficientnet_b0", (16,), weights=None)
    drops = [
        layer
        for layer in network._flatten_layers()
        if isinstance(layer, keras.layers.Dropout)
    ]
    assert drops
    assert {layer.rate for layer in drops} == {0.0}


def test_saved_within_another_model(backbone, tmp_path):
    model = detector(backbone)
    expected = model(images())
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_equal([loaded(images())], [expected])
    # A detector builds its backbone again; its file brings the weights.
    model.save_weights(tmp_path / "model.weights.h5")
    rebuilt = detector(load_backbone(weights=None))
    rebuilt.load_weights(tmp_path / "model.weights.h5")
    assert_equal([rebuilt(images())], [expected])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet5"}, "Did you mean 'resnet50'"),
        ({"name": "nasnet_large"}, "`name` must be one of"),
        ({"channels": 2}, "`channels` must be 1 or 3"),
        ({"taps": ()}, "`taps` must be a list"),
        ({"taps": 8}, "`taps` must be a list"),
        ({"taps": (8, 64)}, r"one of the strides \[2, 4, 8, 16, 32\].*: 64"),
        ({"taps": ("stage8",)}, "Did you mean 'stage7'"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(**{"weights": None, **options})
