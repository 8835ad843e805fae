import numpy as np
import pytest
import tensorflow as tf
from batching import dataset_of
from matplotlib import colors
from scipy import ndimage, stats
from skimage import measure

from keras_sspcab.data import random
from keras_sspcab.data.simulation.cutpaste import (
    color_jitter,
    cut_paste,
    cut_paste_scar,
    cutpaste_views,
)

SEEDS = 300


def collect(dataset):
    return [(x.numpy(), y["logits"].numpy()) for x, y in dataset]


def many(function, image, count=SEEDS, **arguments):
    """Results of a function for the seeds 0, 1, ..."""

    @tf.function(autograph=False)
    def run():
        first = random.fold_key(7)
        return tf.map_fn(
            lambda index: function(
                tf.constant(image), random.fold_in(first, index), **arguments
            ),
            tf.range(count),
            fn_output_signature=tf.TensorSpec(image.shape, tf.float32),
        )

    return run().numpy()


def numbered(height, width):
    """An image in which no two pixels are equal."""
    values = np.arange(height * width).reshape(height, width, 1)
    return (values / (height * width)).astype("float32")


def box(mask):
    """Top, left, height and width of what is set."""
    (rows, columns) = ndimage.find_objects(mask.astype(int))[0]
    return (
        rows.start,
        columns.start,
        rows.stop - rows.start,
        columns.stop - columns.start,
    )


# === Colors ===


def jitter_oracle(image, order, draws):
    """Torchvision's definitions, in NumPy."""

    def gray(x):
        return x @ np.array([[0.299], [0.587], [0.114]])

    def turn(x, amount):
        hsv = colors.rgb_to_hsv(x)
        hsv[..., 0] = (hsv[..., 0] + amount) % 1
        return colors.hsv_to_rgb(hsv)

    brightness, contrast, saturation, hue = draws
    changes = [
        lambda x: x * (1 + brightness),
        lambda x: gray(x).mean() * -contrast + x * (1 + contrast),
        lambda x: gray(x) * -saturation + x * (1 + saturation),
        lambda x: turn(x, hue),
    ]
    for index in order:
        image = np.clip(changes[index](image), 0, 1)
    return image


def test_color_jitter_is_that_of_torchvision():
    # With black and white, so that cutting off matters, and the order.
    image = np.random.default_rng(0).random((8, 9, 3))
    image[0], image[1] = 0, 1
    orders = set()
    for number in range(40):
        seed = random.fold_key(number)
        order_seed, draw_seed = random.split(seed, 2)
        order = random.distinct(order_seed, 4, 4).numpy()
        draws = random.uniform(draw_seed, -0.4, 0.4, (4,)).numpy()
        orders.add(tuple(order))
        found = color_jitter(tf.constant(image, tf.float32), seed, 0.4)
        expected = jitter_oracle(image, order, draws)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert len(orders) > 15


def test_gray_jitter_is_brightness_and_contrast():
    image = np.random.default_rng(0).uniform(0.4, 0.6, (32, 40, 1))
    image = image.astype("float32")
    results = many(color_jitter, image, amount=0.1).astype("float64")
    # Both orders of the two give the same where nothing is cut off.
    brightness = results.mean((1, 2, 3)) / image.mean()
    contrast = results.std((1, 2, 3)) / image.std() / brightness
    for factors in (brightness, contrast):
        assert stats.kstest(factors, stats.uniform(0.9, 0.2).cdf)[1] > 1e-3
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.2
    np.testing.assert_allclose(
        results[3],
        brightness[3] * (image.mean() + contrast[3] * (image - image.mean())),
        atol=1e-5,
    )


# === Patches ===


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_patches(size):
    height, width = size
    image = numbered(*size)
    shares, ratios = [], []
    for result in many(cut_paste, image, jitter=0.0):
        moved = np.round((result - image)[..., 0] * height * width)
        if not moved.any():
            continue  # by chance pasted where it was
        top, left, high, wide = box(moved != 0)
        patch = moved[top : top + high, left : left + wide]
        # A rectangle from one other place, which lies in the image as well.
        assert (patch == patch[0, 0]).all()
        down, right = divmod(int(patch[0, 0]) + top * width + left, width)
        assert 0 <= down <= height - high
        assert 0 <= right <= width - wide
        shares.append(high * wide / height / width)
        ratios.append(wide / high)
    assert len(shares) > SEEDS - 5
    # Sides are rounded to whole pixels.
    assert 0.015 < min(shares) < 0.03
    assert 0.13 < max(shares) < 0.165
    assert stats.kstest(shares, stats.uniform(0.02, 0.13).cdf)[1] > 1e-3
    assert 0.24 < min(ratios) < 0.36
    assert 2.8 < max(ratios) < 4.2


def test_patch_is_jittered_and_the_rest_is_not():
    image = np.full((40, 40, 3), 0.5, "float32")
    results = many(cut_paste, image, 50, jitter=0.2)
    changed = [(result != image).any(-1) for result in results]
    assert np.mean([0.015 < mask.mean() < 0.17 for mask in changed]) > 0.9
    values = [
        result[mask][0, 0]
        for result, mask in zip(results, changed, strict=True)
    ]
    assert min(values) >= 0.4 - 1e-6
    assert max(values) <= 0.6 + 1e-6
    assert len(set(values)) > 40


# === Scars ===


