import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sspcab.metrics import drop_frames, normalize_per_video, z_score


@settings(deadline=None)
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


def test_videos_are_normalized_apart():
    result = normalize_per_video({"a": [2, 4, 3], "b": np.float32([0, 10])})
    assert {k: v.tolist() for k, v in result.items()} == {
        "a": [0, 1, 0.5],
        "b": [0, 1],
    }


@pytest.mark.parametrize(
    "training",
    [
        np.array([1.0, 3.0, 5.0, 7.0]),
        [[1.0, 3.0, 5.0], [7.0]],
        {"t": [1, 3, 5, 7]},
    ],
)
def test_z_score_is_in_training_deviations(training):
    result = z_score({"a": [4.0, 4.0 + 5**0.5], "b": [-6.0]}, training)
    np.testing.assert_allclose(result["a"], [0, 1], atol=1e-12)
    np.testing.assert_allclose(result["b"], [-10 / 5**0.5])


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (np.full(3, 2.0), "3 scores, all 2"),
        (np.empty(0), "0 scores"),
        (np.array([1.0, np.nan]), "training_scores"),
        ({"v": [np.nan]}, r"training_scores\['v'\]"),
        ([1.0, 2.0], "list of arrays"),
    ],
)
def test_z_score_needs_scores_that_vary(training, message):
    with pytest.raises(ValueError, match=message):
        z_score([[1.0]], training)


def test_frames_are_dropped_at_both_ends():
    assert drop_frames({"a": range(6)}, first=4)["a"].tolist() == [4, 5]
    assert drop_frames([range(6)], first=1, last=2)[0].tolist() == [1, 2, 3]
    maps = np.zeros((6, 3, 2))
    assert drop_frames([maps], last=1)[0].shape == (5, 3, 2)
    assert drop_frames([range(3)])[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (4, 0, "4 frames in video 'short'"),
        (2, 2, "4 frames in video 'short'"),
        (-1, 0, "first=-1"),
        (0, -1, "last=-1"),
    ],
)
def test_a_frame_must_remain(first, last, message):
    with pytest.raises(ValueError, match=message):
        drop_frames({"long": range(9), "short": range(4)}, first, last)
