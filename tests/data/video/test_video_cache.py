import os

import numpy as np
import pytest
from video_writing import noise, truncate, write_frames, write_video

from keras_sspcab.data import make_video
from keras_sspcab.data.video import clips


@pytest.fixture
def decoded(monkeypatch):
    """Names of the videos that are decoded."""
    names = []
    original = clips.iterate_frames

    def spy(video, *arguments):
        names.append(video.name)
        return original(video, *arguments)

    monkeypatch.setattr(clips, "iterate_frames", spy)
    return names


def make(videos, folder, size=(12, 16), channels=1):
    return clips.cached_frames(videos, size, channels, str(folder), False)


def test_frames_are_decoded_once_unless_they_are_damaged(tmp_path, decoded):
    frames = noise(6), noise(4, seed=1)
    videos = [
        make_video(write_video(tmp_path / "a.mkv", frames[0])),
        make_video(write_frames(tmp_path / "b", frames[1])),
    ]
    folder = tmp_path / "new/cache"
    for names in (["a", "b"], ["a", "b"], ["a", "b", "b"]):
        if len(names) == 3:
            truncate(next(folder.glob("b-*")), 0.5)
        arrays = make(videos, folder)
        for array, expected in zip(arrays, frames, strict=True):
            np.testing.assert_array_equal(array, expected)
            assert isinstance(array, np.memmap)
            assert not array.flags.writeable
        assert sorted(decoded) == names


def test_what_pixels_depend_on_is_kept_apart(tmp_path, decoded):
    folder = write_frames(tmp_path / "v", noise(4))
    video = make_video(folder)
    for size, channels in [((12, 16), 1), ((8, 8), 1), ((12, 16), 3)]:
        (array,) = make([video], tmp_path / "cache", size, channels)
        assert array.shape == (4, *size, channels)
    write_frames(folder, noise(4, seed=5))
    for path in folder.iterdir():
        os.utime(path, ns=(1, 1))
    (array,) = make([video], tmp_path / "cache")
    np.testing.assert_array_equal(array, noise(4, seed=5))
    assert len(decoded) == len(os.listdir(tmp_path / "cache")) == 4


def test_a_broken_video_leaves_nothing_behind(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(40, (32, 48)))
    truncate(path, 0.6)
    with pytest.raises(ValueError, match="a.avi' has 40 frames"):
        make([make_video(path)], tmp_path / "cache")
    assert os.listdir(tmp_path / "cache") == []
