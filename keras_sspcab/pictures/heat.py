"""The colors of anomaly maps, on a scale that no image can move."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from keras_sspcab.preprocessing import Preprocessing

LEVELS = 256
DEFAULT_ALPHA = 0.75
#: Of borders of regions, which no heat map and hardly any part has.
REGION_COLOR = (150, 110, 255)


def _color_table() -> np.ndarray:
    """Returns RGBA, uint8 `(LEVELS, 4)`, from nothing to strong red.

    Below the middle, the pixel threshold, colors fade out with the cube of the
    value: what is normal shows the image itself.
    """
    position = np.linspace(0.0, 1.0, LEVELS)
    # The ends of the map are too pale on white and too dark on black.
    colors = matplotlib.colormaps["YlOrRd"](0.25 + 0.6 * position)
    colors[:, 3] = np.minimum(1.0, 2 * position) ** 3
    return np.rint(colors * 255).astype("uint8")


COLOR_TABLE = _color_table()


@dataclasses.dataclass(frozen=True)
class HeatScale:
    """Which map value has which color, the same for all images of a run."""

    limit: float  # map value of the strongest color
    is_calibrated: bool

    @classmethod
    def of(
        cls,
        pixel_threshold: float | None,
        anomaly_maps: Iterable[np.ndarray | None],
    ) -> "HeatScale":
        """Twice the pixel threshold, or else the largest value of all maps."""
        if pixel_threshold is not None and pixel_threshold > 0:
            return cls(2 * pixel_threshold, True)
        largest = max(
            (float(m.max()) for m in anomaly_maps if m is not None and m.size),
            default=0.0,
        )
        return cls(largest if largest > 0 else 1.0, False)


def heat_levels(anomaly_map: Any, scale: float) -> np.ndarray:
    """Returns the row of `COLOR_TABLE` for each pixel, uint8."""
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(
            "The `scale` argument must be finite and positive. "
            f"Received: scale={scale}"
        )
    strength = np.clip(np.asarray(anomaly_map, "float32") / scale, 0.0, 1.0)
    return np.rint(strength * (LEVELS - 1)).astype("uint8")


def overlay(
    image: Any, anomaly_map: Any, scale: float, alpha: float = DEFAULT_ALPHA
) -> np.ndarray:
    """Lays an anomaly map over its image.

    The colors run from yellow over orange at half the scale to red; below
    half the scale they fade out. Nothing is stretched to the single image, so
    normal images look normal: pass twice the calibrated pixel threshold.

    Args:
        image: Array `(height, width)`, `(height, width, 1)` or `(height, width,
            3)`, RGB; uint8, or float in [0, 1].
        anomaly_map: Array `(map_height, map_width)`, stretched to the image.
        scale: Map value that gets the strongest color, positive.
        alpha: Opacity of the colors, in [0, 1]. 0 leaves the image as it is.

    Returns:
        RGB array `(height, width, 3)`, uint8.

    Example:
        >>> gray = np.full((1, 2, 3), 100, "uint8")
        >>> overlay(gray, [[0.0, 5.0]], scale=5.0)[0].tolist()
        [[100, 100, 100], [172, 29, 52]]
    """
    pixels = _standardize_image(image)
    values = np.asarray(anomaly_map, "float32")
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(
            "The `anomaly_map` argument must be finite, of shape (height, "
            f"width). Received: shape {values.shape}"
        )
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"The `alpha` argument must lie in [0, 1]. Received: alpha={alpha}"
        )
    height, width = pixels.shape[:2]
    if values.shape != (height, width):
        values = np.asarray(
            Image.fromarray(values).resize(
                (width, height), Image.Resampling.BILINEAR
            )
        )
    colors = COLOR_TABLE[heat_levels(values, scale)].astype("float32")
    opacity = alpha * colors[..., 3:] / 255
    mixed = (1 - opacity) * pixels + opacity * colors[..., :3]
    return np.rint(mixed).astype("uint8")


def seen_part(
    how: Preprocessing,
    image_size: Sequence[int],
    source_size: Sequence[int],
    regions: np.ndarray | None,
) -> np.ndarray | None:
    """Returns which part of a photo counts, to be stretched to it.

    None for all of it. `regions` are those that count in the input.
    """
    if regions is None and how.fit != "crop":
        return None
    inside = np.ones(image_size, bool) if regions is None else regions
    seen = how.restore(inside, source_size, outside=False)
    return None if seen.all() else seen


def outline_regions(picture: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Draws the border of regions of interest into a picture, uint8 RGB.

    `inside` is bool `(map_height, map_width)`, stretched to the picture.
    """
    from scipy import ndimage

    height, width = picture.shape[:2]
    mask = Image.fromarray(inside.astype("uint8")).resize((width, height))
    stretched = np.asarray(mask) > 0
    # Seen in pictures of any size.
    strength = max(1, max(height, width) // 300)
    border = stretched ^ ndimage.binary_erosion(stretched, iterations=strength)
    outlined = picture.copy()
    outlined[border] = REGION_COLOR
    return outlined


def _standardize_image(image: Any) -> np.ndarray:
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            "The `image` argument must be of shape (height, width), (height, "
            "width, 1) or (height, width, 3). "
            f"Received: shape {np.shape(image)}"
        )
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(
                "A float `image` must lie in [0, 1]. Received: values from "
                f"{pixels.min()} to {pixels.max()}"
            )
        pixels = pixels * 255.0
    elif pixels.dtype != np.uint8:
        raise ValueError(
            "The `image` argument must be uint8 or float. "
            f"Received: dtype {pixels.dtype}"
        )
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)).astype("float32")
