import json
import os
import pathlib

import h5py
import numpy as np
import pytest
from object_videos import HEIGHT, WIDTH, Given
from PIL import Image
from video_writing import truncate

from keras_sspcab.data import FlowFiles, OpticalFlow
from keras_sspcab.data.objects import (
    BoxFiles,
    extract_cubes,
    open_cube_file,
)

cv2 = pytest.importorskip("cv2")

# In frame 0, 2 (two objects) and 6, the last one.
BOXES = [
    [[1, 2, 20, 22, 0.9]],
    [],
    [[3.2, 4.0, 18.7, 12.3, 0.5], [30, 10, 47, 31, 1.0]],
    [],
    [],
    [],
    [[5, 5, 40, 8, 1.0]],
]


class Difference(OpticalFlow):
    """Differences of gray values stand for a flow."""

    settings = "difference"

    def __init__(self):
        self.shapes = []

    def estimate(self, previous, current):
        self.shapes.append(previous.shape)
        flow = current.astype("float32") - previous
        return np.stack([flow, flow / 10], -1)


def extract(videos, tmp_path, boxes=BOXES, flow=None, **arguments):
    arguments = {"size": 8, **arguments}
    return extract_cubes(
        videos,
        boxes if hasattr(boxes, "settings") else Given(*boxes),
        flow or Difference(),
        tmp_path / "cubes",
        **arguments,
    )


def gray(frame):
    return np.asarray(Image.fromarray(frame).convert("L"), "float32")


def expected_flow(frames, t):
    if not 0 < t < len(frames):
        return np.zeros((HEIGHT, WIDTH, 2), "float32")
    flow = gray(frames[t]) - gray(frames[t - 1])
    return np.stack([flow, flow / 10], -1).astype("float32")


def resized(array, box, size=8):
    """A plain crop: pixels of the rounded-up box, both ends included."""
    left, top, right, bottom = np.ceil(box[:4]).astype(int)
    piece = array[top : bottom + 1, left : right + 1]
    return cv2.resize(piece, (size, size), interpolation=cv2.INTER_LINEAR)


def test_cubes_are_crops_of_frames_and_flows(tmp_path, noisy):
    video, frames = noisy
    (file,) = extract(video, tmp_path)
    assert (file.name, file.num_objects, file.num_frames) == ("noisy", 4, 7)
    assert (file.frame_size, file.num_skipped) == ((HEIGHT, WIDTH), 0)
    assert (file.length, file.size, file.channels) == (5, 8, 3)
    assert file.read("frames").tolist() == [0, 2, 2, 6]
    flat = [(t, box) for t, of_frame in enumerate(BOXES) for box in of_frame]
    np.testing.assert_array_equal(
        file.read("boxes"), np.float32([box for _, box in flat])
    )
    with h5py.File(file.path) as content:
        assert content["appearance"].dtype == np.uint8
        assert content["appearance"].shape == (4, 5, 8, 8, 3)
        assert content["motion"].dtype == np.float32
        for row, (t, box) in enumerate(flat):
            for step in range(5):
                # The first frame is repeated.
                at = max(t - 4 + step, 0)
                np.testing.assert_array_equal(
                    content["appearance"][row, step], resized(frames[at], box)
                )
                np.testing.assert_allclose(
                    content["motion"][row, step],
                    resized(expected_flow(frames, at), box),
                    atol=1e-4,
                )
            np.testing.assert_allclose(
                content["next_motion"][row],
                resized(expected_flow(frames, t + 1), box),
                atol=1e-4,
            )
        # The flow to the first frame, and from the last one.
        assert not content["motion"][0].any()
        assert not content["next_motion"][3].any()
    (file,) = extract(video, tmp_path, num_frames=1, channels=1)
    crop = file.read("appearance")[2, 0, :, :, 0]
    wanted = resized(gray(frames[2]), BOXES[2][1])
    np.testing.assert_allclose(crop, wanted, atol=1.1)


def test_boxes_are_clipped_and_those_beside_the_frame_told(tmp_path, noisy):
    video, frames = noisy
    of_frame = [
        [-5, -4, 10, 11, 1],
        [40, 20, 60, 60, 0.5],
        [10, 10, 9, 20, 1],
        [50, 5, 60, 9, 1],
        [-9, 0, -1, 5, 1],
        [7.2, 3, 7.9, 3.5, 1],
        [47, 31, 47, 31, 1],
    ]
    beside = "left out: 2 of 6 in 'noisy', of 32x48 pixels. Are they"
    with pytest.warns(UserWarning, match=beside):
        (file,) = extract(video, tmp_path, [[], of_frame, *[[]] * 5])
    # An empty box is nowhere.
    assert file.num_skipped == 2
    kept = file.read("boxes")
    clipped = [[0, 0, 10, 11, 1], [40, 20, 47, 31, 0.5]]
    expected = np.float32([*clipped, *of_frame[-2:]])
    np.testing.assert_array_equal(kept, expected)
    appearance = file.read("appearance")[:, -1]
    np.testing.assert_array_equal(appearance[0], resized(frames[1], kept[0]))
    # Within the columns 7.2 to 7.9, rounded up, there is column 8 alone.
    np.testing.assert_array_equal(
        appearance[2], cv2.resize(frames[1][3:5, 8:9], (8, 8))
    )
    assert (appearance[3] == frames[1][31, 47]).all()


