import socket

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from skimage import data

from keras_sspcab.data import BadFilesError
from keras_sspcab.data.random import fold_key
from keras_sspcab.data.simulation import (
    PICTURES,
    EmbeddedTextures,
    FolderTextures,
)
from keras_sspcab.data.simulation import textures as textures_module
from keras_sspcab.data.textures import read_photograph


def draws(source, images, count, index=0):
    """Draws textures with different seeds."""
    images = tf.constant(images, tf.float32)
    draw = tf.function(lambda i, seed: source.draw(images, i, seed))
    index = tf.constant(index)
    return np.stack([draw(index, fold_key(i)) for i in range(count)])


def assert_textures(textures, size):
    assert textures.shape[1:] == (*size, 3)
    assert textures.dtype == np.float32
    np.testing.assert_array_equal(textures, np.round(textures))
    assert textures.min() >= 0
    assert textures.max() <= 255


# === A folder ===


@pytest.fixture
def folder(tmp_path):
    """Pictures of one color each, in several formats, at several depths."""
    root = tmp_path / "textures"
    for i, name in enumerate(["a.png", "banded/b.PNG", "banded/x/c.bmp"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((20 + i, 50, 3), (i, 10 * i, 100 + i), "uint8")
        Image.fromarray(pixels).save(path)
    (root / "gray.png").parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((40, 30), 77, "uint8")).save(root / "gray.png")
    (root / "notes.txt").write_text("no image")
    return root


def test_every_picture_of_a_folder_is_drawn(folder):
    textures = draws(FolderTextures(folder), np.zeros((2, 48, 32, 1)), 60)
    assert_textures(textures, (48, 32))
    np.testing.assert_array_equal(textures.std((1, 2)), 0.0)
    colors, counts = np.unique(textures[:, 0, 0], axis=0, return_counts=True)
    expected = [[0, 0, 100], [1, 10, 101], [2, 20, 102], [77, 77, 77]]
    np.testing.assert_array_equal(colors, expected)
    assert counts.min() >= 6


def test_a_picture_of_the_right_size_is_not_resized(tmp_path, pictures):
    Image.fromarray(pictures["noise"]).save(tmp_path / "noise.png")
    source = FolderTextures(str(tmp_path))
    (texture,) = draws(source, np.zeros((1, 33, 47, 3)), 1)
    np.testing.assert_array_equal(texture, pictures["noise"])


def test_broken_pictures(folder):
    (folder / "banded" / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")
    (folder / "empty.png").touch()
    with pytest.raises(BadFilesError, match=r"(?s)broken\.jpg.*empty\.png"):
        FolderTextures(folder)


# === Pictures on board ===


def test_pictures_are_those_of_scikit_image_without_a_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(socket, "socket", refuse)
    brick = textures_module._picture("brick")
    np.testing.assert_array_equal(brick, np.stack([data.brick()] * 3, -1))
    for name in PICTURES:
        pixels = textures_module._picture(name)
        assert pixels.shape == (512, 512, 3)
        assert pixels.std() > 10
    with pytest.raises(ValueError, match=r"nothing\.png is not in this"):
        read_photograph("nothing.png", "L")


def test_textures_vary():
    textures = draws(EmbeddedTextures(), np.ones((1, 48, 40, 3)) * 0.5, 100)
    assert_textures(textures, (48, 40))
    deviations = textures.std((1, 2)).max(-1)
    # Windows of the image itself, which is plain.
    assert 0.13 < (deviations == 0).mean() < 0.4
    assert (deviations > 8).mean() > 0.5


def test_all_pictures_are_drawn(monkeypatch):
    def picture(name):
        return np.full((512, 512, 3), PICTURES.index(name), "uint8")

    monkeypatch.setattr(textures_module, "_picture", picture)
    monkeypatch.setattr(textures_module, "_recolor", lambda x, seed: x)
    source = EmbeddedTextures(batch_share=0)
    textures = draws(source, np.zeros((1, 32, 32, 3)), 200)
    values, counts = np.unique(textures, return_counts=True)
    np.testing.assert_array_equal(values, range(len(PICTURES)))
    assert counts.min() > 0.3 * counts.mean()


@pytest.mark.parametrize("sides", [(0.25, 0.75), (1.0, 0.4)])
def test_windows_lie_anywhere_and_half_are_mirrored(sides):
    # The pixels tell where they were.
    ramps = np.mgrid[0:101, 0:101].transpose(1, 2, 0)[np.newaxis] / 100
    crop = tf.function(
        lambda seed: textures_module._crop(
            tf.constant(ramps, tf.float32),
            tf.constant(0),
            tf.constant(sides),
            [9, 7],
            seed,
        )
    )
    windows = np.stack([crop(fold_key(i)) for i in range(80)])
    assert -1e-6 <= windows.min() <= windows.max() <= 1 + 1e-6
    first, last = windows[:, 0, 0], windows[:, -1, -1]
    for axis, side in enumerate(sides):
        ends = first[:, axis], last[:, axis]
        np.testing.assert_allclose(abs(ends[1] - ends[0]), side, atol=1e-5)
        assert 20 < (ends[1] > ends[0]).sum() < 60
        low = np.minimum(*ends)
        if side < 1:
            assert low.min() < 0.15 * (1 - side)
            assert low.max() > 0.85 * (1 - side)


def test_half_are_recolored():
    ramp = np.linspace(0, 255, 256, dtype="float32")
    image = tf.constant(np.tile(ramp[:, None, None], (1, 2, 3)))
    recolor = tf.function(lambda seed: textures_module._recolor(image, seed))
    results = np.stack([recolor(fold_key(i)) for i in range(100)])
    changed = results[(results != image.numpy()).any((1, 2, 3))]
    assert 35 <= len(changed) <= 65
    # Straight from one color to another.
    middle = (changed[:, 0] + changed[:, -1]) / 2
    found = changed[:, 127:129].mean(1)
    np.testing.assert_allclose(found, middle, atol=1)
    ends = changed[:, 0, 0]
    assert ends.min() < 10
    assert ends.max() > 245
    assert ends.std(axis=1).mean() > 20


@pytest.mark.parametrize("channels", [1, 3])
def test_windows_come_from_other_images(channels):
    images = np.ones((4, 32, 40, channels)) * np.arange(4).reshape(4, 1, 1, 1)
    source = EmbeddedTextures(batch_share=1.0)
    textures = draws(source, images / 255, 60, index=2)
    assert_textures(textures, (32, 40))
    values, counts = np.unique(textures[:, 0, 0, 0], return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 3])
    assert counts.min() > 8
    alone = draws(source, images[:1] + 9 / 255, 5)
    np.testing.assert_array_equal(alone, 9.0)


def test_bad_arguments():
    for share in (-0.1, 1.1, "x", None):
        with pytest.raises(ValueError, match=r"`batch_share` argument"):
            EmbeddedTextures(batch_share=share)
