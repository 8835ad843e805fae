import itertools

import numpy as np
import pytest
from object_videos import Given, draw_square
from video_writing import write_video

from keras_sspcab.data import make_video
from keras_sspcab.data.objects import MergedProposals, MotionProposals

cv2 = pytest.importorskip("cv2")

PLAIN = {"blur": 1, "min_area": 10, "margin": 0}


def found(proposals, video):
    return [
        boxes[:, :4].astype(int).tolist() for boxes in proposals.boxes(video)
    ]


def test_a_textured_square_is_found_where_it_moves(write):
    video = write([draw_square(10 + 2 * t, 12) for t in range(5)])
    boxes = found(MotionProposals(**PLAIN), video)
    # Where it was, is and will be; at either end there is no such neighbor.
    starts = [10, 10, 12, 14, 16]
    ends = [17, 19, 21, 23, 23]
    assert boxes == [
        [[start, 12, end, 17]] for start, end in zip(starts, ends, strict=True)
    ]


def test_boxes_are_enlarged_and_clipped(write):
    video = write([draw_square(1 + t, 25) for t in range(3)])
    boxes = found(MotionProposals(**{**PLAIN, "margin": 2}), video)
    # The square covers columns 0 + 1 to 8 and rows 25 to 30.
    assert boxes[1] == [[0, 23, 10, 31]]
    confidences = next(MotionProposals(**PLAIN).boxes(video))[:, 4]
    assert confidences.tolist() == [1.0]


def test_an_even_square_changes_at_its_edges_unless_they_are_joined(write):
    video = write([draw_square(10 + 2 * t, 12, 8, False) for t in range(3)])
    # Columns 12 to 19 now, so 10 to 13 and 18 to 21 change.
    edges = [[10, 12, 13, 19], [18, 12, 21, 19]]
    assert found(MotionProposals(**PLAIN), video)[1] == edges
    joined = MotionProposals(**PLAIN, closing=2)
    assert found(joined, video)[1] == [[10, 12, 21, 19]]


def test_masks_are_summed_differences_of_blurred_frames(noisy):
    video, frames = noisy
    proposals = MotionProposals(threshold=120, blur=5)
    masks = list(proposals.masks(video))
    assert len(masks) == len(frames)
    # Binomial weights are those of OpenCV's kernel of 5 without a sigma.
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    padded = np.pad(
        frames.astype(float), ((0, 0), (2, 2), (2, 2), (0, 0)), "reflect"
    )
    blurred = sum(
        kernel[i] * kernel[j] * padded[:, i : i + 32, j : j + 48]
        for i, j in itertools.product(range(5), range(5))
    )
    last = len(frames) - 1
    for t, mask in enumerate(masks):
        neighbors = [max(t - 1, 0), min(t + 1, last)]
        total = sum(abs(blurred[t] - blurred[n]) for n in neighbors)
        total = total.max(axis=2)
        clear = abs(total - 120.5) > 2
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(mask[clear] > 0, (total > 120.5)[clear])
    assert 0 < np.mean(masks[3] > 0) < 1


def test_sums_saturate_rather_than_wrap(write):
    black, white = (np.full((32, 48, 3), v, "uint8") for v in (0, 255))
    video = write([black, white, black])
    assert found(MotionProposals(**PLAIN, threshold=254), video)[1] == [
        [0, 0, 47, 31]
    ]


@pytest.mark.parametrize(("size", "count"), [(3, 0), (4, 1)])
def test_small_rectangles_are_left_out(write, size, count):
    # A square that appears: (3 + 1)^2 = 16 is not above 16, (4 + 1)^2 is.
    empty = np.full((32, 48, 3), (40, 50, 60), "uint8")
    video = write([empty, draw_square(10, 10, size)])
    boxes = found(MotionProposals(**{**PLAIN, "min_area": 16}), video)
    assert [len(of_frame) for of_frame in boxes] == [count, count]


@pytest.mark.parametrize(("length", "count"), [(29, 1), (30, 0)])
def test_long_rectangles_are_left_out(write, length, count):
    frame = np.full((32, 48, 3), 40, "uint8")
    other = frame.copy()
    other[10:13, 5 : 5 + length] = 200
    boxes = found(MotionProposals(**PLAIN), write([frame, other]))
    assert len(boxes[0]) == count


