import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from skimage import data, transform

from keras_sspcab.data import BadFilesError
from keras_sspcab.data.pseudo_abnormal import (
    TINY_IMAGENET_CLASSES,
    EmbeddedPictures,
    FolderPictures,
    PictureSource,
    add_pseudo_abnormal,
    tiny_imagenet_folders,
)
from keras_sspcab.data.random import standardize_seed
from keras_sspcab.data.simulation import PICTURES

SIZE = (16, 24)


class Noise(PictureSource):
    """Cheap pictures that tell their seeds apart."""

    def draw(self, size, channels, seed):
        return tf.random.stateless_uniform(
            (*size, channels), tf.bitcast(seed, tf.int64)
        )


@pytest.fixture
def crops():
    rng = np.random.default_rng(0)
    return {
        "appearance": rng.random((5, *SIZE, 1), dtype="float32"),
        "previous_motion": rng.normal(size=(5, *SIZE, 2)).astype("float32"),
        "next_motion": rng.normal(size=(5, *SIZE, 2)).astype("float32"),
        "mask": rng.integers(0, 2, (5, *SIZE, 1)).astype("float32"),
    }


def dataset_of(crops, batch_size=2):
    return tf.data.Dataset.from_tensor_slices(crops).batch(batch_size)


def collect(dataset):
    batches = list(dataset.as_numpy_iterator())
    return {
        name: np.concatenate([batch[name] for batch in batches])
        for name in batches[0]
    }


def draws(source, count, channels=1, size=SIZE):
    draw = tf.function(lambda seed: source.draw(size, channels, seed))
    return np.stack([draw(standardize_seed(i)) for i in range(count)])


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


@pytest.mark.parametrize("channels", [1, 3])
def test_embedded_pictures(channels):
    pictures = draws(EmbeddedPictures(), 20, channels)
    assert pictures.shape == (20, *SIZE, channels)
    assert pictures.dtype == np.float32
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert len(np.unique(pictures, axis=0)) == 20
    assert np.median(pictures.std((1, 2))) > 0.03


def test_embedded_pictures_are_shrunk_without_aliasing():
    names = [name for name in PICTURES if name != "gravel"]
    pictures = draws(EmbeddedPictures(exclude=names), 40)
    # The photograph at that scale, by other means.
    photograph = data.gravel() / 255.0
    shrunk = [
        transform.resize(photograph, (n, n), anti_aliasing=True).std()
        for n in (24, 96)
    ]
    # Half of them keep their contrast; the scale is between both.
    spread = np.median(pictures.std((1, 2, 3)))
    assert 0.5 * shrunk[0] < spread < 1.2 * shrunk[1]
    sampled = photograph[::21, ::21].std()
    assert shrunk[0] < 0.7 * sampled


@pytest.fixture
def folder(tmp_path):
    """Pictures of one color each, at several depths."""
    for i, name in enumerate(("a.png", "train/b.png", "train/deep/c.bmp")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20 + i, 50, 3), (60 * i, 10 * i, 100 + i), "uint8")
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


def test_folder_of_pictures(folder, crops):
    source = FolderPictures(folder)
    luma = [
        round(0.299 * 60 * i + 0.587 * 10 * i + 0.114 * (100 + i))
        for i in range(3)
    ]
    pictures = draws(source, 30)
    assert np.ptp(pictures, axis=(1, 2)).max() < 1e-6
    values = np.round(255 * pictures[:, 0, 0, 0], 4)
    found, counts = np.unique(values, return_counts=True)
    np.testing.assert_array_equal(found, luma)
    assert counts.min() >= 3
    for images in (str(folder), [folder], source):
        made = add_pseudo_abnormal(dataset_of(crops), images=images)
        values = collect(made)["abnormal_appearance"]
        assert set(np.round(values.ravel() * 255)) <= set(luma)


def test_pictures_of_several_folders(folder):
    source = FolderPictures([folder / "train" / "deep", folder / "train"])
    assert [path.rsplit("/", 1)[1] for path in source.paths] == [
        "c.bmp",
        "b.png",
        "c.bmp",
    ]


def test_pictures_are_resized_as_images_are(folder, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 96), dtype="uint8")
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one" / "x.png")
    (picture,) = draws(FolderPictures(tmp_path / "one"), 1)
    blocks = pixels.reshape(16, 4, 24, 4).mean((1, 3)) / 255
    # Antialiased: near the mean of what it covers, far from every 4th pixel.
    assert np.abs(picture[..., 0] - blocks).mean() < 0.04
    assert np.abs(picture[..., 0] - pixels[::4, ::4] / 255).mean() > 0.15


def test_bad_pictures(folder, tmp_path):
    (folder / "train" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(BadFilesError, match=r"broken\.png"):
        FolderPictures(folder)
    with pytest.warns(UserWarning, match=r"broken\.png"):
        source = FolderPictures(folder, checked=None, on_error="skip")
    assert len(source.paths) == 3
    with pytest.raises(ValueError, match="does not exist"):
        FolderPictures([folder / "train" / "deep", tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="at least one folder"):
        FolderPictures([])
    with pytest.raises(ValueError, match=r"At least one picture must be left"):
        EmbeddedPictures(exclude=PICTURES)


def test_tiny_imagenet(tmp_path):
    assert len(set(TINY_IMAGENET_CLASSES)) == 68
    assert {len(name) for name in TINY_IMAGENET_CLASSES} == {9}
    for name in TINY_IMAGENET_CLASSES:
        (tmp_path / "tiny" / "train" / name / "images").mkdir(parents=True)
    folders = tiny_imagenet_folders(tmp_path / "tiny")
    assert folders == tiny_imagenet_folders(tmp_path / "tiny" / "train")
    assert folders[0].endswith("train/n01443537")
    (tmp_path / "tiny" / "train" / "n01443537" / "images").rmdir()
    (tmp_path / "tiny" / "train" / "n01443537").rmdir()
    with pytest.raises(ValueError, match=r"(?s)1 of the 68.*n01443537"):
        tiny_imagenet_folders(tmp_path / "tiny")


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
        ({"images": 3}, "images=3"),
        ({"images": []}, "at least one folder"),
        ({"speed": 1}, "`speed` argument.*more than 1"),
        ({"speed": float("nan")}, "`speed` argument"),
        ({"speed": "fast"}, "`speed` argument"),
    ],
)
def test_bad_arguments(arguments, message, crops):
    with pytest.raises(ValueError, match=message):
        add_pseudo_abnormal(dataset_of(crops), **arguments)
