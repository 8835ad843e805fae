import contextlib
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy import ndimage

from keras_sspcab.data import ImageSample
from keras_sspcab.data.image_files import to_decodable
from keras_sspcab.data.masks import (
    decode_mask,
    find_doubt,
    load_mask,
    read_mask,
    resize_mask,
)

TRUTH = np.zeros((24, 32), bool)
TRUTH[6:12, 5:15] = True


def where(defective, normal=0, dtype="uint8"):
    """Pixels of one value where the truth is, and of another elsewhere."""
    choices = np.asarray(defective, dtype), np.asarray(normal, dtype)
    return np.where(TRUTH.reshape(24, 32, *[1] * choices[0].ndim), *choices)


def palette(indices, colors, **options):
    image = Image.fromarray(indices)
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(np.ravel(colors).tolist())
    return image


WHITE, BLACK, RED = (255, 255, 255), (0, 0, 0), (255, 0, 0)

MASKS = {
    "white": (where(255), {}),
    "identity": (where(1), {}),
    "bits1": (Image.fromarray(where(255)).convert("1"), {}),
    "16 bits": (where(1, dtype="uint16"), {}),
    "16 bits high": (where(200 << 8, dtype="uint16"), {}),
    "32 bits": (where(70_000, dtype="int32"), {"kind": "TIFF"}),
    "float": (where(1e-6, dtype="float32"), {"kind": "TIFF"}),
    "16 bits TIFF": (where(3, dtype="uint16"), {"kind": "TIFF"}),
    "blue": (where((0, 0, 1), BLACK), {}),
    "alpha of black": (where((0, 0, 0, 9), (0, 0, 0, 0)), {}),
    "alpha of white": (where((255,) * 4, (255, 255, 255, 0)), {}),
    "alpha of gray": (where((7, 255), (7, 0)), {}),
    "transparent white": (where((*RED, 255), (255, 255, 255, 0)), {}),
    "opaque": (where((*WHITE, 255), (*BLACK, 255)), {}),
    "invisible": (where((*WHITE, 0), (*BLACK, 0)), {}),
    "palette": (palette(where(1), [BLACK, (128, 0, 0)]), {}),
    "palette of black": (palette(where(2), [BLACK] * 3), {}),
    "palette of colors": (palette(where(1), [(68, 1, 84), RED]), {}),
    "sorted palette": (palette(where(0, 1), [WHITE, BLACK]), {}),
    "palette GIF": (palette(where(1), [BLACK, RED]), {"kind": "GIF"}),
    "palette BMP": (palette(where(3), [BLACK] * 3 + [RED]), {"kind": "BMP"}),
    "transparent palette": (
        palette(where(1), [WHITE, RED]),
        {"transparency": 0},
    ),
    "transparent color": (where(RED, WHITE), {"transparency": WHITE}),
    "bits1 TIFF": (
        Image.fromarray(where(255)).convert("1"),
        {"kind": "TIFF", "compression": "group4"},
    ),
    "lossless WebP": (where(WHITE, BLACK), {"kind": "WEBP", "lossless": True}),
}


@pytest.mark.parametrize(("image", "options"), MASKS.values(), ids=MASKS)
def test_what_is_defective(image, options, encode):
    mask = decode_mask(encode(image, **options))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, TRUTH)


def test_colors_of_16_bits(encode):
    for defective in ((0, 0, 1), (0, 0, 1, 65535)):
        pixels = np.zeros((24, 32, len(defective)), "uint16")
        pixels[..., 3:] = 65535
        pixels[TRUTH] = defective
        encoded = tf.io.encode_png(pixels).numpy()
        np.testing.assert_array_equal(decode_mask(encoded), TRUTH)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "JPEG", "quality": 75},
        {"kind": "WEBP", "quality": 50},
        {"kind": "TIFF", "compression": "jpeg"},
    ],
)
def test_lossy_masks_are_cut_halfway(options, encode):
    encoded = encode(where(255), **options)
    with Image.open(io.BytesIO(encoded)) as image:
        noisy = np.asarray(image.convert("L")) > 0
    assert (noisy != TRUTH).any()
    mask = decode_mask(encoded)
    # What compression blurs, no threshold brings back.
    assert (mask != TRUTH).sum() <= 6
    assert not (mask & ~ndimage.binary_dilation(TRUTH)).any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "wide"])
def test_orientation(orientation, kind, encode):
    pixels = where(255)
    pixels[6, 5] = 0
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    is_wide = kind == "wide"
    image = pixels.astype("uint16") if is_wide else pixels
    kind = "PNG" if is_wide else kind
    encoded = encode(image, kind, exif=exif, **options)
    # As stored: what the camera saw is turned back.
    mask = decode_mask(encoded)
    back = Image.fromarray(pixels)
    back.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(back)) > 0
    np.testing.assert_array_equal(mask, expected)


def flipped(content, place):
    """Changes a byte."""
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def test_what_cannot_be_told_is_refused(encode):
    transparent_white = where((*BLACK, 255), (255, 255, 255, 0))
    with pytest.raises(ValueError, match="contradict its alpha"):
        decode_mask(encode(transparent_white))
    pages = [Image.fromarray(where(255)), Image.fromarray(where(0, 255))]
    several = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"2 pages.*folder"):
        decode_mask(several)
    for content, message in (
        (b"", "is empty"),
        (b"<html>", "not an image"),
        (encode(where(255))[:60], "broken or truncated PNG of 60 bytes"),
        (flipped(encode(where(255)), -20), "broken or .* PNG"),
    ):
        with pytest.raises(ValueError, match=message):
            decode_mask(content)


