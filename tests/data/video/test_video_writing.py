from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("av")

from keras_sspcab.data.video import (
    frame_rate,
    iterate_frames,
    make_video,
    read_frames,
    video_writer,
)
from tests.data.video_writing import numbered, write_frames, write_video


def gradients(count, size):
    """Smooth frames, which compression leaves nearly alone."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    frame = np.stack([rows * 3, columns * 3, rows + columns], axis=-1)
    return [(frame + 10 * i).astype("uint8") for i in range(count)]


@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_frames_come_back(tmp_path, size):
    frames = gradients(5, size)
    path = tmp_path / "out.mp4"
    with video_writer(str(path), Fraction(30000, 1001)) as write:
        for frame in frames:
            write(frame)
    video = make_video(path)
    assert frame_rate(video) == Fraction(30000, 1001)
    found = list(iterate_frames(video))
    assert len(found) == 5
    height, width = size
    for got, frame in zip(found, frames, strict=True):
        assert got.shape == (height + height % 2, width + width % 2, 3)
        difference = got[:height, :width].astype(int) - frame
        assert np.abs(difference).mean() < 4
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_failures_leave_what_was_there(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"before")

    def fail():
        with video_writer(str(path)) as write:
            write(gradients(1, (32, 32))[0])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()

    def write_all(frames):
        with video_writer(str(path)) as write:
            for frame in frames:
                write(frame)

    sizes = [(32, 32), (32, 34)]
    mixed = [gradients(1, size)[0] for size in sizes]
    with pytest.raises(ValueError, match="of one size"):
        write_all(mixed)
    with pytest.raises(ValueError, match="at least one frame"):
        write_all([])
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_some_frames_of_a_video(tmp_path):
    frames = numbered(9)
    folder = make_video(write_frames(tmp_path / "frames", frames))
    file = make_video(write_video(tmp_path / "file.avi", frames))
    for video in (folder, file):
        found = read_frames(video, [7, 2], channels=1)
        assert set(found) == {2, 7}
        for position, pixels in found.items():
            np.testing.assert_array_equal(pixels, frames[position])
        assert read_frames(video, []) == {}
        with pytest.raises(ValueError, match=r"positions \[9\]"):
            read_frames(video, [1, 9])
    assert frame_rate(folder) == 25
