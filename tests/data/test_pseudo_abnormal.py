import numpy as np
import pytest
import tensorflow as tf
from batching import dataset_of
from PIL import Image

from keras_sspcab.data.pseudo_abnormal import (
    add_pseudo_abnormal,
)
from keras_sspcab.data.simulation import (
    FolderTextures,
    TextureSource,
)

SIZE = (16, 24)


class Noise(TextureSource):
    """Cheap pictures that tell their seeds apart."""

    def draw(self, images, index, seed):
        seed = tf.bitcast(seed, tf.int64)
        return 255 * tf.random.stateless_uniform(images.shape[1:], seed)


@pytest.fixture
def crops():
    rng = np.random.default_rng(0)
    return {
        "appearance": rng.random((5, *SIZE, 1), dtype="float32"),
        "previous_motion": rng.normal(size=(5, *SIZE, 2)).astype("float32"),
        "next_motion": rng.normal(size=(5, *SIZE, 2)).astype("float32"),
        "mask": rng.integers(0, 2, (5, *SIZE, 1)).astype("float32"),
    }


def collect(dataset):
    batches = list(dataset.as_numpy_iterator())
    return {
        name: np.concatenate([batch[name] for batch in batches])
        for name in batches[0]
    }


def pictures_of(source, count, channels=1):
    """The appearance of pseudo-abnormal objects."""
    crops = {
        "appearance": np.zeros((count, *SIZE, channels), "float32"),
        "previous_motion": np.zeros((count, *SIZE, 2), "float32"),
        "next_motion": np.zeros((count, *SIZE, 2), "float32"),
    }
    dataset = add_pseudo_abnormal(dataset_of(crops, count), images=source)
    return collect(dataset)["abnormal_appearance"]


# === Batches ===


def test_what_is_added(crops):
    dataset = add_pseudo_abnormal(dataset_of(crops), images=Noise(), speed=2.5)
    assert dataset.cardinality() == 3
    found = collect(dataset)
    for name, values in crops.items():
        np.testing.assert_array_equal(found.pop(name), values)
    assert sorted(found) == [
        "abnormal_appearance",
        "abnormal_next_motion",
        "abnormal_previous_motion",
    ]
    for name in ("previous_motion", "next_motion"):
        np.testing.assert_allclose(
            found[f"abnormal_{name}"], 2.5 * crops[name], rtol=1e-6
        )
    pictures = found["abnormal_appearance"]
    assert (pictures.shape, pictures.dtype) == ((5, *SIZE, 1), np.float32)
    # One for each object.
    assert len(np.unique(pictures[:, 0, 0, 0])) == 5
    assert dataset.element_spec["abnormal_appearance"].shape[1:] == (*SIZE, 1)


def test_motion_that_is_there_is_kept(crops):
    slow = {f"abnormal_{n}": crops[n] + 1 for n in crops if "motion" in n}
    found = collect(add_pseudo_abnormal(dataset_of({**crops, **slow})))
    for name, values in slow.items():
        np.testing.assert_array_equal(found[name], values)


def test_elements_follow_from_seed_epoch_and_position(crops):
    def pictures(dataset=None, **arguments):
        made = add_pseudo_abnormal(
            dataset_of(crops), images=Noise(), **arguments
        )
        return collect(made)["abnormal_appearance"]

    first = pictures(seed=1, epoch=2)
    np.testing.assert_array_equal(pictures(seed=1, epoch=2), first)
    for other in ({"seed": 1, "epoch": 3}, {"seed": 2, "epoch": 2}):
        assert (pictures(**other) != first).mean() > 0.9
    dataset = add_pseudo_abnormal(
        dataset_of(crops), seed=1, epoch=2, images=Noise()
    )
    for skipped in (0, 1, 2):
        rest = collect(dataset.skip(skipped))["abnormal_appearance"]
        np.testing.assert_array_equal(rest, first[2 * skipped :])


# === Pictures ===


def test_folders_of_pictures(tmp_path):
    for i, name in enumerate(("a.png", "train/b.png", "train/deep/c.bmp")):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20 + i, 50, 3), (60 * i, 10 * i, 100 + i), "uint8")
        Image.fromarray(pixels).save(path)
    # The luma, not the mean and not one channel.
    for images, expected in (
        (str(tmp_path), {11, 35, 59}),
        ([tmp_path / "train"], {35, 59}),
    ):
        values = np.round(255 * pictures_of(images, 30))
        assert set(values.ravel()) == expected


def test_pictures_are_drawn_larger_and_shrunk():
    class Plain(TextureSource):
        def draw(self, images, index, seed):
            assert images.shape[1:3] == (4 * SIZE[0], 4 * SIZE[1])
            return tf.ones(images.shape[1:]) * [0.0, 255.0, 51.0]

    pictures = pictures_of(Plain(), 2, 3)
    expected = np.full_like(pictures, [0, 1, 0.2])
    np.testing.assert_allclose(pictures, expected, atol=1e-6)
    # Green is near to gray.
    np.testing.assert_allclose(pictures_of(Plain(), 2), 1.0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_on_board(channels):
    pictures = pictures_of(None, 12, channels)
    assert pictures.shape == (12, *SIZE, channels)
    assert 0 <= pictures.min() <= pictures.max() <= 1
    assert len(np.unique(pictures, axis=0)) == 12
    assert np.median(pictures.std((1, 2))) > 0.03


def test_files_become_pictures_as_ever(tmp_path):
    # Trainings that are resumed with another version see the same pictures.
    rows, columns = np.mgrid[:60, :40]
    pixels = np.stack([4 * rows, 6 * columns, rows + columns], -1)
    for i in range(3):
        image = Image.fromarray(np.roll(pixels, i, -1).astype("uint8"))
        image.save(tmp_path / f"{i}.png")
    found = pictures_of(FolderTextures(tmp_path), 4)
    means = [[0.30273813, 0.4295998, 0.38139817, 0.4295998]]
    np.testing.assert_allclose(found[0, 3, 5], 0.13376224, atol=1e-6)
    np.testing.assert_allclose(found.mean((1, 2)).T, means, atol=1e-6)


# === Bad arguments ===


def test_bad_datasets(crops):
    with pytest.raises(ValueError, match=r"tf\.data\.Dataset.*Received"):
        add_pseudo_abnormal(crops)
    del crops["next_motion"]
    with pytest.raises(ValueError, match="keys.*'next_motion'"):
        add_pseudo_abnormal(dataset_of(crops))
    crops["next_motion"] = crops["previous_motion"]
    crops["appearance"] = crops["previous_motion"]
    with pytest.raises(ValueError, match="must have the shape"):
        add_pseudo_abnormal(dataset_of(crops))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"epoch": 0.5}, "epoch=0.5"),
        ({"images": 3}, "root=3"),
        ({"images": []}, "at least one folder"),
        ({"speed": 1}, "`speed` argument.*above 1"),
        ({"speed": float("nan")}, "`speed` argument"),
    ],
)
def test_bad_arguments(arguments, message, crops):
    with pytest.raises(ValueError, match=message):
        add_pseudo_abnormal(dataset_of(crops), **arguments)
