import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.backbones import describe_weights, load_backbone
from keras_sspcab.backbones.applications import networks, preprocessing_of
from keras_sspcab.backbones.taps import maps_by_stride
from keras_sspcab.layers.base import set_all_weights

# Where a network is cut at the strides of 2, 4, 8, 16 and 32.
ENDS = {
    "ConvNeXtTiny": (None, None, None, None),
    "EfficientNetB0": (
        "block1a_project_bn",
        "block2b_add",
        "block3b_add",
        "block5c_add",
        "block7a_project_bn",
    ),
    "InceptionV3": (None, None, "mixed2", "mixed7", "mixed10"),
    "MobileNetV2": (
        "expanded_conv_project_BN",
        "block_2_add",
        "block_5_add",
        "block_12_add",
        "block_16_project_BN",
    ),
    "ResNet50": (
        "conv1_relu",
        "conv2_block3_out",
        "conv3_block4_out",
        "conv4_block6_out",
        "conv5_block3_out",
    ),
    "VGG16": (
        "block2_conv2",
        "block3_conv3",
        "block4_conv3",
        "block5_conv3",
        "block5_pool",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_ends_of_blocks(name):
    network = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    maps = maps_by_stride(network)
    assert list(maps) == [2, 4, 8, 16, 32][-len(ENDS[name]) :]
    for output, expected in zip(maps.values(), ENDS[name], strict=True):
        if expected:
            assert output is network.get_layer(expected).output
    if name == "ConvNeXtTiny":
        # Its sums have no layer.
        behind = network.get_layer("convnext_tiny_downsampling_block_0")
        assert behind.input.shape == maps[4].shape


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("resnet50", "resnet"),  # caffe
        ("mobilenet_v2", "mobilenet_v2"),  # tf
        ("densenet121", "densenet"),  # torch
        ("efficientnet_v2_b0", "efficientnet_v2"),  # within the network
    ],
)
def test_preprocessing(name, module):
    matrix, offset = preprocessing_of(name)
    images = np.random.default_rng(0).random((2, 5, 4, 3))
    preprocess = getattr(keras.applications, module).preprocess_input
    expected = preprocess(255 * images, data_format="channels_last")
    np.testing.assert_allclose(images @ matrix + offset, expected, atol=1e-4)


def test_every_network_has_a_preprocessing():
    assert len(networks()) > 30
    for name in networks():
        matrix, _ = preprocessing_of(name)
        assert abs(np.linalg.det(matrix)) > 1


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "published.weights.h5"
    model = keras.applications.EfficientNetB0(include_top=False, weights=None)
    # Those of ImageNet, by which Keras' own weights normalize.
    mean, variance = [0.485, 0.456, 0.406], [0.0524, 0.0502, 0.0506]
    [norm] = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.Normalization)
    ]
    norm.set_weights([np.array(mean), np.array(variance), np.array(0)])
    model.save_weights(path)
    return path


@pytest.fixture
def published(random_weights, monkeypatch):
    """Random weights in place of those that Keras downloads."""
    monkeypatch.setattr(
        "keras.src.utils.file_utils.get_file",
        lambda *_, **__: str(random_weights),
    )
    return random_weights


def test_efficientnet_sees_colors_as_in_training(published, tmp_path):
    # In Keras the graph depends on the weights; here it must not.
    theirs = keras.applications.EfficientNetB0(
        include_top=False, weights="imagenet", input_shape=(64, 64, 3)
    )
    theirs.save(tmp_path / "theirs.keras")
    image = np.random.default_rng(0).random((1, 64, 64, 3), "float32")
    block = theirs.get_layer("block2b_add").output
    expected = keras.Model(theirs.input, block)(255 * image)
    for weights in ("imagenet", published, tmp_path / "theirs.keras"):
        backbone = load_backbone("efficientnet_b0", [4], weights)
        result = backbone(image)
        np.testing.assert_allclose(
            ops.convert_to_numpy(result),
            ops.convert_to_numpy(expected),
            rtol=1e-4,
            atol=1e-5 * float(ops.max(ops.abs(expected))),
        )
    record = describe_weights("efficientnet_b0", published)
    assert record["weights"] == published.name
    assert len(record["sha256"]) == 64
    rebuilt = load_backbone("efficientnet_b0", [4], None)
    set_all_weights(rebuilt, backbone.get_weights())
    np.testing.assert_array_equal(
        *(model(image)[0] for model in (backbone, rebuilt))
    )


def test_files_that_do_not_fit(published, tmp_path):
    mobile = load_backbone("mobilenet_v2", [2], None)
    mobile.save(tmp_path / "mobile.keras")
    message = "does not hold the weights of resnet50"
    for weights in (published, tmp_path / "mobile.keras"):
        with pytest.raises(ValueError, match=message):
            load_backbone("resnet50", weights=weights)
    path = tmp_path / "resnet50.npz"
    path.touch()
    with pytest.raises(ValueError, match=r"file that ends in .weights.h5"):
        load_backbone("resnet50", weights=path)


def test_no_network(monkeypatch):
    def fail(*_, **__):
        raise Exception("URL fetch failure on https://somewhere")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(OSError, match="cannot be downloaded: URL.*the path of"):
        load_backbone("mobilenet_v2")
    record = describe_weights("ResNet50", "imagenet")
    assert record["backbone"] == "resnet50"
    assert record["source"] == "keras.applications"
