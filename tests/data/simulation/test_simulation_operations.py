import colorsys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage
from skimage import color

from keras_sspcab.data.random import distinct, fold_key, split
from keras_sspcab.data.simulation.operations import (
    AUGMENTERS,
    add_to_hue_and_saturation,
    adjust_brightness,
    adjust_sharpness,
    augment_texture,
    autocontrast,
    equalize,
    gamma_contrast,
    posterize,
    rotate,
    solarize,
    to_gray,
)


def sharpened(image, factor):
    return ImageEnhance.Sharpness(image).enhance(factor)


@pytest.mark.parametrize(
    ("function", "oracle", "amounts"),
    [
        (autocontrast, ImageOps.autocontrast, [0, 7, 49]),
        (lambda image, _: equalize(image), ImageOps.equalize, [None]),
        (posterize, ImageOps.posterize, [1, 4, 8]),
        (solarize, ImageOps.solarize, [0, 77.5, 256]),
        (adjust_sharpness, sharpened, [0.0, 0.77, 1.0, 2.0]),
    ],
)
def test_those_of_pillow(pictures, function, oracle, amounts):
    for amount in amounts:
        for name, picture in pictures.items():
            found = function(tf.constant(picture, tf.float32), amount)
            expected = np.asarray(oracle(Image.fromarray(picture), amount))
            np.testing.assert_array_equal(found, expected, err_msg=name)


def test_gray_is_that_of_pillow(pictures):
    for picture in pictures.values():
        expected = Image.fromarray(picture).convert("L")
        found = to_gray(tf.constant(picture, tf.float32))[..., 0]
        np.testing.assert_allclose(found, expected, atol=0.51)


# === Those of imgaug ===


@pytest.mark.parametrize("gammas", [(0.5, 1.0, 2.0), (1.7, 0.6, 0.93)])
def test_gamma(pictures, gammas):
    for picture in pictures.values():
        found = gamma_contrast(tf.constant(picture, tf.float32), gammas)
        exact = 255.0 * (picture / 255.0) ** np.array(gammas)
        # Cut off; a whole number may come out a little too small.
        assert np.all(found <= exact + 1e-3)
        assert np.all(found >= exact - 1.001)
        np.testing.assert_array_equal(found, np.round(found))


def per_pixel(function, picture):
    pixels = [function(*pixel) for pixel in picture.reshape(-1, 3) / 255.0]
    return 255.0 * np.reshape(pixels, picture.shape)


@pytest.mark.parametrize("shift", [(0, 0), (50, 0), (-50, -50), (17, 50)])
def test_hue_and_saturation(pictures, shift):
    def oracle(*rgb):
        h, s, v = colorsys.rgb_to_hsv(*rgb)
        h, s = (h + shift[0] / 255) % 1.0, np.clip(s + shift[1] / 255, 0, 1)
        return colorsys.hsv_to_rgb(h, s, v)

    for picture in pictures.values():
        image = tf.constant(picture, tf.float32)
        found = add_to_hue_and_saturation(image, *map(float, shift))
        expected = per_pixel(oracle, picture)
        np.testing.assert_allclose(found, expected, atol=0.501)
        np.testing.assert_array_equal(found, np.round(found))


CHANGES = [(0.8, 30.0, True), (1.2, -30.0, False), (1.2, 30.0, False)]


def changed(luminance, factor, addend, add_first):
    if add_first:
        return np.clip(np.clip(luminance + addend, 0, 255) * factor, 0, 255)
    return np.clip(np.clip(luminance * factor, 0, 255) + addend, 0, 255)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("luminance", ["value", "lightness", "luma"])
def test_brightness(pictures, luminance, change):
    def oracle(*rgb):
        if luminance == "value":
            h, s, v = colorsys.rgb_to_hsv(*rgb)
            return colorsys.hsv_to_rgb(h, s, changed(255 * v, *change) / 255)
        h, li, s = colorsys.rgb_to_hls(*rgb)
        return colorsys.hls_to_rgb(h, changed(255 * li, *change) / 255, s)

    for picture in pictures.values():
        if luminance == "luma":
            yuv = color.rgb2yuv(picture / 255.0)
            yuv[..., 0] = changed(255 * yuv[..., 0], *change) / 255
            expected = np.clip(255 * color.yuv2rgb(yuv), 0, 255)
        else:
            expected = per_pixel(oracle, picture)
        image = tf.constant(picture, tf.float32)
        found = adjust_brightness(image, luminance, *change)
        np.testing.assert_allclose(found, expected, atol=0.52)


