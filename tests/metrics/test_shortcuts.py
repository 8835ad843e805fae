import numpy as np
import pytest

from keras_sspcab.metrics.diagnosis import (
    describe_shortcut,
    image_statistics,
    is_shortcut,
    statistics_auroc,
)

RNG = np.random.default_rng(0)
LABELS = np.arange(60) >= 30


def statistics_of(gains, seed=0):
    """Makes statistics of images of noise, each with a gain of its own."""
    rng = np.random.default_rng(seed)
    return np.array(
        [
            image_statistics(gain * rng.normal(0.5, 0.1, (16, 16)))
            for gain in gains
        ]
    )


NORMAL = statistics_of(np.ones(50), seed=1)


def test_statistics_are_those_of_numpy():
    image = RNG.random((7, 9))
    expected = [
        image.mean(),
        image.std(),
        *np.percentile(image, [5, 50, 95]),
    ]
    np.testing.assert_allclose(image_statistics(image), expected)
    np.testing.assert_allclose(image_statistics(image[..., None]), expected)
    color = np.stack([image - 0.1, image, image + 0.1], axis=-1)
    np.testing.assert_allclose(image_statistics(color), expected)
    # A gain scales them all.
    np.testing.assert_allclose(
        image_statistics(3 * image), 3 * np.array(expected)
    )


def test_score_is_the_norm_of_z_scores():
    normal = np.array([[0.0, 1.0], [2.0, 5.0]])
    # Means 1 and 3, deviations 1 and 2: norms 2, 1, sqrt(2) and 3.
    tested = [[3.0, 3.0], [1.0, 5.0], [2.0, 1.0], [-2.0, 3.0]]
    assert statistics_auroc(normal, tested, [1, 0, 0, 1]) == 1.0
    assert statistics_auroc(normal, tested, [0, 1, 0, 1]) == 0.5
    assert statistics_auroc(normal, tested, [1, 0, 1, 0]) == 0.5


def test_a_gain_of_either_class_is_a_shortcut():
    gains = np.where(LABELS, 0.9, 1.0)
    assert statistics_auroc(NORMAL, statistics_of(gains), LABELS) > 0.95
    # The normal test images are the odd ones.
    gains = np.where(LABELS, 1.0, 0.9)
    assert statistics_auroc(NORMAL, statistics_of(gains), LABELS) < 0.05
    gains = np.ones(60)
    value = statistics_auroc(NORMAL, statistics_of(gains), LABELS)
    assert 0.35 < value < 0.65


def test_statistics_that_never_vary_do_not_drown_the_others():
    # A white background: the upper quantile is 1, but for one gray value.
    normal, tested = NORMAL.copy(), statistics_of(1 - 0.1 * LABELS)
    normal[:, 4] = 1.0
    tested[:, 4] = np.where(LABELS, 1.0, 1 - 1 / 255)
    assert statistics_auroc(normal, tested, LABELS) > 0.9
    same = np.full((5, 5), 0.5)
    assert statistics_auroc(same, [same[0]] * 4, [0, 0, 1, 1]) == 0.5
    assert statistics_auroc(same, [same[0], same[0] + 1], [0, 1]) == 1.0


def test_what_cannot_be_compared_is_an_error():
    tested = statistics_of(np.ones(60))
    with pytest.raises(ValueError, match="at least one of each"):
        statistics_auroc(NORMAL, tested, np.zeros(60))
    with pytest.raises(ValueError, match="at least two images"):
        statistics_auroc(NORMAL[:1], tested, LABELS)
    with pytest.raises(ValueError, match="the same statistics"):
        statistics_auroc(NORMAL[:, :3], tested, LABELS)
    with pytest.raises(ValueError, match="shape \\(images, statistics\\)"):
        statistics_auroc(NORMAL, tested[0], LABELS[:5])


@pytest.mark.parametrize(
    ("value", "num_normal", "num_anomalous", "expected"),
    [
        (0.013, 41, 119, True),
        (0.75, 41, 119, True),
        (0.74, 41, 119, False),
        # Of so few images, chance alone gives as much in one case of five.
        (0.8, 3, 3, False),
        (0.8, 8, 8, True),
        (1.0, 1, 1, False),
    ],
)
def test_shortcuts_are_far_from_chance(
    value, num_normal, num_anomalous, expected
):
    assert is_shortcut(value, num_normal, num_anomalous) is expected


def test_warning_names_the_distance_from_chance():
    metrics = {
        "image_statistics_auroc": 0.013,
        "num_normal_images": 41,
        "num_defective_images": 119,
    }
    assert describe_shortcut(metrics) == (
        "Image statistics alone (brightness, contrast) separate this test set: "
        "AUROC 0.99. Image metrics say little about defects here."
    )
    assert describe_shortcut({**metrics, "image_statistics_auroc": 0.6}) is None
    assert describe_shortcut({"image_statistics_auroc": 0.013}) is None
    assert describe_shortcut({}) is None
