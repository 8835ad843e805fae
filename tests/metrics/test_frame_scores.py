import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from keras_sspcab.metrics import normalize_per_video, smooth_frames

lengths = st.sampled_from([1, 3, 5, 17])
frame_scores = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_each_video_spans_the_unit_interval(scores):
    (normalized,) = normalize_per_video([scores])
    assert normalized.min() == 0
    if len(set(scores)) > 1:
        assert normalized.max() == 1
        low, high = min(scores), max(scores)
        expected = [(x - low) / (high - low) for x in scores]
        np.testing.assert_allclose(normalized, expected, rtol=1e-12)
    else:
        assert normalized.max() == 0


@given(frame_scores, lengths)
def test_median_has_zeros_beyond_the_ends(scores, length):
    (smoothed,) = smooth_frames([scores], "median", length)
    padded = [0.0] * (length // 2) + scores + [0.0] * (length // 2)
    expected = [
        statistics.median(padded[i : i + length]) for i in range(len(scores))
    ]
    assert smoothed.tolist() == expected


@given(frame_scores, st.floats(0.5, 20))
def test_gaussian_is_that_of_scipy(scores, sigma):
    (smoothed,) = smooth_frames([scores], "gaussian", sigma)
    expected = ndimage.gaussian_filter1d(
        np.array(scores), sigma, mode="constant", cval=0.0
    )
    np.testing.assert_array_equal(smoothed, expected)


@given(frame_scores, lengths)
def test_mean_is_over_the_frames_that_exist(scores, length):
    (smoothed,) = smooth_frames([scores], "mean", length)
    half = length // 2
    expected = [
        np.mean(scores[max(i - half, 0) : i + half + 1])
        for i in range(len(scores))
    ]
    np.testing.assert_allclose(smoothed, expected, atol=1e-9)


@pytest.mark.parametrize("method", ["median", "mean", "gaussian"])
def test_no_video_leaks_into_the_next(method):
    rng = np.random.default_rng(0)
    videos = {"a": rng.random(12), "b": rng.random(40), "c": rng.random(1)}
    together = smooth_frames(videos, method, 5)
    assert list(together) == ["a", "b", "c"]
    for name, scores in videos.items():
        (alone,) = smooth_frames([scores], method, 5)
        np.testing.assert_array_equal(together[name], alone)


@pytest.mark.parametrize(
    ("method", "size"),
    [
        *(("median", size) for size in (0, -3, 4, 3.0, None)),
        *(("mean", size) for size in (0, 4)),
        *(("gaussian", size) for size in (0, -1.0, np.nan, np.inf)),
    ],
)
def test_sizes_are_odd_or_positive(method, size):
    with pytest.raises(ValueError, match="size="):
        smooth_frames([[1.0]], method, size)
