import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from object_videos import draw_square

from keras_sspcab.data import Video
from keras_sspcab.data.objects import BoxFiles
from keras_sspcab.data.objects.boxes import (
    BoxFilter,
    clip_boxes,
    drop_covered,
    standardize_boxes,
)

BOXES = [[1, 2, 10, 12, 0.9], [3.5, 4, 8, 9, 0.25]]
ROWS = [[0, *BOXES[0]], [2, *BOXES[1]], [2, *BOXES[0]]]
EXPECTED = [BOXES[:1], [], [BOXES[1], BOXES[0]]]
HEADER = "video,frame,x_min,y_min,x_max,y_max,confidence\n"


@pytest.fixture
def video(write):
    return write([draw_square(10 + t, 12) for t in range(3)])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "boxes").mkdir()
    return tmp_path / "boxes"


@pytest.fixture
def read(folder, video):
    """Writes a file, of all videos if it is called so, and reads its boxes."""

    def read(name, content, video=video, **arguments):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".npy":
            np.save(path, content)
        else:
            is_text = isinstance(content, str)
            path.write_text(content if is_text else json.dumps(content))
        source = path if path.stem == "all" else folder
        proposals = BoxFiles(source, **arguments)
        return [boxes.tolist() for boxes in proposals.boxes(video)]

    return read


def lines(rows):
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def coco(rows, **more):
    """The same boxes, with a width and height instead of an end."""
    images = [
        {"id": 7 + t, "file_name": f"clip/{t:03d}.png", **more}
        for t in range(3)
    ]
    annotations = [
        {
            "image_id": 7 + row[0],
            "bbox": [row[1], row[2], row[3] - row[1] + 1, row[4] - row[2] + 1],
            "score": row[5],
        }
        for row in rows
    ]
    return {"images": images, "annotations": annotations}


# === Formats ===


def test_text_without_a_header(read):
    # In any order; empty lines and spaces do not matter.
    text = lines(ROWS[1:]) + "\n " + lines(ROWS[:1]).replace(",", ", ")
    assert read("clip.txt", text) == EXPECTED
    without = read("clip.txt", lines(row[:5] for row in ROWS))
    assert without[2] == [[*BOXES[1][:4], 1], [*BOXES[0][:4], 1]]
    # A video without objects.
    assert read("clip.txt", "") == [[], [], []]


def test_tables(read):
    rows = [["clip", *row] for row in ROWS] + [["other", 99, 1, 1, 2, 2, 1]]
    assert read("all.csv", HEADER + lines(rows)) == EXPECTED
    # Of one video, with columns in any order.
    text = "y_max,label,x_min,y_min,x_max,frame\n12,person,1,2,10,0\n\n"
    assert read("clip.csv", text) == [[[1, 2, 10, 12, 1]], [], []]


def test_a_score_in_tables_is_the_confidence(read):
    # As COCO and our own detections call it.
    rows = [["clip", *row] for row in ROWS]
    header = HEADER.replace("confidence", "score")
    assert read("all.csv", header + lines(rows)) == EXPECTED
    sure = read("all.csv", header + lines(rows), min_confidence=0.5)
    assert sure == [BOXES[:1], [], BOXES[:1]]
    # A detector may give both.
    both = HEADER.replace("confidence", "score,confidence")
    rows = [[*row[:6], 7, row[6]] for row in rows]
    assert read("all.csv", both + lines(rows)) == EXPECTED


def test_arrays_of_rows_or_for_each_frame(read):
    for name, boxes in zip((2, 9), EXPECTED[:2], strict=True):
        with pytest.raises(ValueError, match=r"array of boxes a frame.* 3 fr"):
            read(f"clip/{name}.npy", np.array(boxes))
    assert read("clip/10.npy", np.array(EXPECTED[2])) == EXPECTED
    assert read("clip.npy", np.array(ROWS[:2]))[2] == EXPECTED[2][:1]
    assert read("clip.npy", np.empty((0, 6))) == [[], [], []]


def test_coco_names_frames_by_files_or_numbers(read):
    assert read("all.json", coco(ROWS)) == EXPECTED
    # Numbers in names count for video files.
    video = Video("clip", "clip.mkv", num_frames=3)
    assert read("all.json", coco(ROWS), video) == EXPECTED
    content = coco(ROWS)
    for t, image in enumerate(content["images"]):
        del image["file_name"]
        image.update(video_id=1, frame_id=t + 1)
    content["videos"] = [{"id": 1, "name": "clip"}]
    assert read("all.json", content, first_frame=1) == EXPECTED


