import dataclasses

import numpy as np
import pytest
from video_writing import noise, truncate, write_frames, write_video

from keras_sspcab.data import (
    BadFilesError,
    Video,
    VideoFolder,
    check_videos,
    make_video,
)
from keras_sspcab.data.video import LabelSource


@pytest.fixture
def videos(tmp_path):
    return [
        make_video(write_frames(tmp_path / "a", noise(3))),
        make_video(write_video(tmp_path / "b.mkv", noise(5, (32, 48)))),
        make_video(write_video(tmp_path / "c.avi", noise(40, (32, 48)))),
    ]


def check(videos, **arguments):
    return check_videos(videos, **arguments)


def test_all_bad_videos_are_reported_at_once(videos, tmp_path):
    assert [video.num_frames for video in check(videos)] == [3, 5, 40]
    truncate(tmp_path / "c.avi", 0.6)
    (tmp_path / "a/001.png").write_bytes(b"")
    with pytest.raises(BadFilesError) as caught:
        check(videos)
    assert len(caught.value.problems) == 2
    assert "a/001.png' is empty" in str(caught.value)
    assert "c.avi' has 40 frames" in str(caught.value)
    with pytest.warns(UserWarning, match="2 bad files among 3 videos"):
        (good,) = check(videos, on_error="skip")
    assert good.name == "b"


def test_ground_truth_is_checked(videos, tmp_path):
    np.save(tmp_path / "l.npy", [0, 1])
    np.save(tmp_path / "m.npy", np.zeros((5, 8, 8)))
    labels = LabelSource(str(tmp_path / "l.npy"))
    videos = [
        dataclasses.replace(videos[0], labels=labels),
        dataclasses.replace(videos[1], masks=str(tmp_path / "m.npy")),
    ]
    with pytest.raises(BadFilesError) as caught:
        check(videos, on_error="skip")
    assert "2 labels in" in str(caught.value)
    assert "8x8 pixels in" in str(caught.value)


def test_what_is_no_video(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        make_video(tmp_path / "a.avi")
    with pytest.raises(ValueError, match="`kind` argument.*'files'"):
        Video("a", "a", "files")


def test_whole_videos_are_held_out():
    train = tuple(Video(f"{i:02d}", f"{i:02d}.avi") for i in range(10))
    split = VideoFolder("root", "plain", train).with_validation(0.2)
    assert (len(split.train), len(split.validation)) == (8, 2)
    assert {*split.train, *split.validation} == set(train)
    assert "validation: 2 of 10 normal videos" in split.summary()
    single = VideoFolder("root", "plain", train[:1])
    with pytest.raises(ValueError, match="at least two.*with 1. Cut a long"):
        single.with_validation()
