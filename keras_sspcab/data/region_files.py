"""Regions of interest from files: masks, and shapes in TOML."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sspcab.checks import did_you_mean
from keras_sspcab.data.file_system import read_bytes
from keras_sspcab.data.masks import decode_mask
from keras_sspcab.data.resizing import resize
from keras_sspcab.preprocessing import Fit, Preprocessing
from keras_sspcab.regions import Region, Regions, fill_polygon
from keras_sspcab.toml import tomllib

_KEYS = {"size", "region", "exclude"}
_SHAPES = ("box", "polygon")


def read_regions(
    path: Any, image_size: Sequence[int], fit: Fit = "stretch"
) -> Regions:
    r"""Reads regions of interest for images of a size.

    A file of an image is a mask: white is inside, black outside. A TOML file
    has a table for each region, with a name, a `box` of `[left, top, right,
    bottom]` or a `polygon` of `[x, y]` points, and perhaps a `quantile` or a
    `threshold` of its own:

        size = [1600, 1200]  # width and height of the photo that these are of

        [[region]]
        name = "thread"
        box = [200, 100, 900, 700]

        [[region]]
        name = "head"
        polygon = [[900, 50], [1500, 50], [1200, 900]]
        quantile = 0.999

        [[exclude]]
        box = [400, 300, 450, 350]

    Without a `size`, numbers are shares of the width and of the height. Where
    regions overlap, the later one counts. What is excluded is in none.

    Args:
        path: The file.
        image_size: Height and width of the images that a model sees, in pixels.
        fit: How photos fit into these; see `keras_sspcab.data.resize`. Photos
            must be alike then, and shapes need their `size`.

    Returns:
        `Regions` of the size of the images.

    Raises:
        ValueError: If the file cannot be used; it says where and why.

    Example:
    >>> import pathlib, tempfile
    >>> text = '[[region]]\nname = "left"\nbox = [0.0, 0.0, 0.5, 1.0]'
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.toml")
    ...     _ = path.write_text(text)
    ...     read_regions(path, (2, 4)).labels
    array([[1, 1, 0, 0],
           [1, 1, 0, 0]], dtype=uint8)
    """
    path, size = os.fspath(path), (int(image_size[0]), int(image_size[1]))
    how = Preprocessing(fit=fit)
    try:
        encoded = read_bytes(path)
        if path.lower().endswith(".toml"):
            # Some editors begin files with a mark.
            shapes = tomllib.loads(encoded.decode("utf-8-sig"))
            return _from_shapes(shapes, size, how)
        mask = decode_mask(encoded).astype("float32")[..., np.newaxis]
        source, target = how.place(mask.shape[:2], size)
        inside = np.zeros(size, bool)
        room = inside[target]
        room[:] = resize(mask[source], room.shape, "area")[..., 0] >= 0.5
        return Regions(inside)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"The regions in {path} cannot be used: {error}"
        ) from error


class _Photo:
    """Where what is said of a photo lies in the input of a model."""

    def __init__(
        self, given: Any, size: tuple[int, int], how: Preprocessing
    ) -> None:
        if given is None and how.fit != "stretch":
            raise ValueError(
                f"with data.fit={how.fit!r}, it needs size = [width, height] "
                "of the photo, in pixels"
            )
        if given is not None and (
            not _are_numbers(given, 2) or min(given) <= 0
        ):
            raise ValueError(
                "size must be [width, height] of the photo, in pixels. "
                f"Received: size = {given!r}"
            )
        # Without a size, numbers are shares.
        width, height = given or (1, 1)
        self.size, self.limits = size, np.array([width, height], float)
        placed = how.place((height, width), size)
        (y, x), (new_y, new_x) = (
            [(part.start, part.stop - part.start) for part in box]
            for box in placed
        )
        self._scale = np.array([new_x[1] / x[1], new_y[1] / y[1]])
        self._shift = np.array([new_x[0], new_y[0]]) - self._scale * (
            x[0],
            y[0],
        )

    def fill(self, points: Any) -> np.ndarray:
        """Returns which pixels of the input lie in a polygon."""
        moved = np.asarray(points, float) * self._scale + self._shift
        return fill_polygon(moved, self.size)

    def holds(self, points: Any) -> bool:
        """Whether points lie in the photo, but for half a pixel."""
        slack = 0.5 / self._scale
        return bool(
            (points >= -slack).all() and (points <= self.limits + slack).all()
        )


def _from_shapes(
    content: Mapping[str, Any], size: tuple[int, int], how: Preprocessing
) -> Regions:
    _refuse_unknown(content, _KEYS, "the file")
    photo = _Photo(content.get("size"), size, how)
    labels, parts = np.zeros(size, "uint8"), []
    for number, table in enumerate(_tables(content, "region"), 1):
        where = f"region {number}"
        _refuse_unknown(
            table, {"name", "quantile", "threshold", *_SHAPES}, where
        )
        labels[_fill(table, photo, where)] = number
        options = {k: v for k, v in table.items() if k not in _SHAPES}
        options.setdefault("name", where)
        parts.append(Region(**options))
    if not parts:
        raise ValueError("it has no [[region]]")
    for number, table in enumerate(_tables(content, "exclude"), 1):
        where = f"exclude {number}"
        _refuse_unknown(table, {*_SHAPES}, where)
        labels[_fill(table, photo, where)] = 0
    return Regions(labels, tuple(parts))


def _tables(content: Mapping[str, Any], key: str) -> list[Any]:
    tables = content.get(key, [])
    if not isinstance(tables, list):
        raise ValueError(
            f"{key} must be a list of tables, each below a line [[{key}]]. "
            f"Received: {key} = {tables!r}"
        )
    return tables


def _refuse_unknown(table: Any, known: set[str], where: str) -> None:
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} must be a table. Received: {table!r}")
    for key in table:
        if key not in known:
            hint = did_you_mean(key, known, ".")
            raise ValueError(
                f"{where} has an unknown key {key!r}{hint or '.'} It has: "
                f"{', '.join(sorted(known))}"
            )


def _fill(table: Mapping[str, Any], photo: _Photo, where: str) -> np.ndarray:
    """Returns which pixels are in the shape of a table."""
    given = [key for key in _SHAPES if key in table]
    if len(given) != 1:
        raise ValueError(f"{where} needs a box or a polygon, one of them")
    value = table[given[0]]
    if given[0] == "box":
        if not _are_numbers(value, 4) or not (
            value[0] < value[2] and value[1] < value[3]
        ):
            raise ValueError(
                f"the box of {where} must be [left, top, right, bottom]. "
                f"Received: {value!r}"
            )
        left, top, right, bottom = value
        value = [(left, top), (right, top), (right, bottom), (left, bottom)]
    elif not isinstance(value, list) or len(value) < 3:
        raise ValueError(
            f"the polygon of {where} must be a list of three points [x, y] or "
            f"more. Received: {value!r}"
        )
    for point in value:
        if not _are_numbers(point, 2):
            raise ValueError(
                f"the polygon of {where} must be of points [x, y]. Received: "
                f"{point!r}"
            )
    if not photo.holds(np.asarray(value, float)):
        raise ValueError(
            f"{where} leaves the image: {table[given[0]]!r}. Numbers are "
            "shares, from 0 to 1, or with `size = [width, height]` pixels of "
            "such a photo"
        )
    return photo.fill(value)


def _are_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == count
        and all(
            isinstance(number, (int, float)) and not isinstance(number, bool)
            for number in value
        )
    )