def test_numbers_of_a_kind_that_is_not_read_are_not_called_broken():
    """Scientific programs write TIFF files of float64, NumPy's default."""
    values, start = np.zeros((9, 9)), 8 + 2 + 9 * 12 + 4
    tags = {256: 9, 257: 9, 258: 64, 259: 1, 262: 1, 273: start, 278: 9}
    tags |= {279: values.nbytes, 339: 3}
    entries = (struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags.items())
    content = (
        b"".join([b"II*\0", struct.pack("<IH", 8, 9), *entries, bytes(4)])
        + values.tobytes()
    )
    for read in (decode_mask, to_decodable):
        with pytest.raises(ValueError, match="values of a kind that is not"):
            read(content)


def test_sizes_that_take_all_memory_are_refused(encode):
    content = bytearray(encode(where(255), "BMP"))
    content[18:26] = struct.pack("<ii", 40_000, 40_000)
    for read in (decode_mask, to_decodable):
        with pytest.raises(ValueError, match="a BMP of 40000 x 40000 pixels"):
            read(bytes(content))


@pytest.mark.parametrize(
    ("mask", "label", "doubt"),
    [
        (TRUTH, 1, ""),
        (~TRUTH, 1, "full"),  # black on white
        (TRUTH | True, 1, "full"),
        (TRUTH & False, 1, "empty"),
        (TRUTH & False, 0, ""),
        (TRUTH, 0, "marked"),
    ],
)
def test_masks_that_can_hardly_be_meant(mask, label, doubt):
    assert find_doubt(mask, label) == doubt


@settings(max_examples=200)
@given(st.data())
def test_damaged_masks_never_crash(encode, data):
    kind = data.draw(st.sampled_from(["PNG", "TIFF", "BMP", "GIF", "JPEG"]))
    content = bytearray(encode(where(255), kind))
    for place, value in data.draw(
        st.lists(
            st.tuples(st.integers(8, len(content) - 1), st.integers(0, 255))
        )
    ):
        content[place] = value
    with contextlib.suppress(ValueError):
        assert decode_mask(bytes(content)).dtype == bool


@settings(max_examples=40)
@given(st.binary(max_size=100))
def test_random_bytes_are_no_masks(content):
    for head in (b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM", b"GIF89a"):
        with pytest.raises(ValueError):
            decode_mask(head + content)


# === Folders of masks ===


def test_masks_in_a_folder_are_merged(tmp_path, write_image):
    first, second = where(255), np.zeros((24, 32), "uint8")
    second[20:, 30:] = 240
    write_image(tmp_path / "000/000.png", first)
    write_image(tmp_path / "000/001.png", second)
    (tmp_path / "000/notes.txt").write_text("none")
    expected = TRUTH | (second > 0)
    np.testing.assert_array_equal(read_mask(str(tmp_path / "000")), expected)
    write_image(tmp_path / "000/002.png", first[1:])
    with pytest.raises(ValueError, match=r"002\.png: 23x32 .* before 24x32"):
        read_mask(str(tmp_path / "000"))
    (tmp_path / "empty").mkdir()
    sample = ImageSample("a.png", 1, "x", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"mask .*empty: .* without a mask"):
        load_mask(sample, (8, 8))


# === Sizes ===


@pytest.mark.parametrize("old", [(512, 512), (7, 700), (1024, 1000), (37, 41)])
@pytest.mark.parametrize("new", [(64, 64), (320, 256), (37, 500), (3, 5)])
def test_nearest_neighbors_are_those_of_tensorflow(old, new):
    rows, columns = np.indices(old)
    # Large regions: every one is met.
    mask = rows / old[0] + columns / old[1] > 1
    pixels = tf.cast(mask, tf.uint8)[..., tf.newaxis]
    expected = tf.image.resize(pixels, new, method="nearest")[..., 0] > 0
    resized, num_kept = resize_mask(mask, new)
    assert num_kept == 0
    np.testing.assert_array_equal(resized, expected)


def test_small_defects_never_vanish():
    mask = np.zeros((512, 512), bool)
    mask[97:99, 301:303] = True  # within one of 64x64 pixels
    mask[199, 10:500] = True  # a scratch between the sampled rows
    mask[255:257, 263] = True  # half in one pixel, half in another
    mask[400:440, 400:440] = True
    resized, num_kept = resize_mask(mask, (64, 64))
    expected = mask[4::8, 4::8].copy()
    assert expected.sum() == 25
    expected[12, 37] = expected[24, 1:63] = True
    expected[31:33, 32] = True
    np.testing.assert_array_equal(resized, expected)
    assert num_kept == 3


@settings(max_examples=50)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_each_region_keeps_a_pixel(seed, old, new):
    mask = np.random.default_rng(seed).random(old) < 0.03
    resized, _ = resize_mask(mask, new)
    assert resized.shape == new
    regions, count = ndimage.label(mask, np.ones((3, 3)))
    kept = np.argwhere(resized)
    for number in range(1, count + 1):
        places = np.argwhere(regions == number)
        # A pixel of the result covers a part of the region, or nearly so
        # where it is enlarged.
        cells = places * new // old
        ends = ((places + 1) * new - 1) // old
        covered = (kept[:, None] >= cells) & (kept[:, None] <= ends)
        assert covered.all(-1).any()
    assert resized.any() == mask.any()
