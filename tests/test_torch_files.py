import argparse
import os
import pickle
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from keras_sspcab.torch_files import read_arrays, read_torch_file
from tests.torch_save import Parameter, Tensor, save, tensors, write

both_formats = pytest.mark.parametrize("is_zip", [False, True])


def round_trip(content, tmp_path, is_zip, **options):
    path = tmp_path / "model.pth"
    save(content, path, is_zip, **options)
    return read_torch_file(path)


@both_formats
def test_kinds_of_numbers(tmp_path, is_zip):
    rng = np.random.default_rng(0)
    kinds = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "bool")
    arrays = {
        kind: rng.integers(0, 99, (2, 3, 4)).astype(kind) for kind in kinds
    }
    result = round_trip(tensors(arrays), tmp_path, is_zip)
    assert list(result) == list(kinds)
    for kind, array in arrays.items():
        assert result[kind].dtype == array.dtype
        np.testing.assert_array_equal(result[kind], array)
    assert "torch" not in sys.modules


@both_formats
def test_bfloat16_becomes_float32(tmp_path, is_zip):
    expected = np.array([1.0, -2.5, 0.0, np.inf, 2.0**100], "f4")
    halves = (expected.view("u4") >> 16).astype("u2")
    result = round_trip(tensors({"x": halves}), tmp_path, is_zip)["x"]
    assert result.dtype == "float32"
    np.testing.assert_array_equal(result, expected)


@both_formats
def test_views_and_shared_storages(tmp_path, is_zip):
    memory = np.arange(24, dtype="f4")
    whole = memory.reshape(4, 6)
    content = {
        "whole": Tensor(memory, (4, 6)),
        "transposed": Tensor(memory, (6, 4), (1, 6)),
        "column": Tensor(memory, (4,), (6,), 2),
        "channels_last": Tensor(memory, (2, 3, 2, 2), (12, 1, 6, 3)),
        "scalar": Tensor(memory, (), (), 23),
        "parameter": Parameter(memory, (2, 2), (6, 1), 7),
        "empty": Tensor(np.zeros(0, "f4"), (0, 3)),
    }
    result = round_trip(content, tmp_path, is_zip)
    expected = {
        "whole": whole,
        "transposed": whole.T,
        "column": whole[:, 2],
        "channels_last": memory.reshape(2, 2, 2, 3).transpose(0, 3, 1, 2),
        "scalar": memory[23],
        "parameter": whole[1:3, 1:3],
        "empty": np.zeros((0, 3)),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(result[name], value)
    assert np.shares_memory(result["whole"], result["parameter"])


@both_formats
def test_checkpoints_hold_more_than_tensors(tmp_path, is_zip):
    state = OrderedDict(weight=Tensor(np.ones((2, 3), "f4")))
    state._metadata = OrderedDict({"": {"version": 1}})
    shared = [1, (2.5, None, True, "text")]
    content = {"state_dict": state, "epoch": 7, "a": shared, "b": shared}
    result = round_trip(content, tmp_path, is_zip)
    assert list(result) == list(content)
    assert (result["epoch"], result["a"], result["b"]) == (7, shared, shared)
    np.testing.assert_array_equal(result["state_dict"]["weight"], 1)
    arrays = read_arrays(tmp_path / "model.pth")
    assert list(arrays) == ["weight"]


@both_formats
def test_entries_with_the_weights(tmp_path, is_zip):
    path = tmp_path / "model.pth"
    state = tensors({"weight": np.ones((2, 3), "f4")})
    for content in (
        {"model": state, "epoch": 7},
        {"model": "draem", "model_state_dict": state},
        {"model": "draem", **state},
    ):
        save(content, path, is_zip)
        assert list(read_arrays(path)) == ["weight"]
    save({"net": state, "epoch": 7}, path, is_zip)
    with pytest.raises(ValueError, match=r"entries \['net', 'epoch'\]. Save"):
        read_arrays(path)


@both_formats
def test_checkpoints_with_settings(tmp_path, is_zip):
    """How to convert them is told for dicts, and the path once."""
    path = tmp_path / "model.ckpt"
    state = tensors({"weight": np.ones((2, 3), "f4")})
    settings = argparse.Namespace(rate=0.1)
    save({"state_dict": state, "args": settings}, path, is_zip)
    with pytest.raises(ValueError, match=r"argparse.Namespace.*dict") as caught:
        read_arrays(path)
    message = str(caught.value)
    assert "torch.save(x['state_dict'], 'converted.pth')" in message
    assert message.count(str(path)) == 1


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def deep(depth=100_000):
    return b"]" * depth + b"a" * (depth - 1)


HOSTILE = {
    "system": pickle.dumps({"x": Call(os.system, "touch ran")}, 2),
    "eval": pickle.dumps({"x": Call(eval, "open('ran', 'w')")}, 2),
    "getattr": pickle.dumps(Call(getattr, Call(__import__, "os"), "system"), 2),
    "protocol 4": pickle.dumps({"x": Call(os.system, "touch ran")}, 4),
    "instance": b"(S'touch ran'\nios\nsystem\n.",
    "new object": b"\x80\x02cbuiltins\nobject\n)\x81.",
    "attributes of an allowed function": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aNsb."
    ),
    "call of a storage": b"\x80\x02ctorch\nFloatStorage\n)R.",
    "memo": b"\x80\x02}r\xff\xff\xff\x7f" + b"h\x01.",
    "length of a text": b"\x80\x02X\xff\xff\xff\xffabc.",
    "length of a long text": b"\x80\x04\x8d" + b"\xff" * 8 + b"abc.",
    "nothing on the stack": b"\x80\x020000.",
    "no mark": b"\x80\x02}t.",
    "in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    "deep": b"\x80\x02}X\x01\x00\x00\x00a" + deep() + b"s.",
    "deep key": b"\x80\x02}" + b")" + b"\x85" * 100_000 + b"Ns.",
}