def test_coco_numbered_from_one_is_not_a_frame_late(read):
    # No box in the last frame, which alone would be too many.
    content = coco(ROWS[:1])
    for t, image in enumerate(content["images"], 1):
        image["file_name"] = f"clip/{t:03d}.png"
    file = Video("clip", "clip.mkv", num_frames=3)
    with pytest.raises(ValueError, match=r"0 to 2 \(3\) in .*images\[2\]"):
        read("all.json", content, file)
    assert read("all.json", content, file, first_frame=1)[0] == EXPECTED[0]


def test_coco_must_know_the_video(read):
    with pytest.raises(ValueError, match=r"'clip'.*all\.json.*other"):
        read("all.json", coco(ROWS, video="other"))
    # An image without a box is enough.
    assert read("all.json", coco(ROWS[:1])) == [EXPECTED[0], [], []]


def test_results_name_frames_themselves(read):
    results = [
        {"video": "clip", "frame": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    ]
    assert read("all.json", results) == [[], [[1, 2, 3, 5, 0.5]], []]
    del results[0]["video"]
    with pytest.raises(ValueError, match=r"tell video and.*results\[0\]"):
        read("all.json", results)


@pytest.mark.parametrize(
    "arguments",
    # The second box lies within the first.
    [{"min_confidence": 0.25}, {"min_area": 34}, {"cover_threshold": 0.6}],
)
def test_filters_apply(read, arguments):
    assert read("clip.txt", lines(ROWS), **arguments)[2] == BOXES[:1]


# === Faults ===


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("clip.txt", "0,1,1,2,2\n0,1,1,2\n", r"'0,1,1,2' in .*txt', line 2"),
        ("clip.txt", "0,1,1,2,2\n\n0,1,1,2,2,1\n", "5 values.*line 3"),
        ("clip.txt", "0,1,a,2,2\n", r"'0,1,a,2,2' in .*line 1"),
        ("clip.txt", "0,1,1,2,2\n3,1,1,2,2\n", r"from 0 to 2 \(3, .*line 2"),
        ("clip.txt", "-1,1,1,2,2\n", "from 0 to 2.*line 1"),
        ("clip.txt", "0.5,1,1,2,2\n", "no whole number.*line 1"),
        ("clip.txt", "0,nan,1,2,2\n", "not finite.*line 1"),
        ("clip.txt", "0,1,1,9,9\n1,9,9,4,20\n", "a width and .*line 2"),
        ("clip.txt", "0,1,1,9,9,80\n", "not from 0 to 1 .*line 1"),
        ("clip.txt", "0,0.1,0.1,0.4,0.5\n", "shares of the frame.*line 1"),
        ("clip.csv", HEADER + "x,0,1,1,2,2,1\n", "'clip' alone.*boxes of x"),
        ("all.csv", "", "first line must name.*without frame, x_min"),
        ("all.csv", HEADER[6:] + "0,1,1,2,2,1\n", r"column `video`.*all\.csv"),
        ("all.csv", HEADER + "x,0,1,1,2,2,1\n", "no boxes of.*'clip'.*x"),
        ("all.csv", HEADER + "clip,0,1,1,2,2\n", "7 values.*csv', line 2"),
        ("all.csv", HEADER + "clip,9,1,1,2,2,1\n", "from 0 to 2.*line 2"),
        ("all.json", "{", r"Cannot read .*all\.json"),
        ("all.txt", "", "one .csv or .json"),
        ("x.txt", "", r"'clip'.*x\.txt"),
        ("clip.npy", np.zeros((3, 4)), r"\(3, 4\).*folder with the video's"),
        ("clip.npy", np.array(["a"]), "array of numbers"),
        ("clip.npy", np.array([[5, 1, 1, 2, 2]]), "from 0 to 2.*row 0"),
        ("clip.npy", np.array([None, 1]), r"Pickled.*numpy\.save"),
        ("all.npy", np.array([None, 1]), r"Pickled.*numpy\.save"),
    ],
)
def test_faulty_files_are_refused(read, name, content, message):
    with pytest.raises(ValueError, match=message):
        read(name, content)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ["annotations", 1, "image_id"],
            99,
            r"image_id': 99.*annotations\[1\]",
        ),
        (["annotations", 1, "image_id"], [], r"image_id': \[\].*\[1\]"),
        (["annotations", 1, "bbox"], [1, 2, 3], r"annotations\[1\]"),
        (["annotations", 1, "score"], "high", r"'high'.*annotations\[1\]"),
        (["annotations", 0], 3, r"`bbox`.* 3 in .*annotations\[0\]"),
        (["images", 0, "file_name"], "clip/x.png", r"frame_id.*\[0\]"),
        (["images", 0, "file_name"], "000.png", r"tell its video.*images\[0\]"),
        (["images", 0, "frame_id"], 3, r"from 0 to 2.*images\[0\]"),
        (["images", 2], {}, r"`id`.*images\[2\]"),
        (["images"], 3, "lists `images`"),
        (["annotations"], 3, "list of results"),
    ],
)
def test_faulty_json_is_refused(read, path, value, message):
    content = coco(ROWS)
    *above, last = path
    place = content
    for key in above:
        place = place[key]
    place[last] = value
    with pytest.raises(ValueError, match=message):
        read("all.json", content)


