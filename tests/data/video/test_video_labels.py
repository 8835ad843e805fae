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
        # As NumPy writes them.
        "# labels\n" + "".join(f"{label:.18e}\n" for label in LABELS),
        # As pandas writes them.
        ",label\n0,0\n1,1\n2,1\n3,0\n4,0\n5,1\n",
        ",0\n0,False\n1,True\n2,True\n3,False\n4,False\n5,True\n",
        "Unnamed: 0,frame,label\n0,1,0\n1,2,1\n2,3,1\n3,4,0\n4,5,0\n5,6,1\n",
        # As spreadsheets write them.
        '"frame";"label"\r\n0;0\r\n1;1\r\n2;1\r\n3;0\r\n4;0\r\n5;1\r\n',
        "0;1;1;0;0;1;\n",
        "Frame\tIs_anomaly\n0\tno\n1\tYES\n2\tyes\n3\tno\n4\tno\n5\tyes\n",
        "False\nTrue\nTrue\nFalse\nFalse\nTrue",
        "0 0\n1 1\n2 1\n3 0\n4 0\n5 1\n",
        "1\t0\n2\t1\n3\t1\n4\t0\n5\t0\n6\t1\n",
        ",start,end\n0,1,2\n1,5,5\n",
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


@pytest.mark.parametrize("shape", [(0, 0), (2, 0)])
def test_mat_of_a_normal_video(tmp_path, shape):
    scipy_io.savemat(tmp_path / "a.mat", {"intervals": np.zeros(shape)})
    assert read(tmp_path / "a.mat") == [0] * 6


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
        "% TestVideoFile{end+1}.gt_frame = [1:2];\n"
        "TestVideoFile{end+1}.gt_frame = [];\n"
        "TestVideoFile{end+1}.gt_frame = 2:3 ;  % one\n"
        "TestVideoFile{end+1}.gt_frame = [2 : 3, ... more\n 6]\n"
    )
    assert read(path, entry=0) == LABELS.tolist()
    assert read(path, entry=1) == LABELS.tolist()
    assert read(path, entry=2) == [0] * 6
    assert read(path, entry=3) == [0, 1, 1, 0, 0, 0]
    assert read(path, entry=4) == LABELS.tolist()
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
        ("a.txt", "0\n1\nx\n", "a.txt', line 3: 'x' is no number.*one number"),
        ("a.txt", "0\n1\n\nnan\n", "3 labels"),
        ("a.txt", "0\n1\nnan\n0\n0\n0", "Received: nan at frame 2"),
        ("a.txt", "3 0\n1 1\n2 1\n", "line 1: two columns without"),
        ("a.txt", "1 2\n5 5\n", "line 1: two columns without"),
        ("a.csv", "0,0;1,0", "line 1: '0,0' is no number"),
        ("a.csv", "from,to\n1,2\n", "line 1: columns 'from', 'to'"),
        ("a.csv", "normal\n1\n1\n", "line 1: columns 'normal'"),
        ("a.csv", "label,gt\n0,0\n", "line 1: columns 'label', 'gt'"),
        ("a.csv", "label,label\n0,0\n", "line 1: columns 'label', 'label'"),
        ("a.csv", "frame\n0\n", "line 1: columns 'frame'"),
        ("a.csv", "start,end\n1\n", "line 2: 1 cells in 2 columns"),
        ("a.csv", "video,frame,label\na,0,0\n", "line 2: 'a' is no number"),
        ("a.csv", "start,end\n3,1\n", "from 0 to 5. Received: 3 to 1"),
        ("a.csv", "start,end\n3,6\n", "Received: 3 to 6"),
        ("a.csv", "start,end\n1.5,2\n", "Received: 1.5 to 2"),
        ("a.csv", "frame,label\n0,0\n2,1\n", "frame 1 is missing"),
        ("a.json", "[]", "extensions .npy"),
        ("a.npy", "", "Cannot read the labels"),
        ("a.mat", "no matlab", "Cannot read .*a.mat"),
        ("a.m", "x = 1;", "lines such as gt_frame"),
        ("a.m", "gt_frame = [1:end];", "such as.*'1:end' in"),
        ("a.m", "gt_frame = [1:2:6];", "such as.*'1:2:6' in"),
        ("a.m", "gt_frame = [1:2]';", "such as.*a.m"),
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


def test_tables_of_numbers_are_no_labels(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"one number a frame.*\(2, 3\)"):
        read(tmp_path / "a.npy")