@both_formats
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_run_nothing(tmp_path, monkeypatch, name, is_zip):
    monkeypatch.chdir(tmp_path)
    write("model.pth", HOSTILE[name], {}, is_zip)
    with pytest.raises(ValueError, match=r"model.pth cannot be read"):
        read_torch_file("model.pth")
    assert os.listdir() == ["model.pth"]


def test_repeated_containers_take_no_time(tmp_path):
    content = {}
    for _ in range(30):
        content = {"a": content, "b": content}
    assert list(round_trip(content, tmp_path, True)) == ["a", "b"]


MEMORY = np.zeros(6, "f4")


@both_formats
@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor(MEMORY, (7,)), "outside of its storage"),
        (Tensor(MEMORY, (2,), (1,), 5), "outside of its storage"),
        (Tensor(MEMORY, (2, 2), (5, 1)), "outside of its storage"),
        (Tensor(MEMORY, (2**40, 2**40), (0, 0)), "outside of its storage"),
        (Tensor(MEMORY, (2,), (-1,), 3), "without a shape"),
        (Tensor(MEMORY, (2, 3), (1,)), "without a shape"),
        (Tensor(MEMORY, size=2**60), "larger than the file"),
        (Tensor(MEMORY, size=5, shape=(5,)), "another size"),
        (Tensor(MEMORY, size=-1), "size"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, tensor, message, is_zip):
    with pytest.raises(ValueError, match=message):
        round_trip({"x": tensor}, tmp_path, is_zip)


class Network:
    """Stands for an nn.Module."""


@both_formats
def test_other_content(tmp_path, is_zip):
    with pytest.raises(ValueError, match=r"torch.save.*state_dict\(\)"):
        round_trip(Network(), tmp_path, is_zip)
    with pytest.raises(ValueError, match="dict of tensors"):
        round_trip([1], tmp_path, is_zip)
    with pytest.raises(ValueError, match="big-endian"):
        round_trip({}, tmp_path, is_zip, byteorder="big")


@both_formats
def test_damaged_files(tmp_path, is_zip):
    path = tmp_path / "model.pth"
    save(tensors({"x": np.ones(500, "f4")}), path, is_zip)
    whole = path.read_bytes()
    for size in (0, 3, 30, 150, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cannot be read as a file of"):
            read_torch_file(path)
    path.write_bytes(b"no such thing")
    with pytest.raises(ValueError, match="cannot be read as a file of"):
        read_torch_file(path)


def test_compressed_files_are_refused(tmp_path):
    options = {"is_zip": True, "compression": zipfile.ZIP_DEFLATED}
    with pytest.raises(ValueError, match="compressed"):
        round_trip(tensors({"x": np.ones(9, "f4")}), tmp_path, **options)
