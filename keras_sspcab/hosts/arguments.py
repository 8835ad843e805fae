"""Checks of constructor arguments that several hosts share."""

from collections.abc import Sequence


def check_input_shape(
    shape: Sequence[int | None], multiple_of: int = 1, minimum: int = 1
) -> tuple[int | None, int | None, int]:
    """Returns `(height, width, channels)`, or raises a ValueError.

    Args:
        shape: The argument of a host; height and width may be None.
        multiple_of: What height and width must be multiples of.
        minimum: The least height and width.
    """
    shape = tuple(shape)
    height, width, channels = shape if len(shape) == 3 else (None,) * 3
    if channels is None:
        raise ValueError(
            "`input_shape` must be (height, width, channels) with known "
            f"channels. Received: input_shape={shape}"
        )
    if any(size is not None and size < 1 for size in shape):
        raise ValueError(
            "The sizes in `input_shape` must be positive. "
            f"Received: input_shape={shape}"
        )
    for size in shape[:2]:
        if size is not None and (size < minimum or size % multiple_of):
            rule = f"at least {minimum}" if minimum > multiple_of else ""
            if multiple_of > 1:
                rule += " and " * bool(rule) + f"a multiple of {multiple_of}"
            raise ValueError(
                f"Height and width of the images must each be {rule}. "
                f"Received: input_shape={shape}. Resize the images"
            )
    return height, width, channels


def check_known_size(
    shape: Sequence[int | None], host: str
) -> tuple[int, int, int]:
    """Returns `(height, width, channels)`, all known, or raises a ValueError.

    Args:
        shape: The argument of a host with statistics for each position.
        host: Its name.
    """
    height, width, channels = check_input_shape(shape, minimum=32)
    if height is None or width is None:
        raise ValueError(
            f"{host} has statistics for each position, so the size of the "
            f"images must be known. Received: input_shape={tuple(shape)}"
        )
    return height, width, channels


def check_places(
    sspcab: str | Sequence[str] | None, choices: Sequence[str]
) -> tuple[str, ...]:
    """Returns the places of blocks, or raises a ValueError."""
    places = (sspcab,) if isinstance(sspcab, str) else tuple(sspcab or ())
    if unknown := [place for place in places if place not in choices]:
        raise ValueError(
            f"`sspcab` must be one or several of {list(choices)}, or None. "
            f"Received: {unknown}"
        )
    return places
