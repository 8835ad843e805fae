import numpy as np
import pytest

from keras_sspcab.pictures.video import annotate_frame

GRAY = np.full((40, 50, 3), 100, "uint8")
FACTOR = 7  # 50 pixels become 350
RED = (255, 90, 70)


def strip_of(picture):
    return picture[40 * FACTOR :]


def test_frames_are_enlarged_and_kept():
    picture = annotate_frame(GRAY, [0.5], threshold=1.0, text="frame 3")
    assert picture.shape[1] == 350
    assert picture.shape[0] > 40 * FACTOR + 30
    np.testing.assert_array_equal(picture[: 40 * FACTOR], 100)
    large = np.zeros((20, 400, 3), "uint8")
    assert annotate_frame(large, [0.5]).shape[1] == 400


def test_alarms_are_red():
    calm = annotate_frame(GRAY, [0.2, 0.5], threshold=1.0)
    alarm = annotate_frame(GRAY, [0.2, 1.5], threshold=1.0, is_alarm=True)
    assert not (calm == RED).all(-1).any()
    assert (alarm[0] == RED).all()
    assert (strip_of(alarm) == RED).all(-1).any()
    # Without a threshold nothing is an alarm.
    assert not (annotate_frame(GRAY, [9.0, 9.0]) == RED).all(-1).any()


def test_boxes_are_where_they_belong():
    picture = annotate_frame(GRAY, [0.0], boxes=[(10, 5, 19, 14)])
    rows, columns = np.nonzero((picture[: 40 * FACTOR] == RED).all(-1))
    assert (rows.min(), rows.max()) == (5 * FACTOR, 15 * FACTOR - 1)
    assert (columns.min(), columns.max()) == (10 * FACTOR, 20 * FACTOR - 1)


def test_maps_color_what_is_anomalous():
    anomaly_map = np.zeros((4, 5))
    anomaly_map[:, :2] = 9.0
    picture = annotate_frame(
        GRAY, [0.0], anomaly_map=anomaly_map, scale=2.0
    ).astype(int)
    left, right = picture[100, 20], picture[100, 340]
    assert left[0] > left[2] + 50
    np.testing.assert_array_equal(right, 100)


def test_scores_that_are_missing_or_huge():
    scores = [np.nan, np.nan, 1e6, 3.0]
    assert annotate_frame(GRAY, scores, threshold=1.0).dtype == np.uint8
    assert annotate_frame(GRAY, [np.nan]).dtype == np.uint8
    with pytest.raises(ValueError, match="one score a frame"):
        annotate_frame(GRAY, [])
