"""Plain statistics of images, by which further ones can be compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_sspcab.preprocessing import content_of

# Rows and columns of an image that its statistics look at.
_MAX_SIDE = 64

# Of white, from where on a pixel counts as clipped.
_NEARLY_BLACK, _NEARLY_WHITE = 1 / 255, 254 / 255

# What sharpness is divided by at least: flat images have none.
_MIN_CONTRAST = 0.005


def input_statistics(images: Any) -> dict[str, np.ndarray]:
    """Returns plain statistics of each image of a batch.

    Args:
        images: Array `(batch, height, width, channels)` in [0, 1]. Of anything
            else, such as clips or objects, there are none.

    Returns:
        Arrays `(batch,)` by name: `brightness` (mean), `contrast` (standard
        deviation), `sharpness` (mean difference of neighboring pixels, by
        contrast), `black` and `white` (shares of pixels that are as good as
        that), and of three channels `red` and `blue` (shares of the sum of all
        channels). Of large images a part of the pixels is looked at, of padded
        ones what is inside.

    Example:
    >>> black = np.zeros((1, 8, 8, 1))
    >>> float(input_statistics(black)["black"][0])
    1.0
    """
    if getattr(images, "ndim", 0) != 4 or 0 in images.shape:
        return {}
    images = np.asarray(images)
    parts = [image[content_of(image)] for image in images]
    if all(part.shape == images.shape[1:] for part in parts):
        return _statistics(images)
    return join_statistics([_statistics(part[np.newaxis]) for part in parts])


def _statistics(images: np.ndarray) -> dict[str, np.ndarray]:
    height, width, channels = images.shape[1:]
    rows, columns = max(1, height // _MAX_SIDE), max(1, width // _MAX_SIDE)

    def sample(row: int, column: int) -> np.ndarray:
        part = images[:, row::rows, column::columns]
        return np.ascontiguousarray(part, "float32")

    def to_gray(part: np.ndarray) -> np.ndarray:
        # As a matrix product: a mean over so few channels is slow.
        weights = np.full(channels, 1 / channels, "float32")
        return (part.reshape(-1, channels) @ weights).reshape(part.shape[:-1])

    part = sample(0, 0)
    gray = to_gray(part)
    flat = gray.reshape(len(gray), -1)
    contrast = flat.std(axis=1)
    step = np.zeros(len(gray), "float32")
    for near in (to_gray(sample(1, 0)), to_gray(sample(0, 1))):
        change = np.abs(near - gray[:, : near.shape[1], : near.shape[2]])
        if change.size:
            step += change.mean(axis=(1, 2)) / 2
    statistics = {
        "brightness": flat.mean(axis=1),
        "contrast": contrast,
        "sharpness": step / np.maximum(contrast, _MIN_CONTRAST),
        "black": (flat <= _NEARLY_BLACK).mean(axis=1),
        "white": (flat >= _NEARLY_WHITE).mean(axis=1),
    }
    if channels == 3:
        pixels = part.reshape(len(part), -1, 3)
        colors = (np.ones(pixels.shape[1], "float32") @ pixels).astype(
            "float64"
        )
        shares = colors / np.maximum(colors.sum(axis=1), 1e-6)[:, None]
        statistics |= {"red": shares[:, 0], "blue": shares[:, 2]}
    return statistics


def join_statistics(
    parts: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Returns the statistics that all parts have, as one array each.

    Example:
    >>> parts = [{"brightness": np.zeros(2)}, {"brightness": np.ones(1)}]
    >>> join_statistics(parts)["brightness"]
    array([0., 0., 1.])
    """
    names = [
        n for n in (parts[0] if parts else ()) if all(n in p for p in parts)
    ]
    return {
        name: np.concatenate([part[name] for part in parts]) for name in names
    }
