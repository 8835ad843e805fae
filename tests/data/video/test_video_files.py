import pathlib
import sys
from fractions import Fraction

import numpy as np
import pytest
from video_writing import noise, numbered, truncate, write_frames, write_video

from keras_sspcab.data import Video, iterate_frames, make_video
from keras_sspcab.data.video import count_frames, frame_rate, video_writer
from keras_sspcab.data.video.clips import Clips

pytest.importorskip("av")


def read(path, channels=1, **known):
    video = Video("v", str(path), "file", **known)
    return np.stack(list(iterate_frames(video, channels=channels)))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mpg", "mpeg2video")],
)
def test_compressed_files_keep_number_and_order(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered(40, (48, 64)), codec)
    frames = read(path)
    assert count_frames(make_video(path)) == len(frames) == 40
    means = frames.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 2 * np.arange(40), atol=4)


# === Damage ===


@pytest.mark.parametrize(
    ("name", "codec", "share", "message"),
    [
        # Its end is stated, the number of frames is not.
        ("a.mkv", "ffv1", 0.1, "a.mkv' lasts 1.6 seconds"),
        ("a.mp4", "libx264", 0.6, "a.mp4"),
    ],
)
def test_truncated_files_are_named(tmp_path, name, codec, share, message):
    path = write_video(tmp_path / name, noise(40, (32, 48)), codec)
    truncate(path, share)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_the_user_may_know_the_number_of_frames(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(40, (32, 48)))
    truncate(path, 0.6)
    with pytest.raises(ValueError, match="has 40 frames.*truncated") as caught:
        read(path)
    count = int(str(caught.value).partition("num_frames=")[2].split(")")[0])
    assert len(read(path, num_frames=count)) == count
    with pytest.raises(ValueError, match=f"has {count + 1} frames"):
        read(path, num_frames=count + 1)


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


def test_without_pyav_the_error_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.avi"
    path.touch()
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"keras-sspcab\[video\]"):
        read(path)


# === Memory ===


def resident_memory():
    """Mebibytes that this process holds now."""
    status = pathlib.Path("/proc/self/status")
    if not status.exists():
        pytest.skip("memory is read from /proc")
    return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1024


def test_memory_does_not_grow_with_the_length(tmp_path):
    still = np.zeros((240, 320, 3), "uint8")
    path = write_video(tmp_path / "long.avi", [still] * 500, "mpeg4")
    clips = Clips([make_video(path)], 5)
    for count, _ in enumerate(clips.stream((240, 320), 3), 1):
        if count == 50:
            early = resident_memory()
    assert count == 496
    # All frames together would take 110 MiB.
    assert resident_memory() - early < 20


# === Writing ===


def gradients(count, size):
    """Smooth frames, which compression leaves nearly alone."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frame = np.stack([rows * 3, columns * 3, rows + columns], axis=-1)
    return [(frame + 10 * i).astype("uint8") for i in range(count)]


def write_all(path, frames, rate=25):
    with video_writer(str(path), rate) as write:
        for frame in frames:
            write(frame)


def test_written_frames_come_back(tmp_path):
    size = 33, 46
    frames = gradients(5, size)
    path = tmp_path / "out.mp4"
    write_all(path, frames, Fraction(30000, 1001))
    video = make_video(path)
    assert frame_rate(video) == Fraction(30000, 1001)
    for got, frame in zip(iterate_frames(video), frames, strict=True):
        assert got.shape == (34, 46, 3)
        assert np.abs(got[:33].astype(int) - frame).mean() < 4
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    folder = make_video(write_frames(tmp_path / "frames", numbered(1)))
    assert frame_rate(folder) == 25


def test_failures_leave_what_was_there(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"before")

    mixed = [gradients(1, size)[0] for size in [(32, 32), (32, 34)]]
    for frames, message in (
        (mixed, "of one size"),
        ([], "at least one frame"),
        ([np.zeros((4, 4))], "uint8 arrays"),
    ):
        with pytest.raises(ValueError, match=message):
            write_all(path, frames)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
