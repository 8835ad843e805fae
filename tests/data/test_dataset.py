import keras
import numpy as np
import pytest
import tensorflow as tf
from batching import VARIANTS, assert_same, batches, make, order

from keras_sspcab.data import (
    ImageSample,
    batch_array,
    decode_and_resize,
)

# === Contents ===


@pytest.mark.parametrize(("size", "channels"), [((7, 9), 1), ((24, 30), 3)])
def test_pixels_are_those_of_serving(tmp_path, color, encode, size, channels):
    serve = tf.function(lambda e: decode_and_resize(e, size, channels))
    encoded = [encode(color, kind) for kind in ("PNG", "JPEG", "BMP")]
    samples = []
    for i, content in enumerate(encoded):
        (tmp_path / str(i)).write_bytes(content)
        samples.append(ImageSample(str(tmp_path / str(i))))
    for caching in (False, True):
        (found,) = batches(
            samples, image_size=size, channels=channels, cache=caching
        )
        for image, content in zip(found, encoded, strict=True):
            served = serve(tf.constant(content))
            np.testing.assert_array_equal(image, served)


def test_batches_and_cardinality(samples):
    assert len(make(samples, batch_size=4)) == 3
    assert len(make(samples, batch_size=11)) == 1
    assert len(make(samples, batch_size=4, epochs=5)) == 15
    patched = make(samples, batch_size=4, patch_size=3, patches_per_image=2)
    assert len(patched) == len(list(patched)) == 6


# === Order ===


def test_order_follows_from_seed_and_epoch(samples):
    def shuffled(seed, epoch):
        return order(samples, shuffle=True, seed=seed, epoch=epoch, cache=True)

    first = shuffled(5, 2)
    assert shuffled(5, 2) == first
    assert first not in (shuffled(5, 3), shuffled(6, 2), shuffled(2, 5))


def test_order_is_the_same_in_every_version(samples):
    # What TensorFlow 2.16 and 2.21 give: training must resume with another.
    expected = [1, 9, 5, 0, 2, 10, 6, 7, 3, 4, 8]
    assert order(samples, shuffle=True) == expected
    assert order(samples, shuffle=True, seed=2**40) != expected


def test_epochs_are_chained(samples):
    options = {"shuffle": True, "batch_size": 4, "patch_size": 5}
    chained = batches(samples, epoch=3, epochs=3, **options)
    single = [
        batch
        for epoch in (3, 4, 5)
        for batch in batches(samples, epoch=epoch, **options)
    ]
    assert_same(chained, single)


# === Patches and flips ===


@pytest.mark.parametrize(
    ("variant", "caching"),
    [
        (VARIANTS[3], False),
        (VARIANTS[4], True),
        (VARIANTS[2], "disk"),
    ],
)
def test_skipping_gives_the_tail(textured, tmp_path, variant, caching):
    caching = tmp_path / "cache" if caching == "disk" else caching
    variant = {**variant, "batch_size": 2, "cache": caching, "epochs": 2}
    whole = batches(textured, **variant)
    dataset = make(textured, **variant)
    for count in (1, 5):
        tail = [batch.numpy() for batch in dataset.skip(count)]
        assert_same(tail, whole[count:])


