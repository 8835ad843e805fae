import numpy as np
import pytest
from object_videos import Given, draw_square
from scipy import ndimage
from video_writing import write_video

from keras_sspcab.data import make_video
from keras_sspcab.data.objects import MergedProposals, MotionProposals

cv2 = pytest.importorskip("cv2")

PLAIN = {"blur": 1, "min_area": 10, "margin": 0}
EMPTY = np.full((32, 48, 3), 40, "uint8")


def detect(video, **arguments):
    return corners(MotionProposals(**{**PLAIN, **arguments}), video)


def corners(proposals, video):
    return [
        boxes[:, :4].astype(int).tolist() for boxes in proposals.boxes(video)
    ]


def painted(*parts):
    frame = EMPTY.copy()
    for rows, columns in parts:
        frame[slice(*rows), slice(*columns)] = 200
    return frame


# === Motion ===


def test_a_textured_square_is_detected_where_it_moves(tmp_path):
    frames = np.stack([draw_square(10 + 2 * t, 12) for t in range(5)])
    video = make_video(write_video(tmp_path / "clip.mkv", frames))
    # Where it was, is and will be; at either end there is no such neighbor.
    starts = [10, 10, 12, 14, 16]
    ends = [17, 19, 21, 23, 23]
    assert detect(video) == [
        [[start, 12, end, 17]] for start, end in zip(starts, ends, strict=True)
    ]


def test_an_even_square_changes_at_its_edges_unless_they_are_joined(write):
    squares = [((12, 20), (10 + 2 * t, 18 + 2 * t)) for t in range(3)]
    video = write([painted(square) for square in squares])
    # Columns 12 to 19 now, so 10 to 13 and 18 to 21 change.
    edges = [[10, 12, 13, 19], [18, 12, 21, 19]]
    assert detect(video)[1] == edges
    assert detect(video, closing=2)[1] == [[10, 12, 21, 19]]


def test_masks_are_summed_differences_of_blurred_frames(noisy):
    video, frames = noisy
    masks = list(MotionProposals(threshold=120, blur=5).masks(video))
    assert len(masks) == len(frames)
    # Binomial weights are those of OpenCV's kernel of 5 without a sigma.
    blurred = frames.astype(float)
    for axis in (1, 2):
        weights = np.array([1, 4, 6, 4, 1]) / 16
        blurred = ndimage.correlate1d(blurred, weights, axis, mode="mirror")
    last = len(frames) - 1
    for t, mask in enumerate(masks):
        neighbors = [max(t - 1, 0), min(t + 1, last)]
        total = sum(abs(blurred[t] - blurred[n]) for n in neighbors)
        total = total.max(axis=2)
        clear = abs(total - 120.5) > 2
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(mask[clear] > 0, (total > 120.5)[clear])
    assert 0 < np.mean(masks[3] > 0) < 1


@pytest.mark.parametrize(
    ("part", "count", "arguments"),
    [
        # (3 + 1)^2 = 16 is not above 16, (4 + 1)^2 is.
        (((10, 13), (10, 13)), 0, {"min_area": 16}),
        (((10, 14), (10, 14)), 1, {"min_area": 16}),
        # Longer than ten times the other side, or not.
        (((10, 13), (5, 34)), 1, {}),
        (((10, 13), (5, 35)), 0, {}),
    ],
)
def test_small_and_long_rectangles_are_left_out(write, part, count, arguments):
    boxes = detect(write([EMPTY, painted(part)]), **arguments)
    assert [len(of_frame) for of_frame in boxes] == [count, count]


def test_slow_objects_are_detected_before_a_learned_background(write):
    # One appears and then rests.
    video = write([draw_square(0, 0, 1)] * 8 + [draw_square(20, 10, 8)] * 6)
    counts = [len(boxes) for boxes in detect(video)]
    assert counts == [0] * 7 + [1, 1] + [0] * 5
    boxes = detect(video, background_history=100)
    assert [len(of_frame) for of_frame in boxes] == [0] * 7 + [1] * 7
    assert boxes[10] == [[20, 10, 27, 17]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": 255},
        {"blur": 4},
        {"max_aspect": 1},
        {"margin": -1},
        {"background_history": 0},
        {"min_area": -1},
    ],
)
def test_arguments_out_of_range_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=rf"{name}="):
        MotionProposals(**arguments)


# === Merging ===


@pytest.fixture
def two_squares(write):
    # They share the background, which is darker.
    return write(
        [
            np.maximum(draw_square(4 + 2 * t, 4), draw_square(30, 20 - t))
            for t in range(3)
        ]
    )


def test_merging_adds_motion_outside_detected_boxes(two_squares):
    motion = MotionProposals(**PLAIN)
    first, second = [4, 4, 13, 9], [30, 18, 35, 25]
    assert corners(motion, two_squares)[1] == [first, second]
    detected = [6, 4, 11, 9, 0.8]
    detections = Given([], [detected], [])
    merged = MergedProposals(detections, motion)
    assert merged.name == "given+motion"
    assert merged.settings["motion"] == motion.settings
    boxes = list(merged.boxes(two_squares))[1]
    # Enlarged by 2 pixels, the detected box covers the first one's motion.
    assert boxes.tolist() == [detected, [*second, 1.0]]
    # By 1 pixel, columns 4 and 13 are left.
    tiny = MotionProposals(**{**PLAIN, "min_area": 0})
    remains = corners(MergedProposals(detections, tiny, margin=1), two_squares)
    sides = [4, 4, 4, 9], [13, 4, 13, 9]
    assert remains[1] == [detected[:4], *sides, second]

    # Beside the frame, nothing is erased.
    outside = Given(*[[[-30, -30, -20, -20, 1.0]]] * 3)
    boxes = corners(MergedProposals(outside, motion), two_squares)
    assert boxes[1][1:] == [first, second]


def test_what_cannot_be_merged(two_squares):
    for count, message in (
        (2, "only 2 boxes of 'given'"),
        (4, "only 3 frames"),
    ):
        merged = MergedProposals(Given(*[[]] * count), MotionProposals())
        with pytest.raises(ValueError, match=message):
            list(merged.boxes(two_squares))
    with pytest.raises(ValueError, match="MotionProposals"):
        MergedProposals(Given(), Given())
