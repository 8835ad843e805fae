import hashlib
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from skimage import color

from keras_sspcab.data import write_texture_folder
from keras_sspcab.data.simulation import (
    EmbeddedTextures,
    TextureSource,
    simulate_anomalies,
    simulate_anomaly,
)
from keras_sspcab.data.simulation.anomaly import make_simulation


def dataset_of(images, batch_size=2):
    return tf.data.Dataset.from_tensor_slices(images).batch(batch_size)


def collect(dataset):
    """Returns augmented images, clean ones and masks of all batches."""
    parts = [
        (x.numpy(), y["reconstruction"].numpy(), y["segmentation"].numpy())
        for x, y in dataset
    ]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def simulate(images, batch_size=8, **arguments):
    return collect(
        simulate_anomalies(dataset_of(images, batch_size), **arguments)
    )


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def many():
    """300 small images of noise."""
    rng = np.random.default_rng(2)
    return rng.uniform(0.1, 0.9, (300, 32, 32, 3)).astype("float32")


# === Elements ===


@pytest.mark.parametrize("channels", [1, 3])
def test_elements(clean, channels):
    dataset = dataset_of(clean[..., :channels])
    simulated = simulate_anomalies(dataset, anomaly_probability=1.0)
    image = tf.TensorSpec((None, 48, 64, channels), tf.float32)
    mask = tf.TensorSpec((None, 48, 64), tf.float32)
    assert simulated.element_spec == (
        image,
        {"reconstruction": image, "segmentation": mask},
    )


def test_static_batches_stay_static(clean):
    dataset = dataset_of(clean).repeat().unbatch().batch(4, True)
    x, y = simulate_anomalies(dataset).element_spec
    assert x.shape == y["reconstruction"].shape == (4, 48, 64, 3)
    assert y["segmentation"].shape == (4, 48, 64)


def test_nothing_changes_outside_of_the_mask(many):
    augmented, target, mask = simulate(many, anomaly_probability=1.0)
    assert set(np.unique(mask)) == {0.0, 1.0}
    outside = mask == 0
    np.testing.assert_array_equal(augmented[outside], target[outside])
    inside = mask == 1
    differs = (augmented != target).any(-1)
    assert differs[inside].mean() > 0.98
    assert augmented.min() >= 0.0
    assert augmented.max() <= 1.0
    assert np.ptp(augmented, axis=-1)[inside].mean() > 0.1
    assert len(np.unique(mask.reshape(300, -1), axis=0)) > 250


def test_shares(many):
    augmented, target, mask = simulate(many)
    anomalous = mask.any((1, 2))
    assert 0.4 < anomalous.mean() < 0.55
    np.testing.assert_array_equal(augmented[~anomalous], target[~anomalous])
    rotated = (target != many).any((1, 2, 3))
    assert 0.2 < rotated.mean() < 0.4
    # Rotation and anomaly are independent.
    assert abs(np.corrcoef(rotated, anomalous)[0, 1]) < 0.2


def test_impossible(many):
    images = tf.cast(many[:40], tf.float16)
    augmented, target, mask = simulate(
        images, anomaly_probability=0.0, rotation_probability=0.0
    )
    assert not mask.any()
    assert all(part.dtype == np.float32 for part in (augmented, target, mask))
    expected = tf.cast(images, tf.float32)
    assert_same((augmented, target), (expected, expected))


def test_certain():
    # The corners of a turned white image are black.
    white = np.ones((200, 32, 32, 1), "float32")
    arguments = {"anomaly_probability": 1.0, "rotation_probability": 1.0}
    _, target, mask = simulate(white, **arguments)
    assert mask.any((1, 2)).mean() > 0.8
    black = (target == 0).mean((1, 2, 3))
    assert black.min() < 0.01
    assert 0.13 < black.max() < 1.5 - np.sqrt(2) + 0.09
    _, target, _ = simulate(white, max_rotation=5.0, **arguments)
    assert 0.01 < (target == 0).mean((1, 2, 3)).max() < 0.05


def test_opacities_are_uniform():
    arguments = {
        "textures": EmbeddedTextures(batch_share=0.0),
        "anomaly_probability": 1.0,
        "rotation_probability": 0.0,
    }
    shape = (300, 32, 32, 1)
    black, _, mask = simulate(np.zeros(shape, "float32"), **arguments)
    white, _, other_mask = simulate(np.ones(shape, "float32"), **arguments)
    np.testing.assert_array_equal(mask, other_mask)

    def opacities(black, white):
        shows = [
            (w - b)[m == 1]
            for b, w, m in zip(black, white, mask, strict=True)
            if m.any()
        ]
        for values in shows:
            np.testing.assert_allclose(values, values.mean(), atol=1e-6)
        return 1 - np.array([values.mean() for values in shows])

    found = opacities(black[..., 0], white[..., 0])
    assert 0.2 <= found.min() < 0.23
    assert 0.97 < found.max() <= 1.0
    assert abs(found.mean() - 0.6) < 0.04


