import keras
import numpy as np
import pytest

from keras_sspcab.scoring import MemoryBank
from keras_sspcab.scoring.memory_bank import PatchReservoir, k_center
from tests.scoring.helpers import assert_fit_fails, numpy


def features(n=4, rows=5, columns=6, channels=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(3, 1, (n, rows, columns, channels)).astype("float32")


def fitted(x, **arguments):
    layer = MemoryBank(**{"capacity": 32, "num_neighbors": 4, **arguments})
    layer.build((None, *x.shape[1:]))
    layer.fit([x[:1], x[1:]])
    return layer


def memory_of(layer):
    used = numpy(layer.used) > 0
    return (numpy(layer.memory) + numpy(layer.center))[used].astype("float64")


def lengths(vectors):
    return np.sqrt((vectors**2).sum(-1))


def score(patches, memory, num_neighbors):
    """The formula of the paper, for the patches of one image."""
    distances = lengths(patches[:, None] - memory)
    worst = distances.min(1).argmax()
    largest = distances[worst].min()
    if num_neighbors == 1:
        return largest
    nearest = distances[worst].argmin()
    near = lengths(memory - memory[nearest]).argsort()[:num_neighbors]
    share = np.exp(largest) / np.exp(distances[worst, near]).sum()
    return (1 - share) * largest


@pytest.mark.parametrize("num_neighbors", [1, 4])
@pytest.mark.parametrize("capacity", [32, 500])
def test_distances_and_scores_are_those_of_the_formula(capacity, num_neighbors):
    x, other = features(), features(3, seed=1)
    layer = fitted(x, capacity=capacity, num_neighbors=num_neighbors)
    memory = memory_of(layer)
    # Fewer patches than entries: the others never win.
    assert len(memory) == min(capacity, x[..., 0].size)
    nearest = lengths(memory[:, None] - x.reshape(-1, 7)).min(1)
    assert nearest.max() < 1e-5
    distances, scores = layer(other)
    expected = lengths(other[..., None, :] - memory).min(-1)
    np.testing.assert_allclose(numpy(distances), expected, rtol=1e-4)
    np.testing.assert_allclose(
        numpy(scores),
        [
            score(image.reshape(-1, 7).astype("float64"), memory, num_neighbors)
            for image in other
        ],
        rtol=1e-3,
    )


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scores_are_finite_at_any_scale(scale):
    layer = fitted(features() * scale)
    distances, scores = layer(features(seed=1) * scale)
    for values in (numpy(distances), numpy(scores)):
        assert np.isfinite(values).all()
        assert (values > 0).any()
    # Neighbors far away weigh nothing: the score is the distance.
    if scale > 1:
        np.testing.assert_allclose(
            numpy(scores), numpy(distances).max((1, 2)), rtol=0.5
        )


def plain_k_center(points, count, first):
    chosen = [first]
    nearest = lengths(points - points[first])
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, lengths(points - points[chosen[-1]]))
    return chosen


@pytest.mark.parametrize("farthest", [3, 50, 5000])
def test_choice_is_the_greedy_one(farthest, monkeypatch):
    module = "keras_sspcab.scoring.memory_bank"
    monkeypatch.setattr(f"{module}._FARTHEST", farthest)
    monkeypatch.setattr(f"{module}._BLOCK", 64)
    points = features(10)[..., :3].reshape(-1, 3)
    chosen = k_center(points, 40, seed=3)
    expected = plain_k_center(points.astype("float64"), 40, chosen[0])
    np.testing.assert_array_equal(chosen, expected)


def test_choice_in_a_projection_covers_what_there_is():
    rng = np.random.default_rng(0)
    corners = 100 * rng.normal(size=(20, 300))
    points = np.repeat(corners, 30, axis=0) + rng.normal(size=(600, 300))
    chosen = k_center(points.astype("float32"), 20)
    assert len(set(chosen // 30)) == 20
    np.testing.assert_array_equal(
        chosen, k_center(points.astype("float32"), 20)
    )
    assert chosen.tolist() != k_center(points.astype("float32"), 20, 1).tolist()


def test_equal_patches_are_kept_once():
    x = np.repeat(features(1, 2, 2), 5, axis=0)
    layer = fitted(x)
    assert numpy(layer.used).sum() == 4
    single = fitted(np.ones((3, 2, 2, 7), "float32"))
    distances, scores = single(features())
    assert numpy(single.used).sum() == 1
    # It has no neighbors to weigh by.
    np.testing.assert_allclose(
        numpy(scores), numpy(distances).max((1, 2)), rtol=1e-5
    )


def test_reservoir_is_a_fair_sample():
    counts = np.zeros(100)
    for seed in range(200):
        reservoir = PatchReservoir(20, seed)
        x = np.arange(100, dtype="float32").reshape(10, 10, 1, 1)
        for start in range(0, 10, 3):
            reservoir.update(x[start : start + 3])
        kept = reservoir.without()[:, 0].astype(int)
        assert len(set(kept)) == 20
        counts[kept] += 1
    # 40 are expected of each, with a standard deviation of 5.7.
    assert counts.min() > 15
    assert counts.max() < 65


def test_reservoir_keeps_the_folds():
    x = features(12)
    for limit in (100_000, 50):
        reservoir = PatchReservoir(limit)
        reservoir.update(x[:5], np.arange(5) % 3)
        reservoir.update(x[5:], np.arange(5, 12) % 3)
        rest = {tuple(row) for row in reservoir.without(1)}
        left_out = {tuple(row) for row in x[1::3].reshape(-1, 7)}
        assert rest.isdisjoint(left_out)
        everything = {tuple(row) for row in reservoir.without()}
        assert everything - left_out == rest
        assert len(everything) == min(limit, 360)
    assert PatchReservoir().without(0).shape == (0, 0)


def test_images_of_any_size():
    layer = fitted(features())
    inputs = keras.Input((None, None, 7))
    model = keras.Model(inputs, layer(inputs))
    x = features(2, 3, 9, seed=1)
    distances, scores = model.predict(x, verbose=0)
    assert distances.shape == (2, 3, 9)
    expected = layer(x)
    np.testing.assert_allclose(distances, numpy(expected[0]), rtol=1e-4)
    np.testing.assert_allclose(scores, numpy(expected[1]), rtol=1e-3)


def test_scores_by_the_distance_to_the_origin_before():
    x = features()
    layer = MemoryBank(8, num_neighbors=3)
    distances, scores = layer(x)
    expected = lengths(x)
    np.testing.assert_allclose(numpy(distances), expected, rtol=1e-5)
    np.testing.assert_allclose(numpy(scores), expected.max((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one normal image"),
        ([features(0)], "at least one normal image"),
        ([features(channels=6)], "7 channels. Received: 6"),
        ([features(), features(channels=6)], "7. Received: 6"),
        ([np.full((2, 5, 6, 7), np.nan)], "must be finite"),
        ([np.zeros((2, 7))], r"shape \(2, 7\)"),
    ],
)
def test_bad_features(batches, message):
    assert_fit_fails(fitted(features()), batches, message)
