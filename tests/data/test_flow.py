import struct
import sys

import numpy as np
import pytest
from scipy import ndimage
from video_writing import noise, write_frames

from keras_sspcab.data import DISFlow, FlowFiles, OpticalFlow, make_video
from keras_sspcab.data.flow import read_flo, resize_flow

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


def test_a_shifted_texture(texture):
    right, down = 5, -6
    previous = texture[20:130, 30:170]
    current = texture[20 - down : 130 - down, 30 - right : 170 - right]
    flow = DISFlow()(previous, current)
    assert flow.shape == (110, 140, 2)
    assert flow.dtype == np.float32
    inner = flow[12:-12, 12:-12]
    mean = inner.mean(axis=(0, 1))
    np.testing.assert_allclose(mean, [right, down], atol=0.15)
    assert np.median(np.abs(inner - [right, down])) < 0.15


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


def test_a_flow_depends_on_its_frames_alone(moving, texture):
    flow = DISFlow()
    pairs = [(moving[0], moving[1]), (texture[:-1], texture[1:])]
    first, again = ([flow(*pair) for pair in pairs] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


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


def test_without_opencv_the_way_out_is_named(monkeypatch):
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


FLOWS = np.random.default_rng(0).normal(size=(4, 12, 16, 2)).astype("float32")


def write_flo(path, flow):
    height, width, _ = flow.shape
    head = struct.pack("<fii", 202021.25, width, height)
    path.write_bytes(head + flow.astype("<f4").tobytes())


@pytest.fixture
def clip(tmp_path):
    return make_video(write_frames(tmp_path / "01", noise(4)))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "flows/01"
    folder.mkdir(parents=True)
    return folder


def read_flows(folder, video, **arguments):
    size = arguments.pop("image_size", None)
    flows = FlowFiles(folder.parent, **arguments).iterate(video, size)
    return np.stack(list(flows))


def test_one_file_a_frame(folder, clip):
    for t in range(4):
        # 10 comes after 9.
        write_flo(folder / f"{t + 8}.flo", FLOWS[t])
    np.testing.assert_array_equal(read_flows(folder, clip), FLOWS)
    np.testing.assert_array_equal(read_flows(folder, clip, scale=2), 2 * FLOWS)


def test_files_named_by_seconds_lie_as_frames_do(folder, clip):
    for seconds, flow in zip(
        ("0.0", "0.04", "0.08", "0.1"), FLOWS, strict=True
    ):
        write_flo(folder / f"{seconds}.flo", flow)
    np.testing.assert_array_equal(read_flows(folder, clip), FLOWS)


@pytest.mark.parametrize("first", [0, 1])
def test_one_file_a_pair_or_a_video(folder, clip, first):
    for t in range(first, 4):
        np.save(folder / f"{t:03d}.npy", FLOWS[t])
    expected = np.concatenate([np.zeros_like(FLOWS[:first]), FLOWS[first:]])
    np.testing.assert_array_equal(read_flows(folder, clip), expected)
    np.save(folder.parent / "01.npy", FLOWS[first:].astype("float64"))
    flows = read_flows(folder, clip)
    assert flows.dtype == np.float32
    np.testing.assert_array_equal(flows, expected)


def test_resizing_scales_the_pixels(folder, clip):
    np.save(folder.parent / "01.npy", np.ones((3, 12, 16, 2)))
    flows = read_flows(folder, clip, image_size=(6, 32))
    assert flows.shape == (4, 6, 32, 2)
    assert not flows[0].any()
    np.testing.assert_allclose(flows[1:, ..., 0], 2.0, rtol=1e-6)
    np.testing.assert_allclose(flows[1:, ..., 1], 0.5, rtol=1e-6)
    same = resize_flow(FLOWS[0], (12, 16))
    np.testing.assert_array_equal(same, FLOWS[0])


def test_missing_flows(folder, clip, tmp_path):
    with pytest.raises(ValueError, match="no flows of the video '01'"):
        read_flows(folder, clip)
    write_flo(folder / "1.flo", FLOWS[0])
    with pytest.raises(ValueError, match="or one less.* 1 in.* the 4 frames"):
        read_flows(folder, clip)
    with pytest.raises(ValueError, match="does not exist"):
        FlowFiles(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "flow", "message"),
    [
        ("01/2", np.zeros((12, 15, 2)), r"2.npy' must be .* \(12, 16, 2\)"),
        ("01/2", np.zeros((12, 16)), "2.npy' must be an array"),
        ("01/2", np.full((12, 16, 2), 1e10), "2.npy' must be known"),
        ("01/2", np.array(["text"]), "array of numbers.*2.npy"),
        ("01", FLOWS[0], r"\(frames, height, width, 2\)"),
    ],
)
def test_bad_flows_are_named(folder, clip, name, flow, message):
    for t in range(4):
        np.save(folder / f"{t}.npy", FLOWS[t])
    np.save(folder.parent / f"{name}.npy", flow)
    with pytest.raises(ValueError, match=message):
        read_flows(folder, clip)


# === The format .flo ===

# Tag, width, height, then rows of pairs.
CONTENT = struct.pack("<fii12f", 202021.25, 2, 3, *range(12))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must begin with b'PIEH'"),
        (b"PNG" + CONTENT, "must begin with"),
        (CONTENT[:10], "must begin with"),
        (CONTENT[:-1], "3x2 pixels must have 60 bytes.*59 bytes"),
        (CONTENT + b"0", "61 bytes"),
        (b"PIEH" + struct.pack("<ii", -1, -1) + bytes(8), "bytes"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "a.flo"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_flo(str(path))
