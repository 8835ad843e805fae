import io
import itertools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_sspcab.data import decoding
from keras_sspcab.data.decoding import (
    decode_and_resize,
    decode_image,
    decode_mask,
    resize,
    resize_mask,
)


def luma(color):
    weights = np.array([299, 587, 114])
    return ((color.astype(int) * weights).sum(-1) + 500) // 1000


def pillow(encoded, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_color_is_exact(kind, color, encode):
    encoded = encode(color, kind)
    np.testing.assert_array_equal(decode_image(encoded, 3), color)
    gray = decode_image(encoded, 1)
    assert gray.dtype == tf.uint8
    np.testing.assert_array_equal(gray[..., 0], luma(color))


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_color_agrees_with_pillow(kind, color, encode):
    encoded = encode(color, kind)
    expected = pillow(encoded)
    decoded = decode_image(encoded, 3).numpy()
    assert np.abs(decoded.astype(int) - expected).max() <= 1
    gray = decode_image(encoded, 1).numpy()[..., 0]
    np.testing.assert_array_equal(gray, luma(decoded))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_gray_is_exact_in_both_forms(kind, encode):
    gray = np.arange(256, dtype="uint8").reshape(16, 16)
    encoded = encode(gray, kind)
    np.testing.assert_array_equal(decode_image(encoded, 1)[..., 0], gray)
    repeated = np.stack([gray] * 3, -1)
    np.testing.assert_array_equal(decode_image(encoded, 3), repeated)
    # Gray stored as color keeps its values too.
    as_color = encode(repeated, kind)
    np.testing.assert_array_equal(decode_image(as_color, 1)[..., 0], gray)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "1", "P"])
def test_png_modes(mode, color, encode):
    source = Image.fromarray(color).convert(mode)
    if mode in ("LA", "RGBA"):
        source.putalpha(77)
    stream = io.BytesIO()
    source.save(stream, "PNG")
    expected = np.asarray(source.convert("RGB"))
    np.testing.assert_array_equal(decode_image(stream.getvalue(), 3), expected)
    gray = decode_image(stream.getvalue(), 1)[..., 0]
    np.testing.assert_array_equal(gray, luma(expected))


def test_16_bit_png_keeps_the_upper_bits(encode):
    values = np.arange(0, 65536, 64, dtype="uint16").reshape(32, 32)
    values[-1, -1] = 65535
    gray = decode_image(encode(values, "PNG"), 1).numpy()[..., 0]
    np.testing.assert_array_equal(gray, values // 256)
    assert (gray.min(), gray.max()) == (0, 255)


def test_first_frame_of_an_animation(color):
    frames = [Image.fromarray(color[..., i]) for i in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    decoded = decode_image(stream.getvalue(), 1)[..., 0]
    np.testing.assert_array_equal(decoded, color[..., 0])


@pytest.mark.parametrize("content", [b"", b"x", b"RIFF", b"\x89PNG\r\n\x1a\n"])
def test_garbage_is_an_error(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(content)


def test_shapes_are_known_in_graphs(color, encode):
    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def decode(encoded):
        image = decode_image(encoded, 1)
        assert image.shape.as_list() == [None, None, 1]
        ready = decode_and_resize(encoded, (8, 6), 3)
        assert ready.shape.as_list() == [8, 6, 3]
        return image

    for kind in ("PNG", "JPEG", "BMP"):
        assert decode(encode(color, kind)).shape == (40, 32, 1)


@pytest.mark.parametrize("channels", [0, 2, 4, True, None, "RGB"])
def test_channels_are_checked(channels):
    with pytest.raises(ValueError, match=f"channels={channels!r}"):
        decode_image(b"", channels)


# === WebP and TIFF ===


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", {"quality": 90}),
        ("TIFF", "RGB", {}),
        ("TIFF", "LA", {"compression": "tiff_lzw"}),
    ],
)
def test_optional_formats(
    kind, mode, options, color, encode, has_tensorflow_io
):
    encoded = encode(color, kind, mode=mode, **options)
    if not has_tensorflow_io:
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"keras-sspcab\[io\]"
        ):
            decode_image(encoded)
        return
    expected = pillow(encoded)
    # Decoders of lossy WebP round chroma in their own ways.
    tolerance = 2 if "quality" in options else 0
    for channels, target in ((3, expected), (1, luma(expected)[..., None])):
        decoded = decode_image(encoded, channels).numpy()
        assert decoded.shape == (40, 32, channels)
        assert np.abs(decoded.astype(int) - target).max() <= tolerance


def test_exported_graphs_hold_no_optional_operations(color, encode):
    for kind in ("WEBP", "TIFF"):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"keras-sspcab\[io\]"
        ):
            decode_and_resize(encode(color, kind), (8, 8))
    graph = (
        tf.function(lambda e: decode_and_resize(e, (8, 8)))
        .get_concrete_function(tf.TensorSpec((), tf.string))
        .graph.as_graph_def()
    )
    nodes = itertools.chain(
        graph.node, *(f.node_def for f in graph.library.function)
    )
    operations = {node.op for node in nodes}
    assert "DecodeImage" in operations
    assert not [name for name in operations if name.startswith("IO>")]


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"]
)
def test_image_format(kind, color, encode):
    expected = {"WEBP": "WebP", "PPM": None}.get(kind, kind)
    head = encode(color, kind)[:12]
    assert decoding.image_format(head) == expected


# === Resizing ===


def test_same_size_keeps_the_values(color):
    expected = tf.image.convert_image_dtype(color, tf.float32)
    np.testing.assert_array_equal(resize(color, (40, 32)), expected)


@pytest.mark.parametrize("size", [(13, 7), (80, 64), (10, 90)])
def test_resize_agrees_with_pillow(size, color):
    # Pillow's bilinear filter is antialiased as well.
    resized = resize(color, size).numpy()
    for i in range(3):
        plane = Image.fromarray(color[..., i].astype("float32") / 255.0)
        expected = plane.resize(size[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_allclose(resized[..., i], expected, atol=2e-5)


def test_resize_takes_batches_and_floats(color):
    batch = np.stack([color, color[::-1]])
    resized = resize(batch, (9, 9))
    assert resized.dtype == tf.float32
    np.testing.assert_array_equal(resized[1], resize(color[::-1], 9))
    floats = tf.image.convert_image_dtype(color, tf.float32)
    np.testing.assert_array_equal(resize(floats, 9), resize(color, 9))


@pytest.mark.parametrize("size", [0, (3,), (4, -1), (4, 4, 3), "big", (2.5, 2)])
def test_image_size_is_checked(size, color):
    with pytest.raises(ValueError, match=r"image_size|height|width"):
        resize(color, size)


# === Masks ===


def test_masks_are_what_lies_above_zero(encode):
    gray = np.array([[0, 1], [128, 255]], "uint8")
    expected = [[False, True], [True, True]]
    np.testing.assert_array_equal(decode_mask(encode(gray, "PNG")), expected)


def test_masks_are_resized_by_the_nearest_neighbor():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 4:8] = True
    np.testing.assert_array_equal(resize_mask(mask, (4, 4)), mask[::2, ::2])
    large = np.repeat(np.repeat(mask, 2, 0), 2, 1)
    np.testing.assert_array_equal(resize_mask(mask, (16, 16)), large)