def test_covered_rectangles_are_left_out(write):
    frame = np.full((32, 48, 3), 40, "uint8")
    other = frame.copy()
    # An L, and a square within its bounding rectangle.
    other[4:28, 4:8] = other[24:28, 4:40] = 200
    other[8:16, 20:28] = 200
    video = write([frame, other])
    assert found(MotionProposals(**PLAIN), video)[0] == [[4, 4, 39, 27]]
    both = MotionProposals(**PLAIN, cover_threshold=None)
    assert found(both, video)[0] == [[4, 4, 39, 27], [20, 8, 27, 15]]


def test_slow_objects_are_found_before_a_learned_background(write):
    background = draw_square(0, 0, 1)
    frames = [background] * 8
    # It appears and then rests.
    frames += [draw_square(20, 10, 8)] * 6
    video = write(frames)
    still = found(MotionProposals(**PLAIN), video)
    assert [len(boxes) for boxes in still] == [0] * 7 + [1, 1] + [0] * 5
    slow = MotionProposals(**PLAIN, background_history=100)
    boxes = found(slow, video)
    assert [len(of_frame) for of_frame in boxes] == [0] * 7 + [1] * 7
    assert boxes[10] == [[20, 10, 27, 17]]


def test_a_single_frame_has_no_motion(write):
    video = write([draw_square(10, 10)])
    (boxes,) = MotionProposals().boxes(video)
    assert boxes.shape == (0, 5)


def test_video_files_are_streamed(tmp_path):
    frames = np.stack([draw_square(10 + 2 * t, 12) for t in range(4)])
    video = make_video(write_video(tmp_path / "clip.mkv", frames))
    assert found(MotionProposals(**PLAIN), video)[1] == [[10, 12, 19, 17]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": 255},
        {"threshold": -1},
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


def test_settings_tell_arguments_apart():
    base = MotionProposals().settings
    for changed in (
        {"threshold": 15},
        {"closing": 1},
        {"background_history": 50},
        {"cover_threshold": None},
        {"min_area": 1600},
    ):
        assert MotionProposals(**changed).settings != base


def two_squares(t):
    frame = draw_square(4 + 2 * t, 4)
    other = draw_square(30, 20 - t, seed=2)
    changed = (other != (40, 50, 60)).any(-1)
    frame[changed] = other[changed]
    return frame


def test_merging_adds_motion_outside_detected_boxes(write):
    video = write([two_squares(t) for t in range(3)])
    motion = MotionProposals(**PLAIN)
    first, second = [4, 4, 13, 9], [30, 18, 35, 25]
    assert found(motion, video)[1] == [first, second]
    detected = [6, 4, 11, 9, 0.8]
    detections = Given([], [detected], [])
    merged = MergedProposals(detections, motion)
    boxes = list(merged.boxes(video))[1]
    # Enlarged by 2 pixels, the detected box covers the first one's motion.
    assert boxes.tolist() == [detected, [*second, 1.0]]
    # By 1 pixel, columns 4 and 13 are left.
    tiny = MotionProposals(**{**PLAIN, "min_area": 0})
    remains = found(MergedProposals(detections, tiny, margin=1), video)[1]
    assert remains == [detected[:4], [4, 4, 4, 9], [13, 4, 13, 9], second]


def test_detections_beside_the_frame_erase_nothing(write):
    video = write([two_squares(t) for t in range(3)])
    motion = MotionProposals(**PLAIN)
    outside = [-30, -30, -20, -20, 1.0]
    merged = MergedProposals(Given([outside], [outside], [outside]), motion)
    for boxes, moving in zip(
        merged.boxes(video), motion.boxes(video), strict=True
    ):
        np.testing.assert_array_equal(boxes[1:], moving)


@pytest.mark.parametrize("count", [2, 4])
def test_merging_needs_boxes_of_every_frame(write, count):
    video = write([two_squares(t) for t in range(3)])
    merged = MergedProposals(Given(*[[]] * count), MotionProposals())
    with pytest.raises(
        ValueError, match=r"only \d (boxes of 'given'|frames) for .*clip"
    ):
        list(merged.boxes(video))


def test_only_motion_can_be_erased():
    with pytest.raises(ValueError, match="MotionProposals"):
        MergedProposals(Given(), Given())


def test_merged_settings_name_both():
    merged = MergedProposals(Given(), MotionProposals())
    assert merged.name == "given+motion"
    assert merged.settings["motion"] == MotionProposals().settings
