import io

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.report import gallery, overlay


def decode(content):
    return Image.open(io.BytesIO(content))


def test_the_page_shows_what_overlay_draws():
    heat = np.linspace(-3, 15, 64, dtype="float32").reshape(8, 8)
    layer = np.asarray(
        decode(gallery.encode_heat(heat, 10.0, 320)).convert("RGBA")
    ).astype(float)
    image = np.full((8, 8, 3), [10, 20, 200], "uint8")
    opacity = layer[..., 3:] / 255
    composed = opacity * layer[..., :3] + (1 - opacity) * image
    expected = overlay(image, heat, 10.0, alpha=1.0)
    # The page has 64 of the 256 steps.
    np.testing.assert_allclose(composed, expected, atol=8)


def test_photos_are_shrunk(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((300, 900, 3), "uint8")).save(path)
    photo = gallery.load_photo(str(path), 320)
    assert photo.size == (320, 107)
    assert decode(gallery.encode_photo(photo)).size == (320, 107)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.full((4, 4), 0xAB12, "uint16"), (0xAB, 0xAB, 0xAB)),
        (np.full((4, 4), 77, "uint8"), (77, 77, 77)),
        (np.full((4, 4, 3), [1, 2, 3], "uint8"), (1, 2, 3)),
        (np.full((4, 4, 4), [1, 2, 3, 0], "uint8"), (1, 2, 3)),
    ],
    ids=["gray16", "gray", "rgb", "rgba"],
)
def test_all_kinds_of_images_are_read(tmp_path, pixels, expected):
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    assert gallery.load_photo(str(path)).getpixel((1, 1)) == expected


def test_masks_are_those_that_are_measured(tmp_path):
    for i in range(2):
        # Identities in 16 bits, in a folder of masks.
        mask = np.zeros((4, 4), "uint16")
        mask[i, i] = 1 + i
        Image.fromarray(mask).save(tmp_path / f"{i}.png")
    merged = gallery.load_mask(str(tmp_path), (4, 4))
    assert np.argwhere(merged).tolist() == [[0, 0], [1, 1]]


def test_what_cannot_be_read_is_none(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    for path in (broken, tmp_path / "gone.png", tmp_path):
        assert gallery.load_photo(str(path)) is None
        assert gallery.load_mask(str(path), (4, 4)) is None


def test_outline_runs_around_the_mask_also_at_the_border():
    mask = np.zeros((10, 12), bool)
    mask[0:4, 2:6] = True
    path = gallery.draw_outline(mask)
    assert path.count("M") == 1
    numbers = np.array(
        path.strip("MZ").replace("L", " ").split(), dtype=float
    ).reshape(-1, 2)
    # From pixel edge to pixel edge, with the corners cut.
    np.testing.assert_allclose(numbers.min(axis=0), [2, 0])
    np.testing.assert_allclose(numbers.max(axis=0), [6, 4])
