import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.layers import AttentionMemory

SHAPE = (3, 2, 3, 4)
SIZE = 24


def features(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def build(num_slots=8, shrink_threshold=None):
    layer = AttentionMemory(num_slots, shrink_threshold)
    layer.build(SHAPE)
    return layer


def numpy_of(outputs):
    return {name: ops.convert_to_numpy(x) for name, x in outputs.items()}


def read(x, slots, threshold):
    """What the specification says, slot by slot."""
    answers, entropies, kept = [], [], []
    slots = slots.astype("float64")
    for sample in x.astype("float64"):
        logits = slots @ sample.ravel()
        exponentials = [np.exp(value - logits.max()) for value in logits]
        weights = [e / sum(exponentials) for e in exponentials]
        shrunk = [a if a > threshold else 0.0 for a in weights]
        total = max(sum(shrunk), 1e-12)
        shrunk = [a / total for a in shrunk]
        answer = sum(a * slot for a, slot in zip(shrunk, slots, strict=True))
        answers.append(answer.reshape(sample.shape))
        entropies.append(-sum(a * np.log(a) for a in shrunk if a > 0))
        kept.append(sum(a > 0 for a in shrunk))
    return np.stack(answers), np.array(entropies), kept


def test_slots_begin_uniform_within_one_over_the_root_of_their_size():
    slots = ops.convert_to_numpy(build(200).slots)
    assert slots.shape == (200, SIZE)
    limit = SIZE**-0.5
    assert np.abs(slots).max() <= limit
    assert slots.min() < -0.98 * limit
    assert slots.max() > 0.98 * limit
    np.testing.assert_allclose(slots.std(), limit / 3**0.5, rtol=0.03)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.05, 0.2])
def test_reading_follows_the_specification(threshold):
    layer, x = build(8, threshold), features()
    slots = ops.convert_to_numpy(layer.slots)
    answers, entropies, kept = read(
        x, slots, 1 / 8 if threshold is None else threshold
    )
    assert any(kept)
    assert (min(kept) == 8) == (threshold == 0.0)
    result = numpy_of(layer(x))
    np.testing.assert_allclose(result["features"], answers, atol=1e-5)
    np.testing.assert_allclose(result["entropy"], entropies, atol=1e-5)


def test_what_lies_below_the_threshold_leaves_nothing():
    layer = build(8, shrink_threshold=0.5)
    # All slots answer a zero map alike.
    result = numpy_of(layer(np.zeros(SHAPE, "float32")))
    np.testing.assert_array_equal(result["features"], 0)
    np.testing.assert_allclose(result["entropy"], 0, atol=1e-9)


def test_a_slot_that_is_far_ahead_is_read_alone():
    layer, x = build(), features()
    slots = ops.convert_to_numpy(layer.slots)
    x[0] = 1000 * slots[5].reshape(SHAPE[1:])
    result = numpy_of(layer(x))
    np.testing.assert_allclose(
        result["features"][0].ravel(), slots[5], atol=1e-6
    )
    np.testing.assert_allclose(result["entropy"][0], 0, atol=1e-6)


def test_gradients_reach_slots_and_queries():
    if keras.config.backend() != "tensorflow":
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    layer, x = build(shrink_threshold=0.0), tf.constant(features())
    for name in ("features", "entropy"):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x)[name] ** 2)
        for gradient in tape.gradient(total, [layer.slots.value, x]):
            assert np.abs(gradient.numpy()).max() > 1e-6


def test_gradients_are_finite_where_nothing_is_left():
    if keras.config.backend() != "tensorflow":
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    layer = build(8, shrink_threshold=0.5)
    x = tf.zeros(SHAPE)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = layer(x)
        value = tf.reduce_sum(result["features"]) + tf.reduce_sum(
            result["entropy"]
        )
    for gradient in tape.gradient(value, [x, layer.slots.value]):
        np.testing.assert_array_equal(gradient.numpy(), 0)


def test_maps_of_unknown_or_other_size():
    with pytest.raises(ValueError, match="must be known"):
        AttentionMemory(2).build((None, None, 4, 2))
    with pytest.raises(ValueError, match="incompatible"):
        build()(np.zeros((1, 2, 4, 3), "float32"))
