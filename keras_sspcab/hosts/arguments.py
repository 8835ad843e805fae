"""Checks of constructor arguments that hosts share."""

from collections.abc import Callable, Sequence
from typing import Any

from keras_sspcab.checks import did_you_mean, standardize_number


def check_input_shape(
    shape: Sequence[int | None],
    multiple_of: int = 1,
    minimum: int = 1,
    needs_size: str = "",
) -> tuple[Any, Any, int]:
    """Returns `(height, width, channels)`, or raises a ValueError.

    Args:
        shape: The argument of a host; height and width may be None.
        multiple_of: What height and width must be multiples of.
        minimum: The least height and width.
        needs_size: Why height and width must be known; empty where they need
            not.

    Example:
    >>> check_input_shape([None, None, 3], multiple_of=8)
    (None, None, 3)
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
    rule = f"at least {max(minimum, multiple_of)}"
    if multiple_of > 1:
        rule += f" and a multiple of {multiple_of}"
    for size in (height, width):
        if size is not None and (size < minimum or size % multiple_of):
            raise ValueError(
                f"Height and width of the images must each be {rule}. "
                f"Received: input_shape={shape}. Resize the images"
            )
    if needs_size and (height is None or width is None):
        raise ValueError(
            f"Height and width must be known: {needs_size}. "
            f"Received: input_shape={shape}"
        )
    return height, width, channels


def check_clip_shape(
    shape: Sequence[int | None],
    multiple_of: int = 1,
    minimum: int = 1,
    single: bool = False,
    needs_size: str = "",
) -> tuple[int, Any, Any, int]:
    """Returns `(frames, height, width, channels)`, or raises a ValueError.

    Args:
        shape: The argument of a host; height and width may be None.
        multiple_of: What height and width must be multiples of.
        minimum: The least height and width.
        single: Whether the host looks at one frame; else at two or more.
        needs_size: As in `check_input_shape`.

    Example:
    >>> check_clip_shape((5, 64, 96, 1), multiple_of=8)
    (5, 64, 96, 1)
    """
    shape = tuple(shape)
    count = shape[0] if len(shape) == 4 else None
    if count is None or shape[3] is None:
        raise ValueError(
            "`input_shape` must be (frames, height, width, channels) with a "
            "known number of frames and channels. "
            f"Received: input_shape={shape}"
        )
    if count != 1 if single else count < 2:
        rule = (
            "one frame, which is reconstructed"
            if single
            else "two frames or more, the last of which is predicted"
        )
        raise ValueError(
            f"Clips must have {rule}. Received: input_shape={shape}"
        )
    size = check_input_shape(shape[1:], multiple_of, minimum, needs_size)
    return (count, *size)


def check_places(
    sspcab: str | Sequence[str] | None,
    choices: Sequence[str],
    name: str = "sspcab",
) -> tuple[str, ...]:
    """Returns the places of blocks as a tuple, or raises a ValueError.

    Args:
        sspcab: The argument of a host: a place, several, or None.
        choices: The places that the host has.
        name: The argument's name, for the error.

    Example:
    >>> check_places("late", ["early", "late"]), check_places(None, ["late"])
    (('late',), ())
    """
    places = (sspcab,) if isinstance(sspcab, str) else tuple(sspcab or ())
    if unknown := [place for place in places if place not in choices]:
        raise ValueError(
            f"`{name}` must be one or several of {list(choices)}, or None. "
            f"Received: {unknown}{did_you_mean(unknown[0], choices, '.')}"
        )
    return places


def check_weights(**weights: float) -> dict[str, float]:
    """Returns the weights of losses as floats, or raises a ValueError.

    Args:
        **weights: The arguments of a host without `_weight` in their names.

    Example:
    >>> check_weights(flow=2)
    {'flow': 2.0}
    """
    return {
        name: standardize_number(value, f"{name}_weight")
        for name, value in weights.items()
    }


def check_positive(value: float, name: str) -> float:
    """Returns a positive, finite number, or raises a ValueError."""
    return standardize_number(value, name, excluded=0)


def check_stages(
    values: Any, name: str, check: Callable[..., Any], *limits: Any
) -> tuple[Any, Any, Any]:
    """Returns a checked value for each of three stages; one is for all."""
    given = tuple(values) if isinstance(values, Sequence) else (values,) * 3
    if len(given) != 3:
        raise ValueError(
            f"The `{name}` argument must be three numbers, one for each stage. "
            f"Received: {name}={values!r}"
        )
    first, second, third = (check(value, name, *limits) for value in given)
    return first, second, third
