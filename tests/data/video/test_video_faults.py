"""Videos and labels that went wrong once, and any that are broken."""

import numpy as np
import pytest
from scipy import io as scipy_io
from test_video_mat_files import CONTENT, MASKS, cell, write_version_7
from video_writing import noise, write_video

from keras_sspcab.data import attach_labels, frame_labels, make_video
from keras_sspcab.data.video import (
    LabelSource,
    Video,
    count_frames,
    iterate_frames,
    iterate_masks,
    iterate_timed_frames,
)
from keras_sspcab.data.video.labels import LABEL_EXTENSIONS
from tests.conftest import SHARED_DATA

pytest.importorskip("av")

FAULTS = SHARED_DATA / "faults"


def fault(name):
    if not FAULTS.is_dir():
        pytest.skip("needs the faulty files beside the project")
    return FAULTS / name


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("two_streams.mkv", 20, (48, 64)),
        ("rot90.mp4", 20, (64, 48)),
        ("vfr_alarm.mp4", 30, (48, 64)),
        ("odd.mkv", 20, (47, 63)),
        ("bframes.mp4", 20, (48, 64)),
    ],
)
def test_videos_are_read_as_players_show_them(name, count, size):
    video = make_video(fault(f"videos/{name}"))
    timed = list(iterate_timed_frames(video, channels=1))
    assert len(timed) == count_frames(video) == count
    assert {frame.shape for _, frame in timed} == {(*size, 1)}
    times = [seconds for seconds, _ in timed]
    expected = np.arange(count) / 25
    if name == "vfr_alarm.mp4":
        expected[20:] = np.arange(0.8, 10, 1)
    assert times == pytest.approx(expected)


@pytest.mark.data
def test_cut_videos_are_refused():
    with pytest.raises(ValueError, match=r"cut\.mp4"):
        list(iterate_frames(make_video(fault("videos/cut.mp4"))))


@pytest.mark.data
@pytest.mark.parametrize("name", ["savetxt_default.txt", "v73_vector.mat"])
def test_labels_are_read(name):
    path = str(fault(f"labels/{name}"))
    video = Video("a", "a.mp4", num_frames=20, labels=LabelSource(path))
    assert np.flatnonzero(frame_labels(video)).tolist() == [5, 6, 7, 8]


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash.mat", "crash.mat.*cut off"),
        ("broken_header.npy", "broken_header.npy"),
        ("short16.npy", "16 labels .* of 20 frames"),
    ],
)
def test_labels_are_refused(name, message):
    path = str(fault(f"labels/{name}"))
    video = Video("a", "a.mp4", num_frames=20, labels=LabelSource(path))
    with pytest.raises(ValueError, match=message):
        frame_labels(video)


# === Any broken file ===


EVERYTHING = {
    **{name: value for name, value in CONTENT.items() if name != "gt"},
    "volLabel": cell(MASKS * 3),
}


def mutate(content, rng):
    """Changes, removes, repeats or inserts some bytes of a file."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        start = int(rng.integers(len(data) + 1))
        # Most of what matters is in the beginning.
        start = start if rng.random() < 0.5 else min(start, start % 300)
        stop = start + int(rng.integers(1, 9))
        what = rng.integers(5)
        if what == 0:
            data = data[:start]
        elif what == 1:
            del data[start:stop]
        elif what == 2:
            data[start:start] = data[start:stop]
        else:
            span = len(data[start:stop])
            values = rng.integers(0, 256, span, "uint8").tobytes()
            data[start:stop] = b"\xff" * span if what == 3 else values
    return bytes(data)


def seeds(folder):
    """Writes good files and returns them."""
    folder.mkdir()
    frames = noise(6, (16, 16), 3)
    for name, codec in (
        *(("a.mp4", "libx264"), ("b.mkv", "libx264"), ("c.avi", "mpeg4")),
        *(("d.mov", "png"), ("e.webm", "libvpx-vp9"), ("f.mkv", "ffv1")),
    ):
        pixels = "rgb24" if codec == "png" else None
        write_video(folder / name, frames, codec, pixels)
    labels = np.array([0, 1, 1, 0, 0, 1])
    np.save(folder / "g.npy", labels)
    np.save(folder / "h.npy", np.zeros((6, 4, 4), "uint8"))
    np.savetxt(folder / "i.txt", labels)
    (folder / "j.csv").write_text("frame,label\n0,0\n1,1\n2,1\n3,0\n4,0\n5,1")
    (folder / "k.csv").write_text("start;end\n1;2\n5;5\n")
    (folder / "l.m").write_text("TestVideoFile{end+1}.gt_frame = [2:3, 6];\n")
    for name, compressed in (("m.mat", False), ("n.mat", True)):
        scipy_io.savemat(folder / name, EVERYTHING, do_compression=compressed)
    scipy_io.savemat(folder / "o.mat", {"labels": labels}, format="4")
    scipy_io.savemat(folder / "p.mat", {"labels": labels})
    write_version_7(folder / "q.mat", {"labels": labels[None]})
    write_version_7(folder / "r.mat", EVERYTHING)
    return sorted(folder.iterdir())


def use(path):
    """Does what is done with a file; returns why it was refused, or nothing."""
    try:
        if not path.name.endswith(LABEL_EXTENSIONS):
            video = make_video(path)
            times = [seconds for seconds, _ in iterate_timed_frames(video)]
            assert times[0] == 0
            assert (np.diff(times) > 0).all()
            return ""
        (video,) = attach_labels(Video("a", "a.mp4", num_frames=6), path)
        if video.masks is not None:
            assert all(mask.ndim == 2 for mask in iterate_masks(video))
        assert set(frame_labels(video).tolist()) <= {0, 1}
    except ValueError as error:
        return str(error)
    return ""


def fuzz(folder, count, seed=0):
    """Uses `count` broken files; returns how many were refused."""
    good = seeds(folder / "good")
    rng = np.random.default_rng(seed)
    refused = 0
    for number in range(count):
        source = good[number % len(good)]
        path = folder / f"broken{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), rng))
        reason = use(path)
        assert not reason or path.name in reason
        refused += bool(reason)
    return refused


@pytest.mark.filterwarnings("ignore")
def test_broken_files_are_refused_by_name(tmp_path):
    assert not any(map(use, seeds(tmp_path / "whole")))
    assert fuzz(tmp_path, 360) > 180