def test_files_that_change_are_read_again(folder, video):
    with pytest.raises(ValueError, match="not exist.*nowhere"):
        BoxFiles(folder / "nowhere")
    path = folder / "boxes.csv"
    path.write_text(HEADER + "clip,0,1,1,2,2,1\n")
    proposals = BoxFiles(path)
    assert proposals.files(video) == [str(path)]
    assert len(next(proposals.boxes(video))) == 1
    path.write_text(HEADER + "clip,0,1,1,2,2,1\nclip,0,3,3,5,5,1\n")
    os.utime(path, ns=(1, 1))
    assert len(next(proposals.boxes(video))) == 2


# === Arrays ===


def test_boxes_are_clipped_and_completed():
    clipped = clip_boxes(np.array([[-3, -1, 60, 40], [2, 3, 4, 5]]), (32, 48))
    assert clipped.tolist() == [[0, 0, 47, 31], [2, 3, 4, 5]]
    boxes = standardize_boxes([[1, 2, 3, 4]], "Boxes")
    assert boxes.tolist() == [[1, 2, 3, 4, 1]]
    assert standardize_boxes([], "Boxes").shape == (0, 5)
    # What detectors fill up with, and boxes of no width as of COCO.
    empty = [[0, 0, 0, 0, 0], [5, 5, 4, 9, 1]]
    assert standardize_boxes(empty, "Boxes").tolist() == empty
    assert standardize_boxes(empty[:1], "Boxes").tolist() == empty[:1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, 2, 3]], r"Boxes must be an array .* \(1, 3\)"),
        ([1, 2, 3, 4], r"shape \(4,\)"),
        ([[0, 0, 1, 1], [0, np.nan, 1, 1]], "must be finite.*row 1"),
        ([[1, 1, 9, 9], [20, 20, 10, 5]], "row 1 has an end before its start"),
        ([[1, 1, 9, 9, -0.5]], "row 0 has a confidence that is not"),
        ([[0.2, 0.2, 0.5, 1]], "row 0 has no number above 1"),
    ],
)
def test_arrays_that_are_no_boxes_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        standardize_boxes(values, "Boxes")


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_confidence", 1.0), ("min_area", np.nan), ("cover_threshold", 1.5)],
)
def test_filters_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        BoxFilter(**{name: value})


interval = st.lists(st.integers(0, 7), min_size=2, max_size=2).map(sorted)
box = st.tuples(interval, interval).map(lambda c: [*zip(*c, strict=True)])


@settings(max_examples=60)
@given(st.lists(box, min_size=1, max_size=6), st.sampled_from([0.3, 0.5, 0.9]))
def test_covered_boxes_are_those_that_counting_pixels_finds(corners, threshold):
    masks = np.zeros((len(corners), 8, 8), bool)
    for mask, ((left, top), (right, bottom)) in zip(
        masks, corners, strict=True
    ):
        mask[top : bottom + 1, left : right + 1] = True
    areas = masks.sum((1, 2))
    boxes = np.reshape(corners, (-1, 4))
    kept = [
        i
        for i in range(len(boxes))
        if not any(
            (masks[i] & masks[j]).sum() > threshold * areas[i]
            for j in range(len(boxes))
            if (areas[j], j) > (areas[i], i)
        )
    ]
    result = drop_covered(boxes, threshold)
    np.testing.assert_array_equal(result, boxes[kept])
