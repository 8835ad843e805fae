import contextlib
import pathlib
import struct
import sys
from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from video_writing import (
    CUT_PACKET,
    noise,
    numbered,
    set_display_matrix,
    truncate,
    write_frames,
    write_video,
)

from keras_sspcab.data import (
    Preprocessing,
    Video,
    decode_image,
    iterate_frames,
    make_video,
)
from keras_sspcab.data.video import (
    count_frames,
    frame_rate,
    iterate_timed_frames,
    read_frames,
    video_writer,
)
from keras_sspcab.data.video.clips import Clips
from keras_sspcab.data.video.reading import measure_white

pytest.importorskip("av")


def read(path, channels=1, **known):
    video = Video("v", str(path), "file", **known)
    return np.stack(list(iterate_frames(video, channels=channels)))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *[("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")],
        *[("a.mpg", "mpeg2video"), ("a.3gp", "mpeg4"), ("a.asf", "wmv2")],
        *[("a.mxf", "mpeg2video"), ("a.vob", "mpeg2video")],
        ("a.h264", "libx264"),
    ],
)
def test_compressed_files_keep_number_and_order(tmp_path, name, codec):
    path = write_video(tmp_path / name, numbered(40, (48, 64)), codec)
    frames = read(path)
    assert count_frames(make_video(path)) == len(frames) == 40
    means = frames.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 2 * np.arange(40), atol=4)


# === Times, streams, and how frames lie ===

# A pause, and frames close to each other.
TIMES = [0, 40, 80, 1080, 1081, 2500]


def times_of(path):
    return [seconds for seconds, _ in iterate_timed_frames(make_video(path))]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("start", [0, 700])
def test_frames_have_their_own_times(tmp_path, name, start):
    path = tmp_path / name
    frames = numbered(6, (48, 64))
    times = [start + time for time in TIMES]
    write_video(path, frames, "libx264", times=times)
    assert times_of(path) == pytest.approx([t / 1000 for t in TIMES])


def test_times_that_are_missing_follow_from_the_rate(tmp_path):
    # Streams without a container have none.
    path = write_video(tmp_path / "a.m4v", numbered(6, (48, 64)), "mpeg4")
    folder = write_frames(tmp_path / "frames", numbered(6))
    for video in (path, folder):
        assert times_of(video) == pytest.approx(np.arange(6) / 25)


def test_titles_need_not_be_text(tmp_path):
    path = write_video(tmp_path / "a.avi", numbered(3, (48, 64)), "mpeg4")
    content = path.read_bytes()
    assert b"Lavf" in content
    path.write_bytes(content.replace(b"Lavf", b"\xff\xe9\xff\xff"))
    assert len(read(path)) == 3


def write_streams(path, *streams):
    """Writes pairs of frames and a disposition as streams of one file."""
    import av

    with av.open(str(path), "w") as container:
        added = []
        for frames, disposition in streams:
            is_cover = disposition == av.stream.Disposition.attached_pic
            codec = "mjpeg" if is_cover else "libx264"
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuvj420p" if is_cover else "yuv420p"
            stream.disposition = disposition.value
            added.append((stream, frames))
        for stream, frames in added:
            for pixels in frames:
                picture = av.VideoFrame.from_ndarray(pixels[..., 0], "gray")
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    return path


def test_thumbnails_and_covers_are_not_the_video(tmp_path):
    from av.stream import Disposition

    video = numbered(10, (48, 64)), Disposition(0)
    thumbnail = numbered(1, (16, 16), 200), Disposition(0)
    cover = numbered(1, (64, 64), 200), Disposition.attached_pic
    for name, streams in (("a.mkv", [thumbnail, video]), ("b.mp4", [cover])):
        path = write_streams(tmp_path / name, *streams, video)
        assert count_frames(make_video(path)) == 10
        assert read(path).shape == (10, 48, 64, 1)
        assert len(times_of(path)) == 10
    only = write_streams(tmp_path / "c.mp4", cover)
    for action in (read, lambda path: count_frames(make_video(path))):
        with pytest.raises(ValueError, match=r"c.mp4' holds no video"):
            action(only)


@pytest.mark.parametrize(
    ("matrix", "displayed"),
    [
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
    ],
)
def test_frames_are_turned_upright(tmp_path, matrix, displayed):
    frames = noise(3, (8, 12), 3)
    path = write_video(tmp_path / "a.mov", frames, "png", "rgb24")
    set_display_matrix(path, *matrix)
    expected = np.stack([displayed(frame) for frame in frames])
    np.testing.assert_array_equal(read(path, 3), expected)
    small = next(iterate_frames(make_video(path), (6, 4)))
    assert small.shape == (6, 4, 3)
    last = read_frames(make_video(path), [2])[2]
    np.testing.assert_array_equal(last, expected[2])
    set_display_matrix(path, 1, 1, -1, 1)
    with pytest.raises(ValueError, match=r"a.mov', turned by -?45 degrees"):
        read(path)


