import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import KernelDensity as SklearnKernelDensity

from keras_sspcab.scoring import GaussianDensity, KernelDensity
from tests.scoring.helpers import assert_fit_fails, numpy

LAYERS = {
    "gaussian": GaussianDensity,
    "kde": lambda **options: KernelDensity(capacity=64, **options),
}


def embeddings(n=60, dimensions=8, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dimensions, dimensions))
    return rng.normal(size=(n, dimensions)) @ mixing + 3


def fitted(name, x):
    layer = LAYERS[name]()
    layer.build(x.shape)
    layer.fit(x)
    return layer


@pytest.mark.parametrize("dimensions", [2, 512])
def test_gaussian_is_the_shrunk_mahalanobis_distance(dimensions):
    x = embeddings(60, dimensions)
    other = embeddings(9, dimensions, seed=1)
    scores = numpy(fitted("gaussian", x)(other.astype("float32")))
    expected = np.sqrt(LedoitWolf().fit(x).mahalanobis(other))
    np.testing.assert_allclose(scores, expected, rtol=1e-3)


@pytest.mark.parametrize("bandwidth", [0.5, 3.0])
@pytest.mark.parametrize("dimensions", [2, 512])
def test_kde_is_that_of_scikit_learn(bandwidth, dimensions):
    x = embeddings(50, dimensions)
    other = embeddings(9, dimensions, seed=1)
    layer = KernelDensity(bandwidth, capacity=64)
    layer.build(x.shape)
    layer.fit(x)
    expected = (
        -SklearnKernelDensity(bandwidth=bandwidth).fit(x).score_samples(other)
    )
    np.testing.assert_allclose(
        numpy(layer(other.astype("float32"))), expected, rtol=2e-3
    )


def test_kde_keeps_a_random_part_of_many():
    x = embeddings(200)
    layers = [KernelDensity(capacity=20, seed=seed) for seed in (0, 0, 1)]
    for layer in layers:
        layer.build(x.shape)
        layer.fit(x)
    kept = [numpy(layer.references) for layer in layers]
    np.testing.assert_array_equal(kept[0], kept[1])
    assert not np.array_equal(kept[0], kept[2])
    rows = {tuple(row) for row in x.astype("float32")}
    assert len({tuple(row) for row in kept[0]} & rows) == 20
    other = embeddings(5, seed=1)
    squares = ((other[:, None] - kept[0][None]) ** 2).sum(-1)
    expected = -logsumexp(-squares / 2, axis=1) + np.log(20)
    expected += 0.5 * x.shape[1] * np.log(2 * np.pi)
    np.testing.assert_allclose(
        numpy(layers[0](other.astype("float32"))), expected, rtol=1e-3
    )


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_gradient_is_that_of_finite_differences(name):
    layer = fitted(name, embeddings(60, 3))
    x = embeddings(4, 3, seed=1).astype("float32")
    gradient = numpy(layer.gradient(x))
    step = 1e-2
    for axis in range(3):
        shift = step * np.eye(3, dtype="float32")[axis]
        slope = (numpy(layer(x + shift)) - numpy(layer(x - shift))) / (2 * step)
        np.testing.assert_allclose(
            gradient[:, axis], slope, rtol=0.02, atol=0.02
        )


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_scores_are_finite_anywhere(name):
    layer = LAYERS[name]()
    x = np.array([[0, 0], [1e-20, 0], [1e4, -1e4]], "float32")
    assert np.isfinite(numpy(layer(x))).all()
    layer.fit(embeddings(20, 2))
    mean = embeddings(20, 2).mean(0, keepdims=True).astype("float32")
    for values in (x, mean):
        assert np.isfinite(numpy(layer(values))).all()
        assert np.isfinite(numpy(layer.gradient(values))).all()


@pytest.mark.parametrize("name", sorted(LAYERS))
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (embeddings(1), "at least [23] normal.*Received: 1"),
        (embeddings(5, 7), r"\(samples, 8\).*\(5, 7\)"),
        (np.full((5, 8), np.nan), "NaN or infinite"),
    ],
)
def test_bad_embeddings(name, x, message):
    layer = LAYERS[name]()
    layer.build((None, 8))
    assert_fit_fails(layer, x, message)


def test_a_gaussian_takes_three():
    layer = GaussianDensity()
    layer.build((None, 8))
    assert_fit_fails(layer, embeddings(2), "at least 3 normal.*Received: 2")
    layer.fit(embeddings(3))
    assert np.isfinite(numpy(layer(embeddings(3)))).all()


def test_equal_embeddings_have_no_spread():
    layer = GaussianDensity()
    layer.build((None, 8))
    assert_fit_fails(layer, np.ones((5, 8)), "5 equal embeddings")
