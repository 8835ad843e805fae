"""Images of all kinds, checked as far as they can be by themselves."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from keras_sspcab.export.serving.client.errors import invalid

#: An image or clip, a batch of them, a file, its content, or named inputs.
Image: TypeAlias = "np.ndarray | str | os.PathLike[str] | bytes | Mapping"
Images: TypeAlias = "Image | Iterable[Image]"

_FORMATS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8")


@dataclasses.dataclass(frozen=True)
class FileItem:
    """An encoded image, on disk or in memory."""

    name: str
    size: int
    read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class NamedItem:
    """Inputs by name."""

    name: str
    inputs: Mapping[str, "Item"]


@dataclasses.dataclass(frozen=True)
class ArrayItem:
    """One image or clip, or a batch of them."""

    name: str
    value: np.ndarray


@dataclasses.dataclass(frozen=True)
class ListItem:
    """Values of one named input that come as a list."""

    name: str
    items: Sequence["Item"]


Item: TypeAlias = "ArrayItem | FileItem | NamedItem | ListItem"


def read_images(images: Any) -> list[Any]:
    """Returns what is asked about, as far as it can be checked by itself.

    Args:
        images: See `Client.predict`.

    Raises:
        ServingClientError: If one is no image.
    """
    if _is_single(images):
        return [_item("The input", images)]
    if not isinstance(images, Iterable):
        raise invalid(
            "An image must be an array, the path or the content of a file, or "
            f"a dict of named inputs. Received: {images!r}"
        )
    return [_item(f"Input {i}", image) for i, image in enumerate(images)]


def _is_single(value: Any) -> bool:
    return isinstance(
        value, (str, os.PathLike, bytes, bytearray, memoryview, Mapping)
    ) or hasattr(value, "__array__")


def _item(name: str, value: Any, is_nested: bool = False) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        content = bytes(value)
        _check_format(name, content[:12])
        return FileItem(name, len(content), lambda: content)
    if isinstance(value, (str, os.PathLike)):
        return _path(name, os.fspath(value))
    if isinstance(value, Mapping) and not is_nested:
        if not value:
            raise invalid(f"{name} is an empty dict.")
        return NamedItem(
            name,
            {
                key: _item(f"{name}, {key!r}", part, is_nested=True)
                for key, part in value.items()
            },
        )
    if hasattr(value, "__array__"):
        return ArrayItem(name, _checked_array(name, np.asarray(value)))
    if isinstance(value, (list, tuple)) and is_nested:
        return ListItem(
            name,
            [_item(f"{name}[{i}]", part, True) for i, part in enumerate(value)],
        )
    raise invalid(
        f"{name} must be an array, the path or the content of a file, or a "
        f"dict of named inputs. Received: {type(value).__name__}"
    )


def _path(name: str, path: str | bytes) -> FileItem:
    path = os.fsdecode(path)
    name = f"{name} ({path})"

    def read() -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read()
        except (OSError, ValueError) as error:
            raise _unreadable(name, error) from error

    try:
        with open(path, "rb") as file:
            _check_format(name, file.read(12))
            size = os.fstat(file.fileno()).st_size
    except (OSError, ValueError) as error:  # for names no file can have
        raise _unreadable(name, error) from error
    return FileItem(name, size, read)


def _unreadable(name: str, error: Exception) -> Exception:
    reason = getattr(error, "strerror", None) or error
    return invalid(f"{name} cannot be read: {reason}")


def _check_format(name: str, head: bytes) -> None:
    if not head.startswith(_FORMATS):
        raise invalid(
            f"{name} must be a PNG, JPEG, BMP or GIF file. "
            f"It begins with {head!r}"
        )


def _checked_array(name: str, value: np.ndarray) -> np.ndarray:
    # bfloat16 and the like are of the kind V, with a name of their own.
    if value.dtype.kind not in "fiub" and "float" not in value.dtype.name:
        raise invalid(
            f"{name} must be an array of numbers. "
            f"Received: dtype={value.dtype}, shape={value.shape}"
        )
    if value.dtype.kind not in "iub" and not np.isfinite(value).all():
        raise invalid(
            f"{name} holds values that are not finite, of which a model can "
            "say nothing."
        )
    return value
