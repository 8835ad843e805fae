import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_sspcab.data import image_files
from keras_sspcab.data.batching import read_in_graph
from keras_sspcab.data.decoding import (
    BITMAP,
    PICTURE,
    WIDE,
    decode_image,
    decode_plain,
)
from keras_sspcab.data.image_files import (
    PLAIN_SPEC,
    brightest_value,
    plain_reader,
    read_pixels,
    read_plain,
    to_decodable,
)
from keras_sspcab.data.video.frames import read_frame
from keras_sspcab.preprocessing import Preprocessing


def pillow(encoded, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))


def read(tmp_path, encoded, channels=3, *settings):
    path = tmp_path / "image"
    path.write_bytes(encoded)
    return read_pixels(str(path), channels, *settings).numpy()


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGB", {"quality": 90}),
        ("TIFF", "RGB", {}),
        ("TIFF", "1", {}),
        ("TIFF", "P", {}),
        ("TIFF", "CMYK", {}),
        ("TIFF", "LA", {"compression": "tiff_lzw"}),
    ],
)
def test_others_become_png(kind, mode, options, color, encode):
    encoded = encode(color, kind, mode=mode, **options)
    decoded = decode_image(to_decodable(encoded), 3)
    np.testing.assert_array_equal(decoded, pillow(encoded))


