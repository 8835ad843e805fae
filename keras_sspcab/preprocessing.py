"""How image files become inputs of a model; kept with the model."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from keras_sspcab.checks import standardize_choice

#: The brightest values that sensors of 8 to 16 bits write into 16-bit files.
WHITE_LEVELS = (255, 1023, 4095, 16383, 65535)

#: The ways to resize.
ResizeMethod = Literal["bilinear", "area", "opencv"]

#: What becomes of the aspect ratio of images.
Fit = Literal["stretch", "pad", "crop"]

#: What models see where there is nothing to look at. No pixel of 8 or 16 bits
#: has this value, so that padding is known by it.
BLANK = 0.5


class Placement(NamedTuple):
    """Where an image lies in the input of a model; rows and columns each.

    Example:
    >>> Preprocessing(fit="crop").place((30, 60), (8, 8)).source
    (slice(0, 30, None), slice(15, 45, None))
    """

    #: The part of the image that is seen.
    source: tuple[slice, slice]
    #: The part of the input that it fills.
    target: tuple[slice, slice]


def largest_inside(
    room: Sequence[Any],
    ratio: Sequence[Any],
    smaller: Callable[[Any, Any], Any] = min,
    larger: Callable[[Any, Any], Any] = max,
) -> tuple[Any, Any]:
    """Returns the largest height and width of a ratio that fit into a room.

    Whole numbers; of tensors with the minimum and maximum for these.

    Example:
    >>> largest_inside((256, 256), ratio=(360, 640))
    (144, 256)
    """
    (height, width), (rows, columns) = room, ratio

    def share(side: Any, part: Any, whole: Any) -> Any:
        return larger((2 * side * part + whole) // (2 * whole), 1)

    return (
        smaller(height, share(width, rows, columns)),
        smaller(width, share(height, columns, rows)),
    )


def _centered(size: Sequence[int], room: Sequence[int]) -> tuple[slice, slice]:
    rows, columns = (
        slice((outer - inner) // 2, (outer - inner) // 2 + inner)
        for inner, outer in zip(size, room, strict=True)
    )
    return rows, columns


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How image files become inputs of a model.

    Attributes:
        white_level: The value that becomes 1.0 in files with 16 bits a value:
            one of `WHITE_LEVELS`. Sensors with 12 bits, for example, write 0 to
            4095. In files with 8 bits it is always 255.
        resize: How images and frames of another size are resized: `"bilinear"`
            with antialiasing, `"area"` or, as much published code does,
            `"opencv"`; see `keras_sspcab.data.resize`. Defaults to
            `"bilinear"`.
        fit: How images of another aspect ratio than the input fit into it:
            `"stretch"` (the default) changes their ratio, `"pad"` puts gray of
            0.5 beside them, `"crop"` takes their middle.

    Example:
    >>> Preprocessing.covering(3000)
    Preprocessing(white_level=4095, resize='bilinear', fit='stretch')
    """

    white_level: int = WHITE_LEVELS[-1]
    resize: ResizeMethod = "bilinear"
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if self.white_level not in WHITE_LEVELS:
            raise ValueError(
                "The white level must be the largest value of 8, 10, 12, 14 or "
                f"16 bits: {', '.join(map(str, WHITE_LEVELS))}. Received: "
                f"white_level={self.white_level!r}"
            )
        for name, choices in (("resize", ResizeMethod), ("fit", Fit)):
            value = getattr(self, name)
            value = standardize_choice(value, get_args(choices), name)
            object.__setattr__(self, name, value)

    @classmethod
    def covering(cls, brightest: int) -> "Preprocessing":
        """Returns that with the lowest white level for values up to one."""
        return cls(next(w for w in WHITE_LEVELS if w >= brightest))

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for JSON."""
        return dataclasses.asdict(self)

    def identity(self) -> dict[str, Any]:
        """Returns what the pixels follow from, for the names of caches.

        These and checkpoints are older than some fields, which are missing
        where they are as it was then.
        """
        values = self.to_dict()
        for name in ("resize", "fit"):
            if values[name] == getattr(Preprocessing, name):
                del values[name]
        return values

    def place(
        self, source_size: Sequence[int], image_size: Sequence[int]
    ) -> Placement:
        """Says where an image of a size lies in inputs of another one."""
        seen, filled = tuple(source_size), tuple(image_size)
        if self.fit == "crop":
            seen = largest_inside(source_size, image_size)
        elif self.fit == "pad":
            filled = largest_inside(image_size, source_size)
        return Placement(
            _centered(seen, source_size), _centered(filled, image_size)
        )

    def restore(
        self,
        array: Any,
        source_size: Sequence[int],
        outside: float | None = None,
    ) -> np.ndarray:
        """Returns what has the aspect ratio of the image that it is of.

        Args:
            array: An anomaly map, or which pixels count, `(height, width)` as
                the input of the model.
            source_size: Height and width of the image.
            outside: What the image has where the model saw nothing of it; None
                (the default) for the lowest value of the map.

        Returns:
            An array that lies on the image when it is stretched to it.

        Example:
        >>> how = Preprocessing(fit="pad")
        >>> how.restore(np.zeros((256, 256)), (360, 640)).shape
        (144, 256)
        """
        array = np.asarray(array)
        source, target = self.place(source_size, array.shape)
        array = array[target]
        if self.fit != "crop":
            return array
        lowest = array.min() if outside is None else outside
        # As many pixels of the map to one of the image as where it was seen.
        size = [
            max(side, round(length * side / (part.stop - part.start)))
            for side, length, part in zip(
                array.shape, source_size, source, strict=True
            )
        ]
        whole = np.full(size, lowest, array.dtype)
        whole[_centered(array.shape, size)] = array
        return whole


def content_of(image: np.ndarray) -> tuple[slice, slice]:
    """Returns the rows and columns of an image that are no padding.

    Example:
    >>> padded = np.pad(np.ones((2, 3)), 1, constant_values=BLANK)
    >>> content_of(padded[..., np.newaxis])
    (slice(1, 3, None), slice(1, 4, None))
    """
    corners = image[0, 0], image[-1, -1]
    if all((corner != BLANK).any() for corner in corners):
        # Padding of any side reaches one of them.
        return slice(None), slice(None)
    is_seen = (image != BLANK).any(axis=-1)
    found = []
    for axis in (1, 0):
        places = np.flatnonzero(is_seen.any(axis=axis)).tolist()
        found.append(
            slice(places[0], places[-1] + 1) if places else slice(None)
        )
    rows, columns = found
    return rows, columns
