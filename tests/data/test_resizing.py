"""Every method to resize, in Python, in graphs and from files."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_sspcab.data import (
    ImageSample,
    Preprocessing,
    decode_and_resize,
    image_dataset,
    resize,
)
from keras_sspcab.data.video import fit_frame

METHODS = ["bilinear", "area", "opencv"]

SIDES = st.tuples(st.integers(1, 70), st.integers(1, 70))


def random_image(shape, dtype="uint8"):
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, shape, dtype, True)


@pytest.mark.parametrize("size", [(13, 7), (80, 64), (10, 90)])
def test_resize_agrees_with_pillow(size, color):
    # Pillow's bilinear filter is antialiased as well.
    resized = resize(color, size).numpy()
    for i in range(3):
        plane = Image.fromarray(color[..., i].astype("float32") / 255.0)
        expected = plane.resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(resized[..., i], expected, atol=2e-5)


@pytest.mark.parametrize("method", METHODS)
def test_batches_floats_and_the_same_size(method, color):
    floats = tf.image.convert_image_dtype(color, tf.float32)
    for image in (color, floats):
        same = resize(image, (40, 32), method)
        np.testing.assert_array_equal(same, floats)
    batch = resize(np.stack([color, color[::-1]]), (9, 9), method)
    assert batch.dtype == tf.float32
    np.testing.assert_array_equal(batch[1], resize(color[::-1], 9, method))
    if method != "opencv":  # which rounds bytes alone
        np.testing.assert_array_equal(resize(floats, 9, method), batch[0])


@pytest.mark.parametrize("dtype", ["uint16", "int32", "bool"])
def test_images_without_a_known_white_are_refused(dtype):
    with pytest.raises(ValueError, match=f"dtype={dtype}"):
        resize(np.zeros((4, 4, 1), dtype), 2)
    with pytest.raises(ValueError, match=r"`method`.*'opencv'"):
        resize(np.zeros((4, 4, 1), "uint8"), 2, "cubic")


@pytest.mark.parametrize("size", [0, (3,), (4, -1), (4, 4, 3), "big", (2.5, 2)])
def test_image_size_is_checked(size, color):
    with pytest.raises(ValueError, match=r"image_size|height|width"):
        resize(color, size)


# === Aspect ratio ===


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("size", [(24, 24), (50, 20), (9, 61)])
def test_what_is_padded_or_cropped_is_resized_alike(method, dtype, size):
    image = random_image((31, 47, 3))
    if dtype == "float32":
        image = image.astype(dtype) / 255
    source, target = Preprocessing(fit="pad").place((31, 47), size)
    padded = resize(image, size, method, "pad").numpy()
    content = padded[target]
    np.testing.assert_array_equal(
        content, resize(image, content.shape[:2], method)
    )
    assert content.shape != padded.shape
    padded[target] = 0.5
    np.testing.assert_array_equal(padded, 0.5)
    source, _ = Preprocessing(fit="crop").place((31, 47), size)
    np.testing.assert_array_equal(
        resize(image, size, method, "crop"),
        resize(image[source], size, method),
    )


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_batches_of_one_ratio_fit_as_their_images(fit):
    images = np.stack([random_image((31, 47, 1))] * 2)
    batch = resize(images, (16, 16), fit=fit)
    np.testing.assert_array_equal(batch[1], resize(images[1], 16, fit=fit))


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_fit_on_every_path(fit, tmp_path):
    path = str(tmp_path / "a.png")
    pixels = random_image((31, 47, 3))
    encoded = tf.io.encode_png(pixels)
    tf.io.write_file(path, encoded)
    how = Preprocessing(fit=fit)
    expected = resize(pixels, (16, 20), fit=fit)
    read = tf.function(lambda file: decode_and_resize(file, (16, 20), 3, how))
    np.testing.assert_allclose(read(encoded), expected, atol=1e-6)
    for cache in (False, True, str(tmp_path / "cache")):
        (batch,) = image_dataset(
            [ImageSample(path)], (16, 20), cache=cache, preprocessing=how
        )
        np.testing.assert_allclose(batch[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match="for images"):
        fit_frame(pixels, (16, 20), 3, how)


# === As published ===


@settings(max_examples=150)
@given(SIDES, SIDES, st.sampled_from([1, 3]))
def test_opencv_to_the_last_bit(before, after, channels):
    cv2 = pytest.importorskip("cv2")
    image = random_image((*before, channels))
    expected = cv2.resize(image, after[::-1]).reshape(*after, channels)
    resized = resize(image, after, "opencv")
    np.testing.assert_array_equal(np.rint(resized * 255), expected)
    np.testing.assert_array_equal(resized, (expected * np.float32(1 / 255)))


@pytest.mark.parametrize("size", [(13, 7), (80, 64), (10, 90)])
def test_opencv_of_floats(size, color):
    cv2 = pytest.importorskip("cv2")
    floats = color.astype("float32") / 255
    expected = cv2.resize(floats, size[::-1])
    resized = resize(floats, size, "opencv")
    np.testing.assert_allclose(resized, expected, atol=5e-5)


@pytest.mark.parametrize("before", [(900, 900), (240, 360), (1024, 1024)])
def test_opencv_in_graphs_and_at_usual_sizes(before):
    cv2 = pytest.importorskip("cv2")
    encoded = tf.io.encode_png(random_image((*before, 3)))
    image = tf.io.decode_png(encoded).numpy()

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def read(encoded):
        how = Preprocessing(resize="opencv")
        return decode_and_resize(encoded, (256, 224), 3, how)

    expected = cv2.resize(image, (224, 256))
    np.testing.assert_array_equal(np.rint(read(encoded) * 255), expected)


@pytest.mark.parametrize("size", [(20, 16), (13, 7), (80, 9), (90, 70)])
def test_area_is_the_mean_over_what_a_pixel_covers(size, color):
    def shares(before, after):
        """What of each pixel of a side lies in each of the new ones."""
        ends = np.arange(after + 1)[:, None] * before / after
        covered = np.clip(ends - np.arange(before), 0, 1)
        return np.diff(covered, axis=0) * after / before

    rows, columns = shares(40, size[0]), shares(32, size[1])
    expected = np.einsum("ij,jkc,lk->ilc", rows, color / 255, columns)
    resized = resize(color, size, "area").numpy()
    np.testing.assert_allclose(resized, expected, atol=1e-5)
    if size == (20, 16):
        whole = Image.fromarray(color).resize((16, 20), Image.Resampling.BOX)
        assert np.abs(resized * 255 - np.asarray(whole)).max() <= 1


# === On every path ===


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_datasets_with_and_without_cache_read_alike(method, dtype, tmp_path):
    path = str(tmp_path / "a.png")
    pixels = random_image((31, 47, 1), dtype)
    tf.io.write_file(path, tf.io.encode_png(pixels))
    floats = pixels.astype("float32") / np.float32(np.iinfo(dtype).max)
    # Only 8 bits are rounded to 8 bits.
    image = pixels if dtype == "uint8" else floats
    expected = resize(image, (16, 20), method)
    for cache in (False, str(tmp_path / "cache")):
        (batch,) = image_dataset(
            [ImageSample(path)],
            (16, 20),
            channels=1,
            cache=cache,
            preprocessing=Preprocessing(resize=method),
        )
        np.testing.assert_allclose(batch[0], expected, atol=1e-6)
        is_bytes = dtype == "uint8" and method == "opencv"
        np.testing.assert_equal(
            np.allclose(batch * 255, np.rint(batch * 255), atol=1e-4), is_bytes
        )


def test_caches_on_disk_know_the_method(tmp_path, write_image):
    samples = [ImageSample(write_image(tmp_path / "a.png"))]
    cache = tmp_path / "cache"
    for count, how in (
        (1, None),
        (1, Preprocessing()),
        (2, Preprocessing(resize="area")),
        (3, Preprocessing(resize="opencv")),
        (4, Preprocessing(fit="pad")),
    ):
        image_dataset(samples, 4, 1, cache=cache, preprocessing=how)
        assert len(list(cache.iterdir())) == count


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(9, 7), (60, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_videos_are_resized_as_images(method, size, channels):
    frame = random_image((31, 50, channels))
    fitted = fit_frame(frame, size, channels, Preprocessing(resize=method))
    assert (fitted.dtype, fitted.shape) == (np.uint8, (*size, channels))
    expected = 255 * resize(frame, size, method).numpy()
    # Pillow's, which is quicker, rounds between rows and columns.
    step = 1.5 if method == "bilinear" else 0.5
    difference = np.abs(fitted - expected)
    assert difference.max() <= step
    assert difference.mean() < 0.5
