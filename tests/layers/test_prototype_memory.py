import keras
import numpy as np
import pytest
from keras import ops

from keras_sspcab.layers import PrototypeMemory


def features(shape=(2, 3, 4, 6), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def build(num_items=5, shape=(2, 3, 4, 6)):
    layer = PrototypeMemory(num_items)
    layer.build(shape)
    return layer


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def read(x, items):
    """What the specification says, query by query."""
    results = {"features": [], "compactness": [], "separateness": []}
    for sample in unit(x.astype("float64")):
        rows, near, margins = [], [], []
        for q in sample.reshape(-1, x.shape[-1]):
            similarity = items @ q
            answer = softmax(similarity, 0) @ items
            rows.append(np.concatenate([q, answer]))
            second, first = np.argsort(similarity)[-2:]
            near.append(np.mean((q - items[first]) ** 2))
            distances = [
                np.sqrt(np.sum((q - items[i] + 1e-6) ** 2))
                for i in (first, second)
            ]
            margins.append(max(0.0, distances[0] - distances[1] + 1.0))
        results["features"].append(np.reshape(rows, (*sample.shape[:2], -1)))
        results["compactness"].append(np.mean(near))
        results["separateness"].append(np.mean(margins))
    return {name: np.stack(value) for name, value in results.items()}


def updated(x, items):
    queries = unit(x.astype("float64").reshape(-1, x.shape[-1]))
    similarity = queries @ items.T
    nearest = softmax(similarity, 1).argmax(1)
    v = softmax(similarity, 0)
    result = items.copy()
    for m in range(len(items)):
        mine = np.flatnonzero(nearest == m)
        if len(mine):
            pull = sum(v[k, m] / v[:, m].max() * queries[k] for k in mine)
            result[m] = unit(items[m] + pull)
    return result


def test_items_begin_as_positive_directions():
    items = ops.convert_to_numpy(build(10, (None, None, None, 512)).items)
    assert items.shape == (10, 512)
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)
    assert items.min() >= 0
    assert np.abs(items[0] - items[1]).max() > 0.01


def test_reading_follows_the_specification():
    layer, x = build(), features()
    items = ops.convert_to_numpy(layer.items)
    result = layer(x)
    for name, expected in read(x, items).items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(result[name]), expected, atol=1e-5
        )
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.items), items)


def test_training_updates_after_reading():
    layer, x = build(), features()
    items = ops.convert_to_numpy(layer.items)
    result = layer(x, training=True)
    for name, expected in read(x, items).items():
        np.testing.assert_allclose(
            ops.convert_to_numpy(result[name]), expected, atol=1e-5
        )
    after = ops.convert_to_numpy(layer.items)
    np.testing.assert_allclose(after, updated(x, items), atol=1e-5)
    assert np.abs(after - items).max() > 0.01


def test_items_that_nothing_is_near_to_stay():
    layer = build(4)
    items = unit(features((4, 6), seed=1))
    items[2] = -items[0]
    layer.items.assign(items)
    # All queries are the first item, with some length.
    layer.update(np.broadcast_to(3.0 * items[0], (2, 3, 4, 6)))
    after = ops.convert_to_numpy(layer.items)
    np.testing.assert_allclose(after, items, atol=1e-6)
    layer.update(np.zeros((2, 3, 4, 6), "float32"))
    assert np.isfinite(ops.convert_to_numpy(layer.items)).all()


def test_frozen_memories_are_not_updated():
    layer = build()
    layer.trainable = False
    before = ops.convert_to_numpy(layer.items)
    layer(features(), training=True)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.items), before)


def test_repeated_updates_find_the_clusters():
    layer = build(2, (1, 8, 8, 3))
    rng = np.random.default_rng(0)
    axes = np.eye(3)[:2]
    x = axes[rng.integers(0, 2, (1, 8, 8))] + rng.normal(0, 0.05, (1, 8, 8, 3))
    layer.items.assign(unit(np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5]])))
    for _ in range(20):
        layer.update(x.astype("float32"))
    items = ops.convert_to_numpy(layer.items)
    assert np.diag(items @ axes.T).min() > 0.99
    result = layer(x.astype("float32"))
    assert float(result["compactness"][0]) < 0.01


def test_gradients_reach_the_features_through_the_queries_alone():
    if keras.config.backend() != "tensorflow":
        pytest.skip("takes gradients with TensorFlow")
    import tensorflow as tf

    layer = build()
    x = features()
    x[0, 0, 0] = 0  # has no direction
    x = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        result = layer(x)
        parts = {
            "read": tf.reduce_sum(result["features"][..., 6:]),
            "queries": tf.reduce_sum(result["features"][..., :6] ** 3),
            "compactness": tf.reduce_sum(result["compactness"]),
            "separateness": tf.reduce_sum(result["separateness"]),
        }
    # The weights of reading are detached.
    gradient = tape.gradient(parts.pop("read"), x)
    assert gradient is None or float(tf.reduce_max(tf.abs(gradient))) == 0
    for name, part in parts.items():
        gradient = tape.gradient(part, x).numpy()
        assert np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 0, name
    assert layer.trainable_weights == []
