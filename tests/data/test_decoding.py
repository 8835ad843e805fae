import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from keras_sspcab.data.decoding import decode_image
from keras_sspcab.data.resizing import decode_and_resize, resize
from keras_sspcab.preprocessing import Preprocessing


def luma(color):
    weights = np.array([299, 587, 114])
    return ((color.astype(int) * weights).sum(-1) + 500) // 1000


def pillow(encoded, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_color_is_that_of_pillow(kind, color, encode):
    encoded = encode(color, kind)
    expected = pillow(encoded)
    np.testing.assert_array_equal(decode_image(encoded, 3), expected)
    gray = decode_image(encoded, 1)
    assert gray.dtype == tf.uint8
    np.testing.assert_array_equal(gray[..., 0], luma(expected))


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
    encoded, expected = encode(source), np.asarray(source.convert("RGB"))
    np.testing.assert_array_equal(decode_image(encoded, 3), expected)
    gray = decode_image(encoded, 1)[..., 0]
    np.testing.assert_array_equal(gray, luma(expected))


# === 16 bits ===


@pytest.mark.parametrize("white", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_is_scaled_by_the_white_level(white, channels, encode):
    values = np.linspace(0, white, 1024).astype("uint16").reshape(32, 32)
    settings = channels, Preprocessing(white)
    encoded = encode(values, "PNG")
    scaled = decode_image(encoded, *settings, tf.float32).numpy()
    expected = np.repeat(values[..., None] / white, channels, -1)
    np.testing.assert_allclose(scaled, expected, atol=1e-7)
    # Nothing went through 8 bits.
    assert len(np.unique(scaled)) == len(np.unique(values))
    upper = decode_image(encoded, *settings).numpy()
    np.testing.assert_array_equal(
        upper[..., 0], values.astype(int) * 256 // (white + 1)
    )


def test_the_white_level_is_that_of_16_bits_in_color_and_of_no_others(
    color, encode
):
    values = np.random.default_rng(0).integers(0, 4096, (9, 7, 3), "uint16")
    encoded = tf.io.encode_png(values)
    settings = Preprocessing(4095), tf.float32
    for channels, expected in ((3, values), (1, luma(values)[..., None])):
        np.testing.assert_allclose(
            decode_image(encoded, channels, *settings),
            expected / 4095,
            atol=1e-7,
        )
    for kind in ("PNG", "JPEG", "BMP", "GIF"):
        encoded = encode(color, kind)
        plain = decode_image(encoded, 3)
        np.testing.assert_array_equal(
            decode_image(encoded, 3, *settings),
            tf.image.convert_image_dtype(plain, tf.float32),
        )


def test_brighter_than_the_white_level_is_an_error(encode):
    encoded = encode(np.array([[0, 4096]], "uint16"), "PNG")
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="up to 4096.* 4095"
    ):
        decode_image(encoded, 1, Preprocessing(4095))
    assert decode_image(encoded, 1, Preprocessing(16383)).shape == (1, 2, 1)


# === Orientation ===


def with_orientation(image, kind, orientation, order="<"):
    """Encodes an image with EXIF data written by hand, in either order."""
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        f"{order}HIH", 42, 8, 2
    )
    width = struct.pack(f"{order}HHII", 0x0100, 4, 1, 999)
    tag = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0" + head + width + tag + bytes(4)
    stream = io.BytesIO()
    image.save(stream, kind, exif=exif)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_applied(kind, order, orientation, color):
    stored = Image.fromarray(color)
    encoded = with_orientation(stored, kind, orientation, order)
    with Image.open(io.BytesIO(encoded)) as image:
        assert image.getexif()[0x0112] == orientation
        upright = np.asarray(ImageOps.exif_transpose(image))
    decoded = decode_image(encoded, 3).numpy()
    assert decoded.shape == upright.shape
    difference = np.abs(decoded.astype(int) - upright)
    assert difference.max() <= (1 if kind == "JPEG" else 0)
    if orientation in (5, 6, 7, 8):
        assert decoded.shape == (32, 40, 3)
    gray = decode_image(encoded, 1)
    np.testing.assert_array_equal(gray[..., 0], luma(decoded))
    ready = decode_and_resize(encoded, (10, 20), 3)
    np.testing.assert_array_equal(ready, resize(decoded, (10, 20)))


def test_orientation_stands_anywhere_before_the_pixels(color, encode):
    """Behind other segments, filling and comments; in PNG also at the end."""
    plain, turned = encode(color, "JPEG"), Image.fromarray(color)
    marked = with_orientation(turned, "JPEG", 6)
    expected = decode_image(marked, 3)
    segment = marked[marked.index(b"\xff\xe1") :]
    segment = segment[: 2 + int.from_bytes(segment[2:4], "big")]
    other = b"\xff\xe1\x00\x0bhttp://x\0"
    comment = b"\xff\xfe\x00\x0eExif\0\0MM\0*\0\0"
    for middle in (segment, other + comment + b"\xff\xff" + segment):
        moved = plain[:2] + middle + plain[2:]
        np.testing.assert_array_equal(decode_image(moved, 3), expected)
    # That of an image within another segment, or behind, is not this one's.
    inside = b"\xff\xe2" + struct.pack(">H", len(segment) + 2) + segment
    for content in (plain[:2] + inside + plain[2:], plain + marked):
        np.testing.assert_array_equal(
            decode_image(content, 3), decode_image(plain, 3)
        )
    marked = with_orientation(turned, "PNG", 6)
    start = marked.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(marked[start : start + 4], "big")
    moved = marked[:start] + marked[end:-12] + marked[start:end] + marked[-12:]
    np.testing.assert_array_equal(
        decode_image(moved, 3), decode_image(marked, 3)
    )
    assert decode_image(moved, 3).shape == (32, 40, 3)
    # Thousands of other parts, each with the name in it, cost no time.
    part = b"teStExif\0\0"
    check = struct.pack(">I", zlib.crc32(part))
    parts = (struct.pack(">I", 6) + part + check) * 900
    many = encode(color, "PNG")[:33] + parts + moved[33:]
    np.testing.assert_array_equal(
        decode_image(many, 3), decode_image(marked, 3)
    )