class Red(TextureSource):
    """A texture that augmentation cannot hide: it is the same everywhere."""

    def draw(self, images, index, seed):
        color = tf.constant([200.0, 40.0, 10.0])
        return tf.ones_like(images[0, ..., :1]) * color


def test_own_textures_and_gray(many):
    arguments = {"anomaly_probability": 1.0, "rotation_probability": 0.0}
    rgb = simulate(many, textures=Red(), opacity=1.0, **arguments)
    gray = many[..., :1]
    found = simulate(gray, textures=Red(), opacity=1.0, **arguments)
    np.testing.assert_array_equal(found[2], rgb[2])
    inside = found[2] == 1
    np.testing.assert_array_equal(found[0][~inside], gray[~inside])
    # Changed in color, then turned to gray; scikit-image has other weights.
    expected = rgb[0][inside] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(found[0][inside][..., 0], expected, atol=1e-5)
    other = color.rgb2gray(rgb[0][inside])
    assert np.corrcoef(found[0][inside][..., 0], other)[0, 1] > 0.9


def test_folders_of_textures(tmp_path, clean, pictures):
    Image.fromarray(pictures["noise"]).save(tmp_path / "noise.png")
    augmented, target, mask = simulate(
        clean, textures=tmp_path, anomaly_probability=1.0
    )
    changed = (augmented != target).any((1, 2, 3))
    np.testing.assert_array_equal(changed, mask.any((1, 2)))
    assert mask.any()
    source = make_simulation(tmp_path).textures
    assert source.paths == (str(tmp_path / "noise.png"),)


# === Randomness ===


def test_the_same_seed_gives_the_same_but_each_iteration_is_new(clean):
    simulated = simulate_anomalies(dataset_of(clean), seed=3)
    first, second = collect(simulated), collect(simulated)
    assert (first[2] != second[2]).any()
    keras.utils.set_random_seed(5)
    tf.random.uniform((3,))
    again = simulate_anomalies(dataset_of(clean), seed=3)
    assert_same(collect(again), first)
    assert_same(collect(again), second)
    other = simulate(clean, batch_size=2, seed=4)
    assert (first[2] != other[2]).any()


def test_resuming(many):
    def simulated():
        return simulate_anomalies(dataset_of(many[:19], 3), seed=1)

    whole = collect(simulated())
    rest = collect(simulated().skip(4))
    assert_same(rest, [part[12:] for part in whole])


_PROGRAM = """
import hashlib, sys
import keras
import numpy as np
import tensorflow as tf
from keras_sspcab.data.simulation import simulate_anomalies

keras.utils.set_random_seed(17)
tf.random.uniform((3,))
list(tf.data.Dataset.random(seed=2).take(3))
images = np.linspace(0, 1, 4 * 32 * 32 * 3).reshape(4, 32, 32, 3)
dataset = tf.data.Dataset.from_tensor_slices(images.astype("float32")).batch(2)
digest = hashlib.sha256()
for x, y in simulate_anomalies(dataset, seed=8, anomaly_probability=1.0):
    digest.update(x.numpy().tobytes() + y["segmentation"].numpy().tobytes())
print(digest.hexdigest())
"""


def test_another_process_gives_the_same():
    images = np.linspace(0, 1, 4 * 32 * 32 * 3).reshape(4, 32, 32, 3)
    digest = hashlib.sha256()
    dataset = dataset_of(images.astype("float32"))
    for x, y in simulate_anomalies(dataset, seed=8, anomaly_probability=1.0):
        digest.update(x.numpy().tobytes() + y["segmentation"].numpy().tobytes())
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert output.split()[-1] == digest.hexdigest()


# === Kinds of datasets ===


def test_cardinality_is_kept(clean):
    finite = dataset_of(clean)
    cases = (finite, finite.repeat(), finite.filter(lambda x: True))
    found = [int(simulate_anomalies(d, Red()).cardinality()) for d in cases]
    unknown, infinite = (
        tf.data.experimental.UNKNOWN_CARDINALITY,
        tf.data.experimental.INFINITE_CARDINALITY,
    )
    assert found == [3, infinite, unknown]
    assert len(collect(simulate_anomalies(cases[2], Red()))[0]) == 5


