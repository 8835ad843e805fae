import pathlib
import sys

import numpy as np
import pytest
from video_writing import noise, numbered, truncate, write_video

from keras_sspcab.data import Video, iterate_frames, make_video
from keras_sspcab.data.video import _pyav as pyav_module
from keras_sspcab.data.video import count_frames
from keras_sspcab.data.video.clips import ClipPlan, stream_clips


def read(path, channels=1, **known):
    video = Video("v", str(path), "file", **known)
    return np.stack(list(iterate_frames(video, channels=channels)))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["avi", "mkv"])
def test_lossless_files_give_the_frames_back(tmp_path, suffix, channels):
    frames = noise(7, (32, 48), channels)
    path = write_video(tmp_path / f"a.{suffix}", frames)
    np.testing.assert_array_equal(read(path, channels), frames)
    assert count_frames(make_video(path)) == 7


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.avi", "mpeg4"),
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.mpg", "mpeg2video"),
    ],
)
def test_compressed_files_keep_number_and_order(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered(40, (48, 64)), codec)
    frames = read(path)
    assert len(frames) == 40
    assert count_frames(make_video(path)) == 40
    means = frames.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 2 * np.arange(40), atol=4)


def test_a_truncated_file_is_named_with_its_frames(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(40, (32, 48)))
    truncate(path, 0.6)
    with pytest.raises(ValueError, match=r"a.avi' has 40 frames.*truncated"):
        read(path)


def test_a_truncated_file_without_a_count_ends_too_early(tmp_path):
    path = write_video(tmp_path / "a.mkv", noise(80, (32, 48)))
    truncate(path, 0.5)
    with pytest.raises(ValueError, match=r"a.mkv' lasts 3.2 seconds"):
        read(path)


def test_the_user_may_know_the_number_of_frames(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(40, (32, 48)))
    truncate(path, 0.6)
    with pytest.raises(ValueError) as caught:
        read(path)
    count = int(str(caught.value).partition("num_frames=")[2].split(")")[0])
    assert len(read(path, num_frames=count)) == count
    with pytest.raises(ValueError, match=f"has {count + 1} frames"):
        read(path, num_frames=count + 1)


def test_a_truncated_mp4_cannot_be_read(tmp_path):
    path = write_video(tmp_path / "a.mp4", noise(40, (32, 48)), "libx264")
    truncate(path, 0.6)
    with pytest.raises(ValueError, match="a.mp4"):
        read(path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"no video" * 99, "Invalid data")]
)
def test_files_that_are_no_video(tmp_path, content, reason):
    path = tmp_path / "a.avi"
    path.write_bytes(content)
    for action in (read, lambda path: count_frames(make_video(path))):
        with pytest.raises(ValueError, match=f"a.avi' cannot be .*{reason}"):
            action(path)


def test_frames_that_change_their_size(tmp_path):
    path = write_video(tmp_path / "a.mpg", noise(6, (32, 48)), "mpeg2video")
    other = write_video(tmp_path / "b.mpg", noise(6, (64, 48)), "mpeg2video")
    with path.open("ab") as file:
        file.write(other.read_bytes())
    with pytest.raises(ValueError, match=r"frame \d+ of 64x48 .* of 32x48"):
        read(path)


def test_damage_within_a_file_is_named_or_found_by_the_count(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(30, (32, 48)), "mpeg4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = bytes(4000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.avi"):
        read(path)


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.avi"
    path.touch()
    monkeypatch.setitem(sys.modules, "av", None)
    pyav_module.pyav.cache_clear()
    try:
        with pytest.raises(ImportError, match=r"keras-sspcab\[video\]"):
            read(path)
    finally:
        pyav_module.pyav.cache_clear()


def resident_memory():
    """Mebibytes that this process holds now."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is read from /proc")
    return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.parametrize("what", ["frames", "clips"])
def test_memory_does_not_grow_with_the_length(tmp_path, what):
    still = np.zeros((240, 320, 3), "uint8")
    path = write_video(tmp_path / "long.avi", [still] * 700, "mpeg4")
    video = make_video(path)
    if what == "frames":
        items = iterate_frames(video)
    else:
        items = stream_clips([video], [700], ClipPlan(5), (240, 320), 3)
    for count, _ in enumerate(items, 1):
        if count == 50:
            early = resident_memory()
    assert count == 700 - 4 * (what == "clips")
    # All frames together would take 154 MiB.
    assert resident_memory() - early < 20