@settings(max_examples=60)
@given(st.data())
def test_damaged_exif_data_are_passed_over_or_an_error(color, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG"]))
    encoded = bytearray(with_orientation(Image.fromarray(color), kind, 3))
    start = encoded.index(b"eXIf" if kind == "PNG" else b"Exif")
    for _ in range(data.draw(st.integers(1, 5))):
        place = start + data.draw(st.integers(0, 45))
        encoded[place] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_image(bytes(encoded), 3)
    except tf.errors.InvalidArgumentError:
        return
    assert sorted(decoded.shape) == [3, 32, 40]


# === BMP ===


def bitmap(pixels, bits, palette, compression=0, top_down=False, header=40):
    """Writes a BMP of indices by hand."""
    height, width = pixels.shape
    rows = pixels if top_down else pixels[::-1]
    lines = []
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text = text.ljust(-(-len(text) // 32) * 32, "0")
        lines.append(int(text, 2).to_bytes(len(text) // 8, "big"))
    table = b"".join(bytes([*color[::-1], 0]) for color in palette)
    start = 14 + header + len(table)
    content = b"".join(lines)
    return (
        struct.pack("<2sIII", b"BM", start + len(content), 0, start)
        + struct.pack(
            "<IiiHHIIiiII",
            *(header, width, -height if top_down else height, 1, bits),
            *(compression, len(content), 0, 0, len(palette), 0),
        )
        + bytes(header - 40)
        + table
        + content
    )


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("width", [1, 7, 32, 33])
def test_palettes_of_bmp(bits, top_down, width):
    rng = np.random.default_rng(bits)
    pixels = rng.integers(0, 2**bits, (5, width))
    palette = rng.integers(0, 256, (2**bits, 3)).tolist()
    for header in (40, 124):
        encoded = bitmap(
            pixels, bits, palette, top_down=top_down, header=header
        )
        expected = np.array(palette, "uint8")[pixels]
        np.testing.assert_array_equal(pillow(encoded), expected)
        np.testing.assert_array_equal(decode_image(encoded, 3), expected)
        gray = decode_image(encoded, 1)[..., 0]
        np.testing.assert_array_equal(gray, luma(expected))


def test_bmp_of_32_bits_and_of_a_reversed_gray_palette(color, encode):
    rgba = np.concatenate([color, np.full((40, 32, 1), 7, "uint8")], -1)
    np.testing.assert_array_equal(decode_image(encode(rgba, "BMP"), 3), color)
    pixels = np.arange(256).reshape(16, 16)
    encoded = bitmap(pixels, 8, [[255 - i] * 3 for i in range(256)])
    np.testing.assert_array_equal(
        decode_image(encoded, 1)[..., 0], 255 - pixels
    )


def test_other_bmp_are_refused_as_what_they_are(color, encode):
    rgb565 = bytearray(encode(color, "BMP"))
    rgb565[28] = 16
    compressed = bitmap(np.zeros((2, 2), int), 8, [[0] * 3], compression=1)
    for encoded, reason in ((rgb565, "16 bits"), (compressed, "compression 1")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            decode_image(bytes(encoded))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_broken_bmp_is_an_error(bits):
    pixels = np.zeros((6, 9), int)
    encoded = bitmap(pixels, bits, [[1, 2, 3]] * 2**bits)
    for cut in (len(encoded) - 1, 60, 33, 20):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_image(encoded[:cut])
    # Of the two colors of a palette, the third.
    encoded = bitmap(pixels + 3, 8, [[1, 2, 3]] * 2)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(encoded)


# === Other formats ===


def test_the_first_frame_of_an_animation(color, encode):
    first, *others = (Image.fromarray(color[..., i]) for i in range(3))
    encoded = encode(first, "GIF", save_all=True, append_images=others)
    decoded = decode_image(encoded, 1)[..., 0]
    np.testing.assert_array_equal(decoded, color[..., 0])


@pytest.mark.parametrize("content", [b"", b"x", b"RIFF", b"\x89PNG\r\n\x1a\n"])
def test_garbage_is_an_error(content):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(content)


@pytest.mark.parametrize("channels", [0, 2, 4, True, None, "RGB"])
def test_channels_are_checked(channels):
    with pytest.raises(ValueError, match=f"channels={channels!r}"):
        decode_image(b"", channels)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_formats_that_no_graph_decodes_are_refused_in_words(
    kind, color, encode
):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="TIFF or WebP.*convert it to PNG"
    ):
        decode_and_resize(encode(color, kind), (8, 8))
