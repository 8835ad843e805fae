"""The arrays in MATLAB files: version 7.3 through h5py, others before it.

SciPy's reader of version 5 ends the process on some broken files. Only that of
version 4, which is plain Python, is used.
"""

import itertools
import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from scipy import io as scipy_io

# Kinds of elements of version 5, and of what an array holds.
_MATRIX, _COMPRESSED = 14, 15
_CELL, _NUMBERS, _COMPLEX = 1, range(6, 16), 0x800
_NUMBER_TYPES = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}

# A name is at the beginning of its array.
_HEAD = 1 << 12

# Compression makes nothing smaller than by so many times.
_MAX_RATIO = 1100

# Name, and value: None for what are no real numbers.
_Variables = Iterator[tuple[str, Any]]


def load_mat(path: str) -> dict[str, np.ndarray]:
    """Returns the arrays of real numbers, and the cells, by their names.

    A cell is an array of objects: of arrays, cells, and None for all else.
    """
    variables = _read(path, with_values=True)
    return {name: value for name, value in variables if value is not None}


def mat_names(path: str) -> list[str]:
    """Returns the names of all variables of a MATLAB file."""
    return [name for name, _ in _read(path, with_values=False)]


def _read(path: str, with_values: bool) -> list[tuple[str, Any]]:
    try:
        if h5py.is_hdf5(path):
            with h5py.File(path, "r") as file:
                return list(_of_hdf5(file, with_values))
        with open(path, "rb") as file:
            content = file.read()
        if 0 in content[:4]:
            return list(_of_version_4(path))
        return list(_of_version_5(content, with_values))
    except Exception as error:
        # Broken files raise many types.
        raise ValueError(
            f"Cannot read the MATLAB file {path!r}: {error}. Restore it, or "
            "save it again"
        ) from error


def _of_version_4(path: str) -> _Variables:
    for name, value in scipy_io.loadmat(path).items():
        if not name.startswith("__"):
            is_real = getattr(value, "dtype", np.dtype(object)).kind in "biuf"
            yield name, value if is_real else None


# === Version 5 ===


def _of_version_5(content: bytes, with_values: bool) -> _Variables:
    # The version, and the order of bytes.
    heads = {b"\0\1IM": "<", b"\1\0MI": ">"}
    order = heads.get(content[124:128])
    if order is None:
        raise ValueError("it is none, or its beginning is broken")
    for kind, element in _elements(memoryview(content)[128:], order):
        data = element
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            inflated = inflater.decompress(data, 0 if with_values else _HEAD)
            if with_values and not inflater.eof:
                raise ValueError("it is cut off")
            kind, size = struct.unpack_from(f"{order}II", inflated)
            data = memoryview(inflated)[8 : 8 + size]
        if kind == _MATRIX and len(data):
            name, value = _array(data, order, with_values)
            if name:
                yield name, value


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Yields the kind and the content of elements that follow each other."""
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, position)
        start = position + 8
        # They begin at multiples of 8 bytes.
        end = position = start + size + (-size % 8) * (kind != _COMPRESSED)
        if kind >> 16:
            # Up to 4 bytes stand in the place of the size.
            kind, size, end = kind & 0xFFFF, kind >> 16, start
            start, position = start - 4, start
        if start + size > min(end, len(data)):
            raise ValueError("it is cut off")
        yield kind, data[start : start + size]


def _array(
    data: memoryview, order: str, with_values: bool = True
) -> tuple[str, Any]:
    """Returns the name and the value of an array, in MATLAB's order."""
    if not len(data):
        return "", np.empty((0, 0))
    parts = _elements(data, order)
    head = [np.frombuffer(part, "u1") for _, part in itertools.islice(parts, 3)]
    if len(head) < 3 or head[0].size < 4:
        raise ValueError("an array has no name")
    flags = int(head[0][:4].view(f"{order}u4")[0])
    shape = head[1].view(f"{order}i4").tolist()
    name = head[2].tobytes().decode("latin-1")
    value: Any = None
    if not with_values or flags & _COMPLEX:
        pass
    elif flags & 0xFF == _CELL:
        cells = [_array(part, order)[1] for _, part in parts]
        value = np.empty(len(cells), object)
        for position, cell in enumerate(cells):
            value[position] = cell
    elif flags & 0xFF in _NUMBERS:
        number, part = next(parts, (None, b""))
        if number not in _NUMBER_TYPES:
            raise ValueError(f"{name!r} holds no numbers")
        value = np.frombuffer(bytes(part), f"{order}{_NUMBER_TYPES[number]}")
    if value is None:
        return name, None
    if min(shape, default=-1) < 0 or value.size != math.prod(shape):
        raise ValueError(f"{name!r} has {value.size} values for {shape}")
    return name, value.reshape(shape, order="F")


# === Version 7.3 ===


def _of_hdf5(file: h5py.File, with_values: bool) -> _Variables:
    for name, item in file.items():
        # Others hold what cells refer to.
        if not name.startswith("#"):
            yield name, _stored(item, file) if with_values else None


def _stored(item: Any, file: h5py.File) -> Any:
    """Returns the value of a dataset, in MATLAB's order; None for others."""
    if not isinstance(item, h5py.Dataset):
        return None
    if item.attrs.get("MATLAB_class") in (b"char", "char"):
        return None
    if item.nbytes > _MAX_RATIO * os.path.getsize(file.filename):
        raise ValueError(f"{item.name!r} cannot have the shape {item.shape}")
    if item.attrs.get("MATLAB_empty"):
        return np.empty((0, 0))
    values = np.atleast_2d(item[()]).T
    if h5py.check_ref_dtype(item.dtype) is h5py.Reference:
        cells = np.empty(values.shape, object)
        for place, reference in np.ndenumerate(values):
            cells[place] = _stored(file[reference], file)
        return cells
    return values if values.dtype.kind in "biuf" else None
