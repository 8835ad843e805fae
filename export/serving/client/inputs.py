"""Images of all kinds, as rows of requests."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    ServingClientError,
    SignatureInfo,
    TensorInfo,
    invalid,
)
from keras_sspcab.optional_inputs import OPTIONS_SUFFIX, left_out

#: An image or clip, a batch of them, a file, its content, or named inputs.
Image: TypeAlias = "np.ndarray | str | os.PathLike[str] | bytes | Mapping"
Images: TypeAlias = "Image | Iterable[Image]"

#: Signatures for arrays and for encoded images.
ARRAYS, FILES = "serving_default", "serving_bytes"

_FILE_TYPES = (str, os.PathLike, bytes, bytearray, memoryview)
_FORMATS = (
    *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8"),
    # TensorFlow Serving refuses these; `keras-sspcab serve` reads them.
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"RIFF"),
)

# Interpolation leaves values slightly outside [0, 1].
_SLACK = 1e-3


@dataclasses.dataclass(frozen=True)
class Cell:
    """One input of one row; `load` reads or converts it when it is sent.

    It has `num_values` numbers of `itemsize` bytes, or bytes of a file, which
    has no shape.
    """

    load: Callable[[], "np.ndarray | bytes"]
    num_values: int
    itemsize: int = 1
    shape: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a request: the signature it is for, and inputs by name."""

    signature: str
    cells: Mapping[str, Cell]

    @property
    def kind(self) -> tuple[Any, ...]:
        """What rows must share to travel together."""
        shapes = (cell.shape for cell in self.cells.values())
        return (self.signature, *shapes)


