"""Writes files as `torch.save` does, without torch."""

import io
import math
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from unittest import mock

import numpy as np

_STORAGES = {
    "f8": "Double",
    "f4": "Float",
    "f2": "Half",
    "i8": "Long",
    "i4": "Int",
    "i2": "Short",
    "i1": "Char",
    "u1": "Byte",
    "b1": "Bool",
    "u2": "BFloat16",  # As torch keeps it: the upper half of float32.
}
_KINDS = {
    code: type(f"{name}Storage", (), {"__module__": "torch"})
    for code, name in _STORAGES.items()
}


def _rebuild_tensor_v2(*_):
    raise AssertionError("only written")


def _rebuild_parameter(*_):
    raise AssertionError("only written")


_utils = types.ModuleType("torch._utils")
for _function in (_rebuild_tensor_v2, _rebuild_parameter):
    _function.__module__ = "torch._utils"
    setattr(_utils, _function.__name__, _function)
_torch = types.ModuleType("torch")
for _kind in _KINDS.values():
    setattr(_torch, _kind.__name__, _kind)


class Tensor:
    """A tensor: by default the whole of an array, else a view of its memory."""

    def __init__(self, storage, shape=None, strides=None, offset=0, size=None):
        self.storage = np.ascontiguousarray(storage)
        shape = self.storage.shape if shape is None else shape
        if strides is None:
            strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        self.view = offset, tuple(shape), tuple(strides)
        self.size = self.storage.size if size is None else size

    def reduce(self):
        arguments = (_Reference(self), *self.view, False, OrderedDict())
        return _rebuild_tensor_v2, arguments


class Parameter(Tensor):
    def reduce(self):
        tensor = Tensor(self.storage)
        tensor.view = self.view
        return _rebuild_parameter, (tensor, True, OrderedDict())


class _Reference:
    def __init__(self, tensor):
        self.tensor = tensor


def _dumps(content, is_zip):
    """Returns the pickle of the content, and its storages by their keys."""
    storages = {}

    class Pickler(pickle.Pickler):
        def reducer_override(self, item):
            is_tensor = isinstance(item, Tensor)
            return item.reduce() if is_tensor else NotImplemented

        def persistent_id(self, item):
            if not isinstance(item, _Reference):
                return None
            array = item.tensor.storage
            key = str(id(array))
            storages[key] = array
            kind = _KINDS[array.dtype.str[1:]]
            identifier = "storage", kind, key, "cpu", item.tensor.size
            return identifier if is_zip else (*identifier, None)

    stream = io.BytesIO()
    with mock.patch.dict(
        sys.modules, {"torch": _torch, "torch._utils": _utils}
    ):
        Pickler(stream, protocol=2).dump(content)
    return stream.getvalue(), storages


def tensors(arrays):
    """Returns arrays as tensors, for `save`."""
    return {name: Tensor(array) for name, array in arrays.items()}


def save(content, path, is_zip=True, **options):
    """Saves containers of numbers, text and `Tensor`s."""
    data, storages = _dumps(content, is_zip)
    write(path, data, storages, is_zip, **options)


def write(path, data, storages, is_zip, byteorder="little", compression=0):
    """Writes a pickle and its storages."""
    if is_zip:
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/byteorder", byteorder)
            for key, array in storages.items():
                archive.writestr(f"archive/data/{key}", array.tobytes())
        return
    system = {"protocol_version": 1001, "little_endian": byteorder == "little"}
    with open(path, "wb") as file:
        for item in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(item, file, protocol=2)
        file.write(data)
        pickle.dump(list(storages), file, protocol=2)
        for array in storages.values():
            file.write(array.size.to_bytes(8, "little") + array.tobytes())
