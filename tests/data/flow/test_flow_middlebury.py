import struct

import numpy as np
import pytest

from keras_sspcab.data.flow import read_flo, write_flo

FLOW = np.array(
    [[[1.5, -2.0], [0.0, 3.25]], [[4.0, 5.0], [-6.5, 7.0]], [[8, 9], [1, 2]]],
    "float32",
)
# By hand: tag, width, height, then rows of pairs.
CONTENT = struct.pack(
    "<fii12f", 202021.25, 2, 3, 1.5, -2, 0, 3.25, 4, 5, -6.5, 7, 8, 9, 1, 2
)


def test_the_bytes_are_those_of_the_format(tmp_path):
    path = tmp_path / "a.flo"
    write_flo(path, FLOW)
    assert path.read_bytes() == CONTENT
    assert CONTENT[:4] == b"PIEH"


def test_bytes_are_read(tmp_path):
    path = tmp_path / "a.flo"
    path.write_bytes(CONTENT)
    flow = read_flo(path)
    assert flow.dtype == np.float32
    np.testing.assert_array_equal(flow, FLOW)


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
        read_flo(path)


def test_missing_files_and_wrong_shapes(tmp_path):
    with pytest.raises(ValueError, match="Cannot read the flow.*a.flo"):
        read_flo(tmp_path / "a.flo")
    with pytest.raises(ValueError, match=r"\(height, width, 2\).*\(3, 4\)"):
        write_flo(tmp_path / "a.flo", np.zeros((3, 4)))
    assert list(tmp_path.iterdir()) == []
