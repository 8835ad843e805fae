import struct

import h5py
import numpy as np
import pytest
from scipy import io as scipy_io

from keras_sspcab.data.video.mat_files import load_mat, mat_names

MASKS = [np.eye(3, 4, dtype="uint8"), np.zeros((3, 4), "uint8")]


def cell(values):
    cells = np.empty((1, len(values)), object)
    for position, value in enumerate(values):
        cells[0, position] = value
    return cells


CONTENT = {
    "labels": np.array([[0.0, 1.0, 1.0]]),
    "pairs": np.arange(6, dtype="int16").reshape(2, 3),
    "is_abnormal": np.array([[True], [False]]),
    "large": np.arange(9000, dtype="int32").reshape(90, 100),
    "nothing": np.empty((0, 0)),
    "gt": cell([np.array([[1.0, 2.0], [3.0, 4.0]]), np.empty((2, 0))]),
    "volLabel": cell(MASKS),
    "nested": cell([cell([np.ones((1, 1))])]),
}
OTHERS = {
    "text": "abc",
    "complex": np.array([[1j]]),
    "struct": {"a": np.ones((1, 1))},
}


def require_equal(value, expected):
    # Of an empty one, version 7.3 stores the shape elsewhere.
    assert value.shape == expected.shape or value.size == expected.size == 0
    assert value.dtype.kind == expected.dtype.kind or value.dtype == np.uint8
    if expected.dtype == object:
        for one, other in zip(value.ravel(), expected.ravel(), strict=True):
            require_equal(one, other)
    else:
        np.testing.assert_array_equal(value.ravel(), expected.ravel())


@pytest.mark.parametrize("compressed", [False, True])
def test_version_5(tmp_path, compressed):
    path = str(tmp_path / "a.mat")
    scipy_io.savemat(path, CONTENT | OTHERS, do_compression=compressed)
    assert set(mat_names(path)) == {*CONTENT, *OTHERS}
    content = load_mat(path)
    assert content.keys() == CONTENT.keys()
    for name, expected in CONTENT.items():
        require_equal(content[name], expected)


def test_version_5_of_machines_with_the_other_byte_order(tmp_path):
    def element(kind, payload):
        return struct.pack(">II", kind, len(payload)) + payload

    values = np.array([1, 256], ">i4").tobytes()
    parts = [
        element(6, struct.pack(">II", 12, 0)),
        element(5, struct.pack(">ii", 1, 2)),
        # Short ones stand in the place of their size.
        struct.pack(">HH", 1, 1) + b"x\0\0\0",
        element(5, values),
    ]
    path = tmp_path / "a.mat"
    path.write_bytes(
        b"MATLAB 5.0".ljust(124) + b"\1\0MI" + element(14, b"".join(parts))
    )
    require_equal(load_mat(str(path))["x"], np.array([[1, 256]], "int32"))


def test_version_4(tmp_path):
    path = str(tmp_path / "a.mat")
    numbers = {"labels": CONTENT["labels"]}
    scipy_io.savemat(path, numbers | {"text": "abc"}, format="4")
    assert set(mat_names(path)) == {"labels", "text"}
    content = load_mat(path)
    assert content.keys() == {"labels"}
    require_equal(content["labels"], CONTENT["labels"])


def write_version_7(path, content):
    """Writes what MATLAB does with -v7.3: all is transposed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        references = file.create_group("#refs#")

        def write(group, name, value):
            if value.dtype == object:
                places = [
                    write(references, f"{name}{i}", item).ref
                    for i, item in enumerate(value.ravel(order="F"))
                ]
                stored = np.array(places, h5py.ref_dtype)
                item = group.create_dataset(
                    name, data=stored.reshape(value.shape[::-1])
                )
                item.attrs["MATLAB_class"] = np.bytes_("cell")
                return item
            stored = value.T if value.size else np.array(value.shape, "uint64")
            item = group.create_dataset(name, data=stored)
            item.attrs["MATLAB_class"] = np.bytes_("double")
            if not value.size:
                item.attrs["MATLAB_empty"] = np.uint8(1)
            return item

        for name, value in content.items():
            write(file, name, value)
        text = file.create_dataset("text", data=np.array([[97]], "uint16"))
        text.attrs["MATLAB_class"] = np.bytes_("char")
        file.create_group("struct")
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM")


def test_version_7(tmp_path):
    path = str(tmp_path / "a.mat")
    write_version_7(path, CONTENT)
    assert set(mat_names(path)) == {*CONTENT, "text", "struct"}
    content = load_mat(path)
    assert content.keys() == CONTENT.keys()
    for name, expected in CONTENT.items():
        require_equal(content[name], expected)


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "a.mat"
    scipy_io.savemat(path, CONTENT, do_compression=True)
    whole = path.read_bytes()
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400)
    for content in (b"", b"text", header, whole[:200], whole[:-9]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="Cannot read the MATLAB .*a.mat"):
            load_mat(str(path))
    with h5py.File(path, "w") as file:
        file.create_dataset("labels", (1 << 20, 1 << 20), "f4", chunks=(64, 64))
    with pytest.raises(ValueError, match="'/labels' cannot have the shape"):
        load_mat(str(path))
