"""Images are aligned with a reference, or left alone."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.layers import ImageRegistration, RigidResampling

SIZE = (96, 128)


def pose(degrees, right, down):
    """A transform about the center, as a 3 x 3 matrix."""
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
    center = np.array([(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2])
    matrix[:2, 2] = np.add(center, [right, down]) - matrix[:2, :2] @ center
    return matrix


def draw(matrix, seed=0):
    """A smooth part with one long and one short arm, which lies in a pose."""
    y, x = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    places = np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
    u, v = (np.linalg.inv(matrix) @ places)[:2]
    u, v = u - (SIZE[1] - 1) / 2, v - (SIZE[0] - 1) / 2

    def box(left, right, top, bottom):
        inside = np.minimum(
            np.minimum(u - left, right - u), np.minimum(v - top, bottom - v)
        )
        return 1 / (1 + np.exp(-2 * inside))

    part = np.maximum(box(-30, 25, -6, 6), box(10, 22, -6, 24))
    noise = np.random.default_rng(seed).normal(0, 0.02, SIZE)
    gray = 0.7 - 0.5 * part.reshape(SIZE) + noise
    return np.repeat(gray[..., None], 3, axis=-1).astype("float32")


def random_poses(count, seed, degrees=180, pixels=9):
    rng = np.random.default_rng(seed)
    return [
        pose(rng.uniform(-degrees, degrees), *rng.uniform(-pixels, pixels, 2))
        for _ in range(count)
    ]


def call(layer, images):
    outputs = layer(np.asarray(images))
    return {key: ops.convert_to_numpy(x) for key, x in outputs.items()}


def full(transforms):
    last = np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(transforms), 1, 3))
    return np.concatenate([transforms, last], axis=1)


@pytest.fixture(scope="module")
def parts():
    poses = random_poses(10, seed=1)
    return np.stack([draw(matrix, i) for i, matrix in enumerate(poses)])


@pytest.fixture(scope="module")
def fitted(parts):
    layer = ImageRegistration(working_size=64)
    gain = layer.fit([parts[:6], (parts[6:], None)])
    return layer, gain


def test_all_are_aligned_with_one_pose(fitted):
    layer, gain = fitted
    assert gain.is_significant
    assert max(gain.before, gain.chance) < 0.5
    assert gain.after > 0.9
    poses = random_poses(6, seed=2)
    images = [draw(matrix, 50 + i) for i, matrix in enumerate(poses)]
    outputs = call(layer, images)
    # How the part lies in the aligned image.
    found = np.linalg.inv(full(outputs["transforms"])) @ np.stack(poses)
    corners = np.array([[30, 30, 1], [30, 70, 1], [90, 30, 1], [90, 70, 1]]).T
    places = (found @ corners)[:, :2]
    middle = np.median(places, axis=0)
    assert np.abs(places - middle).max() < 0.2
    aligned = outputs["images"][:, 24:72, 32:96]
    assert np.abs(aligned - aligned.mean(0)).mean() < 0.03
    assert (outputs["quality"] > 0.9).all()


def test_reference_gives_place_and_angle(parts):
    layer = ImageRegistration(working_size=64)
    layer.fit(parts, reference=parts[3])
    transforms = call(layer, parts[3:4])["transforms"]
    np.testing.assert_allclose(transforms[0, :, :2], np.eye(2), atol=0.01)
    center = np.array([63.5, 47.5, 1])
    assert np.abs(transforms[0] @ center - center[:2]).max() < 0.5


@pytest.mark.parametrize("max_angle", [0, 10])
def test_small_movements(max_angle):
    poses = random_poses(6, seed=3, degrees=max_angle, pixels=6)
    images = np.stack([draw(matrix, i) for i, matrix in enumerate(poses)])
    layer = ImageRegistration(max_angle, max_shift=0.15, working_size=64)
    layer.fit(images)
    outputs = call(layer, images)
    angles = outputs["transforms"][:, 1, 0]
    assert (np.abs(np.rad2deg(angles)) <= 2 * max_angle).all()
    assert (outputs["quality"] > 0.9).all()


def test_images_without_structure_are_left_alone():
    images = np.random.default_rng(0).random((6, 40, 56, 1), "float32")
    layer = ImageRegistration(working_size=32)
    assert not layer.fit(images).is_significant
    outputs = call(layer, images)
    np.testing.assert_array_equal(outputs["images"], images)
    identity = np.broadcast_to(np.eye(3)[:2], (6, 2, 3))
    np.testing.assert_array_equal(outputs["transforms"], identity)


def test_images_that_show_something_else_are_told(fitted, parts):
    layer, _ = fitted
    noise = np.random.default_rng(0).random((*SIZE, 3), "float32")
    images = np.stack([parts[0], noise, np.zeros_like(noise)])
    outputs = call(layer, images)
    assert outputs["quality"][0] > 0.9 > 0.5 > outputs["quality"][1:].max()
    np.testing.assert_array_equal(outputs["images"][1:], images[1:])


def test_brightness_and_contrast_do_not_matter(fitted, parts):
    layer, _ = fitted
    expected = call(layer, parts[:2])
    found = call(layer, 10 + 100 * parts[:2])
    np.testing.assert_allclose(
        found["transforms"], expected["transforms"], atol=0.02
    )


def test_maps_are_moved_back(fitted, parts):
    layer, _ = fitted
    outputs = layer(parts)
    move_back = RigidResampling(inverse=True, fill_value=0.0)
    back = ops.convert_to_numpy(
        move_back(outputs["images"], outputs["transforms"])
    )
    is_seen = back > 0
    assert is_seen.mean() > 0.7
    assert np.abs(back - parts)[is_seen].mean() < 0.02


def test_before_it_is_fitted(parts):
    outputs = call(ImageRegistration(working_size=32), parts)
    np.testing.assert_array_equal(outputs["images"], parts)


def test_one_image_is_enough(parts):
    layer = ImageRegistration(working_size=64)
    assert layer.fit(parts[:1]).is_significant
    assert (call(layer, parts)["quality"] > 0.8).all()


def test_it_is_saved(fitted, parts, tmp_path):
    layer, _ = fitted
    image = keras.Input((*SIZE, 3))
    model = keras.Model(image, layer(image))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.trainable_weights == []
    result = loaded.predict(parts, verbose=0)
    for name, expected in call(layer, parts).items():
        np.testing.assert_allclose(result[name], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "Received: none"),
        (np.zeros((0, 96, 128, 3)), "Received: none"),
        (np.full((1, 96, 128, 3), np.nan), "NaN"),
        (np.zeros((1, 64, 64, 3)), r"96 x 128 pixels.*\(1, 64, 64, 3\)"),
    ],
)
def test_bad_data(data, message):
    layer = ImageRegistration(working_size=16)
    layer.build((None, *SIZE, 3))
    with pytest.raises(ValueError, match=message):
        layer.fit(data)