def make_rows(
    images: Any,
    metadata: ModelMetadata,
    signature: str | None,
    options: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Returns the rows of images (see `Client.predict`) that fit a model.

    The signature is chosen for each image if its name is None. The options are
    values of optional inputs, for all rows.
    """
    is_single = isinstance(images, (*_FILE_TYPES, Mapping))
    if is_single or hasattr(images, "__array__"):
        labeled = [("The input", images)]
    elif isinstance(images, Iterable):
        labeled = [(f"Input {i}", image) for i, image in enumerate(images)]
    else:
        raise _not_an_image("An image", repr(images))
    rows: list[Row] = []
    for label, image in labeled:
        name = signature or _choose_signature(image, metadata)
        if name not in metadata.signatures:
            raise _missing_signature(image, label, name, metadata)
        rows.extend(_rows_of(image, label, name, metadata.signatures[name]))
    if not options:
        return rows
    return [_with_options(row, options, metadata) for row in rows]


def _with_options(
    row: Row, options: Mapping[str, Any], metadata: ModelMetadata
) -> Row:
    """Returns a row for the signature with optional inputs."""
    name = row.signature + OPTIONS_SUFFIX
    known = metadata.signatures.get(name)
    inputs = {} if known is None else known.inputs
    if missing := sorted(set(options) - set(inputs)):
        raise invalid(
            f"{metadata.name} version {metadata.version} takes no "
            f"{', '.join(missing)}: its signature {name!r} "
            + ("has no such input." if inputs else "is missing.")
            + " Export and package the model again with the present version."
        )
    cells = {
        key: _option_cell(options.get(key, left_out(info.dtype)), info)
        for key, info in inputs.items()
        if key not in row.cells
    }
    return Row(name, {**row.cells, **cells})


def _option_cell(value: Any, info: TensorInfo) -> Cell:
    array = np.array(value, info.dtype)
    return Cell(lambda: array, 1, array.itemsize, ())


def split_rows(
    rows: Sequence[Row],
    max_rows: int,
    max_bytes: int,
    wire_size: Callable[[int, int], int],
    answer_size: Callable[[str], int],
) -> Iterator[list[int]]:
    """Yields the indices of the rows of each request.

    `wire_size` returns the bytes of a number of values of a size in bytes, and
    `answer_size` how many numbers the answer to a row has, by its signature. A
    row of more than `max_bytes` travels alone.
    """
    groups: dict[Any, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.kind, []).append(index)
    for indices in groups.values():
        answer = wire_size(answer_size(rows[indices[0]].signature), 4)
        part: list[int] = []
        filled = 0
        for index in indices:
            size = sum(
                wire_size(cell.num_values, cell.itemsize)
                for cell in rows[index].cells.values()
            )
            # A small file may be answered by a large map.
            size = max(size, answer)
            if part and (len(part) >= max_rows or filled + size > max_bytes):
                yield part
                part, filled = [], 0
            part.append(index)
            filled += size
        yield part


def stack_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the inputs of a request: arrays, or lists of files, by name."""
    columns = {
        name: [row.cells[name].load() for row in rows] for name in rows[0].cells
    }
    return {
        name: values if isinstance(values[0], bytes) else np.stack(values)
        for name, values in columns.items()
    }


def _choose_signature(image: Any, metadata: ModelMetadata) -> str:
    if isinstance(image, Mapping):
        for name in (ARRAYS, FILES, *sorted(metadata.signatures)):
            info = metadata.signatures.get(name)
            if info is not None and set(info.inputs) == set(image):
                return name
    return FILES if isinstance(image, _FILE_TYPES) else ARRAYS


def _missing_signature(
    image: Any, label: str, name: str, metadata: ModelMetadata
) -> ServingClientError:
    message = (
        f"{metadata.name} version {metadata.version} has no signature {name!r}."
    )
    if name == FILES and isinstance(image, _FILE_TYPES):
        message += (
            f" {label} is a file; the model takes arrays only: decode it, or "
            "export the model with `serving_bytes=True`."
        )
    known = ", ".join(sorted(metadata.signatures)) or "none"
    return invalid(f"{message} Signatures: {known}")


def _rows_of(
    image: Any, label: str, signature: str, info: SignatureInfo
) -> list[Row]:
    expected = ", ".join(sorted(info.inputs))
    if isinstance(image, (list, tuple)):
        raise _not_an_image(label, type(image).__name__)
    if isinstance(image, Mapping):
        named = {key: (f"{label}, {key!r}", image[key]) for key in image}
    elif len(info.inputs) == 1:
        named = {next(iter(info.inputs)): (label, image)}
    else:
        raise invalid(
            f"{label} must be a dict: the signature {signature!r} takes "
            f"several inputs: {expected}"
        )
    if set(named) != set(info.inputs):
        raise invalid(
            f"{label} must have the inputs {expected} of the signature "
            f"{signature!r}. Received: {', '.join(sorted(map(str, named)))}"
        )
    columns = {
        key: _column(value, name, key, info.inputs[key], len(named) == 1)
        for key, (name, value) in sorted(named.items())
    }
    counts = {key: len(column) for key, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise invalid(
            f"All inputs of {label} must have the same number of rows. "
            f"Received: {counts}"
        )
    return [
        Row(signature, dict(zip(columns, cells, strict=True)))
        for cells in zip(*columns.values(), strict=True)
    ]


def _column(
    value: Any, label: str, key: str, info: TensorInfo, is_single: bool
) -> list[Cell]:
    """Returns the rows of one input."""
    if isinstance(value, _FILE_TYPES):
        if info.dtype != "string":
            raise invalid(
                f"{label} is a file, but {key!r} takes arrays of the type "
                f"{info.dtype}."
            )
        return [_file_cell(value, label)]
    if hasattr(value, "__array__"):
        return _array_cells(np.asarray(value), label, key, info, is_single)
    raise _not_an_image(label, type(value).__name__)


def _file_cell(value: Any, label: str) -> Cell:
    if isinstance(value, (bytes, bytearray, memoryview)):
        content = bytes(value)
        _check_format(content[:12], label)
        return Cell(lambda: content, len(content))
    path = os.fsdecode(value)
    label = f"{label} ({path})"

    def read(size: int = -1) -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read(size)
        except (OSError, ValueError) as error:  # for impossible file names
            reason = getattr(error, "strerror", None) or error
            raise invalid(f"{label} cannot be read: {reason}") from error

    _check_format(read(12), label)
    return Cell(read, os.path.getsize(path))


def _check_format(head: bytes, label: str) -> None:
    if not head.startswith(_FORMATS):
        raise invalid(
            f"{label} must be a PNG, JPEG, BMP, GIF, TIFF or WebP file. "
            f"It begins with {head!r}"
        )


def _array_cells(
    value: np.ndarray, label: str, key: str, info: TensorInfo, is_single: bool
) -> list[Cell]:
    if info.dtype == "string":
        raise invalid(
            f"{label} is an array, but {key!r} takes image files: paths, or "
            "their contents."
        )
    # bfloat16 and the like have the kind V, and a name of their own.
    if value.dtype.kind not in "fiub" and "float" not in value.dtype.name:
        raise invalid(
            f"{label} must be an array of numbers. "
            f"Received: dtype={value.dtype}, shape={value.shape}"
        )
    if value.dtype.kind not in "iub" and not np.isfinite(value).all():
        raise invalid(
            f"{label} holds values that are not finite, which a model cannot "
            "score."
        )
    batch = _as_batch(value, label, key, info.shape)
    # Optical flow has two channels and no bounds; 255 is not 1 there.
    is_picture = batch.ndim > 3 and (is_single or batch.shape[-1] in (1, 3))
    dtype, scale = _conversion(value.dtype, label, info.dtype, is_picture)
    if is_picture and dtype.kind == "f" and scale == 1 and batch.size:
        low, high = batch.min(), batch.max()
        if low < -_SLACK or high > 1 + _SLACK:
            raise invalid(
                f"{label} must have values in [0, 1], or 0 to 255 as uint8. "
                f"Received: {batch.dtype} from {low} to {high}"
            )
    return [
        Cell(
            functools.partial(_convert, row, dtype, scale),
            row.size,
            dtype.itemsize,
            row.shape,
        )
        for row in batch
    ]


def _as_batch(
    value: np.ndarray,
    label: str,
    key: str,
    shape: tuple[int | None, ...] | None,
) -> np.ndarray:
    if not shape:
        raise invalid(
            f"{key!r} has no rows on the server, which this client needs: "
            f"its shape is {shape}."
        )
    batch = value
    if batch.ndim == len(shape) - 2 and shape[-1] == 1:
        batch = batch[..., None]
    if batch.ndim == len(shape) - 1:
        batch = batch[None]
    if batch.ndim != len(shape) or any(
        size not in (None, received)
        for size, received in zip(shape[1:], batch.shape[1:], strict=True)
    ):
        raise invalid(
            f"{label} must have the shape {_show(shape[1:])} of {key!r}, or "
            f"{_show(shape)} for several. Received: {value.shape}"
        )
    return batch


def _conversion(
    received: np.dtype, label: str, wanted: str, is_picture: bool
) -> tuple[np.dtype, int]:
    """Returns the dtype to send, and what to divide the values by."""
    try:
        dtype = np.dtype(wanted)
    except TypeError as error:
        raise invalid(f"This client cannot send {wanted}.") from error
    if dtype.kind == "f":
        if received == np.uint8 and is_picture:
            return dtype, 255
        if received.kind not in "iub":
            return dtype, 1
    elif np.can_cast(received, dtype):
        return dtype, 1
    hint = ", or uint8 for 0 to 255" if dtype.kind == "f" and is_picture else ""
    raise invalid(
        f"{label} must be of the type {wanted}{hint}. "
        f"Received: dtype={received}"
    )


def _convert(row: np.ndarray, dtype: np.dtype, scale: int) -> np.ndarray:
    value = row.astype(dtype)
    return value if scale == 1 else value / dtype.type(scale)


def _not_an_image(label: str, received: str) -> ServingClientError:
    return invalid(
        f"{label} must be an array, the path or the content of a file, or a "
        f"dict of named inputs. Received: {received}"
    )


def _show(shape: Sequence[int | None]) -> str:
    return f"({', '.join('?' if s is None else str(s) for s in shape)})"
