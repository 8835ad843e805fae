"""Which images a model is exported with."""

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.export.runs import find_inputs
from tests.hosts import small_host


@pytest.fixture(scope="module")
def host():
    return small_host("autoencoder")


def save(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 32), level, "uint8")).save(path)


def levels(dataset):
    images = np.concatenate([batch.numpy() for batch in dataset])
    return sorted({round(float(value) * 255) for value in images.flat})


def test_defects_are_compared_on_and_spoil_no_range(tmp_path, host):
    data = tmp_path / "screws"
    save(data / "train/good/0.png", 10)
    save(data / "test/good/0.png", 20)
    save(data / "test/hole/0.png", 30)
    save(data / "ground_truth/hole/0_mask.png", 255)
    compared, find_normal = find_inputs(host, data=data)
    assert levels(compared) == [10, 20, 30]
    assert levels(find_normal()) == [10]
    # A part of it compares as well, but has nothing for ranges.
    compared, find_normal = find_inputs(host, data=data / "test")
    assert levels(compared) == [20, 30]
    with pytest.raises(ValueError, match=r"int8.*good, hole.*with --images"):
        find_normal()
    _, find_normal = find_inputs(host, data=data / "test/good")
    assert levels(find_normal()) == [20]
