import numpy as np
import pytest

from keras_sspcab.variants import ImageVariants, shifted_copies


def batch(height=6, width=6):
    return np.random.default_rng(0).random((2, height, width, 3), "float32")


def distinct(images):
    return len({image.tobytes() for image in images})


@pytest.mark.parametrize(
    ("names", "width", "count"),
    [
        ((), 6, 1),
        (("flip",), 6, 2),
        (("rotate",), 6, 4),
        (("rotate", "flip"), 6, 8),
        # Not square.
        (("rotate",), 8, 2),
        (("rotate", "flip"), 8, 4),
    ],
)
def test_symmetric_variants_are_the_whole_group(names, width, count):
    x = batch(6, width)
    views = ImageVariants(names).symmetric_of(x)
    np.testing.assert_array_equal(views[0], x)
    assert all(view.shape == x.shape for view in views)
    assert distinct(np.stack(views)[:, 0]) == count == len(views)
    # What is done to a variant gives a variant.
    again = ImageVariants(names).symmetric_of(views[-1])
    assert distinct(np.stack([*views, *again])[:, 1]) == count


def test_squares_of_stretched_images_are_turned_by_180_degrees():
    x = batch()
    _, turned = ImageVariants(("rotate",), quarter_turns=False).symmetric_of(x)
    np.testing.assert_array_equal(turned, x[:, ::-1, ::-1])


def test_brightness_stays_in_range():
    x = batch()
    same, darker, brighter = ImageVariants(brightness=0.5).of(x)
    np.testing.assert_array_equal(same, x)
    np.testing.assert_allclose(darker, x / 2)
    np.testing.assert_allclose(brighter, np.minimum(1.5 * x, 1))
    assert len(list(ImageVariants(("flip",), 0.1).of(x))) == 6


def test_shifted_copies():
    image = batch(20, 30)[0]
    copies = shifted_copies(image)
    assert copies.shape == (8, 20, 30, 3)
    assert distinct([*copies, image]) == 9
    # Two rows down, and three columns to the right.
    np.testing.assert_array_equal(copies[0][2:, 3:], image[:-2, :-3])
    # What comes in has gone out, mirrored.
    np.testing.assert_array_equal(copies[0][1, 3:], image[0, :-3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"symmetric": ("shear",)}, "'shear'"),
        ({"brightness": 1.0}, "below 1"),
        ({"brightness": -0.1}, "at least 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImageVariants(**arguments)