@pytest.mark.parametrize("orientation", [1, 6])
def test_upright_photos_of_cameras_are_read_as_any_other(
    color, tmp_path, orientation
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    Image.fromarray(color).save(path, exif=exif.tobytes())
    content, _ = read_plain(str(path), 3)
    # As it is, or turned before.
    assert (content == path.read_bytes()) == (orientation == 1)


def test_first_page_and_orientation(color, encode):
    """A TIFF may hold a thumbnail as well, and a WebP file be animated."""
    others = {"TIFF": color[::-1, :4], "WEBP": color[::-1]}
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, options in (("TIFF", {}), ("WEBP", {"lossless": True})):
        pages = {"append_images": [Image.fromarray(others[kind])]}
        encoded = encode(
            color, kind, save_all=True, exif=exif, **pages, **options
        )
        decoded = decode_image(to_decodable(encoded), 3)
        np.testing.assert_array_equal(decoded, np.rot90(color, -1))


def test_stacks_are_no_images(color, tmp_path):
    """A TIFF of several channels or frames would lose all but the first."""
    path = tmp_path / "stack.tif"
    page = Image.fromarray(color)
    page.save(path, save_all=True, append_images=[page, page])
    with pytest.raises(ValueError, match="3 images of one size in one file"):
        to_decodable(path.read_bytes())
    with pytest.raises(ValueError, match="3 images of one size in one file"):
        read_frame(str(path))


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_tiff_is_scaled_by_the_white_level(mode, tmp_path, encode):
    values = np.linspace(0, 4095, 1024).astype("uint16").reshape(32, 32)
    stored = values.astype(">u2" if mode == "I;16B" else "<u2").tobytes()
    encoded = encode(Image.frombytes(mode, (32, 32), stored), "TIFF")
    scaled = read(tmp_path, encoded, 1, Preprocessing(4095))
    np.testing.assert_allclose(scaled[..., 0], values / 4095, atol=1e-7)
    assert brightest_value(str(tmp_path / "image")) == 4095


def test_the_brightest_value_is_of_16_bits_and_not_of_alpha(tmp_path, encode):
    path = tmp_path / "image"
    color = np.full((2, 2, 3), [10, 500, 20], "uint16")
    opaque = np.full((2, 2, 1), 65535, "uint16")
    for pixels, expected in (
        (color, 500),
        (np.concatenate([color, opaque], -1), 500),
        (np.concatenate([color[..., :1], opaque], -1), 10),
        (np.full((2, 2, 1), 200, "uint8"), 0),
    ):
        path.write_bytes(tf.io.encode_png(pixels).numpy())
        assert brightest_value(str(path)) == expected
    path.write_bytes(encode(np.zeros((2, 2), "uint8"), "JPEG"))
    assert brightest_value(str(path)) == 0


@pytest.mark.parametrize("kind", ["float", "32 bits", "colors", "reversed"])
def test_pixels_without_a_place_in_the_range_are_refused(
    kind, tmp_path, encode
):
    if kind == "colors":
        tifffile = pytest.importorskip("tifffile")
        stream = io.BytesIO()
        pixels = np.full((4, 4, 3), 4095, "uint16")
        tifffile.imwrite(stream, pixels, photometric="rgb")
        encoded = stream.getvalue()
    elif kind == "reversed":
        black = np.zeros((4, 4), "uint16")
        encoded = encode(black, "TIFF", tiffinfo={262: 0})
    else:
        dtype = "float32" if kind == "float" else "int32"
        encoded = encode(np.zeros((4, 4), dtype), "TIFF")
    with pytest.raises(ValueError, match=r"a TIFF with .* bits a value"):
        read(tmp_path, encoded)


def bitmap_of_16_bits(color):
    """RGB565, as ffmpeg and many cameras write it."""
    red, green, blue = np.moveaxis(color[::-1].astype("uint16"), -1, 0)
    pixels = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3
    content = pixels.astype("<u2").tobytes()
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    start = 14 + 40 + len(masks)
    height, width = pixels.shape
    return (
        struct.pack("<2sIII", b"BM", start + len(content), 0, start)
        + struct.pack("<IiiHHI", 40, width, height, 1, 16, 3)
        + struct.pack("<IiiII", len(content), 0, 0, 0, 0)
        + masks
        + content
    )


def test_bmp_of_16_bits(color):
    encoded = bitmap_of_16_bits(color)
    decoded = decode_image(to_decodable(encoded), 3).numpy()
    np.testing.assert_array_equal(decoded, pillow(encoded))
    assert np.abs(decoded.astype(int) - color).max() < 8


def test_broken_gifs_are_refused_or_read_as_by_pillow(encode):
    """Where Pillow sees damage, TensorFlow may decode something."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 48), "uint8")
    whole = encode(pixels, "GIF")
    messages, decoded = [], 0
    for _ in range(300):
        encoded = bytearray(whole)
        for place in rng.integers(6, len(whole), rng.integers(1, 4)):
            encoded[place] = rng.integers(256)
        encoded = bytes(encoded)
        try:
            expected = pillow(encoded)
        except Exception:
            expected = None
        try:
            native = to_decodable(encoded)
        except ValueError as error:
            messages.append(str(error))
        else:
            decoded += 1
            np.testing.assert_array_equal(decode_image(native, 3), expected)
    assert len(messages) > 20
    assert all("GIF" in message for message in messages)
    assert decoded > 20


def read_in_a_graph(path, **options):
    reader = plain_reader([str(path)], 3, **options)
    # In a data set: on one core, a graph that waits for another one hangs.
    numbers = tf.data.Dataset.from_tensors([0])
    ((encoded,), (form,)) = next(
        iter(numbers.map(lambda n: read_in_graph(reader, n, PLAIN_SPEC)))
    )
    return encoded.numpy(), form.numpy()


def test_files_are_read_in_graphs_to_the_last_zero(tmp_path, color, encode):
    # A BMP may end with zeros, which NumPy drops from bytes.
    color[0] = 0
    encoded = encode(color, "BMP")
    assert encoded[-1] == 0
    path = tmp_path / "a.bmp"
    path.write_bytes(encoded)
    assert read_in_a_graph(path) == (encoded, BITMAP)


def test_errors_in_graphs_name_the_file(tmp_path):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"no\.png: the file does not"
    ):
        read_in_a_graph(tmp_path / "no.png")
    wide = tmp_path / "wide.png"
    pixels = tf.constant([[[5000]]], tf.uint16)
    wide.write_bytes(tf.io.encode_png(pixels).numpy())
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"wide\.png: values up to 5000,"
    ):
        read_in_a_graph(wide, preprocessing=Preprocessing(4095))


def files_of_all_kinds(color, encode):
    """Yields content of image files, by kind and mode of Pillow or bits."""
    alpha = np.concatenate([color, color[..., :1] % 251], -1)
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"):
        for mode in ("RGB", "L", "P", "1", "LA", "RGBA", "CMYK"):
            exif = Image.Exif()
            exif[0x0112] = 6
            key = {"transparency": 3} if kind == "PNG" else {}
            for options in ({}, {"exif": exif}, key):
                try:
                    encoded = encode(alpha, kind, mode=mode, **options)
                except (OSError, TypeError, ValueError, struct.error):
                    continue
                yield f"{kind} {mode} {[*options]}", encoded
    for channels in (1, 2, 3, 4):
        wide = alpha[..., :channels].astype("uint16") * 16
        yield f"16 bits {channels}", tf.io.encode_png(wide).numpy()
    yield "BMP of 16 bits", bitmap_of_16_bits(color)


def test_plain_files_have_the_pixels_of_all_others(tmp_path, color, encode):
    how, forms, path = Preprocessing(4095), set(), tmp_path / "image"
    for name, encoded in files_of_all_kinds(color, encode):
        path.write_bytes(encoded)
        for channels in (1, 3):
            plain, form = read_plain(str(path), channels, how)
            forms.add(form)
            for dtype in (tf.uint8, tf.float32):
                decoded = decode_plain(
                    plain, tf.constant(form), channels, how, dtype
                )
                expected = decode_image(
                    to_decodable(encoded), channels, how, dtype
                )
                found = read(tmp_path, encoded, channels, how, dtype)
                for pixels in (decoded, found):
                    np.testing.assert_array_equal(
                        pixels, expected, err_msg=name
                    )
    assert forms == {PICTURE, BITMAP, WIDE}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_usual_files_are_read_without_the_graph_for_all(
    tmp_path, color, encode, monkeypatch, kind
):
    # It takes a third of a second to prepare, in each thread that comes first.
    monkeypatch.setattr(
        image_files, "decode_image", lambda *_: pytest.fail("the large graph")
    )
    assert read(tmp_path, encode(color, kind)).shape == color.shape
