"""Images to the rows of requests, once a model's signatures are known."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_sspcab.export.serving.client.errors import invalid
from keras_sspcab.export.serving.client.inputs import (
    ArrayItem,
    FileItem,
    ListItem,
    NamedItem,
)
from keras_sspcab.export.serving.client.results import (
    ModelMetadata,
    SignatureInfo,
    TensorInfo,
)

ARRAYS, FILES = "serving_default", "serving_bytes"

# Inputs that hold images in [0, 1], in all detectors.
_UNIT_INPUTS = ("image", "clip", "appearance")
# Interpolation leaves values a little outside.
_SLACK = 1e-3

Value: TypeAlias = "np.ndarray | bytes"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a request.

    Attributes:
        signature: Name of the signature that it is for.
        kinds: Names of its inputs, with shape and dtype; empty for strings.
            Rows whose kinds are the same may travel together.
        load: Returns its inputs by name. Files are read only now.
        sizes: Number of values of each input, and bytes of each value.
    """

    signature: str
    kinds: tuple[Any, ...]
    load: Callable[[], dict[str, Value]]
    sizes: tuple[tuple[int, int], ...]


def bind(
    items: Iterable[Any], metadata: ModelMetadata, signature: str | None
) -> list[Row]:
    """Returns the rows of items, once they fit what a model takes.

    Args:
        items: Results of `read_images`.
        metadata: The model.
        signature: Name of the signature to use. None chooses by the kind of
            each item.

    Raises:
        ServingClientError: If an item does not fit.
    """
    rows: list[Row] = []
    for item in items:
        name = signature or _choose(item, metadata)
        if name not in metadata.signatures:
            raise invalid(_missing(item, name, metadata))
        rows.extend(_rows(item, name, metadata.signatures[name]))
    return rows


def split(
    rows: Sequence[Row],
    max_batch_size: int,
    max_bytes: int,
    size: Callable[[int, int], int],
) -> Iterator[list[int]]:
    """Yields the indices of the rows of each request.

    Args:
        rows: All rows.
        max_batch_size: Rows of a request, at most.
        max_bytes: Bytes of a request, at most; a row that has more by itself
            travels alone.
        size: Bytes on the wire of so many values of such a size.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault((row.signature, row.kinds), []).append(index)
    for indices in groups.values():
        part: list[int] = []
        filled = 0
        for index in indices:
            added = sum(size(*values) for values in rows[index].sizes)
            if part and (
                len(part) >= max_batch_size or filled + added > max_bytes
            ):
                yield part
                part, filled = [], 0
            part.append(index)
            filled += added
        yield part


def stack(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns the inputs of a request, by name.

    Raises:
        ServingClientError: If a file cannot be read any more.
    """
    loaded = [row.load() for row in rows]
    columns = {name: [row[name] for row in loaded] for name in loaded[0]}
    return {
        name: values if isinstance(values[0], bytes) else np.stack(values)
        for name, values in columns.items()
    }


def _choose(item: Any, metadata: ModelMetadata) -> str:
    if isinstance(item, NamedItem):
        for name in (ARRAYS, FILES, *sorted(metadata.signatures)):
            info = metadata.signatures.get(name)
            if info is not None and set(info.inputs) == set(item.inputs):
                return name
        return ARRAYS
    return FILES if isinstance(item, FileItem) else ARRAYS


def _missing(item: Any, name: str, metadata: ModelMetadata) -> str:
    message = (
        f"{metadata.name} version {metadata.version} has no signature {name!r}."
    )
    if name == FILES and isinstance(item, FileItem):
        message += (
            f" {item.name} is a file; the model takes arrays only: decode it, "
            "or export the model with `serving_bytes=True`."
        )
    known = ", ".join(sorted(metadata.signatures)) or "none"
    return f"{message} Signatures: {known}"


