import pytest

from keras_sspcab.report.content import IMAGES
from keras_sspcab.report.gallery import group_pictures
from keras_sspcab.runs.outputs import ImageScore


def prediction(label, score, threshold=3.0):
    return ImageScore("x", label, "", score, score >= threshold)


def make(**counts):
    """Predictions: missed, false alarms, found, passed, unlabeled."""
    ranges = {
        "missed": (1, 0.0),
        "false_alarms": (0, 10.0),
        "found": (1, 10.0),
        "passed": (0, 0.0),
    }
    return [
        prediction(ranges[kind][0], ranges[kind][1] + i / 1000)
        for kind, count in counts.items()
        for i in range(count)
    ]


def shown(groups):
    return {group.key: group.shown for group in groups}


def test_worst_misses_come_first():
    predictions = [
        prediction(1, 2.0),
        prediction(0, 9.0),
        prediction(1, -1.0),
        prediction(0, 4.0),
        prediction(1, 8.0),
        prediction(1, 5.0),
        prediction(0, 0.0),
        prediction(0, 1.0),
    ]
    groups = group_pictures(predictions, 60, IMAGES)
    assert [(g.key, [p.score for p in g.members]) for g in groups] == [
        ("missed", [-1.0, 2.0]),
        ("false-alarm", [9.0, 4.0]),
        ("found", [5.0, 8.0]),
        ("passed", [1.0, 0.0]),
    ]


def test_without_labels_the_most_suspicious_come_first():
    groups = group_pictures(
        [prediction(None, s) for s in (1.0, 5.0, 2.0, 4.0)], 60, IMAGES
    )
    assert [(g.key, [p.score for p in g.members]) for g in groups] == [
        ("flagged", [5.0, 4.0]),
        ("unflagged", [2.0, 1.0]),
    ]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (
            {"missed": 200, "false_alarms": 200, "found": 200, "passed": 3},
            {"missed": 45, "false-alarm": 6, "found": 6, "passed": 3},
        ),
        (
            {"missed": 2, "found": 100, "passed": 100},
            {"missed": 2, "found": 29, "passed": 29},
        ),
        ({"found": 100, "passed": 10}, {"found": 50, "passed": 10}),
        ({"found": 100}, {"found": 60}),
        ({"missed": 5, "passed": 5}, {"missed": 5, "passed": 5}),
    ],
)
def test_the_space_is_shared_out(counts, expected):
    assert shown(group_pictures(make(**counts), 60, IMAGES)) == expected


@pytest.mark.parametrize("max_images", [0, 1, 5, 13])
def test_never_more_than_asked_for(max_images):
    predictions = make(missed=9, false_alarms=9, found=9, passed=9)
    groups = group_pictures(predictions, max_images, IMAGES)
    assert sum(group.shown for group in groups) == max_images