@pytest.fixture(scope="module")
def scars():
    """Changed pixels, and the results, of an image of coordinates."""
    rows, columns = np.mgrid[:64, :72]
    noise = np.random.default_rng(0).random((64, 72))
    image = np.stack([rows / 64, columns / 72, noise], -1).astype("float32")
    results = many(cut_paste_scar, image, jitter=0.0)
    changed = np.abs(results - image).max(-1) > 0.02
    return image, results, changed


def test_scars_have_the_shape_of_the_paper(scars):
    _, _, changed = scars
    lengths, widths, angles = [], [], []
    for mask in changed:
        regions = measure.regionprops(measure.label(mask, connectivity=2))
        # Single pixels may happen to be equal.
        region = max(regions, key=lambda region: region.area)
        assert region.area >= 0.9 * mask.sum()
        # Of a rectangle, whose rim counts as a pixel here.
        lengths.append(region.axis_major_length * np.sqrt(12) / 4)
        widths.append(region.axis_minor_length * np.sqrt(12) / 4)
        angles.append(np.degrees(region.orientation))
    assert 9 < min(lengths) < 12
    assert 23 < max(lengths) < 28
    assert min(widths) < 4.5
    assert 14 < max(widths) < 18.5
    # Of nearly square ones the longer side may be the other.
    thin = np.array(lengths) > 1.6 * np.array(widths)
    steep = np.array(angles)[thin]
    assert -49 < min(steep) < -38
    assert 38 < max(steep) < 49
    assert stats.kstest(steep, stats.uniform(-45, 90).cdf)[1] > 1e-3


def test_scars_keep_a_constant_image():
    image = np.full((32, 32, 3), 0.5, "float32")
    results = many(cut_paste_scar, image, 100, jitter=0.0)
    np.testing.assert_allclose(results, 0.5, atol=1e-6)


def test_scars_are_rotated_parts_of_the_image(scars):
    image, results, changed = scars
    tested = 0
    for result, mask in zip(results, changed, strict=True):
        inner = ndimage.binary_erosion(ndimage.binary_closing(mask), None, 2)
        places = np.argwhere(inner)
        sources = result[inner][:, :2] * (64, 72)
        design = np.column_stack([places, np.ones(len(places))])
        if len(places) < 3 or np.linalg.matrix_rank(design) < 3:
            continue  # a line says nothing of what lies across
        fit, *_ = np.linalg.lstsq(design, sources, rcond=None)
        np.testing.assert_allclose(design @ fit, sources, atol=0.02)
        rotation = fit[:2]
        # Neither scaled nor mirrored, and turned by 45 degrees at most.
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(2), atol=0.05)
        assert np.linalg.det(rotation) > 0
        assert rotation[0, 0] > np.cos(np.radians(46))
        tested += 1
    assert tested > 100
    # Without black corners: every value lies between values of the image.
    assert results[..., 2].min() >= image[..., 2].min()


# === Views ===


@pytest.mark.parametrize(
    ("variant", "classes", "channels"),
    [("3way", 3, 3), ("cutpaste", 2, 1), ("scar", 2, 3), ("union", 2, 1)],
)
def test_elements(clean, variant, classes, channels):
    views = cutpaste_views(dataset_of(clean[..., :channels]), variant)
    x, y = views.element_spec
    assert x == tf.TensorSpec((None, 48, 64, channels), tf.float32)
    assert list(y) == ["logits"]
    assert y["logits"].dtype == tf.int32
    assert views.cardinality() == 3
    for (images, labels), count in zip(collect(views), (2, 2, 1), strict=True):
        assert len(images) == count * classes
        expected = np.repeat(range(classes), count)
        np.testing.assert_array_equal(labels, expected)
        assert 0 <= images.min() <= images.max() <= 1


def test_views_of_an_image_share_their_colors(clean):
    ((images, _),) = collect(cutpaste_views(dataset_of(clean, 5)))
    normal, patch, scar = images.reshape(3, 5, 48, 64, 3)
    assert (np.abs(normal - clean).mean((1, 2, 3)) > 1e-3).all()
    changed = (np.abs(patch - normal).max(-1) > 0).mean((1, 2))
    assert (changed > 0.01).all()
    assert (changed < 0.2).all()
    changed = (np.abs(scar - normal).max(-1) > 0).sum((1, 2))
    assert (changed > 15).all()
    assert (changed < 18 * 27).all()


def test_variants(clean):
    def second_views(variant):
        data = dataset_of(np.repeat(clean, 4, 0), 20)
        ((images, _),) = collect(cutpaste_views(data, variant))
        return images[20:40]

    patches, scars, either = map(second_views, ("cutpaste", "scar", "union"))
    is_patch = (either == patches).all((1, 2, 3))
    is_scar = (either == scars).all((1, 2, 3))
    np.testing.assert_array_equal(is_patch, ~is_scar)
    assert 3 < is_patch.sum() < 17


def test_translation_mirrors_the_border(clean):
    image = clean[:1]
    data = dataset_of(np.repeat(image, 40, 0), 40)
    ((images, _),) = collect(
        cutpaste_views(data, "scar", jitter=0.0, translation=0.1)
    )
    padded = np.pad(image[0], ((4, 4), (6, 6), (0, 0)), "reflect")
    shifts = []
    for view in images[:40]:
        shifts += [
            (down, right)
            for down in range(9)
            for right in range(13)
            if np.array_equal(
                padded[down : down + 48, right : right + 64], view
            )
        ]
    assert len(shifts) == 40
    downs, rights = zip(*shifts, strict=True)
    assert min(downs) <= 1
    assert max(downs) >= 7
    assert min(rights) <= 1
    assert max(rights) >= 11
