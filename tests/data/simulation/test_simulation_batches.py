"""What all simulations have in common: their batches, seeds and errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from batching import Red, dataset_of

from keras_sspcab.data import random
from keras_sspcab.data.simulation import (
    cutpaste_views,
    simulate_anomalies,
)
from keras_sspcab.data.simulation.batches import map_with_seeds


def draem(dataset, **arguments):
    return simulate_anomalies(
        dataset, Red(), anomaly_probability=1, **arguments
    )


def cutpaste(dataset, **arguments):
    return cutpaste_views(dataset, "cutpaste", **arguments)


both = pytest.mark.parametrize("simulate", [draem, cutpaste])


def open_sizes(*batches):
    """A dataset of batches whose sizes are not known before."""
    return tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=tf.TensorSpec((None, None, None, 3), tf.float32),
    )


def collect(dataset):
    """Returns the arrays of each batch."""
    return [[part.numpy() for part in (x, *y.values())] for x, y in dataset]


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        for part, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(part, other)


# === Randomness ===


def seeds_of(dataset, seed):
    """The seeds that the batches of a dataset are simulated with."""
    return map_with_seeds(dataset, lambda images, own: own, seed)


def values(dataset):
    return [tuple(value.numpy().tolist()) for value in dataset]


def test_batches_have_seeds_of_their_own_and_so_has_each_iteration(clean):
    seeds = seeds_of(dataset_of(clean), 8)
    first, second = values(seeds), values(seeds)
    assert len({*first, *second}) == 6
    keras.utils.set_random_seed(5)
    tf.random.uniform((3,))
    again = seeds_of(dataset_of(clean), 8)
    assert [values(again), values(again)] == [first, second]
    assert values(seeds_of(dataset_of(clean), 8).skip(1)) == first[1:]
    assert not {*values(seeds_of(dataset_of(clean), 4))} & {*first}
    # In every process, on every machine.
    assert first[0] == (940488326832167616, 12301305768501474334)
    assert second[0] == (12638344080262882392, 6145641953186285433)


@both
def test_seeds_decide(simulate):
    # Equal images are changed in different ways.
    dataset = dataset_of(np.full((6, 32, 32, 3), 0.5, "float32"), 6)
    first = collect(simulate(dataset, seed=3))
    assert_same(collect(simulate(dataset, seed=3)), first)
    other = collect(simulate(dataset, seed=4))
    assert (first[0][0] != other[0][0]).any()
    assert len({image.tobytes() for image in first[0][0][-6:]}) > 3


def test_draws_are_the_same_in_every_version():
    # What TensorFlow 2.16 and 2.21 give: training must resume with another.
    seed = random.fold_key(3)
    derived = random.fold_in(seed, 5).numpy().tolist()
    assert derived == [3107208424926726651, 9504068665982090144]
    integers = random.integers(seed, 0, 9, (6,)).numpy().tolist()
    assert integers == [1, 8, 0, 3, 3, 7]
    assert random.distinct(seed, 3, 10).numpy().tolist() == [2, 6, 1]
    draws = random.uniform(seed, shape=(2,))
    np.testing.assert_allclose(draws, [0.12736404, 0.8146913], rtol=1e-6)


# === Kinds of datasets ===


@both
def test_sizes_may_be_known_only_when_run(clean, simulate):
    other = np.random.default_rng(0).random((2, 33, 40, 3), "float32")
    simulated = simulate(open_sizes(clean, other))
    assert simulated.element_spec[0].shape.as_list() == [None, None, None, 3]
    first, second = collect(simulated)
    assert second[0].shape[1:] == other.shape[1:]
    fixed = simulate(tf.data.Dataset.from_tensors(clean))
    x, y = fixed.element_spec
    assert None not in x.shape
    assert {part.shape[0] for part in y.values()} == {x.shape[0]}
    (static,) = collect(fixed)
    for part, expected in zip(first, static, strict=True):
        assert (abs(part - expected) > 2 / 255).mean() < 1e-3


@both
def test_arrays_of_a_generator_stay_as_they_are(simulate):
    # TensorFlow shares the memory of arrays that begin at a multiple of 64.
    size = 4 * 32 * 40 * 3
    memory = np.zeros(size + 16, "float32")
    start = -memory.ctypes.data % 64 // 4
    shared = memory[start : start + size].reshape(4, 32, 40, 3)
    shared[:] = np.random.default_rng(0).random(shared.shape) * 0.9
    before = shared.copy()
    collect(simulate(open_sizes(shared)))
    np.testing.assert_array_equal(shared, before)


def test_lengths_are_kept(clean):
    finite = dataset_of(clean)
    cases = (finite, finite.repeat(), finite.filter(lambda x: True))
    lengths = [int(seeds_of(case, 0).cardinality()) for case in cases]
    assert lengths == [
        3,
        tf.data.experimental.INFINITE_CARDINALITY,
        tf.data.experimental.UNKNOWN_CARDINALITY,
    ]


# === Errors ===


@both
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 40, 3), "batch, height, width, channels"),
        ((2, 40, 40, 2), "1 .gray. or 3"),
        ((2, 31, 40, 3), "at least 32 x 32 pixels"),
        ((2, 40, 16, 1), "at least 32 x 32 pixels"),
    ],
)
def test_wrong_shapes(shape, message, simulate):
    dataset = tf.data.Dataset.from_tensors(np.zeros(shape, "float32"))
    with pytest.raises(ValueError, match=f"{message}.*Received: shape"):
        simulate(dataset)


@both
def test_small_images_raise_when_run(simulate):
    dataset = open_sizes(np.zeros((1, 31, 40, 3), "float32"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="at least 32"):
        collect(simulate(dataset))


@both
def test_wrong_elements(clean, simulate):
    with pytest.raises(ValueError, match=r"tf\.data\.Dataset\. Received"):
        simulate(clean)
    pairs = dataset_of(clean).map(lambda x: (x, x))
    with pytest.raises(ValueError, match="batches of images and nothing else"):
        simulate(pairs)
    with pytest.raises(ValueError, match=r"floating point.*uint8"):
        simulate(dataset_of((255 * clean).astype("uint8")))


@pytest.mark.parametrize(
    ("simulate", "name", "value"),
    [
        (simulate_anomalies, "anomaly_probability", 1.5),
        (simulate_anomalies, "rotation_probability", None),
        (simulate_anomalies, "opacity", (0.5, 0.2)),
        (simulate_anomalies, "seed", -1),
        (cutpaste_views, "variant", "4way"),
        (cutpaste_views, "jitter", 0.6),
        (cutpaste_views, "translation", 1),
        (cutpaste_views, "seed", 0.5),
    ],
)
def test_wrong_arguments(clean, simulate, name, value):
    with pytest.raises(ValueError, match=rf"`{name}` argument.*{name}="):
        simulate(dataset_of(clean), **{name: value})