def test_sizes_may_be_dynamic(clean):
    rng = np.random.default_rng(0)
    batches = [clean]
    for size in ((33, 40), (64, 32)):
        batches.append(rng.random((2, *size, 3), "float32"))
    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=spec
    )
    simulated = simulate_anomalies(dataset, anomaly_probability=1.0)
    assert simulated.element_spec[0].shape.as_list() == [None, None, None, 3]
    found = [(x, *y.values()) for x, y in simulated]
    for parts, batch in zip(found, batches, strict=True):
        assert parts[0].shape == parts[1].shape == batch.shape
        assert parts[2].shape == batch.shape[:3]
    static = simulate(clean, batch_size=5, anomaly_probability=1.0)
    for a, b in zip(found[0], static, strict=True):
        assert (abs(a - b) > 2 / 255).numpy().mean() < 1e-3


def test_small_images_are_found_when_run():
    def generate():
        yield np.zeros((2, 31, 64, 3), "float32")

    spec = tf.TensorSpec((None, None, None, 3), tf.float32)
    dataset = tf.data.Dataset.from_generator(generate, output_signature=spec)
    simulated = simulate_anomalies(dataset, Red())
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 32 x"):
        collect(simulated)


def test_distribution(clean):
    devices = [d.name for d in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(devices)
    simulated = simulate_anomalies(dataset_of(clean, 4), seed=3)
    parts = strategy.experimental_distribute_dataset(simulated)
    images = np.concatenate(
        [
            replica.numpy()
            for x, _ in parts
            for replica in strategy.experimental_local_results(x)
        ]
    )
    assert images.shape == clean.shape
    expected = simulate(clean, batch_size=4, seed=3)[0]
    np.testing.assert_array_equal(images, expected)


# === Errors ===


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 40, 3), "must have the shape .batch, height"),
        ((2, 40, 40, 2), "must have 1 .gray. or 3"),
        ((2, 31, 40, 3), "at least 32 x 32 pixels"),
        ((2, 40, 16, 3), "at least 32 x 32 pixels"),
    ],
)
def test_wrong_shapes(shape, message):
    dataset = tf.data.Dataset.from_tensors(np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match=f"{message}.*Received: shape"):
        simulate_anomalies(dataset)
    if len(shape) == 4:
        with pytest.raises(ValueError, match=f"{message}.*Received: shape"):
            simulate_anomaly(np.zeros(shape[1:], "float32"), seed=0)


def test_wrong_elements(clean):
    with pytest.raises(ValueError, match=r"tf\.data\.Dataset\. Received"):
        simulate_anomalies(clean)
    pairs = dataset_of(clean).map(lambda x: (x, x))
    with pytest.raises(ValueError, match="batches of images and nothing else"):
        simulate_anomalies(pairs)
    whole = tf.data.Dataset.from_tensors(np.zeros((2, 32, 32, 3), "uint8"))
    with pytest.raises(ValueError, match=r"floating point.*uint8"):
        simulate_anomalies(whole)
    with pytest.raises(ValueError, match=r"\(height, width, channels\)"):
        simulate_anomaly(clean, seed=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("anomaly_probability", 1.5),
        ("anomaly_probability", None),
        ("rotation_probability", -0.1),
        ("max_rotation", 200),
        ("threshold", 2),
        ("opacity", (0.5, 0.2)),
        ("opacity", (0.1, 1.2)),
        ("opacity", "x"),
        ("seed", -1),
        ("seed", 0.5),
        ("textures", 3),
    ],
)
def test_wrong_arguments(clean, name, value):
    with pytest.raises(ValueError, match=rf"`{name}` argument.*{name}="):
        simulate_anomalies(dataset_of(clean), **{name: value})


# === A single image ===


def test_single_images(clean):
    image, mask = simulate_anomaly(clean[0], seed=2)
    assert image.shape == (48, 64, 3)
    assert mask.shape == (48, 64)
    again = simulate_anomaly(clean[0].astype("float64"), seed=2)
    assert_same((image, mask), again)
    outside = mask.numpy() == 0
    np.testing.assert_array_equal(image.numpy()[outside], clean[0][outside])
    masks = [simulate_anomaly(clean[0], s, Red())[1].numpy() for s in range(20)]
    assert sum(m.any() for m in masks) > 14
    high = [
        simulate_anomaly(clean[0], s, Red(), threshold=0.8)[1].numpy()
        for s in range(20)
    ]
    assert all(np.all(h <= m) for h, m in zip(high, masks, strict=True))
    assert np.sum(high) < np.sum(masks)


def test_demo_data(tmp_path):
    folder = write_texture_folder(
        tmp_path / "brick", num_train=1, num_test_good=1, num_test_defective=0
    )
    pixels = np.asarray(Image.open(folder.train[0].path))[..., None] / 255
    textures = EmbeddedTextures(exclude=("brick", "grass", "gravel"))
    image, mask = simulate_anomaly(pixels, 1, textures)
    assert image.shape == (128, 128, 1)
    assert mask.numpy().any()