def test_patches_are_parts_of_their_image(textured):
    (images,) = batches(textured)
    (patches,) = batches(
        textured, batch_size=99, patch_size=(3, 5), patches_per_image=4
    )
    assert patches.shape == (28, 3, 5, 1)
    places = set()
    for i, patch in enumerate(patches):
        windows = np.lib.stride_tricks.sliding_window_view(
            images[i // 4, ..., 0], (3, 5)
        )
        matches = np.argwhere((windows == patch[..., 0]).all((2, 3)))
        assert len(matches) == 1
        places.add(tuple(matches[0]))
    assert len(places) > 14
    options = {"patch_size": (3, 5), "batch_size": 99}
    first, again, *others = (
        batches(textured, **options, epoch=epoch, seed=seed)[0]
        for epoch, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    np.testing.assert_array_equal(first, again)
    assert all((other != first).any() for other in others)


def test_patches_reach_every_place(tmp_path, write_image):
    pixels = np.arange(16, dtype="uint8").reshape(4, 4)
    sample = ImageSample(write_image(tmp_path / "small.png", pixels))
    options = {"patch_size": 2, "patches_per_image": 300, "batch_size": 300}
    (patches,) = batches([sample], image_size=(4, 4), **options)
    corners = np.round(patches[:, 0, 0, 0] * 255).astype(int)
    counts = np.bincount(corners, minlength=16).reshape(4, 4)
    assert (counts[:3, :3] > 10).all()
    assert counts[3].sum() == counts[:, 3].sum() == 0


def test_shuffled_batches_hold_patches_of_different_images(samples):
    patched = {"patch_size": 4, "patches_per_image": 3, "batch_size": 4}
    found = batches(samples, shuffle=True, **patched)
    owners = [np.unique(b[:, 0, 0, 0]) for b in found[:6]]
    # Two groups of four images give three batches each.
    assert [len(o) for o in owners] == [4] * 6
    everything = np.concatenate(found)[:, 0, 0, 0]
    _, counts = np.unique(everything, return_counts=True)
    assert counts.tolist() == [3] * 11


@pytest.mark.parametrize(("step", "kinds"), [(90, 4), (180, 2)])
def test_images_are_rotated_by_each_angle_alike(textured, step, kinds):
    (original,) = batches(textured, image_size=8)
    turns = range(0, 360 // 90, step // 90)
    expected = np.stack([np.rot90(original, turn, (1, 2)) for turn in turns])
    counts = np.zeros(kinds, int)
    for found in batches(textured, image_size=8, rotate=step, epochs=20):
        same = (found == expected).all(axis=(2, 3, 4))
        assert (same.sum(axis=0) == 1).all()
        counts += same.sum(axis=1)
    assert counts.min() > 0.6 * counts.mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotate": 45}, "must be 0, 90 or 180 degrees. Received: rotate=45"),
        ({"rotate": True}, "Received: rotate=True"),
        ({"rotate": 90}, "must be square. Received: 12x10"),
        ({"rotate": 90, "patch_size": (4, 5)}, "must be square. Received: 4x5"),
    ],
)
def test_rotations_that_images_do_not_take(textured, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(textured, **arguments)
    # Square patches do, and so does half a turn.
    make(textured, rotate=90, patch_size=4)
    make(textured, rotate=180)


def test_flips_mirror_about_half(textured):
    (images,) = batches(textured)
    flipped = 0
    for found in batches(textured, flip=True, epochs=20):
        for before, after in zip(images, found, strict=True):
            is_same = np.array_equal(before, after)
            assert is_same or np.array_equal(before[:, ::-1], after)
            flipped += not is_same
    # 140 tosses of a coin: 70 expected, five standard deviations are 30.
    assert 40 < flipped < 100


# === Arrays ===


def test_arrays():
    array = np.arange(28.0).reshape(7, 2, 2, 1)
    found = [batch.numpy() for batch in batch_array(array, 3)]
    assert [len(batch) for batch in found] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(found), array)

    def shuffled():
        keras.utils.set_random_seed(1)
        dataset = batch_array(array, 7, shuffle=True).repeat(2)
        return [batch.numpy() for batch in dataset]

    first, second = shuffled()
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, shuffled()[0])
    np.testing.assert_array_equal(np.sort(first, axis=0), array)
    with pytest.raises(ValueError, match=r"an array of shape \(0, 2, 2, 1\)"):
        batch_array(array[:0])
    with pytest.raises(ValueError, match="batch_size=0"):
        batch_array(array, 0)


# === Mistakes, other file systems ===


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": []}, "no images"),
        ({"samples": [ImageSample("no://a.png")]}, "known for no://"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"image_size": (0, 4)}, "height=0|image_size"),
        ({"channels": 2}, "channels=2"),
        ({"epochs": 0}, "epochs=0"),
        ({"patch_size": (13, 4)}, r"patch_size=\(13, 4\), image_size"),
        ({"patches_per_image": 2}, "patches_per_image=2, patch_size=None"),
    ],
)
def test_arguments_are_checked(samples, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**{"samples": samples, **arguments})
