import json
import os

import numpy as np
import pytest
from object_videos import draw_square
from video_writing import write_video

from keras_sspcab.data import make_video
from keras_sspcab.data.objects import BoxFiles

BOXES = [[1, 2, 10, 12, 0.9], [3.5, 4, 8, 9, 0.25]]
ROWS = [[0, *BOXES[0]], [2, *BOXES[1]], [2, *BOXES[0]]]
EXPECTED = [BOXES[:1], [], [BOXES[1], BOXES[0]]]


@pytest.fixture
def video(write):
    return write([draw_square(10 + t, 12) for t in range(3)])


def read(video, path, **arguments):
    return [
        boxes.tolist() for boxes in BoxFiles(path, **arguments).boxes(video)
    ]


def write_text(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


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


def test_text_without_a_header(tmp_path, video):
    # In any order; empty lines and spaces do not matter.
    text = lines(ROWS[1:]) + "\n " + lines(ROWS[:1]).replace(",", ", ")
    path = write_text(tmp_path / "boxes/clip.txt", text)
    assert read(video, tmp_path / "boxes") == EXPECTED
    path.write_text(lines(row[:5] for row in ROWS))
    assert read(video, tmp_path / "boxes")[2] == [
        [*BOXES[1][:4], 1],
        [*BOXES[0][:4], 1],
    ]
    # A video without objects.
    path.write_text("")
    assert read(video, tmp_path / "boxes") == [[], [], []]


HEADER = "video,frame,x_min,y_min,x_max,y_max,confidence\n"


def test_a_table_of_all_videos(tmp_path, video):
    rows = [["clip", *row] for row in ROWS] + [["other", 99, 1, 1, 2, 2, 1]]
    path = write_text(tmp_path / "boxes.csv", HEADER + lines(rows))
    assert read(video, path) == EXPECTED


def test_a_table_of_one_video_with_columns_in_any_order(tmp_path, video):
    header = "y_max,label,x_min,y_min,x_max,frame\n"
    text = header + "12,person,1,2,10,0\n\n"
    write_text(tmp_path / "boxes/clip.csv", text)
    assert read(video, tmp_path / "boxes") == [[[1, 2, 10, 12, 1]], [], []]


def test_an_array_of_rows(tmp_path, video):
    (tmp_path / "boxes").mkdir()
    np.save(tmp_path / "boxes/clip.npy", np.array(ROWS))
    assert read(video, tmp_path / "boxes") == EXPECTED


def test_an_array_for_each_frame(tmp_path, video):
    (tmp_path / "boxes/clip").mkdir(parents=True)
    for name, boxes in zip((2, 9, 10), EXPECTED, strict=True):
        np.save(tmp_path / f"boxes/clip/{name}.npy", np.array(boxes))
    assert read(video, tmp_path / "boxes") == EXPECTED


def test_coco_names_frames_by_their_files(tmp_path, video):
    path = write_text(tmp_path / "boxes.json", json.dumps(coco(ROWS)))
    assert read(video, path) == EXPECTED


def test_coco_names_frames_by_numbers(tmp_path, video):
    content = coco(ROWS)
    for t, image in enumerate(content["images"]):
        del image["file_name"]
        image.update(video_id=1, frame_id=t + 1)
    content["videos"] = [{"id": 1, "name": "clip"}]
    path = write_text(tmp_path / "boxes.json", json.dumps(content))
    assert read(video, path, first_frame=1) == EXPECTED


def test_coco_numbers_in_names_count_for_video_files(tmp_path):
    frames = np.stack([draw_square(10 + t, 12) for t in range(3)])
    video = make_video(write_video(tmp_path / "clip.mkv", frames))
    path = write_text(tmp_path / "boxes.json", json.dumps(coco(ROWS)))
    assert read(video, path) == EXPECTED


def test_coco_must_know_the_video(tmp_path, video):
    content = coco(ROWS, video="other")
    path = write_text(tmp_path / "boxes.json", json.dumps(content))
    with pytest.raises(ValueError, match=r"'clip'.*boxes\.json.*other"):
        read(video, path)
    # An image without a box is enough.
    content = coco(ROWS[:1])
    path = write_text(tmp_path / "none.json", json.dumps(content))
    assert read(video, path) == [EXPECTED[0], [], []]


def test_results_take_images_from_another_file(tmp_path, video):
    content = coco(ROWS)
    results = write_text(
        tmp_path / "results.json", json.dumps(content.pop("annotations"))
    )
    images = write_text(tmp_path / "images.json", json.dumps(content))
    assert read(video, results, images=images) == EXPECTED
    with pytest.raises(ValueError, match=r"images=.*image_id=7.*results\[0\]"):
        read(video, results)


def test_results_may_name_frames_themselves(tmp_path, video):
    results = [
        {"video": "clip", "frame": 1, "bbox": [1, 2, 3, 4], "score": 0.5}
    ]
    path = write_text(tmp_path / "results.json", json.dumps(results))
    assert read(video, path) == [[], [[1, 2, 3, 5, 0.5]], []]


def test_filters_apply(tmp_path, video):
    write_text(tmp_path / "boxes/clip.txt", lines(ROWS))
    assert read(video, tmp_path / "boxes", min_confidence=0.25)[2] == BOXES[:1]
    assert read(video, tmp_path / "boxes", min_area=34)[2] == BOXES[:1]
    # The second box lies within the first.
    assert read(video, tmp_path / "boxes", cover_threshold=0.6)[2] == BOXES[:1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("txt", "0,1,1,2,2\n0,1,1,2\n", r"'0,1,1,2' in .*clip\.txt', line 2"),
        ("txt", "0,1,1,2,2\n\n0,1,1,2,2,1\n", r"all lines or none.*line 3"),
        ("txt", "0,1,a,2,2\n", r"'0,1,a,2,2' in .*line 1"),
        ("txt", "0,1,1,2,2\n3,1,1,2,2\n", r"from 0 to 2 \(3, .*txt', line 2"),
        ("txt", "-1,1,1,2,2\n", "from 0 to 2.*line 1"),
        ("txt", "0.5,1,1,2,2\n", "no whole number.*line 1"),
        ("txt", "0,nan,1,2,2\n", "not finite.*line 1"),
        ("csv", HEADER + "other,0,1,1,2,2,1\n", "'clip' alone.*of other"),
        ("all", "", "first line must name.*without frame, x_min"),
        ("all", HEADER[6:] + "0,1,1,2,2,1\n", r"column `video`.*all\.csv"),
        ("all", HEADER + "other,0,1,1,2,2,1\n", "no boxes of.*'clip'.*other"),
        ("all", HEADER + "clip,0,1,1,2,2\n", r"7 values.*all\.csv', line 2"),
        ("all", HEADER + "clip,9,1,1,2,2,1\n", r"from 0 to 2.*csv', line 2"),
    ],
)
def test_faulty_text_is_refused(tmp_path, video, name, text, message):
    folder = tmp_path / "boxes"
    is_for_all = name == "all"
    file = folder / ("all.csv" if is_for_all else f"clip.{name}")
    write_text(file, text)
    with pytest.raises(ValueError, match=message):
        read(video, file if is_for_all else folder)


