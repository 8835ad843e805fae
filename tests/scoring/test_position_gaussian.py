import numpy as np
import pytest

from keras_sspcab.scoring import PositionGaussian
from keras_sspcab.scoring.position_gaussian import FoldedMoments
from tests.scoring.helpers import assert_fit_fails, numpy

GRID = (3, 4, 5)


def features(n=20, grid=GRID, seed=0):
    """Features with another mean and covariance at each position."""
    rng = np.random.default_rng(7)
    mixing = rng.normal(size=(*grid, grid[-1]))
    mean = rng.normal(0, 5, grid)
    x = np.random.default_rng(seed).normal(size=(n, *grid))
    return (np.einsum("nhwc,hwcd->nhwd", x, mixing) + mean).astype("float32")


def fitted(x, **arguments):
    layer = PositionGaussian(**arguments)
    layer.build((None, *x.shape[1:]))
    layer.fit([x[:3], x[3:]])
    return layer


def covariances(x):
    flat = x.reshape(len(x), -1, x.shape[-1]).astype("float64")
    return np.stack([np.cov(part.T) for part in flat.transpose(1, 0, 2)])


def distances(x, other, matrices):
    """The formula, position by position."""
    rows, columns, channels = x.shape[1:]
    difference = (other.astype("float64") - x.mean(0, dtype="float64")).reshape(
        len(other), -1, channels
    )
    squares = np.einsum(
        "npc,pcd,npd->np", difference, np.linalg.inv(matrices), difference
    )
    return np.sqrt(squares).reshape(-1, rows, columns)


@pytest.mark.parametrize("count", [4, 20])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("shrinkage", [0.0, 0.3])
def test_distance_is_that_of_the_formula(count, relative, shrinkage):
    x, other = features(count), features(6, seed=1)
    layer = fitted(
        x, shrinkage=shrinkage, regularization=0.05, relative=relative
    )
    own = covariances(x)
    pooled = own.mean(0)
    added = 0.05 * (np.diag(np.diag(pooled)) if relative else np.eye(5))
    expected = (1 - shrinkage) * own + shrinkage * pooled + added
    np.testing.assert_allclose(
        numpy(layer(other)), distances(x, other, expected), rtol=1e-3
    )


@pytest.mark.parametrize(
    ("count", "rank"),
    [(20, 5), (20, 9), (4, 3)],
    ids=["all channels", "more than there are", "all images"],
)
def test_complete_rank_is_exact(count, rank):
    x, other = features(count), features(6, seed=1)
    options = {"shrinkage": 0.3, "regularization": 0.05}
    np.testing.assert_allclose(
        numpy(fitted(x, rank=rank, **options)(other)),
        numpy(fitted(x, **options)(other)),
        rtol=1e-3,
    )


def test_low_rank_keeps_what_varies_most():
    x, other = features(), features(6, seed=1)
    options = {"shrinkage": 0.3}
    exact = numpy(fitted(x, **options)(other))
    results = [numpy(fitted(x, rank=rank, **options)(other)) for rank in (1, 3)]
    assert (results[0] >= results[1] * (1 - 1e-4)).all()
    assert (results[1] >= exact * (1 - 1e-4)).all()
    # The formula, with the eigenvectors of one position.
    own, pooled = covariances(x)[0], covariances(x).mean(0)
    shared = 0.3 * pooled + 0.01 * np.eye(5)
    whitening = np.linalg.inv(np.linalg.cholesky(shared))
    values, vectors = np.linalg.eigh(whitening @ (0.7 * own) @ whitening.T)
    z = (other[:, 0, 0] - x[:, 0, 0].mean(0)) @ whitening.T
    known = (z @ vectors[:, -3:]) ** 2 * (values / (1 + values))[-3:]
    np.testing.assert_allclose(
        results[1][:, 0, 0] ** 2, (z**2).sum(-1) - known.sum(-1), rtol=1e-3
    )


@pytest.mark.parametrize("step", [7, 33, 100])
def test_moments_of_batches_without_a_fold(step):
    # Large means, of which squares would leave little in the sums.
    x = features(100) + 1e4
    folds = np.arange(100) % 3
    collector = FoldedMoments()
    for start in range(0, 100, step):
        rows = slice(start, start + step)
        collector.update(x[rows], folds[rows])
    for fold in (None, 0, 1, 2, 3):
        moments = collector.without(fold)
        images = x if fold is None else x[folds != fold]
        assert moments.count == len(images)
        result = moments.covariances(slice(None))
        np.testing.assert_allclose(
            result, covariances(images), rtol=1e-6, atol=1e-6
        )
        np.testing.assert_allclose(
            moments.mean_covariance(), result.mean(0), rtol=1e-6, atol=1e-6
        )
        np.testing.assert_allclose(
            moments.mean.reshape(GRID), images.mean(0, dtype="float64")
        )
    collector.update(x[:5], 1)
    assert collector.without().count == 105
    with pytest.raises(ValueError, match="same rows"):
        collector.update(x[:, :2])


@pytest.mark.parametrize("shrinkage", [0.0, 0.4])
@pytest.mark.parametrize("rank", [None, 2])
def test_one_image(shrinkage, rank):
    x, other = features(1), features(6, seed=1)
    layer = fitted(x, shrinkage=shrinkage, rank=rank)
    assert (numpy(layer(x)) < 1e-3).all()
    # What varies is what does from position to position.
    spatial = np.cov(x.reshape(-1, 5).T.astype("float64"))
    matrices = np.broadcast_to(
        shrinkage * spatial + 0.01 * np.eye(5), (12, 5, 5)
    )
    np.testing.assert_allclose(
        numpy(layer(other)), distances(x, other, matrices), rtol=1e-3
    )
    # Subtracting all but one leaves one.
    collector = layer.collector()
    collector.update(np.concatenate([x, other]), np.minimum(np.arange(7), 1))
    layer.fit_collected(collector.without(1))
    np.testing.assert_allclose(
        numpy(layer(other)), distances(x, other, matrices), rtol=1e-3
    )


def test_equal_images():
    x = np.repeat(features(1), 4, axis=0)
    # There is what varies between the positions.
    assert np.isfinite(numpy(fitted(x, relative=True)(features()))).all()
    x = np.full((4, *GRID), 3.3, "float32")
    assert np.isfinite(numpy(fitted(x)(features()))).all()
    with pytest.raises(ValueError, match="4 images with equal features"):
        fitted(x, relative=True)


def test_scores_by_the_distance_to_the_origin_before():
    x = features()
    for rank in (None, 2):
        layer = PositionGaussian(rank=rank)
        np.testing.assert_allclose(
            numpy(layer(x)), np.linalg.norm(x, axis=-1), rtol=1e-5
        )


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "at least one normal image"),
        ([features(0)], "at least one normal image"),
        ([features(3, (3, 4, 6))], "12 positions with 5 channels.*with 6"),
        ([features(3), features(3)[:, :2]], r"\(3, 4, 5\).*\(2, 4, 5\)"),
        ([np.full((2, *GRID), np.inf)], "must be finite"),
        ([np.zeros((2, 5))], r"shape \(2, 5\)"),
    ],
)
def test_bad_features(batches, message):
    assert_fit_fails(fitted(features()), batches, message)
