import dataclasses
import re

import numpy as np
import pytest
from scipy import io as scipy_io
from video_writing import CUT_PACKET, noise, truncate, write_frames, write_video

from keras_sspcab.data import (
    BadFilesError,
    attach_labels,
    check_videos,
    frame_labels,
    make_video,
)
from keras_sspcab.data.video import LabelSource, Video, VideoFolder


@pytest.fixture
def videos(tmp_path):
    return [
        make_video(write_frames(tmp_path / name, noise(count)))
        for name, count in (("01", 3), ("02", 2))
    ]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "truth"
    folder.mkdir()
    return folder


def test_a_folder_by_name_or_number(videos, folder):
    (folder / "1_label.txt").write_text("0 1 1")
    (folder / "readme.md").touch()
    labeled = attach_labels(videos, folder)
    assert frame_labels(labeled[0]).tolist() == [0, 1, 1]
    assert not labeled[1].has_ground_truth
    (folder / "01.csv").write_text("start,end\n")
    with pytest.raises(ValueError, match="two files of ground truth"):
        attach_labels(videos, folder)


def test_a_folder_without_any_is_told(videos, folder):
    (folder / "01.json").write_text("[0, 1, 1]")
    with pytest.raises(ValueError, match=r"1 files \(1 \.json\). It takes"):
        attach_labels(videos, folder)


def test_names_go_before_numbers(tmp_path, folder):
    both = [
        make_video(write_frames(tmp_path / name, noise(2)))
        for name in ("1", "01")
    ]
    (folder / "1.txt").write_text("0\n1")
    first, second = attach_labels(both, folder)
    assert first.has_ground_truth
    assert not second.has_ground_truth
    (folder / "01.txt").write_text("1\n0")
    labels = map(frame_labels, attach_labels(both, folder))
    assert [part.tolist() for part in labels] == [[0, 1], [1, 0]]


def test_one_file_for_all(videos, folder):
    np.save(folder / "all.npy", [0, 1, 0, 0, 1])
    first, second = attach_labels(videos, folder / "all.npy")
    assert frame_labels(first).tolist() == [0, 1, 0]
    assert frame_labels(second).tolist() == [0, 1]
    (only,) = attach_labels(second, folder / "all.npy")
    with pytest.raises(ValueError, match="5 labels .* of 2 frames"):
        frame_labels(only)


def test_files_for_another_number_of_videos(videos, folder):
    cells = np.empty((1, 3), object)
    cells[:] = [[np.zeros((2, 0))] * 3]
    scipy_io.savemat(folder / "gt.mat", {"gt": cells})
    with pytest.raises(ValueError, match="for 3 videos, and 2 videos"):
        attach_labels(videos, folder / "gt.mat")
    (folder / "a.txt").write_text("0 1 1 0 0")
    with pytest.raises(ValueError, match="must be .npy, .mat"):
        attach_labels(videos, folder / "a.txt")
    with pytest.raises(ValueError, match="does not exist.*gone"):
        attach_labels(videos, folder / "gone")


@pytest.fixture
def three_videos(tmp_path):
    return [
        make_video(write_frames(tmp_path / "a", noise(3))),
        make_video(write_video(tmp_path / "b.mkv", noise(5, (32, 48)))),
        make_video(write_video(tmp_path / "c.avi", noise(40, (32, 48)))),
    ]


def test_all_bad_videos_are_reported_at_once(three_videos, tmp_path):
    assert [video.num_frames for video in check_videos(three_videos)] == [
        3,
        5,
        40,
    ]
    truncate(tmp_path / "c.avi", 0.6)
    (tmp_path / "a/001.png").write_bytes(b"")
    with pytest.raises(BadFilesError) as caught:
        check_videos(three_videos)
    assert len(caught.value.problems) == 2
    assert "a/001.png' is empty" in str(caught.value)
    assert re.search(f"c.avi' {CUT_PACKET}", str(caught.value))
    with pytest.warns(UserWarning, match="2 bad files among 3 videos"):
        (good,) = check_videos(three_videos, on_error="skip")
    assert good.name == "b"


def test_black_masks_on_white_are_told(videos, folder):
    white = np.full((3, 12, 16), 255, "uint8")
    white[2, 3:6, 3:6] = 0
    np.save(folder / "01.npy", white)
    # One large anomaly among small ones is none.
    few = np.zeros((2, 12, 16), "uint8")
    few[0], few[1, :2] = 1, 1
    np.save(folder / "02.npy", few)
    labeled = attach_labels(videos, folder)
    message = r"Masks of 1 videos mark most .*: \S*01\.npy\. .* must be black"
    with pytest.warns(UserWarning, match=message) as caught:
        assert len(check_videos(labeled)) == 2
    assert len(caught) == 1


def test_whole_videos_are_held_out():
    train = tuple(Video(f"{i:02d}", f"{i:02d}.avi") for i in range(10))
    split = VideoFolder("root", "plain", train).with_validation(0.2)
    assert (len(split.train), len(split.validation)) == (8, 2)
    assert {*split.train, *split.validation} == set(train)
    assert "validation: 2 of 10 normal videos" in split.summary()
    single = VideoFolder("root", "plain", train[:1])
    with pytest.raises(ValueError, match="at least two.*with 1. Cut a long"):
        single.with_validation()


def test_ground_truth_is_checked(three_videos, tmp_path):
    np.save(tmp_path / "l.npy", [0, 1])
    np.save(tmp_path / "m.npy", np.zeros((5, 8, 8)))
    labels = LabelSource(str(tmp_path / "l.npy"))
    bad = [
        dataclasses.replace(three_videos[0], labels=labels),
        dataclasses.replace(three_videos[1], masks=str(tmp_path / "m.npy")),
    ]
    with pytest.raises(BadFilesError) as caught:
        check_videos(bad, on_error="skip")
    assert "2 labels in" in str(caught.value)
    assert "8x8 pixels in" in str(caught.value)
