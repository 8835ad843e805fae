import keras
import numpy as np
import pytest

from keras_sspcab.applications.cutpaste_network import (
    load_imagenet_weights,
    resnet18,
)
from tests import torch_save
from tests.applications.helpers import assert_equal_weights, noise_images, numpy


def trunk(size=64, channels=3, width=8, places=()):
    image = keras.Input((size, size, channels))
    return keras.Model(image, resnet18(image, width, places))


def state(width=8, channels=3, seed=0):
    """Random arrays with the names and shapes of torchvision's resnet18."""
    rng = np.random.default_rng(seed)
    arrays = {}

    def conv(name, inside, outside, size):
        arrays[f"{name}.weight"] = rng.normal(
            0, (inside * size**2) ** -0.5, (outside, inside, size, size)
        )

    def norm(name, size):
        arrays[f"{name}.weight"] = rng.uniform(0.5, 1.5, size)
        arrays[f"{name}.bias"] = rng.normal(0, 0.2, size)
        arrays[f"{name}.running_mean"] = rng.normal(0, 0.2, size)
        arrays[f"{name}.running_var"] = rng.uniform(0.5, 1.5, size)
        arrays[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", channels, width, 7)
    norm("bn1", width)
    inside = width
    for stage in range(1, 5):
        outside = width * 2 ** (stage - 1)
        for block in range(2):
            name = f"layer{stage}.{block}"
            conv(f"{name}.conv1", inside, outside, 3)
            norm(f"{name}.bn1", outside)
            conv(f"{name}.conv2", outside, outside, 3)
            norm(f"{name}.bn2", outside)
            if inside != outside:
                conv(f"{name}.downsample.0", inside, outside, 1)
                norm(f"{name}.downsample.1", outside)
            inside = outside
    arrays["fc.weight"] = rng.normal(size=(10, inside))
    arrays["fc.bias"] = rng.normal(size=10)
    return {
        name: np.asarray(value, "int64" if value.dtype == int else "float32")
        for name, value in arrays.items()
    }


def windows(x, size, stride, border):
    """Views of all windows, `(batch, rows, columns, channels, size, size)`."""
    margin = (size // 2,) * 2
    x = np.pad(x, ((0, 0), margin, margin, (0, 0)), constant_values=border)
    views = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return views[:, ::stride, ::stride]


def numpy_features(arrays, x):
    """Runs the network in numpy, written down from its description."""

    def conv(x, name, stride=1):
        kernel = arrays[f"{name}.weight"]
        views = windows(x, kernel.shape[-1], stride, 0.0)
        return np.einsum("bhwcij,ocij->bhwo", views, kernel, optimize=True)

    def norm(x, name):
        scale, shift, mean, variance = (
            arrays[f"{name}.{part}"]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift

    def relu(x):
        return np.maximum(x, 0)

    x = relu(norm(conv(x, "conv1", 2), "bn1"))
    x = windows(x, 3, 2, -np.inf).max((-1, -2))
    for stage in range(1, 5):
        for block in range(2):
            name = f"layer{stage}.{block}"
            stride = 2 if stage > 1 and block == 0 else 1
            identity = x
            x = relu(norm(conv(x, f"{name}.conv1", stride), f"{name}.bn1"))
            x = norm(conv(x, f"{name}.conv2"), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in arrays:
                identity = norm(
                    conv(identity, f"{name}.downsample.0", stride),
                    f"{name}.downsample.1",
                )
            x = relu(x + identity)
    return x


def save(arrays, path):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch_save.save(torch_save.tensors(arrays), path)
    return str(path)


def test_block_at_the_penultimate_convolution():
    plain, model = trunk(256, width=64), trunk(256, 3, 64, ("penultimate",))
    replaced = plain.get_layer("layer4_1_conv1")
    block = model.get_layer("sspcab_penultimate")
    assert replaced.count_params() == 2_359_296
    assert block.count_params() == 1_116_736
    assert block.channel_attention.squeeze.units == 64
    assert block.input.shape == replaced.input.shape == (None, 8, 8, 512)
    name = block.input._keras_history.operation.name
    assert name == "layer4_0_relu2"
    follower = model.get_layer("layer4_1_bn1")
    assert follower.input._keras_history.operation is block


def test_block_after_the_third_stage():
    model = trunk(256, 3, 64, ("layer3",))
    block = model.get_layer("sspcab_layer3")
    assert block.input.shape == (None, 16, 16, 256)
    plain = trunk(256, width=64)
    added = model.count_params() - plain.count_params()
    assert added == block.count_params()


@pytest.mark.parametrize(("ending", "size"), [(".npz", 64), (".pth", 50)])
def test_equals_numpy_with_the_weights_of_a_file(tmp_path, ending, size):
    arrays = state()
    path = save(arrays, tmp_path / f"resnet18{ending}")
    images = noise_images(2, size, size)
    expected = numpy_features(arrays, images)
    model = trunk(size)
    load_imagenet_weights(model, path)
    result = numpy(model(images))
    assert result.std() > 0.1
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-3)


def test_own_files_and_gray_images(tmp_path):
    arrays = state()
    path = save(arrays, tmp_path / "resnet18.npz")
    model = trunk()
    load_imagenet_weights(model, path)
    model.save_weights(tmp_path / "trunk.weights.h5")
    copy = trunk()
    load_imagenet_weights(copy, str(tmp_path / "trunk.weights.h5"))
    gray = trunk(channels=1)
    load_imagenet_weights(gray, path)
    image = noise_images(2, 64, 64, 1)
    color = np.repeat(image, 3, axis=-1)
    results = [
        numpy(m(x)) for m, x in ((model, color), (copy, color), (gray, image))
    ]
    np.testing.assert_allclose(results[1], results[0], atol=1e-5)
    np.testing.assert_allclose(results[2], results[0], atol=1e-3)


def test_replaced_convolution_is_left_out(tmp_path):
    path = save(state(), tmp_path / "resnet18.npz")
    model = trunk(places=("penultimate",))
    block = model.get_layer("sspcab_penultimate").get_weights()
    load_imagenet_weights(model, path)
    assert_equal_weights(block, model.get_layer("sspcab_penultimate").weights)


def without(name):
    arrays = state()
    del arrays[name]
    return arrays


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without("layer2.0.downsample.1.bias"), "no array 'layer2.0.downsamp"),
        (state(width=16), "base_width=64.*does not fit"),
        ({**state(), "layer5.weight": np.ones(3)}, "has not: 'layer5.weight'"),
    ],
)
def test_files_that_do_not_fit_change_nothing(tmp_path, arrays, message):
    path = save(arrays, tmp_path / "resnet18.npz")
    model = trunk()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        load_imagenet_weights(model, path)
    assert_equal_weights(before, model.weights)


def test_bad_files(tmp_path):
    for name, message in (
        ("a.npz", "cannot be read"),
        ("a.pkl", "must be a file that ends in .npz"),
        ("a.weights.h5", "does not hold the weights of this trunk"),
    ):
        path = tmp_path / name
        path.write_bytes(b"nothing of the kind")
        with pytest.raises(ValueError, match=message):
            load_imagenet_weights(trunk(), str(path))
    with pytest.raises(ValueError, match="no file with weights at"):
        load_imagenet_weights(trunk(), str(tmp_path / "missing.npz"))
