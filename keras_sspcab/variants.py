"""Changed copies of normal images: as normal as these, or standing in."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from keras_sspcab.checks import standardize_choice, standardize_number

#: What can leave a normal image normal.
SYMMETRIES = ("rotate", "flip")

# How far copies are shifted that stand in for other images: a tenth of a side.
# Less is too much like the image, as seen on magnetic tiles and screws.
_SHIFT = 0.1


@dataclasses.dataclass(frozen=True)
class ImageVariants:
    """What can be done to a normal image so that it stays normal.

    Attributes:
        symmetric: `"rotate"` for multiples of 90 degrees, or of 180 where
            images are not square; `"flip"` for mirrored; both for all
            combinations. Defaults to neither.
        brightness: Share by which an image may be darker or brighter, from 0 to
            below 1. Defaults to 0.
        quarter_turns: False where square images show something that was not, so
            that only 180 degrees are possible.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> variants = ImageVariants(symmetric=("rotate", "flip"))
    >>> len(list(variants.of(np.zeros((1, 32, 32, 3)))))
    8
    """

    symmetric: tuple[str, ...] = ()
    brightness: float = 0.0
    quarter_turns: bool = True

    def __post_init__(self) -> None:
        for name in self.symmetric:
            standardize_choice(name, SYMMETRIES, "symmetric")
        standardize_number(self.brightness, "brightness", 0, 1, excluded=1)

    def of(self, images: np.ndarray) -> Iterator[np.ndarray]:
        """Yields a batch of images `(batch, height, width, channels)`.

        Then each variant of it; values stay in [0, 1].
        """
        for turned in self.symmetric_of(images):
            yield turned
            if self.brightness:
                yield turned * (1.0 - self.brightness)
                yield np.minimum(turned * (1.0 + self.brightness), 1.0)

    def symmetric_of(self, images: np.ndarray) -> list[np.ndarray]:
        """Returns a batch of images, and it turned and mirrored."""
        found = [images]
        if "rotate" in self.symmetric:
            is_square = images.shape[1] == images.shape[2]
            turns = (1, 2, 3) if is_square and self.quarter_turns else (2,)
            found += [np.rot90(images, turn, (1, 2)) for turn in turns]
        if "flip" in self.symmetric:
            found += [np.flip(turned, 2) for turned in found]
        return [np.ascontiguousarray(turned) for turned in found]


def shifted_copies(image: np.ndarray) -> np.ndarray:
    """Returns eight copies of `(height, width, channels)`, each shifted.

    What comes in at an edge is what has gone out there, mirrored.
    """
    steps = [max(1, round(_SHIFT * side)) for side in image.shape[:2]]
    edges = [(step, step) for step in steps]
    padded = np.pad(image, (*edges, (0, 0)), mode="symmetric")
    height, width = image.shape[:2]
    return np.stack(
        [
            padded[y * steps[0] :, x * steps[1] :][:height, :width]
            for y in range(3)
            for x in range(3)
            if (y, x) != (1, 1)
        ]
    )
