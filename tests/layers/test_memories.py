import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as numpy

from keras_sspcab.layers import AttentionMemory, PrototypeMemory

SHAPE = (3, 2, 3, 4)
needs_gradients = pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="takes gradients with TensorFlow",
)


def features(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def build(layer, shape=SHAPE):
    layer.build(shape)
    return layer


def assert_outputs(result, expected):
    assert set(result) == set(expected)
    for name, x in expected.items():
        np.testing.assert_allclose(numpy(result[name]), x, atol=1e-5)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def test_rematerialized_memory_is_updated_once():
    x, items = features(), []
    for scope in (keras.RematScope(mode="full"), keras.RematScope(mode=None)):
        inputs = keras.Input(SHAPE[1:])
        with scope:
            memory = PrototypeMemory(num_items=3, name="memory")
        outputs = memory(keras.layers.Dense(4)(inputs))["features"]
        model = keras.Model(inputs, keras.layers.Dense(4)(outputs))
        rng = np.random.default_rng(0)
        model.set_weights([rng.random(w.shape) for w in model.get_weights()])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(x, x, verbose=0)
        items.append(numpy(memory.items))
    np.testing.assert_allclose(*items, rtol=1e-6)


# === Attention ===


def attention(x, slots, threshold):
    """What the specification says, slot by slot."""
    answers, entropies, kept = [], [], []
    for sample in x.astype("float64"):
        weights = softmax(slots.astype("float64") @ sample.ravel(), 0)
        shrunk = [a if a > threshold else 0.0 for a in weights]
        total = max(sum(shrunk), 1e-12)
        shrunk = [a / total for a in shrunk]
        answer = sum(a * slot for a, slot in zip(shrunk, slots, strict=True))
        answers.append(answer.reshape(sample.shape))
        entropies.append(-sum(a * np.log(a) for a in shrunk if a > 0))
        kept.append(sum(a > 0 for a in shrunk))
    return {"features": np.stack(answers), "entropy": entropies}, kept


def test_slots_begin_uniform_within_one_over_the_root_of_their_size():
    slots = numpy(build(AttentionMemory(200)).slots)
    assert slots.shape == (200, 24)
    limit = 24**-0.5
    assert np.abs(slots).max() <= limit
    np.testing.assert_allclose(slots.std(), limit / 3**0.5, rtol=0.03)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.05, 0.2])
def test_attention_follows_the_specification(threshold):
    layer, x = build(AttentionMemory(8, threshold)), features()
    limit = 1 / 8 if threshold is None else threshold
    expected, kept = attention(x, numpy(layer.slots), limit)
    assert any(kept)
    assert (min(kept) == 8) == (threshold == 0.0)
    assert_outputs(layer(x), expected)


def test_a_slot_that_is_far_ahead_is_read_alone():
    layer, x = build(AttentionMemory(8)), features()
    slots = numpy(layer.slots)
    x[0] = 1000 * slots[5].reshape(SHAPE[1:])
    result = layer(x)
    np.testing.assert_allclose(
        numpy(result["features"])[0].ravel(), slots[5], atol=1e-6
    )
    np.testing.assert_allclose(numpy(result["entropy"])[0], 0, atol=1e-6)


@needs_gradients
@pytest.mark.parametrize(("threshold", "is_used"), [(0.0, True), (0.5, False)])
def test_gradients_of_attention(threshold, is_used):
    import tensorflow as tf

    layer = build(AttentionMemory(8, threshold))
    # Slots answer a zero map alike: none of them exceeds the threshold.
    x = tf.constant(features() * is_used)
    for name in ("features", "entropy"):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x)[name] ** 2)
        assert (abs(float(total)) > 1e-6) == is_used
        for gradient in tape.gradient(total, [layer.slots.value, x]):
            assert np.isfinite(gradient.numpy()).all()
            assert (np.abs(gradient.numpy()).max() > 1e-6) == is_used


def test_maps_of_another_size():
    with pytest.raises(ValueError, match="incompatible"):
        build(AttentionMemory(8))(np.zeros((1, 2, 4, 3), "float32"))


# === Prototypes ===


def prototypes(x, items):
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
    return results


def updated(x, items):
    queries = unit(x.astype("float64").reshape(-1, x.shape[-1]))
    similarity = queries @ items.T
    nearest = similarity.argmax(1)
    v = softmax(similarity, 0)
    result = items.copy()
    for m in range(len(items)):
        mine = np.flatnonzero(nearest == m)
        if len(mine):
            pull = sum(v[k, m] / v[:, m].max() * queries[k] for k in mine)
            result[m] = unit(items[m] + pull)
    return result


def test_items_begin_as_positive_directions():
    items = numpy(build(PrototypeMemory(10), (None, None, None, 512)).items)
    np.testing.assert_allclose(np.linalg.norm(items, axis=1), 1, atol=1e-5)
    assert items.min() >= 0
    assert np.abs(items[0] - items[1]).max() > 0.01


def test_prototypes_are_updated_after_reading_in_training_only():
    layer, x = build(PrototypeMemory(5)), features()
    items = numpy(layer.items)
    expected = prototypes(x, items)
    assert_outputs(layer(x), expected)
    layer.trainable = False
    assert_outputs(layer(x, training=True), expected)
    np.testing.assert_array_equal(numpy(layer.items), items)
    layer.trainable = True
    assert_outputs(layer(x, training=True), expected)
    after = numpy(layer.items)
    np.testing.assert_allclose(after, updated(x, items), atol=1e-5)
    assert np.abs(after - items).max() > 0.01


def test_items_that_nothing_is_near_to_stay():
    layer = build(PrototypeMemory(4))
    items = unit(features((4, 4), seed=1))
    items[2] = -items[0]
    layer.items.assign(items)
    # All queries are the first item, with some length.
    layer.update(np.broadcast_to(3.0 * items[0], SHAPE))
    np.testing.assert_allclose(numpy(layer.items), items, atol=1e-6)
    layer.update(np.zeros(SHAPE, "float32"))
    assert np.isfinite(numpy(layer.items)).all()


@needs_gradients
def test_gradients_reach_the_features_through_the_queries_alone():
    import tensorflow as tf

    layer = build(PrototypeMemory(5))
    x = features()
    x[0, 0, 0] = 0  # has no direction
    x = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        result = layer(x)
        parts = {
            "read": tf.reduce_sum(result["features"][..., 4:]),
            "queries": tf.reduce_sum(result["features"][..., :4] ** 3),
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