def test_some_frames_of_a_video(tmp_path):
    frames = numbered(9)
    folder = write_frames(tmp_path / "frames", frames)
    file = write_video(tmp_path / "file.avi", frames)
    for video in map(make_video, (folder, file)):
        some = read_frames(video, [7, 2], channels=1)
        assert sorted(some) == [2, 7]
        for position, pixels in some.items():
            np.testing.assert_array_equal(pixels, frames[position])
        assert read_frames(video, []) == {}
        with pytest.raises(ValueError, match=r"positions \[9\]"):
            read_frames(video, [1, 9])


def test_cut_by_an_edit_list(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(40, (48, 64)), "libx264")
    content = bytearray(path.read_bytes())
    # Its only entry: the length, in milliseconds, and the begin, in ticks.
    place = content.index(b"elst") + 12
    begin = int.from_bytes(content[place + 4 : place + 8], "big")
    begin += 10 * 12800 // 25
    content[place : place + 8] = struct.pack(">II", 800, begin)
    path.write_bytes(content)
    frames = read(path)
    assert count_frames(make_video(path)) == len(frames) == 20
    means = frames.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 2 * np.arange(10, 30), atol=4)


def test_files_with_16_bits_use_those_below_the_white_level(tmp_path):
    frames = noise(3, (8, 12)).astype("uint16") * 16
    path = write_video(tmp_path / "a.mkv", frames, "ffv1", "gray16le")
    video = make_video(path)
    measured = measure_white([video])
    assert measured == Preprocessing(4095)
    np.testing.assert_array_equal(
        read(path, preprocessing=measured), frames >> 4
    )
    with pytest.raises(ValueError, match=r"a.mkv' has a frame 0 .*0 to 1023"):
        read(path, preprocessing=Preprocessing(1023))
    narrow = write_video(tmp_path / "b.mkv", noise(3))
    assert measure_white([make_video(narrow)]).white_level == 65535


@pytest.mark.parametrize("pixel_format", ["gbrp16le", "gbrap16le"])
def test_colors_with_16_bits_are_read_as_those_of_images(
    tmp_path, pixel_format
):
    frames = np.random.default_rng(0).integers(0, 4096, (3, 8, 12, 3), "uint16")
    frames[0, 0, 0] = 4095
    path = write_video(tmp_path / "a.mkv", frames, "ffv1", pixel_format)
    measured = measure_white([make_video(path)])
    assert measured == Preprocessing(4095)
    colors = read(path, 3, preprocessing=measured)
    np.testing.assert_array_equal(colors, frames >> 4)
    gray = read(path, 1, preprocessing=measured)
    for pixels, frame in zip(gray, frames, strict=True):
        image = decode_image(tf.io.encode_png(frame), 1, measured)
        np.testing.assert_array_equal(pixels, image)
    with pytest.raises(
        ValueError, match=r"a.mkv' has a frame 0 .* level.*1023"
    ):
        read(path, preprocessing=Preprocessing(1023))


# === Damage ===


def test_frames_that_change_their_size(tmp_path):
    path = write_video(tmp_path / "a.mpg", noise(6, (32, 48)), "mpeg2video")
    other = write_video(tmp_path / "b.mpg", noise(6, (64, 48)), "mpeg2video")
    with path.open("ab") as file:
        file.write(other.read_bytes())
    with pytest.raises(ValueError, match=r"frame \d+ of 64x48 .* of 32x48"):
        read(path)


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


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_the_last_frame_of_a_slow_video_lasts(tmp_path, name):
    # One every five seconds.
    path = write_video(
        tmp_path / name, numbered(6, (32, 48)), "mpeg4", rate=Fraction(1, 5)
    )
    assert times_of(path) == [0, 5, 10, 15, 20, 25]
    # Two of them are lost.
    truncate(path, 0.7)
    with pytest.raises(ValueError, match=name):
        read(path)


def test_the_user_may_know_the_number_of_frames(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(40, (32, 48)))
    truncate(path, 0.6)
    with pytest.raises(ValueError, match=CUT_PACKET) as caught:
        read(path)
    count = int(str(caught.value).partition("num_frames=")[2].split(")")[0])
    assert len(read(path, num_frames=count)) == count
    message = f"has {count + 1} frames|is broken at frame {count}"
    with pytest.raises(ValueError, match=message):
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
    with pytest.raises(ValueError, match="does not exist"):
        make_video(tmp_path / "b.avi")
    with pytest.raises(ValueError, match="`kind` argument.*'files'"):
        Video("a", "a", "files")


@settings(max_examples=20)
@given(
    st.sampled_from(
        [b"", b"RIFF\0\0\0\0AVI ", b"\x1aE\xdf\xa3", b"\0\0\1\xba"]
    ),
    st.binary(max_size=300),
)
def test_random_bytes_are_refused_by_name(tmp_path_factory, head, content):
    path = tmp_path_factory.mktemp("random") / "a.avi"
    path.write_bytes(head + content)
    with pytest.raises(ValueError, match=r"a\.avi"):
        read(path)
    # Counting does not decode: what looks like a frame is one.
    with contextlib.suppress(ValueError):
        assert count_frames(make_video(path)) > 0


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


def test_written_frames_are_shown_at_their_times(tmp_path):
    path = tmp_path / "out.mp4"
    with video_writer(str(path)) as write:
        for frame, time in zip(gradients(6, (48, 64)), TIMES, strict=True):
            write(frame, time / 1000)
    assert times_of(path) == pytest.approx([t / 1000 for t in TIMES])


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
