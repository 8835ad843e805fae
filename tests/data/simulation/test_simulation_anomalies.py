import numpy as np
import pytest
from batching import Red, dataset_of
from skimage import color

from keras_sspcab.data.simulation import (
    EmbeddedTextures,
    simulate_anomalies,
)


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


@pytest.fixture(scope="module")
def many():
    """200 small images of noise."""
    rng = np.random.default_rng(2)
    return rng.uniform(0.1, 0.9, (200, 32, 32, 3)).astype("float32")


# === Elements ===


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
    assert len(np.unique(mask.reshape(200, -1), axis=0)) > 165


def test_shares(many):
    augmented, target, mask = simulate(many)
    anomalous = mask.any((1, 2))
    assert 0.4 < anomalous.mean() < 0.55
    np.testing.assert_array_equal(augmented[~anomalous], target[~anomalous])
    rotated = (target != many).any((1, 2, 3))
    assert 0.2 < rotated.mean() < 0.4
    # Rotation and anomaly are independent.
    assert abs(np.corrcoef(rotated, anomalous)[0, 1]) < 0.2


def test_opacities_are_uniform():
    arguments = {
        "textures": EmbeddedTextures(batch_share=0.0),
        "anomaly_probability": 1.0,
        "rotation_probability": 0.0,
    }
    shape = (200, 32, 32, 1)
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
