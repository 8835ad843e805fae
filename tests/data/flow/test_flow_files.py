import struct

import numpy as np
import pytest
from video_writing import noise, write_frames

from keras_sspcab.data import FlowFiles, make_video
from keras_sspcab.data.flow import read_flo, resize_flow

FLOWS = np.random.default_rng(0).normal(size=(4, 12, 16, 2)).astype("float32")


def write_flo(path, flow):
    height, width, _ = flow.shape
    head = struct.pack("<fii", 202021.25, width, height)
    path.write_bytes(head + flow.astype("<f4").tobytes())


@pytest.fixture
def video(tmp_path):
    return make_video(write_frames(tmp_path / "01", noise(4)))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "flows/01"
    folder.mkdir(parents=True)
    return folder


def read(folder, video, **arguments):
    size = arguments.pop("image_size", None)
    flows = FlowFiles(folder.parent, **arguments).iterate(video, size)
    return np.stack(list(flows))


def test_one_file_a_frame(folder, video):
    for t in range(4):
        # 10 comes after 9.
        write_flo(folder / f"{t + 8}.flo", FLOWS[t])
    np.testing.assert_array_equal(read(folder, video), FLOWS)
    np.testing.assert_array_equal(read(folder, video, scale=2), 2 * FLOWS)


@pytest.mark.parametrize("first", [0, 1])
def test_one_file_a_pair_or_a_video(folder, video, first):
    for t in range(first, 4):
        np.save(folder / f"{t:03d}.npy", FLOWS[t])
    expected = np.concatenate([np.zeros_like(FLOWS[:first]), FLOWS[first:]])
    np.testing.assert_array_equal(read(folder, video), expected)
    np.save(folder.parent / "01.npy", FLOWS[first:].astype("float64"))
    flows = read(folder, video)
    assert flows.dtype == np.float32
    np.testing.assert_array_equal(flows, expected)


def test_resizing_scales_the_pixels(folder, video):
    np.save(folder.parent / "01.npy", np.ones((3, 12, 16, 2)))
    flows = read(folder, video, image_size=(6, 32))
    assert flows.shape == (4, 6, 32, 2)
    assert not flows[0].any()
    np.testing.assert_allclose(flows[1:, ..., 0], 2.0, rtol=1e-6)
    np.testing.assert_allclose(flows[1:, ..., 1], 0.5, rtol=1e-6)
    same = resize_flow(FLOWS[0], (12, 16))
    np.testing.assert_array_equal(same, FLOWS[0])


def test_missing_flows(folder, video, tmp_path):
    with pytest.raises(ValueError, match="no flows of the video '01'"):
        read(folder, video)
    write_flo(folder / "1.flo", FLOWS[0])
    with pytest.raises(ValueError, match="or one less.* 1 in.* the 4 frames"):
        read(folder, video)
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
def test_bad_flows_are_named(folder, video, name, flow, message):
    for t in range(4):
        np.save(folder / f"{t}.npy", FLOWS[t])
    np.save(folder.parent / f"{name}.npy", flow)
    with pytest.raises(ValueError, match=message):
        read(folder, video)


# === The format .flo ===

# Tag, width, height, then rows of pairs.
CONTENT = struct.pack("<fii12f", 202021.25, 2, 3, *range(12))


def test_bytes_are_read(tmp_path):
    (tmp_path / "a.flo").write_bytes(CONTENT)
    flow = read_flo(str(tmp_path / "a.flo"))
    assert flow.dtype == np.float32
    assert flow[2].tolist() == [[8, 9], [10, 11]]


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
