import numpy as np
import pytest

from keras_sspcab.data.objects import (
    cube_dataset,
    frame_scores,
    object_index,
    objects_to_detections,
)
from keras_sspcab.metrics import rbdc_tbdc, read_detections, write_detections

INDEX = {
    "video": np.array([0, 0, 2, 2, 0]),
    "frame": np.array([1, 1, 0, 3, 0]),
}
SCORES = [0.5, 2.0, -3.0, 1.0, 0.25]
BOXES = np.array([[i, 1, i + 10, 12, 0.5] for i in range(5)], float)


def test_frames_have_the_score_of_their_most_abnormal_object():
    scores = frame_scores(INDEX, SCORES, [3, 2, 4], empty=-1.0)
    assert [of_video.tolist() for of_video in scores] == [
        [0.25, 2.0, -1.0],
        [-1.0, -1.0],
        # Lower than an empty frame, as its object says.
        [-3.0, -1.0, -1.0, 1.0],
    ]


def test_no_objects_at_all():
    nothing = {"video": [], "frame": []}
    (scores,) = frame_scores(nothing, [], [2], empty=0)
    assert scores.tolist() == [0, 0]
    table = objects_to_detections(nothing, np.empty((0, 5)), [])
    assert all(len(column) == 0 for column in table.values())


def test_detections_are_what_metrics_take(tmp_path):
    names = ["a", "b", "c"]
    table = objects_to_detections(INDEX, BOXES, SCORES, names)
    assert table["video"].tolist() == ["a", "a", "c", "c", "a"]
    write_detections(table, tmp_path / "detections", names)
    back = read_detections(tmp_path / "detections")
    columns = ("video", "frame", "x_min", "y_max", "score")

    def rows(detections):
        values = (detections[name].tolist() for name in columns)
        return sorted(zip(*values, strict=True))

    assert rows(back) == rows(table)
    tracks = {
        "video": ["a"],
        "track": [0],
        "frame": [1],
        "x_min": [1],
        "y_min": [1],
        "x_max": [11],
        "y_max": [12],
    }
    metrics = rbdc_tbdc(table, tracks, num_frames=9)
    # The surest detection of all is the right one.
    assert metrics.rbdc == pytest.approx(1.0)
    numbered = objects_to_detections(INDEX, BOXES[:, :4], SCORES)
    assert numbered["video"].tolist() == [0, 0, 2, 2, 0]


def test_the_index_is_that_of_the_dataset(cubes):
    files, contents = cubes
    index, boxes = object_index(files)
    batches = cube_dataset(files, batch_size=4, with_index=True)
    parts = [part for _, part in batches.as_numpy_iterator()]
    for name, values in index.items():
        np.testing.assert_array_equal(
            values, np.concatenate([part[name] for part in parts])
        )
        assert values.dtype == np.int32
    np.testing.assert_array_equal(
        boxes, np.concatenate([content["boxes"] for content in contents])
    )
    # Files know their names and frames.
    scores = np.arange(10.0)
    table = objects_to_detections(index, boxes, scores, files)
    assert table["video"].tolist() == ["v0"] * 3 + ["v2"] * 7
    of_frames = frame_scores(index, scores, files, empty=-1)
    assert of_frames[0].tolist() == [1, -1, -1, 2, -1, -1, -1, -1]
    assert of_frames[2].tolist() == [-1, 3, 6, -1, -1, 8, -1, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": SCORES[:4]}, r"\(5,\), \(5,\) and \(4,\)"),
        ({"scores": [*SCORES[:4], np.nan]}, "nan at object 4"),
        ({"num_frames": [3, 2, 3]}, "frame 3 of video 2, which has 3 frames"),
        ({"num_frames": [3, 2]}, "from 0 to 2 and 2 videos"),
        ({"num_frames": [3, 2, 0]}, "num_frames=0"),
    ],
)
def test_scores_that_do_not_fit_are_refused(arguments, message):
    given = {"scores": SCORES, "num_frames": [3, 2, 4], **arguments}
    with pytest.raises(ValueError, match=message):
        frame_scores(INDEX, **given, empty=0.0)


def test_boxes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="4 boxes and 5 scores"):
        objects_to_detections(INDEX, BOXES[:4], SCORES)
    with pytest.raises(ValueError, match="and 1 videos"):
        objects_to_detections(INDEX, BOXES, SCORES, ["a"])