# === Rotation ===


@pytest.mark.parametrize("degrees", [-33.3, 0.0, 71.0])
@pytest.mark.parametrize("shape", [(32, 32, 3), (20, 33, 1)])
def test_rotation_is_that_of_scipy(degrees, shape):
    image = np.random.default_rng(0).random(shape, "float32")
    found = rotate(image, degrees)
    assert found.dtype == tf.float32
    expected = ndimage.rotate(
        image, degrees, reshape=False, order=1, mode="grid-constant"
    )
    np.testing.assert_allclose(found, expected, atol=2e-4)


# === With random strength ===


@pytest.fixture(scope="module")
def augmented(pictures):
    """Each change, 60 times, on a photograph."""
    image = tf.constant(pictures["photograph"], tf.float32)
    results = {}
    for name, augmenter in AUGMENTERS.items():
        compiled = tf.function(lambda seed, f=augmenter: f(image, seed))
        results[name] = np.stack([compiled(fold_key(i)) for i in range(60)])
    return results


@pytest.mark.parametrize("name", AUGMENTERS)
def test_seeds_change_the_strength(augmented, name):
    images = augmented[name]
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, np.round(images))
    assert 0 <= images.min() <= images.max() <= 255
    # Of 60 results; half of those of `solarize` do nothing.
    least, most = {
        "invert": (1, 1),
        "equalize": (1, 1),
        "posterize": (8, 8),
        "autocontrast": (14, 21),
        "solarize": (18, 45),
    }.get(name, (50, 60))
    assert least <= len(np.unique(images.reshape(60, -1), axis=0)) <= most


def test_random_gammas_and_rotations_are_within_their_ranges(
    pictures, augmented
):
    image = pictures["photograph"].astype("float32")
    inner = (image > 30) & (image < 225)
    ratio = np.log((augmented["gamma_contrast"] + 0.5) / 255) / np.log(
        np.where(inner, image, 128) / 255
    )
    gammas = [
        np.median(r[..., c][inner[..., c]]) for r in ratio for c in range(3)
    ]
    assert 0.48 < min(gammas) < 0.6
    assert 1.8 < max(gammas) < 2.03
    assert abs(np.mean(gammas) - 1.25) < 0.15
    # Zeros in the corners, as many as rotations by up to 45 degrees make.
    zeros = (augmented["rotate"] == 0).all(-1).mean((1, 2))
    most = (np.round(rotate(image, 45.0)) == 0).all(-1).mean()
    assert 0.8 * most < zeros.max() <= most + 0.01
    assert zeros.min() < 0.3 * most


def test_each_is_drawn_equally_often_at_each_place():
    draw = tf.function(lambda seed: distinct(seed, 3, 10))
    drawn = np.stack([draw(fold_key(i)) for i in range(1000)])
    for place in range(3):
        share = np.bincount(drawn[:, place], minlength=10) / 1000
        assert abs(share - 0.1).max() < 0.05


def test_three_different_ones_in_the_order_drawn(pictures):
    image = tf.constant(pictures["photograph"], tf.float32)
    augment = tf.function(augment_texture)
    functions = list(AUGMENTERS.values())
    for i in range(12):
        seed = fold_key(i)
        choice_seed, *seeds = split(seed, 4)
        chosen = distinct(choice_seed, 3, 10).numpy()
        assert len(set(chosen)) == 3
        expected = image
        for number, own in zip(chosen, seeds, strict=True):
            expected = functions[number](expected, own)
        found = augment(image, seed)
        assert found.shape == image.shape
        # Compiled, a value may be rounded the other way.
        assert np.mean(np.abs(found - expected) > 1) < 0.01