def test_boxes_of_larger_frames_are_told_each_time(tmp_path, write, noisy):
    videos = [write(noisy[1], name) for name in "ab"]
    boxes = [[[60, 40, 79, 59, 1], [4, 4, 20, 20, 1]]] * 7
    for _ in range(2):
        # The second time the files are there.
        message = r"7 of 14 in 'a', .*7 of 14 in 'b', .*of another size\?"
        with pytest.warns(UserWarning, match=message) as caught:
            extract(videos, tmp_path, boxes)
        assert len(caught) == 1


def test_finished_files_are_kept(tmp_path, noisy):
    flow = Difference()
    (file,) = extract(noisy[0], tmp_path, flow=flow)
    before = os.stat(file.path).st_mtime_ns
    assert extract(noisy[0], tmp_path, flow=flow) == (file,)
    # Computed once for each pair, at the size of the frames.
    assert flow.shapes == [(HEIGHT, WIDTH)] * 6
    assert os.stat(file.path).st_mtime_ns == before
    with h5py.File(file.path) as content:
        attributes = dict(content.attrs)
    settings = json.loads(attributes["settings"])
    assert settings["flow"] == "difference"
    assert settings["proposals"]["name"] == "given"
    assert attributes["fingerprint"] in os.path.basename(file.path)
    # Unless they are damaged.
    motion = file.read("motion")
    truncate(pathlib.Path(file.path), 0.7)
    assert extract(noisy[0], tmp_path) == (file,)
    np.testing.assert_array_equal(file.read("motion"), motion)


def test_other_settings_make_another_file(tmp_path, noisy):
    changes = [{}, {"size": 6}, {"num_frames": 3}, {"boxes": [[]] * 7}]
    files = [extract(noisy[0], tmp_path, **change)[0] for change in changes]
    assert len({file.path for file in files}) == len(changes)
    assert open_cube_file(files[0].path) == files[0]
    # Without objects there is a file as well.
    assert (files[-1].num_objects, files[-1].num_frames) == (0, 7)
    assert files[-1].read("motion").shape == (0, 5, 8, 8, 2)


def test_files_that_proposals_and_flows_read_count(tmp_path, noisy):
    for name in ("flows", "boxes"):
        (tmp_path / name).mkdir()
    text = "0,1,2,20,22,0.9\n"
    paths = set()
    for value, boxes in ((1.0, text), (2.0, text), (2.0, text * 2)):
        (tmp_path / "boxes/noisy.txt").write_text(boxes)
        path = tmp_path / "flows/noisy.npy"
        np.save(path, np.full((7, HEIGHT // 2, WIDTH // 2, 2), value))
        for changed in (path, tmp_path / "boxes/noisy.txt"):
            os.utime(changed, ns=(int(value), int(value)))
        flow = FlowFiles(tmp_path / "flows")
        proposals = BoxFiles(tmp_path / "boxes")
        (file,) = extract(noisy[0], tmp_path, proposals, flow)
        # Flows of half the size are enlarged, and their values with them.
        assert np.unique(file.read("motion")).tolist() == [2 * value]
        paths.add(file.path)
    assert len(paths) == 3


def test_an_interrupted_extraction_goes_on(tmp_path, write, noisy):
    videos = [write(noisy[1], name) for name in "ab"]
    (first,) = extract(videos[0], tmp_path)

    class Failing(Given):
        def boxes(self, video):
            for t, boxes in enumerate(super().boxes(video)):
                if t == 5:
                    raise KeyboardInterrupt
                yield boxes

    with pytest.raises(KeyboardInterrupt):
        extract(videos, tmp_path, Failing(*BOXES))
    assert os.listdir(tmp_path / "cubes") == [os.path.basename(first.path)]
    flow = Difference()
    files = extract(videos, tmp_path, flow=flow)
    assert [file.name for file in files] == ["a", "b"]
    assert files[0] == first
    assert len(flow.shapes) == 6


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (BOXES[:5], r"only 5 boxes for .*noisy"),
        ([*BOXES, []], r"only 7 frames and flows for .*noisy"),
        ([[], [[0, 0, np.nan, 1, 1]]], "frame 1 of .*noisy.*finite"),
    ],
)
def test_boxes_that_do_not_fit_are_refused(tmp_path, noisy, boxes, message):
    with pytest.raises(ValueError, match=message):
        extract(noisy[0], tmp_path, boxes)
    assert os.listdir(tmp_path / "cubes") == []


def test_arguments_out_of_range_are_refused(tmp_path, noisy):
    for name, value in (("size", 1), ("num_frames", 0), ("channels", 2)):
        with pytest.raises(ValueError, match=name):
            extract(noisy[0], tmp_path, **{name: value})
    with pytest.raises(ValueError, match="'noisy' more than once"):
        extract([noisy[0]] * 2, tmp_path)


def test_files_of_other_kinds_are_refused(tmp_path, noisy):
    (file,) = extract(noisy[0], tmp_path)
    with h5py.File(file.path, "r+") as content:
        content.attrs["version"] = 99
    with pytest.raises(ValueError, match="version .*99"):
        open_cube_file(file.path)
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(ValueError, match=r"other\.h5.*None"):
        open_cube_file(tmp_path / "other.h5")
    (tmp_path / "broken.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken\.h5.*cannot be read"):
        open_cube_file(tmp_path / "broken.h5")
