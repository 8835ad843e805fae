import os

import numpy as np
import pytest
from object_videos import HEIGHT, WIDTH, Given, draw_square
from scipy import ndimage
from video_writing import write_frames, write_video

from keras_sspcab.data import DISFlow, make_video
from keras_sspcab.data.objects import (
    MaskFiles,
    MergedProposals,
    MotionMasks,
    MotionProposals,
    cube_dataset,
    extract_cubes,
)

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


def test_boxes_are_enlarged_and_clipped_unless_they_are_covered(write):
    video = write([draw_square(1 + t, 25) for t in range(3)])
    # The square covers columns 0 + 1 to 8 and rows 25 to 30.
    assert detect(video, margin=2)[1] == [[0, 23, 10, 31]]
    # An L, and a square within its bounding rectangle.
    parts = ((4, 28), (4, 8)), ((24, 28), (4, 40)), ((8, 16), (20, 28))
    video = write([EMPTY, painted(*parts)], "covered")
    assert detect(video)[0] == [[4, 4, 39, 27]]
    both = detect(video, cover_threshold=None)
    assert both[0] == [[4, 4, 39, 27], [20, 8, 27, 15]]


def test_sums_saturate_rather_than_wrap(write):
    black, white = (np.full((32, 48, 3), v, "uint8") for v in (0, 255))
    boxes = detect(write([black, white, black]), threshold=254)
    assert boxes[1] == [[0, 0, 47, 31]]
    # A single frame has no motion.
    assert detect(write([white], "single")) == [[]]


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


pytest.importorskip("cv2")

COUNT = 4
BOX = [2, 4, 17, 19, 1.0]


@pytest.fixture
def video(write):
    """A square that walks to the right."""
    return write([draw_square(3 + 2 * i, 8) for i in range(COUNT)], "a")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "masks").mkdir()
    return tmp_path / "masks"


def masks_of_squares(value=1):
    masks = np.zeros((COUNT, HEIGHT, WIDTH), "uint8")
    for i in range(COUNT):
        masks[i, 8:14, 3 + 2 * i : 9 + 2 * i] = value
    return masks


def extract(video, masks):
    (file,) = extract_cubes(
        [video],
        Given(*[[BOX]] * COUNT),
        DISFlow(),
        os.path.join(os.path.dirname(video.path), "cubes"),
        num_frames=1,
        size=16,
        channels=1,
        masks=masks,
    )
    return file


@pytest.mark.parametrize("kind", ["images", "instances of double size"])
def test_masks_from_files(folder, video, kind):
    if kind == "images":
        write_frames(folder / "a", masks_of_squares(255)[..., np.newaxis])
    else:
        masks = masks_of_squares(7).repeat(2, axis=1).repeat(2, axis=2)
        np.save(folder / "a.npy", masks.astype("int32"))
    file = extract(video, MaskFiles(folder))
    assert file.has_masks
    # The box is as large as the crop, so nothing is resized.
    expected = masks_of_squares()[:, 4:20, 2:18, np.newaxis]
    np.testing.assert_array_equal(file.read("mask"), expected)
    (batch,) = cube_dataset(file, with_masks=True)
    np.testing.assert_array_equal(batch["mask"], expected)
    assert batch["mask"].dtype == "float32"
    assert "mask" not in next(iter(cube_dataset(file)))


def test_masks_belong_to_the_key_of_the_file(folder, video):
    masks = MaskFiles(folder)
    assert not masks.has(video)
    without = extract(video, masks)
    assert not without.has_masks
    assert extract(video, None).path == without.path
    with pytest.raises(ValueError, match=r"no masks of the video 'a'.*a\.npy"):
        masks.files(video)
    with pytest.raises(ValueError, match=r"a-.*\.h5.* without"):
        cube_dataset(without, with_masks=True)
    paths = {without.path}
    for values in (masks_of_squares(), masks_of_squares()[:, ::-1]):
        np.save(folder / "a.npy", values)
        path = extract(video, masks).path
        assert extract(video, masks).path == path
        paths.add(path)
    assert len(paths) == 3
    np.save(folder / "a.npy", masks_of_squares()[1:])
    with pytest.raises(ValueError, match="one mask a frame"):
        extract(video, masks)
    with pytest.raises(ValueError, match="does not exist"):
        MaskFiles(folder / "nothing")


def test_what_moves_is_the_object(video):
    motion = MotionProposals(threshold=18, min_area=4)
    masks = extract(video, MotionMasks(motion)).read("mask")[..., 0] > 0
    moved = np.stack(list(motion.masks(video)))[:, 4:20, 2:18] > 0
    np.testing.assert_array_equal(masks, moved)
    assert masks[1:].any(axis=(1, 2)).all()
    assert not masks.all()