def _rows(item: Any, name: str, info: SignatureInfo) -> Iterator[Row]:
    named = item.inputs if isinstance(item, NamedItem) else None
    if named is None:
        if len(info.inputs) != 1:
            raise invalid(
                f"{item.name} must be a dict: the signature {name!r} takes "
                f"several inputs: {', '.join(sorted(info.inputs))}"
            )
        named = {next(iter(info.inputs)): item}
    if set(named) != set(info.inputs):
        raise invalid(
            f"{item.name} must have the inputs "
            f"{', '.join(sorted(info.inputs))} of the signature {name!r}. "
            f"Received: {', '.join(sorted(map(str, named)))}"
        )
    columns = {
        key: _column(key, named[key], info.inputs[key], len(named) == 1)
        for key in sorted(named)
    }
    counts = {key: len(column.loads) for key, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise invalid(
            f"All inputs of {item.name} must have the same number of rows. "
            f"Received: {counts}"
        )
    for index in range(next(iter(counts.values()))):
        yield Row(
            name,
            tuple((key, column.kind) for key, column in columns.items()),
            _Loader({k: c.loads[index] for k, c in columns.items()}),
            tuple(column.sizes[index] for column in columns.values()),
        )


@dataclasses.dataclass(frozen=True)
class _Loader:
    loads: Mapping[str, Callable[[], Value]]

    def __call__(self) -> dict[str, Value]:
        return {name: load() for name, load in self.loads.items()}


@dataclasses.dataclass(frozen=True)
class _Column:
    """The rows of one input."""

    kind: Any
    loads: list[Callable[[], Value]]
    sizes: list[tuple[int, int]]


def _column(key: str, item: Any, info: TensorInfo, is_only: bool) -> _Column:
    if isinstance(item, ListItem):
        columns = [_column(key, part, info, is_only) for part in item.items]
        return _join(item.name, columns)
    if isinstance(item, FileItem):
        if info.dtype != "string":
            raise invalid(
                f"{item.name} is a file, but {key!r} takes arrays of the type "
                f"{info.dtype}."
            )
        return _Column((), [item.read], [(item.size, 1)])
    if info.dtype == "string":
        raise invalid(
            f"{item.name} is an array, but {key!r} takes image files: paths, "
            "or their contents."
        )
    return _array_column(key, item, info, is_only)


def _join(name: str, columns: Sequence[_Column]) -> _Column:
    kinds = {column.kind for column in columns}
    if len(kinds) != 1:
        raise invalid(
            f"{name} must hold values of one shape and type. "
            f"Received: {sorted(map(str, kinds))}"
        )
    return _Column(
        kinds.pop(),
        [load for column in columns for load in column.loads],
        [size for column in columns for size in column.sizes],
    )


def _array_column(
    key: str, item: ArrayItem, info: TensorInfo, is_only: bool
) -> _Column:
    batch = _as_batch(key, item, info)
    # Elsewhere, such as in flow, 255 does not stand for 1.
    is_image = is_only or key in _UNIT_INPUTS
    convert = _converter(item, info.dtype, is_image)
    if (
        key in _UNIT_INPUTS
        and batch.dtype != np.uint8
        and batch.size
        and not (batch.min() >= -_SLACK and batch.max() <= 1 + _SLACK)
    ):
        raise invalid(
            f"{item.name} must have values in [0, 1], or 0 to 255 as uint8. "
            f"Received: {batch.dtype} from {batch.min()} to {batch.max()}"
        )
    size = (int(np.prod(batch.shape[1:])), np.dtype(info.dtype).itemsize)
    return _Column(
        (batch.shape[1:], info.dtype),
        [_RowOf(batch, index, convert) for index in range(len(batch))],
        [size] * len(batch),
    )


@dataclasses.dataclass(frozen=True)
class _RowOf:
    batch: np.ndarray
    index: int
    convert: Callable[[np.ndarray], np.ndarray]

    def __call__(self) -> np.ndarray:
        return self.convert(self.batch[self.index])


def _as_batch(key: str, item: ArrayItem, info: TensorInfo) -> np.ndarray:
    value, shape = item.value, info.shape
    if not shape:
        raise invalid(
            f"{key!r} has no rows on the server, which this client needs: "
            f"its shape is {shape}."
        )
    if value.ndim == len(shape) - 2 and shape[-1] == 1:
        value = value[..., None]
    if value.ndim == len(shape) - 1:
        value = value[None]
    is_fit = value.ndim == len(shape) and all(
        wanted in (None, size)
        for wanted, size in zip(shape[1:], value.shape[1:], strict=True)
    )
    if not is_fit:
        raise invalid(
            f"{item.name} must have the shape {_show(shape[1:])} of {key!r}, "
            f"or {_show(shape)} for several. Received: {item.value.shape}"
        )
    return value


def _converter(
    item: ArrayItem, dtype: str, is_image: bool
) -> Callable[[np.ndarray], np.ndarray]:
    found = item.value.dtype
    try:
        wanted = np.dtype(dtype)
    except TypeError as error:
        raise invalid(f"This client cannot send {dtype}.") from error
    if wanted.kind == "f":
        if found == np.uint8 and is_image:
            return lambda value: value.astype(wanted) / wanted.type(255)
        if found.kind not in "iub":
            return lambda value: value.astype(wanted)
    elif np.can_cast(found, wanted):
        return lambda value: value.astype(wanted)
    hint = ", or uint8 for 0 to 255" if wanted.kind == "f" and is_image else ""
    raise invalid(
        f"{item.name} must be of the type {dtype}{hint}. "
        f"Received: dtype={found}"
    )


def _show(shape: Sequence[int | None]) -> str:
    return f"({', '.join('?' if s is None else str(s) for s in shape)})"
