"""Reads arrays from files with the tensor names of PyTorch, without torch."""

import dataclasses
import io
import os
import pickletools
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

# NumPy has no such type; it is the upper half of a float32.
_BFLOAT16 = "bfloat16"
_DTYPES = {
    "torch DoubleStorage": "<f8",
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch BFloat16Storage": _BFLOAT16,
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
    "torch ShortStorage": "<i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_ORDERED_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_GLOBALS = {*_DTYPES, _ORDERED_DICT, _TENSOR, _PARAMETER}

# Instructions of a pickle that push what stands behind them, or a container.
_CONSTANTS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}

#: Endings of files of `torch.save`, as people have named them.
_TORCH_ENDINGS = (".pth", ".pt", ".pckl", ".tch", ".ckpt")

# Entries of checkpoints that hold the weights, likewise.
_ENTRIES = ("state_dict", "model_state_dict", "model")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_DEPTH = 32


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the arrays of a `.npz`, a `.safetensors` or a file of `torch.save`.

    Of the dict in a file of torch, the entry `"state_dict"`,
    `"model_state_dict"` or `"model"` is taken if it is a dict. A file of a
    single tensor gives it the name `"tensor"`.

    Raises:
        ValueError: If the file cannot be read, or holds no array there.
        ImportError: If safetensors is not installed.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise ValueError(f"There is no file with weights at {path!r}")
    if not path.endswith((".npz", ".safetensors", *_TORCH_ENDINGS)):
        raise ValueError(
            "Weights must be a file that ends in .npz, .safetensors, "
            f"{', '.join(_TORCH_ENDINGS[:-1])} or {_TORCH_ENDINGS[-1]}. "
            f"Received: {path!r}"
        )
    if path.endswith(_TORCH_ENDINGS):
        return _arrays_of(read_torch_file(path), path)
    try:
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        from safetensors.numpy import load_file

        return load_file(path)
    except ImportError as error:
        raise ImportError(
            f"{path} needs the package {error.name}. Install it, or save the "
            "arrays as .npz"
        ) from error
    except Exception as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _arrays_of(content: dict[str, Any], path: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint, from where they usually are."""
    entries = [content.get(key) for key in _ENTRIES]
    state = next((x for x in entries if isinstance(x, dict)), content)
    arrays = {
        name: value
        for name, value in state.items()
        if isinstance(value, np.ndarray)
    }
    if not arrays:
        raise ValueError(
            f"{path} must hold tensors by name, at its top or in an entry "
            f"{', '.join(map(repr, _ENTRIES[:-1]))} or {_ENTRIES[-1]!r}. "
            f"Received the entries {list(content)[:10]}. Save the right one of "
            "them alone, where torch is"
        )
    return arrays


def read_torch_file(path: str | os.PathLike) -> dict[str, Any]:
    """Reads a file of `torch.save`, in the zip format or the older one.

    It must hold a dict, or a single tensor, which becomes `{"tensor": ...}`.
    Tensors and parameters become read-only NumPy arrays, `bfloat16` `float32`.
    No code of the file is run: its pickle is read by an interpreter that knows
    containers, numbers, text and tensors, and refuses everything else with a
    ValueError.
    """
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content = _read_zip(file) if is_zip else _read_legacy(file)
        if isinstance(content, np.ndarray):
            content = {"tensor": content}
        if not isinstance(content, dict):
            raise ValueError(
                "it must hold a dict of tensors. Received: "
                f"{type(content).__name__}"
            )
        _check_nesting(content, (), set())
    # Whatever a damaged or hostile pickle can lead to in Python.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path} cannot be read as a file of torch.save: {reason}"
        ) from error
    return content


def _read_zip(file: io.BufferedReader) -> Any:
    with zipfile.ZipFile(file) as archive:
        # torch never compresses; others could make much of a small file.
        if any(entry.compress_type for entry in archive.infolist()):
            raise ValueError("its entries are compressed")
        names = archive.namelist()
        (pickle,) = (name for name in names if name.endswith("/data.pkl"))
        folder = pickle.removesuffix("data.pkl")
        if f"{folder}byteorder" in names:
            _check_byte_order(archive.read(f"{folder}byteorder") == b"little")

        def fill(key: str, raw: np.ndarray) -> None:
            entry = archive.getinfo(f"{folder}data/{key}")
            if entry.file_size != raw.nbytes:
                raise ValueError(f"storage {key!r} has another size")
            raw[:] = np.frombuffer(archive.read(entry), raw.dtype)

        storages = _Storages(os.fstat(file.fileno()).st_size)
        with archive.open(pickle) as stream:
            content = _unpickle(stream, storages)
        for key in storages.arrays:
            storages.fill(key, fill)
        return content


def _read_legacy(file: io.BufferedReader) -> Any:
    storages = _Storages(os.fstat(file.fileno()).st_size)
    if _unpickle(file) != _LEGACY_MAGIC:
        raise ValueError("it does not begin like one")
    _unpickle(file)  # The version of the protocol.
    _check_byte_order(_unpickle(file)["little_endian"])
    content = _unpickle(file, storages)
    keys = _unpickle(file)

    def fill(key: str, raw: np.ndarray) -> None:
        size = int.from_bytes(file.read(8), "little")
        if size != len(raw):
            raise ValueError(f"storage {key!r} has another size")
        if file.readinto(raw.view("u1").data) != raw.nbytes:
            raise ValueError(f"storage {key!r} is cut off")

    if sorted(keys) != sorted(storages.arrays):
        raise ValueError("its storages are not those of its tensors")
    for key in keys:
        storages.fill(key, fill)
    return content


def _check_byte_order(is_little: bool) -> None:
    if not is_little:
        raise ValueError("it was written on a big-endian machine")


class _Storages:
    """The memory of the tensors: allocated by the pickle, filled afterwards."""

    def __init__(self, file_size: int) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._dtypes: dict[str, str] = {}
        self._bytes_left = file_size

    def allocate(self, identifier: Any) -> np.ndarray:
        """Returns the storage that a persistent id of torch describes."""
        kind, storage, key, _, size = identifier[:5]
        if kind != "storage" or any(
            view is not None for view in identifier[5:]
        ):
            raise ValueError(f"unknown reference {kind!r}")
        dtype = _DTYPES[storage.name]
        if type(key) is not str or type(size) is not int or size < 0:
            raise ValueError("a storage without key or size")
        if key not in self.arrays:
            width = 2 if dtype == _BFLOAT16 else np.dtype(dtype).itemsize
            self._bytes_left -= size * width
            if self._bytes_left < 0:
                raise ValueError("its storages are larger than the file")
            self._dtypes[key] = dtype
            self.arrays[key] = np.zeros(
                size, "<f4" if dtype == _BFLOAT16 else dtype
            )
        if self._dtypes[key] != dtype or len(self.arrays[key]) != size:
            raise ValueError(f"storage {key!r} is of two kinds")
        return self.arrays[key]

    def fill(self, key: str, read: Callable[[str, np.ndarray], None]) -> None:
        """Lets `read` write the content of a storage."""
        array = self.arrays[key]
        if self._dtypes[key] == _BFLOAT16:
            raw = np.empty(len(array), "<u2")
            read(key, raw)
            array.view("<u4")[:] = raw.astype("<u4") << 16
        else:
            read(key, array)


@dataclasses.dataclass(frozen=True)
class _Global:
    """A class or function by its name; nothing is looked up or imported."""

    name: str

    def __post_init__(self) -> None:
        if self.name not in _GLOBALS:
            raise ValueError(
                f"it needs {self.name.replace(' ', '.')}, and only tensors are "
                "read: what else is in a pickle runs code. If you trust the "
                "file, load it where torch is, x = torch.load(path, "
                "weights_only=False), and save its tensors alone: "
                "torch.save(x.state_dict(), 'converted.pth') of a module, or "
                "torch.save(x['state_dict'], 'converted.pth') of a dict with "
                "such an entry"
            )


def _unpickle(file: Any, storages: _Storages | None = None) -> Any:
    """Reads one pickle and leaves the file behind it."""
    argument: Any
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def above_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case name if name in _CONSTANTS:
                stack.append(argument)
            case name if name in _EMPTY:
                stack.append(_EMPTY[name]())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(above_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(opcode.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "APPEND" | "APPENDS":
                items = (
                    above_mark() if opcode.name[-1] == "S" else [stack.pop()]
                )
                _require(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                if opcode.name == "SETITEM":
                    marks.append(len(stack) - 2)
                items = above_mark()
                _update(stack[-1], zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Global(argument))
            case "BINPERSID" if storages:
                stack.append(storages.allocate(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                # The `_metadata` of a state dict.
                stack.pop()
                _require(stack[-1], dict)
            case "STOP":
                return stack.pop()
            case _:
                raise ValueError(f"it uses the instruction {opcode.name}")
    raise ValueError("it ends too early")


def _call(function: Any, arguments: tuple) -> Any:
    name = _require(function, _Global).name
    if name == _ORDERED_DICT:
        result: dict[Any, Any] = {}
        for pairs in arguments:
            _update(result, pairs)
        return result
    if name == _TENSOR:
        return _tensor(*arguments[:4])
    if name == _PARAMETER:
        return _require(arguments[0], np.ndarray)
    raise ValueError(f"a call of {name}")


def _tensor(storage: Any, offset: int, shape: Any, strides: Any) -> np.ndarray:
    _require(storage, np.ndarray)
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or any(
        type(number) is not int or number < 0 for number in numbers
    ):
        raise ValueError("a tensor without a shape")
    # Python's integers do not overflow.
    end, size = offset + 1, 1
    for length, stride in zip(shape, strides, strict=True):
        end += (length - 1) * stride
        size *= length
    if not size:
        return np.zeros(shape, storage.dtype)
    if end > len(storage) or size > len(storage):
        raise ValueError("a tensor lies outside of its storage")
    return np.lib.stride_tricks.as_strided(
        storage[offset:],
        shape,
        [stride * storage.itemsize for stride in strides],
        writeable=False,
    )


def _update(target: Any, pairs: Any) -> None:
    for key, value in pairs:
        # Others can be slow to hash, or without end.
        if type(key) not in (str, int):
            raise ValueError(f"a key of the type {type(key).__name__}")
        _require(target, dict)[key] = value


def _require(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _check_nesting(value: Any, around: tuple[int, ...], done: set[int]) -> None:
    """Refuses containers within themselves, which nobody could walk over."""
    if id(value) in around or len(around) > _MAX_DEPTH:
        raise ValueError("its containers are nested too deeply")
    if id(value) in done or not isinstance(value, (dict, list, tuple)):
        return
    items = value.values() if isinstance(value, dict) else value
    for item in items:
        _check_nesting(item, (*around, id(value)), done)
    done.add(id(value))
