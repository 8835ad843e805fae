import pickle
import sys

import numpy as np
import pytest
from scipy import ndimage
from video_writing import write_frames

from keras_sspcab.data import DISFlow, OpticalFlow, make_video

pytest.importorskip("cv2")


@pytest.fixture(scope="session")
def texture():
    """Smooth gray noise, uint8 `(160, 200)`."""
    rng = np.random.default_rng(0)
    values = ndimage.gaussian_filter(rng.normal(size=(160, 200)), 2)
    values -= values.min()
    return (values / values.max() * 255).astype("uint8")


@pytest.fixture(scope="session")
def moving(texture):
    """Frames (64, 80) whose content moves 3 to the right and 2 down."""
    return np.stack(
        [
            texture[40 - 2 * t : 104 - 2 * t, 60 - 3 * t : 140 - 3 * t, None]
            for t in range(4)
        ]
    )


@pytest.fixture
def video(tmp_path, moving):
    return make_video(write_frames(tmp_path / "a", moving))


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


def test_the_flow_to_each_frame_of_a_video(video, moving):
    flows = list(DISFlow().iterate(video))
    assert len(flows) == len(moving)
    assert not flows[0].any()
    # Color counts as gray.
    colors = np.repeat(moving, 3, axis=-1)
    for t, flow in enumerate(flows[1:], 1):
        np.testing.assert_array_equal(DISFlow()(*colors[t - 1 : t + 1]), flow)
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


def test_copies_and_names(monkeypatch):
    flow = pickle.loads(pickle.dumps(DISFlow("fast")))
    assert repr(flow) == "DISFlow(preset='fast')"
    assert flow.settings["preset"] == "fast"
    with pytest.raises(ValueError, match="`preset`.*'slow'"):
        DISFlow("slow")
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
