import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sspcab.metrics import rbdc_tbdc, region_level
from tests.metrics.oracles import slow_rbdc_tbdc

DETECTION_NAMES = (
    "video",
    "frame",
    "x_min",
    "y_min",
    "x_max",
    "y_max",
    "score",
)
TRACK_NAMES = ("video", "track", "frame", "x_min", "y_min", "x_max", "y_max")

BOX, LARGE, FAR = (0, 0, 9, 9), (100, 100, 119, 119), (60, 60, 69, 69)

TRACK_A = [(0, 0, frame, *BOX) for frame in range(10)]
TRACKS_B = TRACK_A + [(0, 1, frame, *LARGE) for frame in range(20)]

# Name: (detections, tracks, number of frames, RBDC, TBDC).
VECTORS = {
    "A": (
        [(0, 0, 50, 50, 59, 59, 0.9)]
        + [(0, f, *BOX, (80 - f) / 100) for f in range(10)],
        TRACK_A,
        20,
        0.95,
        0.95,
    ),
    "B": (
        [
            (0, 0, *BOX, 0.99),
            (0, 1, *FAR, 0.95),
            (0, 2, *FAR, 0.94),
            (0, 0, *LARGE, 0.90),
            (0, 3, *FAR, 0.85),
            (0, 1, *LARGE, 0.80),
            (0, 4, *FAR, 0.70),
            (0, 5, *FAR, 0.60),
        ],
        TRACKS_B,
        4,
        # Boxes found before each of the four false positives: 1, 1, 2, 3.
        7 / 30 / 4,
        (0.5 + 0.5 + 0.5 + 1.0) / 4,
    ),
    "E": (
        [
            (0, 0, 0, 0, 14, 9, 0.9),
            (0, 0, 0, 0, 9, 9, 0.8),
            (0, 0, 80, 80, 89, 89, 0.7),
        ],
        [(0, 0, 0, 0, 0, 9, 9), (0, 1, 0, 5, 0, 14, 9)],
        2,
        1.0,
        1.0,
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(name):
    detections, tracks, num_frames, rbdc, tbdc = VECTORS[name]
    result = rbdc_tbdc(detections, tracks, num_frames)
    assert (result.rbdc, result.tbdc) == (rbdc, tbdc)


@st.composite
def cases(draw):
    """Few places, frames, videos and scores: many overlaps and ties."""
    video, frame = st.integers(0, 2), st.integers(0, 4)
    side = st.integers(0, 6)
    corner = st.integers(0, 8) | st.sampled_from([0.5, 2.25])
    boxes = st.builds(
        lambda x, y, w, h: (x, y, x + w, y + h), corner, corner, side, side
    )
    score = st.integers(0, 3).map(float) | st.floats(-5, 5)
    detections = draw(
        st.lists(st.tuples(video, frame, boxes, score), max_size=25)
    )
    keys = st.tuples(video, st.integers(0, 3), frame)
    keys = draw(st.lists(keys, min_size=1, max_size=20, unique=True))
    return (
        [(v, f, *box, s) for v, f, box, s in detections],
        [(*key, *draw(boxes)) for key in keys],
        draw(st.integers(1, 12)),
        draw(st.sampled_from([0.1, 0.1, 0.3, 0.5, 1.0])),
        draw(st.sampled_from([0.1, 0.1, 0.3, 0.5, 1.0])),
    )


def assert_equals_slow(detections, tracks, *arguments):
    result = rbdc_tbdc(detections, tracks, *arguments)
    rbdc, tbdc, points = slow_rbdc_tbdc(detections, tracks, *arguments)
    assert result.rbdc == pytest.approx(rbdc, abs=1e-14)
    assert result.tbdc == pytest.approx(tbdc, abs=1e-14)
    x, rbdr, tbdr = np.array(points).T
    np.testing.assert_array_equal(result.rbdr_curve, [x, rbdr])
    np.testing.assert_array_equal(result.tbdr_curve, [x, tbdr])


@settings(max_examples=150)
@given(cases())
def test_equals_the_slow_version(case):
    assert_equals_slow(*case)


@pytest.mark.parametrize("num_pairs", [1, 2, 7, 2**18])
def test_parts_of_any_size_give_the_same(monkeypatch, num_pairs):
    monkeypatch.setattr(region_level, "NUM_PAIRS", num_pairs)
    rng = np.random.default_rng(0)
    places = rng.integers(0, 30, (120, 2))
    boxes = np.hstack([places, places + rng.integers(0, 12, (120, 2))])
    detections = [
        (rng.integers(3), rng.integers(6), *box, rng.integers(8))
        for box in boxes.tolist()
    ]
    # Twenty boxes in one frame of one video, one in the others.
    tracks = [(1, i, 2, *box) for i, box in enumerate(boxes[:20].tolist())]
    tracks += [(2, 0, f, *boxes[f].tolist()) for f in range(6)]
    for num_frames in (5, 18, 200):
        assert_equals_slow(detections, tracks, num_frames, 0.1, 0.1)


# 0.07 * 100 is above 7; a little more than 0.12, times 75, is 9.
@pytest.mark.parametrize(
    "threshold", [0.1, 0.3, 0.7, 1.0, 0.07, np.nextafter(0.12, 1)]
)
def test_a_track_is_found_at_its_share_in_floating_point(threshold):
    for length in (*range(1, 31), 75, 99, 100, 120):
        tracks = [(0, 0, frame, *BOX) for frame in range(length)]
        needed = next(n for n in range(length + 1) if n / length >= threshold)
        for count, found in ((needed, 1.0), (needed - 1, 0.0)):
            detections = [(0, frame, *BOX, 1.0) for frame in range(count)]
            result = rbdc_tbdc(
                detections, tracks, length, track_threshold=threshold
            )
            assert result.tbdc == found


def test_overlap_at_the_threshold_is_enough():
    # 10 of 100 pixels: an intersection over union of exactly 0.1.
    tracks = [(0, 0, 0, 0, 0, 9, 9)]
    assert rbdc_tbdc([(0, 0, 0, 0, 9, 0, 1.0)], tracks, 1).rbdc == 1.0
    assert rbdc_tbdc([(0, 0, 0, 0, 8, 0, 1.0)], tracks, 1).rbdc == 0.0
    # Boxes that touch do not overlap, boxes that share a column do.
    assert rbdc_tbdc([(0, 0, 10, 0, 19, 9, 1.0)], tracks, 1, 1e-9).rbdc == 0.0
    assert rbdc_tbdc([(0, 0, 9, 0, 18, 9, 1.0)], tracks, 1, 1e-9).rbdc == 1.0


def test_no_detections():
    for empty in ([], np.empty((0, 7)), {name: [] for name in DETECTION_NAMES}):
        result = rbdc_tbdc(empty, TRACK_A, 5)
        assert (result.rbdc, result.tbdc) == (0.0, 0.0)
        assert result.rbdr_curve.x.tolist() == [0, 1]
        assert result.rbdr_curve.y.tolist() == [0, 0]


def test_no_tracks():
    for empty in ([], {name: [] for name in TRACK_NAMES}):
        with pytest.raises(
            ValueError, match="not defined without ground truth"
        ):
            rbdc_tbdc([(0, 0, *BOX, 1.0)], empty, 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_frames", 0),
        ("iou_threshold", 0.0),
        ("iou_threshold", np.nan),
        ("track_threshold", 1.1),
    ],
)
def test_bad_numbers_are_named(name, value):
    arguments = {"num_frames": 5, name: value}
    with pytest.raises(ValueError, match=f"{name}={value}"):
        rbdc_tbdc([(0, 0, *BOX, 1.0)], TRACK_A, **arguments)
