import numpy as np
import pytest
from scipy import io as scipy_io

from keras_sspcab.data.video import LabelSource
from keras_sspcab.data.video.labels import read_labels

LABELS = np.array([0, 1, 1, 0, 0, 1])


def cells(*intervals):
    """MATLAB's cell of arrays `(2, n)`, one a video."""
    cell = np.empty((1, len(intervals)), object)
    for video, pairs in enumerate(intervals):
        cell[0, video] = np.array(pairs, "float64").reshape(-1, 2).T
    return cell


def read(path, count=6, **where):
    labels = read_labels(LabelSource(str(path), **where), count)
    assert labels.dtype == np.uint8
    return labels.tolist()


@pytest.mark.parametrize("shape", [(6,), (1, 6), (6, 1)])
def test_npy(tmp_path, shape):
    np.save(tmp_path / "a.npy", LABELS.astype("float32").reshape(shape))
    assert read(tmp_path / "a.npy") == LABELS.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "0\n1\n1\n0\n0\n1\n",
        "0 1 1 0 0 1",
        "0,1,1,0,0,1\r\n\r\n",
        "\ufefflabel\n0\n1\n1\n0\n0\n1",
        "frame,label\n0,0\n1,1\n2,1\n5,1\n4,0\n3,0\n",
        "start,end\n1,2\n5,5\n",
        "Start, End\n5,5\n1,1\n1,2\n",
    ],
)
def test_text(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8")
    assert read(path) == LABELS.tolist()
    path.write_text("start,end\n")
    assert read(path) == [0] * 6


@pytest.mark.parametrize(
    "content",
    [
        {"labels": LABELS},
        {"intervals": np.array([[2, 6], [3, 6]])},
        {"intervals": np.array([[2, 2, 6], [3, 2, 6]])},
        {"gt": LABELS[:, None].astype("float64"), "note": "text"},
    ],
)
def test_mat(tmp_path, content):
    scipy_io.savemat(tmp_path / "a.mat", content)
    assert read(tmp_path / "a.mat") == LABELS.tolist()


def test_mat_of_several_videos(tmp_path):
    path = tmp_path / "ped2.mat"
    scipy_io.savemat(path, {"gt": cells([[1, 2]], [[2, 3], [6, 6]], [])})
    assert read(path, entry=0) == [1, 1, 0, 0, 0, 0]
    assert read(path, entry=1) == LABELS.tolist()
    assert read(path, entry=2) == [0] * 6
    with pytest.raises(ValueError, match="lists 3 videos .*entry=3"):
        read(path, entry=3)


def test_scripts_of_ucsd(tmp_path):
    path = tmp_path / "UCSDped1.m"
    path.write_text(
        "TestVideoFile = {};\n"
        "TestVideoFile{end+1}.gt_frame = [2:3, 6:6];\n"
        "TestVideoFile{end+1}.gt_frame = [2:3 6];\n"
        "TestVideoFile{end+1}.gt_frame = [];\n"
    )
    assert read(path, entry=0) == LABELS.tolist()
    assert read(path, entry=1) == LABELS.tolist()
    assert read(path, entry=2) == [0] * 6
    with pytest.raises(ValueError, match="Say which one by LabelSource"):
        read(path)


def test_part_of_the_labels_of_several_videos(tmp_path):
    np.save(tmp_path / "all.npy", np.concatenate([[1, 1], LABELS])[None])
    assert read(tmp_path / "all.npy", offset=2) == LABELS.tolist()
    assert read(tmp_path / "all.npy", 2, offset=0) == [1, 1]
    with pytest.raises(ValueError, match="5 labels .* 6 frames"):
        read(tmp_path / "all.npy", offset=3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "0 1 1", "3 labels in .*a.txt' for a video of 6 frames"),
        ("a.txt", "0 1 1 0 0 2", "Received: 2.0 at frame 5"),
        ("a.txt", "0\n1\nx\n", "Cannot read the labels"),
        ("a.txt", "0 0\n1 1\n2 1\n", "header must be.*'none'"),
        ("a.csv", "from,to\n1,2\n", "header must be.*'from,to'"),
        ("a.csv", "start,end\n1\n", "columns start,end"),
        ("a.csv", "start,end\n3,1\n", "from 0 to 5. Received: 3 to 1"),
        ("a.csv", "start,end\n3,6\n", "Received: 3 to 6"),
        ("a.csv", "start,end\n1.5,2\n", "Received: 1.5 to 2"),
        ("a.csv", "frame,label\n0,0\n2,1\n", "frame 1 is missing"),
        ("a.json", "[]", "extensions .npy"),
        ("a.npy", "", "Cannot read the labels"),
        ("a.mat", "no matlab", "Cannot read .*a.mat"),
        ("a.m", "x = 1;", "lines such as gt_frame"),
    ],
)
def test_files_that_do_not_fit(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": [1], "b": [2]}, r"single array.*\['a', 'b'\]"),
        ({"a": np.zeros((3, 3))}, r"\(2, n\)"),
        # Intervals of MATLAB count from 1.
        ({"a": [[0, 3], [1, 4]]}, "from 1 to 6. Received: 0 to 1"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, content, message):
    scipy_io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.mat")


def test_newer_matlab_files_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"one number a frame.*\(2, 3\)"):
        read(tmp_path / "a.npy")
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)
    (tmp_path / "a.mat").write_bytes(header)
    with pytest.raises(ValueError, match="version 7.3.*-v7"):
        read(tmp_path / "a.mat")
