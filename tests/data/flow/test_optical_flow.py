import os
import pickle
import sys

import numpy as np
import pytest
from video_writing import truncate, write_frames

from keras_sspcab.data import DISFlow, FlowFiles, OpticalFlow, make_video
from keras_sspcab.data.flow.optical_flow import cached_flow

pytest.importorskip("cv2")


@pytest.fixture
def video(tmp_path, moving):
    return make_video(write_frames(tmp_path / "a", moving))


# === Estimating ===


@pytest.mark.parametrize(
    ("preset", "tolerance", "shift"),
    [
        ("ultrafast", 0.5, (5, 3)),
        ("fast", 0.4, (-4, 2)),
        ("medium", 0.15, (5, -6)),
    ],
)
def test_a_shifted_texture(texture, preset, tolerance, shift):
    right, down = shift
    previous = texture[20:130, 30:170]
    current = texture[20 - down : 130 - down, 30 - right : 170 - right]
    flow = DISFlow(preset)(previous, current)
    assert flow.shape == (110, 140, 2)
    assert flow.dtype == np.float32
    inner = flow[12:-12, 12:-12]
    np.testing.assert_allclose(
        inner.mean(axis=(0, 1)), [right, down], atol=tolerance
    )
    assert np.median(np.abs(inner - [right, down])) < tolerance


def test_color_counts_as_gray(moving):
    flow = DISFlow()
    gray = flow(moving[0, ..., 0], moving[1, ..., 0])
    for channels in (1, 3):
        frames = np.repeat(moving, channels, axis=-1)
        np.testing.assert_array_equal(flow(frames[0], frames[1]), gray)


def test_the_flow_to_each_frame_of_a_video(video, moving):
    flows = list(DISFlow().iterate(video))
    assert len(flows) == len(moving)
    assert not flows[0].any()
    for flow in flows[1:]:
        inner = flow[10:-10, 10:-10]
        np.testing.assert_allclose(inner.mean((0, 1)), [3, 2], atol=0.15)
    halves = list(DISFlow().iterate(video, (32, 40)))
    inner = np.stack(halves)[1:, 6:-6, 6:-6]
    np.testing.assert_allclose(inner.mean((0, 1, 2)), [1.5, 1], atol=0.15)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((40, 40)), np.zeros((40, 40))),
        (np.zeros((40, 40), "uint8"), np.zeros((40, 41), "uint8")),
        (np.zeros((40, 40, 2), "uint8"),) * 2,
    ],
)
def test_frames_that_do_not_fit(first, second):
    with pytest.raises(ValueError, match="two uint8 frames of one shape"):
        DISFlow()(first, second)
    low = np.zeros((16, 200), "uint8")
    with pytest.raises(ValueError, match=r"at least 32x32 .* 16x200"):
        DISFlow()(low, low)


def test_a_flow_depends_on_its_frames_alone(moving, texture):
    flow = DISFlow("fast")
    pairs = [(moving[0], moving[1]), (texture[:-1], texture[1:])] * 2
    flows = [flow(*pair) for pair in pairs]
    for first, again in zip(flows[:2], flows[2:], strict=True):
        np.testing.assert_array_equal(again, first)
    large = DISFlow("fast")(*pairs[1])
    np.testing.assert_array_equal(flows[1], large)


def test_copies_and_names():
    flow = pickle.loads(pickle.dumps(DISFlow("fast")))
    assert repr(flow) == "DISFlow(preset='fast')"
    assert flow.settings["preset"] == "fast"
    with pytest.raises(ValueError, match="`preset`.*'slow'"):
        DISFlow("slow")


def test_without_opencv_the_error_names_the_extra(monkeypatch):
    frame = np.zeros((40, 40), "uint8")
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"keras-sspcab\[video\]"):
        DISFlow()(frame, frame)


class Constant(OpticalFlow):
    """Takes color and returns what it is given."""

    channels = 3
    settings = "constant"

    def __init__(self, flow):
        self.flow = flow

    def estimate(self, previous, current):
        assert previous.shape == current.shape == (4, 5, 3)
        return self.flow


def test_an_estimator_of_ones_own():
    frame = np.zeros((4, 5), "uint8")
    flow = Constant(np.ones((4, 5, 2)))(frame, frame)
    assert flow.dtype == np.float32
    with pytest.raises(ValueError, match=r"array \(4, 5, 2\).*\(4, 5\)"):
        Constant(np.ones((4, 5)))(frame, frame)
    broken = np.ones((4, 5, 2))
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match="not finite.* at 1 pixels"):
        Constant(broken)(frame, frame)


# === Keeping ===


class Counting(DISFlow):
    calls = 0

    def estimate(self, previous, current):
        self.calls += 1
        return super().estimate(previous, current)


def keep(video, flow, tmp_path, size=(64, 80)):
    return cached_flow(video, flow, str(tmp_path / "cache"), size)


def test_flows_are_computed_once_unless_they_are_damaged(tmp_path, video):
    flow = Counting("fast")
    expected = np.stack(list(DISFlow("fast").iterate(video)))
    for calls in (3, 3, 6):
        if calls == 6:
            (path,) = (tmp_path / "cache").iterdir()
            truncate(path, 0.9)
        kept = keep(video, flow, tmp_path)
        assert flow.calls == calls
        assert isinstance(kept, np.memmap)
        np.testing.assert_array_equal(kept, expected.astype("float16"))


def test_what_flows_depend_on_is_kept_apart(tmp_path, video):
    first = keep(video, DISFlow("fast"), tmp_path)
    assert (first != keep(video, DISFlow("medium"), tmp_path)).any()
    small = keep(video, DISFlow("fast"), tmp_path, (32, 40))
    assert small.shape == (4, 32, 40, 2)
    (tmp_path / "flows").mkdir()
    path = tmp_path / "flows/a.npy"
    for value in (1.0, 1e6):
        np.save(path, np.full((4, 64, 80, 2), value))
        flows = keep(video, FlowFiles(tmp_path / "flows"), tmp_path)
        # Half precision ends at 65504.
        assert np.unique(flows).tolist() == [min(value, 65504.0)]
        os.utime(path, ns=(1, 1))
    assert len(os.listdir(tmp_path / "cache")) == 5