def change(content, path, value):
    *above, last = path
    for key in above:
        content = content[key]
    content[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["annotations", 1, "image_id"], 99, r"image_id=99.*annotations\[1\]"),
        (["annotations", 1, "image_id"], [], r"image_id=\[\].*\[1\]"),
        (["annotations", 1, "bbox"], [1, 2, 3], r"annotations\[1\]"),
        (["annotations", 1, "score"], "high", r"score='high'.*\[1\]"),
        (["annotations", 0], 3, r"`bbox`.*annotations\[0\]"),
        (["images", 0, "file_name"], "clip/x.png", r"frame_id.*\[0\]"),
        (["images", 0, "file_name"], "000.png", "must tell its video.*image 7"),
        (["images", 0, "frame_id"], 3, r"from 0 to 2.*annotations\[0\]"),
        (["images", 2], {}, r"`id`.*images\[2\]"),
        (["images"], 3, "list `images`"),
        (["annotations"], 3, "list of results"),
    ],
)
def test_faulty_json_is_refused(tmp_path, video, path, value, message):
    content = coco(ROWS)
    change(content, path, value)
    file = write_text(tmp_path / "boxes.json", json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read(video, file)


def test_text_that_is_no_json_is_refused(tmp_path, video):
    file = write_text(tmp_path / "boxes.json", "{")
    with pytest.raises(ValueError, match=r"Cannot read .*boxes\.json"):
        read(video, file)


def test_pickled_arrays_are_refused_and_the_way_out_named(tmp_path, video):
    boxes = np.empty(3, object)
    boxes[:] = [np.array(of_frame) for of_frame in EXPECTED]
    (tmp_path / "boxes").mkdir()
    for path in (tmp_path / "all.npy", tmp_path / "boxes/clip.npy"):
        np.save(path, boxes, allow_pickle=True)
        with pytest.raises(ValueError, match=r"Pickled.*numpy\.save"):
            read(video, path if path.stem == "all" else tmp_path / "boxes")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4)), r"\(3, 4\).*folder with the video's name"),
        (np.array(["a"]), "array of numbers"),
        (np.array([[5, 1, 1, 2, 2]]), r"from 0 to 2.*clip\.npy', row 0"),
    ],
)
def test_faulty_arrays_are_refused(tmp_path, video, array, message):
    (tmp_path / "boxes").mkdir()
    np.save(tmp_path / "boxes/clip.npy", array)
    with pytest.raises(ValueError, match=message):
        read(video, tmp_path / "boxes")


def test_there_must_be_an_array_for_each_frame(tmp_path, video):
    (tmp_path / "boxes/clip").mkdir(parents=True)
    np.save(tmp_path / "boxes/clip/0.npy", np.zeros((1, 5)))
    with pytest.raises(
        ValueError, match="array of boxes a frame.* 1 in.*3 frames"
    ):
        read(video, tmp_path / "boxes")
    for t in range(3):
        np.save(tmp_path / f"boxes/clip/{t}.npy", np.zeros((1, 7)))
    with pytest.raises(ValueError, match=r"0\.npy.*\(1, 7\)"):
        read(video, tmp_path / "boxes")


def test_unknown_videos_and_paths_are_refused(tmp_path, video):
    write_text(tmp_path / "boxes/other.txt", "")
    with pytest.raises(ValueError, match=r"'clip'.*other\.txt"):
        read(video, tmp_path / "boxes")
    with pytest.raises(ValueError, match="does not exist"):
        BoxFiles(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="one .csv or .json"):
        BoxFiles(tmp_path / "boxes/other.txt")


def test_files_that_change_are_read_again(tmp_path, video):
    path = tmp_path / "boxes.csv"
    write_text(path, HEADER + "clip,0,1,1,2,2,1\n")
    proposals = BoxFiles(path)
    assert proposals.files(video) == [str(path)]
    assert len(next(proposals.boxes(video))) == 1
    path.write_text(HEADER + "clip,0,1,1,2,2,1\nclip,0,3,3,5,5,1\n")
    os.utime(path, ns=(1, 1))
    assert len(next(proposals.boxes(video))) == 2
